//! What becomes of versions after they were published: out of use and back, and changed in place, put back or accepted.

use std::fs;

use avalon_protocol::{
    control::{EventKind, HoldingState, PlanState},
    exit_code::ExitCode,
};
use avalon_tests::daemons::{daemon::Daemon, tree};

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_model, studio};

const FILE: &str = "modelDefault.usdc";

fn text(daemon: &Daemon, version: u32) -> String {
    fs::read_to_string(daemon.path(&format!("{MODEL}/v{version:03}/{FILE}"))).unwrap_or_default()
}

/// Reads every file in the trash.
fn trash(daemon: &Daemon) -> Vec<String> {
    let files = walkdir::WalkDir::new(daemon.path(".avalon/trash")).into_iter().filter_map(Result::ok);
    let files = files.filter(|entry| entry.file_type().is_file());
    let mut found: Vec<String> = files.map(|entry| fs::read_to_string(entry.path()).unwrap()).collect();
    found.sort();
    found
}

fn listed(daemon: &Daemon, more: &[&str]) -> Vec<String> {
    let args: Vec<&str> = ["ls", "--all", "robot", "--json"].iter().chain(more).copied().collect();
    let listed = daemon.ctl(&args).good();
    let versions = listed["versions"].as_array().unwrap().iter();
    versions.map(|version| version["ref"].as_str().unwrap().to_owned()).collect()
}

/// Writes over a published file and waits until the daemon has noticed.
fn rewrite(daemon: &Daemon, version: u32, content: &str) {
    tree::write(&daemon.path(&format!("{MODEL}/v{version:03}/{FILE}")), content.as_bytes());
    let health = |api: &avalon_tests::daemons::api::Api| api.has_health("rewritten").then_some(());
    daemon.until("the change in place is noticed", health);
}

fn until_content(daemon: &Daemon, version: u32, content: &str) {
    daemon.until(&format!("version {version} is {content}"), |_| {
        (text(daemon, version) == content).then_some(())
    });
}

#[test]
fn a_retired_version_is_hidden_and_not_fetched_anywhere_until_it_is_restored() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    publish_model(&london, 1, b"one");
    publish_model(&london, 2, b"two");
    let home = studio.on_demand(HOME, &[&london]);
    home.until("home knows both", |api| (api.list().versions.len() == 2).then_some(()));
    let mut events = home.events();
    london.ctl(&["retire", &model(2), "-m", "wrong scale", "--author", "anna"]).expect(ExitCode::Ok);
    let said = events.wait("home hears of it", |kind| match kind {
        EventKind::Retired { reference, author, comment, node } if *reference == model(2) => {
            Some([author.clone(), comment.clone(), node.clone()])
        }
        _ => None,
    });
    assert_eq!(said, ["anna", "wrong scale", LONDON]);
    assert_eq!(listed(&home, &[]), [model(1)]);
    assert_eq!(listed(&home, &["--retired"]), [model(1), model(2)]);
    // The latest is the one before now; by its number it is found, and does not come.
    home.ctl(&["pull", "robot/modelDefault"]).expect(ExitCode::Ok);
    assert_eq!((text(&home, 1), text(&home, 2)), ("one".into(), String::new()));
    let said = home.ctl(&["pull", &model(2)]).expect(ExitCode::Denied);
    assert!(
        said.stderr.contains("retired by anna on") && said.stderr.contains("avalonctl restore"),
        "{said:?}"
    );
    assert!(home.ctl(&["why", &model(2)]).stdout.contains("is retired"));
    // A site that comes later does not get it either, nor is it removed where it is.
    let montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until_complete_at(&model(1), MONTREAL);
    assert_eq!((text(&montreal, 2), text(&london, 2)), (String::new(), "two".into()));
    assert_eq!(montreal.api().pull(&model(2)).unwrap().versions[0].state, PlanState::Retired);
    montreal.ctl(&["restore", &model(2)]).expect(ExitCode::Ok);
    montreal.until_complete_at(&model(2), MONTREAL);
    home.until("it is listed at home again", |_| (listed(&home, &[]).len() == 2).then_some(()));
    home.ctl(&["pull", "robot/modelDefault"]).expect(ExitCode::Ok);
    assert_eq!((text(&home, 2), text(&montreal, 2)), ("two".into(), "two".into()));
}

