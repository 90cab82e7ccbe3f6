//! Versions are immutable: growth flows, a rewrite is heard of and goes nowhere.

use std::fs;

use avalon_protocol::{
    control::{ErrorCode, EventKind, HoldingState, NodeHolding, PublishState, WhereItem},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use avalon_tests::daemons::tree;

use crate::support::{BEAUTY, BEAUTY_V1, HOME, LONDON, MODEL, MONTREAL, model, publish_model, show, studio};

fn holding<'a>(item: &'a WhereItem, site: &str) -> &'a NodeHolding {
    item.nodes.iter().find(|node| node.site == site).unwrap_or_else(|| panic!("{site} in {item:?}"))
}

#[test]
fn more_frames_are_a_new_generation_that_every_holder_gets() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.mirror(MONTREAL, &[&london]);
    let mut home = studio.on_demand(HOME, &[&london]);
    let mut events = london.events();
    let frames = format!("{BEAUTY}/v001/beauty.exr");
    let write = |number: u32| {
        let name = format!("{frames}/beauty.{number}.exr");
        tree::copy_file(&show().join(&name), &london.path(&name));
    };
    fs::create_dir_all(london.path(&frames)).unwrap();
    (1001..=1003).for_each(write);
    assert_eq!(events.published(BEAUTY_V1), 1);
    montreal.until_complete_at(BEAUTY_V1, MONTREAL);
    home.until("home knows it", |api| api.locate_one(BEAUTY_V1));
    home.until_connected(LONDON);
    home.ctl(&["pull", BEAUTY_V1]).expect(ExitCode::Ok);
    london.until_complete_at(BEAUTY_V1, MONTREAL);
    london.until_complete_at(BEAUTY_V1, HOME);
    montreal.terminate();
    home.terminate();

    (1004..=1006).for_each(write);
    assert_eq!(events.published(BEAUTY_V1), 2);
    let item = london.api().locate_one(BEAUTY_V1).unwrap();
    assert_eq!(item.generation, 2);
    for site in ["montreal", "home"] {
        let partial = holding(&item, site);
        assert_eq!(
            (partial.state, partial.files_present, partial.files_total),
            (HoldingState::Partial, 3, 6),
            "{item:?}"
        );
    }
    assert_eq!(holding(&item, "london").state, HoldingState::Complete);

    for daemon in [&mut montreal, &mut home] {
        daemon.start();
        daemon.until("all six are here", |api| {
            let item = api.locate_one(BEAUTY_V1).filter(|item| item.generation == 2)?;
            let here = item.nodes.iter().find(|node| node.site == api.status().site)?;
            (here.state == HoldingState::Complete && here.files_present == 6).then_some(())
        });
    }
    tree::assert_equal(&london.path(""), &montreal.path(""));
    tree::assert_equal(&london.path(""), &home.path(""));
    let job = montreal.api().jobs().pop().unwrap();
    let three_frames = job.bytes_total / 2 + job.bytes_total / 10;
    assert!(job.bytes_received <= three_frames, "only the new frames came: {job:?}");
}

#[test]
fn a_published_file_that_is_rewritten_goes_nowhere_and_somebody_hears_of_it() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let dir = publish_model(&london, 1, b"the first state");
    montreal.until_complete_at(&model(1), MONTREAL);
    let before = tree::read(&montreal.path(""));
    let mut events = london.events();
    fs::write(dir.join("modelDefault.usdc"), b"another state").unwrap();
    let messages = events.wait("refused", |kind| match kind {
        EventKind::Refused { reference, messages } if *reference == model(1) => Some(messages.clone()),
        _ => None,
    });
    assert!(messages[0].contains("changed in place"), "{messages:?}");
    let status = london.api().status();
    let item = status
        .health
        .iter()
        .find(|health| health.code == "rewritten")
        .unwrap_or_else(|| panic!("{status:?}"));
    assert!(item.message.contains("modelDefault.usdc") && item.hint.is_some(), "{item:?}");
    // An explicit publish does not get it through either.
    let refused = london.api().publish(&dir);
    assert_eq!((refused.state, refused.error), (PublishState::Refused, Some(ErrorCode::Rewritten)));
    // Something later arrives, and what montreal has is as it was.
    publish_model(&london, 2, b"two");
    montreal.until_complete_at(&model(2), MONTREAL);
    let after = tree::read(&montreal.path(""));
    assert!(before.iter().all(|(path, seen)| after.get(path) == Some(seen)), "{before:?} {after:?}");
    assert_eq!(montreal.api().locate_one(&model(1)).unwrap().generation, 1);
    // The old state put back is well again.
    fs::write(dir.join("modelDefault.usdc"), b"the first state").unwrap();
    london.until("it is well again", |api| (!api.has_health("rewritten")).then_some(()));
    london.until_complete_at(&model(1), LONDON);
}

