//! The same version number at two sites that cannot see each other.

use avalon_protocol::{exit_code::ExitCode, mode::ProjectMode};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_model, studio};

/// Publishes at two mirrors that do not know each other, then lets them meet.
fn meet(studio: &Studio, at_london: &[u8], at_montreal: &[u8]) -> (Daemon, Daemon) {
    let london = studio.mirror(LONDON, &[]);
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.start();
    publish_model(&london, 1, at_london);
    publish_model(&montreal, 1, at_montreal);
    montreal.config.peers = vec![london.listen()];
    montreal.restart();
    // Each has the other's records when both know a later version of the other.
    publish_model(&london, 2, b"from london");
    publish_model(&montreal, 3, b"from montreal");
    montreal.until_complete_at(&model(2), MONTREAL);
    london.until_complete_at(&model(3), LONDON);
    (london, montreal)
}

#[test]
fn different_content_is_shown_as_a_conflict_and_nothing_is_overwritten() {
    let studio = studio();
    let (london, montreal) = meet(&studio, b"one", b"another");
    for (daemon, content) in [(&london, "one"), (&montreal, "another")] {
        let item = daemon.api().locate_one(&model(1)).unwrap();
        assert!(item.conflict, "{item:?}");
        let listed = daemon.api().list().versions.into_iter().find(|v| v.reference == model(1)).unwrap();
        assert!(listed.conflict, "{listed:?}");
        let file = daemon.path(&format!("{MODEL}/v001/modelDefault.usdc"));
        assert_eq!(std::fs::read_to_string(file).unwrap(), content, "what was there stays");
        assert!(daemon.api().jobs().iter().all(|job| job.reference != model(1)));
    }
    let home = studio.on_demand(HOME, &[&london]);
    home.until("home knows of the conflict", |api| api.locate_one(&model(1)).filter(|item| item.conflict));
    let said = home.ctl(&["pull", &model(1)]).expect(ExitCode::Integrity);
    assert!(said.stderr.contains("conflict") || said.stderr.contains("different"), "{said:#?}");
    assert!(!home.path(&format!("{MODEL}/v001")).exists());
    let said = home.ctl(&["why", &model(1), "--json"]).good();
    assert_eq!(said["answers"][0]["state"], "conflict");
}

#[test]
fn equal_content_is_no_conflict_and_moves_no_byte() {
    let studio = studio();
    let content = tree::noise(5, 300_000);
    let (london, montreal) = meet(&studio, &content, &content);
    for daemon in [&london, &montreal] {
        daemon.until_complete_at(&model(1), LONDON);
        daemon.until_complete_at(&model(1), MONTREAL);
        assert!(!daemon.api().locate_one(&model(1)).unwrap().conflict);
        let jobs = daemon.api().jobs();
        assert!(jobs.iter().all(|job| job.reference != model(1) || job.bytes_received == 0), "{jobs:?}");
    }
}

const FILE: &str = "modelDefault.usdc";

/// Reads a file of a model; nothing when it is not there.
fn content(daemon: &Daemon, version: u32) -> String {
    std::fs::read_to_string(daemon.path(&format!("{MODEL}/v{version:03}/{FILE}"))).unwrap_or_default()
}

fn until_content(daemon: &Daemon, version: u32, expected: &str) {
    daemon.until(&format!("version {version} is {expected}"), |_| {
        (content(daemon, version) == expected).then_some(())
    });
}