#[test]
fn a_dry_run_and_an_unknown_version_retire_nothing() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    publish_model(&london, 1, b"one");
    let said = london.ctl(&["retire", &model(1), "-m", "x", "-n"]).expect(ExitCode::Ok);
    assert!(said.stdout.contains("would be retired"), "{said:?}");
    assert_eq!(listed(&london, &[]), [model(1)]);
    london.ctl(&["retire", &model(7), "-m", "x"]).expect(ExitCode::NotFound);
}

#[test]
fn what_was_changed_in_place_is_put_back_and_kept_in_the_trash() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    rewrite(&montreal, 1, "changed by mistake");
    let said = montreal.ctl(&["restore", &model(1), "-n"]).expect(ExitCode::Ok);
    assert!(said.stdout.contains(FILE) && text(&montreal, 1) == "changed by mistake", "{said:?}");
    montreal.ctl(&["restore", &model(1)]).expect(ExitCode::Ok);
    assert_eq!((text(&montreal, 1), trash(&montreal)), ("one".into(), vec!["changed by mistake".into()]));
    montreal.until("it is well again", |api| (!api.has_health("rewritten")).then_some(()));
    london.until_complete_at(&model(1), MONTREAL);
    assert_eq!(text(&london, 1), "one");
    let said = montreal.ctl(&["restore", &model(1)]).expect(ExitCode::Ok);
    assert!(said.stdout.contains("nothing to do"), "{said:?}");
}

#[test]
fn an_accepted_change_is_the_next_generation_at_every_site_and_the_old_one_is_kept_in_the_trash() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let home = studio.on_demand(HOME, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    rewrite(&london, 1, "better");
    assert_eq!(text(&montreal, 1), "one", "nothing flows before somebody decides");
    let said = london.ctl(&["accept", &model(1), "-m", "a fix"]).expect(ExitCode::Ok);
    assert!(said.stderr.contains("generation 2"), "{said:?}");
    until_content(&montreal, 1, "better");
    montreal.until_complete_at(&model(1), MONTREAL);
    assert_eq!(trash(&montreal), ["one"]);
    for daemon in [&london, &montreal] {
        let item = daemon.api().locate_one(&model(1)).unwrap();
        assert_eq!((item.generation, item.conflict), (2, false), "{item:?}");
        daemon.until("it is well again", |api| (!api.has_health("rewritten")).then_some(()));
    }
    home.until("home knows", |api| api.locate_one(&model(1)).filter(|item| item.generation == 2));
    home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    assert_eq!(text(&home, 1), "better");
    let said = london.ctl(&["accept", &model(1)]).expect(ExitCode::Ok);
    assert!(said.stdout.contains("nothing to do"), "{said:?}");
}

#[test]
fn a_site_that_changed_the_old_file_as_well_keeps_its_own_and_says_so() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    rewrite(&montreal, 1, "montreal's");
    rewrite(&london, 1, "london's");
    london.ctl(&["accept", &model(1)]).expect(ExitCode::Ok);
    montreal.until("its place is taken", |api| api.has_health("occupied").then_some(()));
    assert_eq!(text(&montreal, 1), "montreal's");
    // What was changed is older than what stands: it cannot claim to be newer.
    let said = montreal.ctl(&["accept", &model(1)]).expect(ExitCode::Integrity);
    assert!(said.stderr.contains("another generation"), "{said:?}");
    montreal.ctl(&["restore", &model(1)]).expect(ExitCode::Ok);
    assert_eq!((text(&montreal, 1), trash(&montreal)), ("london's".into(), vec!["montreal's".into()]));
    montreal.until("all is well", |api| {
        (!api.has_health("occupied") && !api.has_health("rewritten")).then_some(())
    });
}