#[test]
fn a_file_that_is_removed_from_a_version_is_removed_nowhere_else() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    // Removals are found by scans.
    london.config.scan_interval = "1s".into();
    london.start();
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let dir = london.path(&format!("{MODEL}/v001"));
    tree::write(&dir.join("modelDefault.abc"), b"abc");
    publish_model(&london, 1, b"usdc");
    montreal.until_complete_at(&model(1), MONTREAL);
    let mut events = london.events();
    fs::remove_file(dir.join("modelDefault.abc")).unwrap();
    events.wait("dropped", |kind| matches!(kind, EventKind::Dropped { .. }).then_some(()));
    montreal.until("montreal knows that london lacks it", |api| {
        let item = api.locate_one(&model(1))?;
        (holding(&item, "london").state != HoldingState::Complete).then_some(())
    });
    assert!(montreal.path(&format!("{MODEL}/v001/modelDefault.abc")).exists());
    let item = montreal.api().locate_one(&model(1)).unwrap();
    assert_eq!(holding(&item, "montreal").state, HoldingState::Complete);
    // And it can be brought back from there.
    london.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    tree::assert_equal(&london.path(""), &montreal.path(""));
}

#[test]
fn a_version_that_was_deleted_here_is_pulled_again_without_waiting_for_a_scan() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"usdc");
    montreal.until_complete_at(&model(1), MONTREAL);
    london.until_complete_at(&model(1), MONTREAL);
    fs::remove_dir_all(london.path(MODEL)).unwrap();
    london.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    tree::assert_equal(&london.path(""), &montreal.path(""));
}

#[test]
fn a_version_that_grows_in_mid_transfer_ends_as_the_newest_generation() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let dir = london.path(&format!("{MODEL}/v001"));
    for number in 0..20 {
        tree::write_noise(&dir.join(format!("modelDefault.part{number:02}")), number, 5 << 20);
    }
    assert_eq!(london.api().publish(&dir).error, None);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until("bytes come", |api| api.jobs().iter().any(|job| job.bytes_received > 0).then_some(()));
    tree::write_noise(&dir.join("modelDefault.part20"), 20, 5 << 20);
    assert_eq!(london.api().publish(&dir).generation, 2);
    montreal.until("all of generation 2 is here", |api| {
        let item = api.locate_one(&model(1)).filter(|item| item.generation == 2)?;
        (holding(&item, "montreal").state == HoldingState::Complete).then_some(())
    });
    tree::assert_equal(&london.path(""), &montreal.path(""));
    assert!(montreal.api().status().jobs.is_empty());
}

#[test]
fn a_hero_follows_the_version_that_it_points_to() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let hero = format!("{MODEL}/hero");
    let (name, mut events) = ("lantern:robot/modelDefault@hero", london.events());
    tree::write(&london.path(&hero).join("modelDefault.usdc"), b"first");
    tree::write(&london.path(&hero).join("modelDefault.old"), b"only in the first");
    assert_eq!(events.published(name), 1);
    montreal.until_complete_at(name, MONTREAL);
    // As Avalon's integrator does it: aside, a new one, the old one away.
    let backup = london.path(&format!("{MODEL}/hero.BACKUP"));
    fs::rename(london.path(&hero), &backup).unwrap();
    tree::write(&london.path(&hero).join("modelDefault.usdc"), b"second");
    fs::remove_dir_all(&backup).unwrap();
    assert_eq!(events.published(name), 2);
    montreal.until("the hero has moved", |api| {
        let item = api.locate_one(name).filter(|item| item.generation == 2)?;
        (holding(&item, "montreal").state == HoldingState::Complete).then_some(())
    });
    tree::assert_equal(&london.path(""), &montreal.path(""));
    let refused = |kind: &EventKind| matches!(kind, EventKind::Refused { .. });
    events.drain();
    assert_eq!(events.count(refused), 0);
}