#[test]
fn a_third_site_decides_and_both_contents_are_at_both_sites_under_numbers_of_their_own() {
    let studio = studio();
    let (london, montreal) = meet(&studio, b"one", b"another");
    std::fs::write(montreal.path(&format!("{MODEL}/v001/notes.txt")), "mine").unwrap();
    let home = studio.on_demand(HOME, &[&london]);
    home.until("home knows of the conflict", |api| api.locate_one(&model(1)).filter(|item| item.conflict));
    let listed = home.ctl(&["conflicts", "--json"]).good();
    let candidates = listed["conflicts"][0]["candidates"].as_array().unwrap();
    assert_eq!((&listed["conflicts"][0]["ref"], candidates.len()), (&model(1).into(), 2));
    let refused = home.ctl(&["resolve", &model(1), "--keep", "tokyo"]).expect(ExitCode::Usage);
    assert!(refused.stderr.contains("means none"), "{refused:?}");
    let dry = home.ctl(&["resolve", &model(1), "--keep", "london", "-n"]).expect(ExitCode::Ok);
    assert!(dry.stdout.contains(&model(4)) && dry.stderr.contains("nothing was decided"), "{dry:?}");
    assert_eq!(content(&montreal, 1), "another");
    home.ctl(&["resolve", &model(1), "--keep", "london", "-m", "the approved one"]).expect(ExitCode::Ok);
    for daemon in [&london, &montreal] {
        until_content(daemon, 1, "one");
        until_content(daemon, 4, "another");
        for site in [LONDON, MONTREAL] {
            daemon.until_complete_at(&model(1), site);
            daemon.until_complete_at(&model(4), site);
        }
        assert!(!daemon.api().locate_one(&model(1)).unwrap().conflict);
        assert!(daemon.ctl(&["conflicts"]).expect(ExitCode::Ok).stdout.is_empty());
        daemon.until("nothing is wrong", |api| (!api.has_health("conflict")).then_some(()));
    }
    assert!(montreal.path(&format!("{MODEL}/v004/notes.txt")).exists(), "what else was there went along");
    home.ctl(&["resolve", &model(1), "--keep", "london"]).expect(ExitCode::Usage);
}

#[test]
fn a_node_that_is_killed_while_it_renumbers_goes_on_when_it_is_back() {
    let studio = studio();
    let (london, mut montreal) = meet(&studio, b"one", b"another");
    let old = montreal.path(&format!("{MODEL}/v001"));
    london.ctl(&["resolve", &model(1), "--keep", "london"]).expect(ExitCode::Ok);
    // As soon as the directory has gone: most often before that was recorded.
    let started = std::time::Instant::now();
    while old.exists() && started.elapsed() < avalon_tests::daemons::PATIENCE {
        std::thread::yield_now();
    }
    montreal.kill9();
    montreal.start();
    for daemon in [&london, &montreal] {
        until_content(daemon, 1, "one");
        until_content(daemon, 4, "another");
        for site in [LONDON, MONTREAL] {
            daemon.until_complete_at(&model(1), site);
            daemon.until_complete_at(&model(4), site);
        }
        assert!(!daemon.api().locate_one(&model(4)).unwrap().conflict);
    }
    assert!(!montreal.api().has_health("many-versions-gone"));
}

#[test]
fn what_lies_at_the_new_number_is_not_touched_and_somebody_hears_of_it() {
    let studio = studio();
    let (london, montreal) = meet(&studio, b"one", b"another");
    let taken = montreal.path(&format!("{MODEL}/v004/work.lock"));
    tree::write(&taken, b"somebody begins here");
    london.ctl(&["resolve", &model(1), "--keep", "london"]).expect(ExitCode::Ok);
    let blocked = |api: &avalon_tests::daemons::api::Api| api.has_health("renumber-blocked").then_some(());
    montreal.until("it is blocked", blocked);
    assert_eq!(
        (content(&montreal, 1), std::fs::read_dir(montreal.path(&format!("{MODEL}/v004"))).unwrap().count()),
        ("another".into(), 1)
    );
    assert_eq!(content(&london, 1), "one");
    std::fs::remove_dir_all(montreal.path(&format!("{MODEL}/v004"))).unwrap();
    let mut montreal = montreal;
    montreal.restart();
    until_content(&montreal, 1, "one");
    until_content(&london, 4, "another");
    assert!(!montreal.api().has_health("renumber-blocked"));
}

