//! A site that mirrors fills by itself.

use std::{ffi::OsString, fs};

use avalon_protocol::{control::HoldingState, exit_code::ExitCode, mode::ProjectMode};
use avalon_tests::daemons::{tree, visibility::Visibility};

use crate::support::{
    BEAUTY, BEAUTY_V1, HOME, LONDON, MODEL, MONTREAL, model, publish_beauty, publish_model, studio,
};

#[test]
fn a_publish_at_london_appears_at_montreal_equal_and_all_at_once() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until_connected(LONDON);
    let mut events = montreal.events();
    let version = Visibility::of(&montreal.path(&format!("{BEAUTY}/v001")));
    let frames = Visibility::of(&montreal.path(&format!("{BEAUTY}/v001/beauty.exr")));
    publish_beauty(&london, "v001");
    events.placed(BEAUTY_V1);
    let (version, frames) = (version.stop(), frames.stop());
    tree::assert_equal(&london.path(""), &montreal.path(""));
    let names: Vec<OsString> = (1001..=1024).map(|frame| format!("beauty.{frame}.exr").into()).collect();
    assert_eq!(version.sets.into_iter().collect::<Vec<_>>(), [vec![OsString::from("beauty.exr")]]);
    assert_eq!(frames.sets.into_iter().collect::<Vec<_>>(), [names]);
    assert!(version.absent > 0 && frames.absent > 0, "looked before it came");
    london.until_complete_at(BEAUTY_V1, MONTREAL);
}

#[test]
fn a_mirror_that_comes_late_fetches_all_that_there_is() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    publish_beauty(&london, "v001");
    publish_beauty(&london, "v002");
    for version in 1..=40 {
        publish_model(&london, version, format!("model {version}").as_bytes());
    }
    let montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until("all is here", |api| {
        let versions = api.list().versions;
        let here = versions.iter().filter(|v| v.here == avalon_protocol::control::Presence::Complete);
        (here.count() == 42).then_some(())
    });
    tree::assert_equal(&london.path(""), &montreal.path(""));
    assert!(montreal.api().status().health.is_empty(), "{:#?}", montreal.api().status().health);
}

#[test]
fn both_ends_may_publish_and_each_gets_what_the_other_has() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"from london");
    publish_model(&montreal, 2, b"from montreal");
    montreal.until_complete_at(&model(1), MONTREAL);
    london.until_complete_at(&model(2), LONDON);
    // What came is not taken for a publish of its own.
    london.until_complete_at(&model(2), MONTREAL);
    tree::assert_equal(&london.path(""), &montreal.path(""));
    for daemon in [&london, &montreal] {
        let item = daemon.api().locate_one(&model(1)).unwrap();
        assert_eq!((item.generation, item.conflict), (1, false), "{item:?}");
    }
}

#[test]
fn home_can_fetch_from_montreal_while_london_is_away() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, &tree::noise(1, 3_000_000));
    montreal.until_complete_at(&model(1), MONTREAL);
    london.kill9();
    let home = studio.on_demand(HOME, &[&montreal]);
    home.until_complete_at(&model(1), MONTREAL);
    let summary = home.ctl(&["pull", &model(1), "--json"]).good();
    assert_eq!(summary["versions"][0]["sources"][0], MONTREAL, "{summary}");
    tree::assert_equal(&home.path(""), &montreal.path(""));
}

#[test]
fn a_file_of_no_bytes_and_many_small_ones_come_over() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let dir = london.path(&format!("{MODEL}/v001"));
    tree::write(&dir.join("modelDefault.empty"), b"");
    for number in 0..500 {
        tree::write(&dir.join(format!("modelDefault.cache/part{number}.bin")), &tree::noise(number, 700));
    }
    let item = london.api().publish(&dir);
    assert_eq!((item.error, item.files), (None, 501), "{item:?}");
    montreal.until_complete_at(&model(1), MONTREAL);
    tree::assert_equal(&london.path(""), &montreal.path(""));
    assert_eq!(fs::metadata(montreal.path(&format!("{MODEL}/v001/modelDefault.empty"))).unwrap().len(), 0);
}

#[test]
fn one_command_waits_until_a_site_has_a_version() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until_connected(LONDON);
    publish_beauty(&london, "v001");
    london.ctl(&["wait", BEAUTY_V1, "--site", "montreal", "--timeout", "60s"]).expect(ExitCode::Ok);
    let item = london.api().locate_one(BEAUTY_V1).unwrap();
    assert!(item.nodes.iter().all(|node| node.state == HoldingState::Complete), "{item:?}");
    london.ctl(&["wait", BEAUTY_V1, "--site", "tokyo", "--timeout", "300ms"]).expect(ExitCode::TimedOut);
}

#[test]
fn two_holders_are_asked_at_once() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let dir = london.path(&format!("{MODEL}/v001"));
    tree::write_noise(&dir.join("modelDefault.usdc"), 6, 100 << 20);
    assert_eq!(london.api().publish(&dir).error, None);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until_complete_at(&model(1), MONTREAL);
    let home = studio.on_demand(HOME, &[&london, &montreal]);
    home.until_connected(LONDON);
    home.until_connected(MONTREAL);
    home.until_complete_at(&model(1), LONDON);
    home.until_complete_at(&model(1), MONTREAL);
    let summary = home.ctl(&["pull", &model(1), "--json"]).good();
    assert_eq!(summary["versions"][0]["sources"], serde_json::json!([LONDON, MONTREAL]), "{summary}");
    tree::assert_equal(&home.path(""), &london.path(""));
}

#[test]
fn names_in_every_script_and_with_spaces_come_over_as_they_are() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let dir = london.path(&format!("{MODEL}/v001"));
    for name in [
        "modelDefault.usdc",
        "tex/räume – 1.exr",
        "tex/ロボット.exr",
        "a b/c  d.txt",
        "(x) [y] {z} 'q' $HOME #1%.txt",
    ] {
        tree::write(&dir.join(name), name.as_bytes());
    }
    let item = london.api().publish(&dir);
    assert_eq!((item.error, item.files), (None, 5), "{item:?}");
    montreal.until_complete_at(&model(1), MONTREAL);
    tree::assert_equal(&london.path(""), &montreal.path(""));
}

#[test]
fn a_project_goes_only_to_nodes_that_serve_it() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    london.config.more_projects.push("comet".into());
    let comet = london.config.root.join("comet");
    tree::write(&comet.join(format!("{MODEL}/v007/modelDefault.usdc")), b"secret");
    london.start();
    let montreal = studio.mirror(MONTREAL, &[&london]);
    assert_eq!(london.api().publish(&comet.join(format!("{MODEL}/v007"))).error, None);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    montreal.ctl(&["ls", "--project", "comet"]).expect(ExitCode::NotFound);
    montreal.ctl(&["where", "comet:robot/modelDefault"]).expect(ExitCode::NotFound);
    assert!(!montreal.config.state_dir.join("feeds/comet").exists(), "not even its records");
    assert!(london.config.state_dir.join("feeds/comet").exists());
    // Who serves several projects says which.
    london.ctl(&["pull", "robot/modelDefault"]).expect(ExitCode::Usage);
    london.ctl(&["where", "comet:robot/modelDefault"]).expect(ExitCode::Ok);
}