#[test]
fn a_change_to_what_nobody_has_the_manifest_of_any_more_is_accepted_as_what_comes_after_it() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let hero = "lantern:robot/modelDefault@hero";
    let files = [format!("{MODEL}/v001/{FILE}"), format!("{MODEL}/hero/{FILE}")];
    let mut events = london.events();
    publish_model(&london, 1, b"one");
    tree::write(&london.path(&files[1]), b"one");
    assert_eq!(events.published(hero), 1);
    assert_eq!(london.terminate().code(), Some(0));
    let state = london.config.state_dir.join("manifests");
    let manifests = walkdir::WalkDir::new(state).into_iter().map(Result::unwrap);
    for manifest in manifests.filter(|entry| entry.file_type().is_file()) {
        fs::File::create(manifest.path()).unwrap();
    }
    files.iter().for_each(|file| tree::write(&london.path(file), b"better"));
    london.start();
    london.until("it is told", |api| api.has_health("publish-failed").then_some(()));
    for reference in [&model(1), hero] {
        london.until("it waits for somebody", |_| {
            let said = london.ctl(&["restore", reference]);
            (said.stderr.contains("comes back by itself") && said.stderr.contains("accept")).then_some(())
        });
        let said = london.ctl(&["accept", reference]).expect(ExitCode::Ok);
        assert!(said.stderr.contains("cannot be read") && said.stderr.contains("generation 2"), "{said:?}");
        let item = london.api().locate_one(reference).unwrap();
        assert_eq!((item.generation, item.conflict), (2, false), "{reference}");
    }
    london.until("it is well", |api| (!api.has_health("publish-failed")).then_some(()));
    london.ctl(&["verify"]).expect(ExitCode::Ok);
    let mut events = london.events();
    tree::write(&london.path(&files[1]), b"best");
    while events.published(hero) < 3 {}
    // The record says what it follows, so another site takes it as such, and gets it.
    let montreal = studio.mirror(MONTREAL, &[&london]);
    for (reference, generation) in [(&*model(1), 2), (hero, 3)] {
        montreal.until_complete_at(reference, MONTREAL);
        let item = montreal.api().locate_one(reference).unwrap();
        assert_eq!((item.generation, item.conflict), (generation, false), "{reference}");
    }
    tree::assert_equal(&london.path(""), &montreal.path(""));
}

#[test]
fn a_published_file_that_lost_its_end_is_told_and_put_back() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let inside = "film/sh010/publish/beauty/v001";
    let (reference, frame) = (crate::support::BEAUTY_V1, "beauty.exr/beauty.1003.exr");
    crate::support::publish_beauty(&london, "v001");
    montreal.until_complete_at(reference, MONTREAL);
    let path = montreal.path(&format!("{inside}/{frame}"));
    let whole = std::fs::read(&path).unwrap();
    // The header is there, and points beyond the end.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(whole.len() as u64 / 2).unwrap();
    montreal.until("somebody hears of it", |api| api.has_health("rewritten").then_some(()));
    london.until("it is not held any more", |api| {
        let item = api.locate_one(reference)?;
        let held = |node: &avalon_protocol::control::NodeHolding| node.state == HoldingState::Complete;
        item.nodes.iter().all(|node| node.site != "montreal" || !held(node)).then_some(())
    });
    let said = montreal.ctl(&["accept", reference]).expect(ExitCode::Error);
    assert!(said.stderr.contains("not closed"), "{said:?}");
    montreal.ctl(&["restore", reference]).expect(ExitCode::Ok);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    montreal.until("it is well again", |api| (!api.has_health("rewritten")).then_some(()));
    london.until_complete_at(reference, MONTREAL);
}

#[test]
fn what_was_changed_is_put_back_also_before_the_daemon_has_noticed() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.on_demand(MONTREAL, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until("it is known", |api| api.locate_one(&model(1)));
    montreal.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    let dir = montreal.path(&format!("{MODEL}/v001"));
    tree::write(&dir.join(".publish.lock"), b"anna");
    tree::write(&dir.join(FILE), b"changed");
    montreal.until("the lock is noticed", |api| {
        api.status().projects.iter().any(|project| !project.pending.is_empty()).then_some(())
    });
    montreal.ctl(&["restore", &model(1)]).expect(ExitCode::Ok);
    assert_eq!((text(&montreal, 1), trash(&montreal)), ("one".into(), vec!["changed".into()]));
}

#[test]
fn an_accepted_change_is_in_nobodys_way_any_more() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    rewrite(&london, 1, "better");
    london.until("the old does not get its place back", |api| api.has_health("occupied").then_some(()));
    london.ctl(&["accept", &model(1)]).expect(ExitCode::Ok);
    london.until("nothing is wrong", |api| api.status().health.is_empty().then_some(()));
    until_content(&montreal, 1, "better");
}