#[test]
fn decisions_that_disagree_leave_the_conflict_until_somebody_decides_again() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.start();
    publish_model(&london, 1, b"one");
    publish_model(&montreal, 1, b"another");
    montreal.config.peers = vec![london.listen()];
    montreal.restart();
    for daemon in [&london, &montreal] {
        daemon.until("both know", |api| api.locate_one(&model(1)).filter(|item| item.conflict));
    }
    // Cut off from each other they decide differently, each that the other one's has to go.
    montreal.config.peers.clear();
    montreal.restart();
    london.ctl(&["resolve", &model(1), "--keep", "montreal"]).expect(ExitCode::Ok);
    montreal.ctl(&["resolve", &model(1), "--keep", "london"]).expect(ExitCode::Ok);
    until_content(&london, 2, "one");
    until_content(&montreal, 2, "another");
    montreal.config.peers = vec![london.listen()];
    montreal.restart();
    let disagreed = |daemon: &Daemon| {
        let listed = daemon.ctl(&["conflicts", "--json"]).good();
        let of_first =
            listed["conflicts"].as_array().unwrap().iter().find(|one| one["ref"] == model(1)).cloned();
        of_first.filter(|one| one["disagreement"].as_array().unwrap().len() == 2)
    };
    for daemon in [&london, &montreal] {
        daemon.until("both decisions are known", |_| disagreed(daemon));
    }
    // Nothing was lost: each has its own under the next number, where the two are a conflict of their own.
    assert_eq!((content(&london, 2), content(&montreal, 2)), ("one".into(), "another".into()));
    london.ctl(&["resolve", &model(2), "--keep", "london"]).expect(ExitCode::Ok);
    for daemon in [&london, &montreal] {
        until_content(daemon, 2, "one");
        until_content(daemon, 3, "another");
    }
}

#[test]
fn who_was_off_while_its_new_number_went_to_something_else_gives_it_the_one_after() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.node(MONTREAL, ProjectMode::OnDemand);
    montreal.start();
    publish_model(&london, 1, b"one");
    publish_model(&montreal, 1, b"another");
    let mut home = studio.on_demand(HOME, &[&montreal]);
    home.until("home knows it", |api| api.locate_one(&model(1)));
    home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    home.terminate();
    montreal.config.peers = vec![london.listen()];
    montreal.restart();
    london.until("the conflict", |api| api.locate_one(&model(1)).filter(|item| item.conflict));
    london.ctl(&["resolve", &model(1), "--keep", "london"]).expect(ExitCode::Ok);
    london.until_complete_at(&model(2), MONTREAL);
    // Alone, home has the old number still, and publishes the one that what it has would get.
    london.terminate();
    montreal.terminate();
    home.start();
    publish_model(&home, 2, b"made at home");
    london.start();
    montreal.config.peers = vec![london.listen()];
    montreal.start();
    montreal.until("the next conflict", |api| api.locate_one(&model(2)).filter(|item| item.conflict));
    montreal.ctl(&["resolve", &model(2), "--keep", "home"]).expect(ExitCode::Ok);
    until_content(&montreal, 3, "another");
    home.until("home heard of both decisions", |api| api.locate_one(&model(2)).filter(|item| !item.conflict));
    home.until("home knows what became of it", |api| api.locate_one(&model(3)));
    // What is blocked is tried again every minute, and at a start.
    home.restart();
    until_content(&home, 3, "another");
    assert_eq!([content(&home, 1), content(&home, 2)], [String::new(), "made at home".into()]);
    london.until_connected(MONTREAL);
    montreal.until_complete_at(&model(3), HOME);
    home.until("nothing is blocked", |api| (!api.has_health("renumber-blocked")).then_some(()));
}

#[test]
fn a_number_that_a_decision_gave_away_is_not_ingested_before_its_holder_is_back() {
    let studio = studio();
    let (london, mut montreal) = meet(&studio, b"one", b"another");
    montreal.kill9();
    london.ctl(&["resolve", &model(1), "--keep", "london"]).expect(ExitCode::Ok);
    let plate = studio.dir().join("plate.abc");
    tree::write(&plate, b"from a client");
    let ingest = |as_what: &str| london.ctl(&["ingest", plate.to_str().unwrap(), "--as", as_what, "--json"]);
    let said = ingest("robot/modelDefault@v004").expect(ExitCode::Usage);
    assert!(said.stderr.contains("when a conflict was resolved"), "{said:?}");
    let said = ingest("robot/modelDefault").expect(ExitCode::Ok).json();
    assert_eq!(said["ref"], model(5));
    montreal.start();
    until_content(&montreal, 4, "another");
    london.until_complete_at(&model(5), MONTREAL);
    london.until("it knows the number that was given", |api| {
        api.locate_one(&model(4)).filter(|item| !item.conflict).map(drop)
    });
}
