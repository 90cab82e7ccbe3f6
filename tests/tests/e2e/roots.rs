//! A project directory that is missing pauses the project and nothing else.

use std::fs;

use avalon_protocol::{
    control::{ErrorCode, EventKind, Presence, ProjectState},
    mode::ProjectMode,
};
use avalon_tests::daemons::{daemon::Daemon, tree};

use crate::support::{LONDON, MODEL, MONTREAL, model, publish_model, studio};

fn until_state(daemon: &Daemon, state: ProjectState) {
    daemon.until(&format!("the project is {state:?}"), |api| {
        (api.status().projects[0].state == state).then_some(())
    });
}

#[test]
fn a_root_that_is_missing_at_the_start_pauses_the_project_until_it_is_there() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    publish_model(&london, 1, b"one");
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    fs::remove_dir_all(&montreal.config.root).unwrap();
    montreal.start();
    until_state(&montreal, ProjectState::Paused);
    montreal.until("somebody hears of it", |api| api.has_health("root-missing").then_some(()));
    let status = montreal.api().status();
    let health = status.health.iter().find(|health| health.code == "root-missing").unwrap();
    let dir = montreal.config.project_dir().display().to_string();
    assert!(health.hint.as_ref().is_some_and(|hint| hint.contains(&dir)), "{health:?}");
    // What there is elsewhere is known all the same.
    montreal.until("the version is known", |api| api.locate_one(&model(1)));
    assert!(!montreal.config.root.exists(), "nothing is written where a volume may belong");

    fs::create_dir_all(montreal.config.project_dir()).unwrap();
    until_state(&montreal, ProjectState::Watching);
    montreal.until_complete_at(&model(1), MONTREAL);
    montreal.until("it is well again", |api| (!api.has_health("root-missing")).then_some(()));
    tree::assert_equal(&london.path(""), &montreal.path(""));
    publish_model(&montreal, 2, b"two");
}

#[test]
fn a_root_that_vanishes_pauses_the_project_and_is_never_taken_for_a_deletion() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.mirror(MONTREAL, &[&london]);
    for version in 1..=3 {
        publish_model(&london, version, &[version as u8; 1000]);
        montreal.until_complete_at(&model(version), MONTREAL);
    }
    let mut events = montreal.events();
    let away = montreal.config.root.join("away");
    fs::rename(montreal.config.project_dir(), &away).unwrap();
    until_state(&montreal, ProjectState::Paused);
    montreal.until("somebody hears of it", |api| api.has_health("root-missing").then_some(()));
    let refused = {
        let request = montreal.path(&format!("{MODEL}/v001"));
        montreal.api().publish(&request)
    };
    assert_eq!(refused.error, Some(ErrorCode::ProjectPaused), "{refused:?}");
    // What is held lies where nobody can open it now: a script must not go on.
    let pulled = montreal.ctl(&["pull", &model(1)]);
    assert_ne!(pulled.code, 0, "{pulled:?}");
    assert!(pulled.stderr.contains("is paused"), "{pulled:?}");
    // A restart without it makes no difference.
    montreal.restart();
    until_state(&montreal, ProjectState::Paused);
    let mut later_events = montreal.events();
    let complete = |daemon: &Daemon| {
        let versions = daemon.api().list().versions;
        versions.iter().filter(|version| version.here == Presence::Complete).count()
    };
    assert_eq!(complete(&montreal), 3, "it still counts as held");

    fs::rename(&away, montreal.config.project_dir()).unwrap();
    until_state(&montreal, ProjectState::Watching);
    publish_model(&london, 4, b"four");
    montreal.until_complete_at(&model(4), MONTREAL);
    assert_eq!(complete(&montreal), 4);
    tree::assert_equal(&london.path(""), &montreal.path(""));
    for events in [&mut events, &mut later_events] {
        events.drain();
        assert_eq!(events.count(|kind| matches!(kind, EventKind::Dropped { .. })), 0);
    }
    assert!(montreal.api().jobs().iter().all(|job| job.reference == model(4)), "nothing is fetched again");
}

#[test]
fn an_empty_directory_in_the_place_of_the_project_is_not_believed_at_once() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    for version in 1..=30 {
        publish_model(&london, version, &[version as u8; 10]);
    }
    london.terminate();
    // As when the volume is not mounted and the mount point is there.
    let away = london.config.root.join("away");
    fs::rename(london.config.project_dir(), &away).unwrap();
    fs::create_dir(london.config.project_dir()).unwrap();
    london.start();
    london.until("somebody hears of it", |api| api.has_health("many-versions-gone").then_some(()));
    let held = london.api().list().versions.iter().filter(|v| v.here == Presence::Complete).count();
    assert_eq!(held, 30);
    london.terminate();
    fs::remove_dir(london.config.project_dir()).unwrap();
    fs::rename(&away, london.config.project_dir()).unwrap();
    london.start();
    until_state(&london, ProjectState::Watching);
    assert!(!london.api().has_health("many-versions-gone"));
}
