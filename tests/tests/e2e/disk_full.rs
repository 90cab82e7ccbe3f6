//! A volume without room: what cannot be kept is not begun, and goes on when there is room.

use avalon_protocol::{
    control::{ErrorCode, JobState},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use avalon_tests::daemons::{
    Studio,
    daemon::{Daemon, may_mount},
    tree,
};

use crate::support::{LONDON, MODEL, MONTREAL, model, publish_model, studio};

#[test]
fn a_version_that_does_not_fit_waits_for_room_and_smaller_ones_go_on() {
    if !may_mount() {
        return;
    }
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let large = tree::noise(1, 12 << 20);
    publish_model(&london, 1, &large);
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    let root = montreal.config.root.display().to_string();
    montreal.set_mounts(&format!("mount -t tmpfs -o size=6m tmpfs {root} && mkdir {root}/lantern"));
    montreal.start();
    let job = montreal.until("it waits for room", |api| {
        api.jobs()
            .into_iter()
            .find(|job| job.state == JobState::Waiting && job.error == Some(ErrorCode::DiskFull))
    });
    assert!(job.reason.is_some(), "{job:?}");
    assert!(montreal.api().has_health("disk-full"), "{:?}", montreal.api().status().health);
    let there = montreal.path(MODEL);
    assert!(!montreal.seen_by_it(&there).exists(), "nothing of it is visible");
    publish_model(&london, 2, b"small");
    montreal.until_complete_at(&model(2), MONTREAL);

    montreal.in_its_mounts(&format!("mount -o remount,size=64m {root}")).expect(ExitCode::Ok);
    montreal.until_complete_at(&model(1), MONTREAL);
    let file = montreal.seen_by_it(&there.join("v001/modelDefault.usdc"));
    assert_eq!(blake3::hash(&std::fs::read(file).unwrap()), blake3::hash(&large));
    montreal.until("it is well again", |api| (!api.has_health("disk-full")).then_some(()));
}

#[test]
fn a_state_directory_on_a_full_volume_is_named_at_the_start() {
    if !may_mount() {
        return;
    }
    let studio = studio();
    let mut daemon = studio.node(LONDON, ProjectMode::OnDemand);
    let state = daemon.config.state_dir.display().to_string();
    daemon.set_mounts(&format!(
        "cp -a {state} {state}.copy && mount -t tmpfs -o size=64k,nr_inodes=8 tmpfs {state} && cp -a {state}.copy/. \
         {state}/"
    ));
    let (code, said) = daemon.start_in_vain();
    assert_eq!(code, i32::from(ExitCode::DiskFull.code()), "{said}");
    assert!(said.contains("is full; free some room"), "{said}");
}

/// London, with its state directory on a volume of 16 MiB, and where that is.
fn london_on_a_small_volume(studio: &Studio) -> (Daemon, String) {
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let state = london.config.state_dir.display().to_string();
    london.set_mounts(&format!(
        "cp -a {state} {state}.copy && mount -t tmpfs -o size=16m tmpfs {state} && cp -a {state}.copy/. {state}/"
    ));
    london.start();
    (london, state)
}

#[test]
fn a_state_directory_that_fills_up_loses_nothing_that_was_acknowledged() {
    if !may_mount() {
        return;
    }
    let studio = studio();
    let (mut london, state) = london_on_a_small_volume(&studio);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    // The copy writes until nothing more goes.
    london.in_its_mounts(&format!("cat /dev/zero > {state}/fill 2> {state}.said; true")).expect(ExitCode::Ok);
    let dir = london.path(&format!("{MODEL}/v002"));
    tree::write(&dir.join("modelDefault.usdc"), b"two");
    let item = london.api().publish(&dir);
    assert_eq!(item.error, Some(ErrorCode::DiskFull), "{item:?}");
    assert!(london.api().locate_one(&model(2)).is_none(), "what was not acknowledged is not shown");
    london.in_its_mounts(&format!("rm {state}/fill")).expect(ExitCode::Ok);
    let item = london.api().publish(&dir);
    assert_eq!(item.error, None, "{item:?}");
    montreal.until_complete_at(&model(2), MONTREAL);
    montreal.until_complete_at(&model(1), LONDON);
    let verified = london.ctl(&["catalog", "verify", "--json"]).good();
    assert_eq!(verified["ok"], true, "{verified}");
}

#[test]
fn a_node_whose_state_volume_is_full_starts_serves_and_goes_on_when_there_is_room() {
    if !may_mount() {
        return;
    }
    let studio = studio();
    let (mut london, state) = london_on_a_small_volume(&studio);
    publish_model(&london, 1, b"one");
    // The volume belongs to the mount namespace of this run, so it is the next start that finds it full.
    london.in_its_mounts(&format!("cp -a {state}/. {state}.copy/")).expect(ExitCode::Ok);
    assert_eq!(london.terminate().code(), Some(0));
    london.set_mounts(&format!(
        "mount -t tmpfs -o size=16m tmpfs {state} && cp -a {state}.copy/. {state}/ && rm -rf {state}/catalog/gen-1 && \
         (cat /dev/zero > {state}/fill 2> {state}.said; true)"
    ));
    london.start();
    let health = london.api().status().health;
    assert!(london.api().has_health("catalog-rebuilding"), "{health:?}");
    london.in_its_mounts(&format!("rm {state}/fill")).expect(ExitCode::Ok);
    // Without this it looks for room again within a minute.
    london.ctl(&["catalog", "rebuild"]).expect(ExitCode::Ok);
    london.until_complete_at(&model(1), LONDON);
    london.until("it is well again", |api| (!api.has_health("catalog-rebuilding")).then_some(()));
    publish_model(&london, 2, b"two");
    london.until_complete_at(&model(2), LONDON);
}

#[test]
fn an_audit_without_room_refuses_admins_alone_and_goes_on_by_itself_when_there_is_some() {
    if !may_mount() {
        return;
    }
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let audit = london.config.state_dir.join("audit").display().to_string();
    london.set_mounts(&format!("mkdir -p {audit} && mount -t tmpfs -o size=64k,mode=700 tmpfs {audit}"));
    london.start();
    publish_model(&london, 1, b"one");
    london.ctl(&["catalog", "rebuild"]).expect(ExitCode::Ok);
    london.in_its_mounts(&format!("cat /dev/zero > {audit}/fill 2> {audit}.said; true")).expect(ExitCode::Ok);
    // The page that the last line is in has some room still.
    let mut version = 1;
    london.until("the audit is full", |api| {
        if !api.has_health("audit-failed") {
            api.publish(&london.path(&format!("{MODEL}/v001")));
            london.ctl(&["pin", &model(1)]);
        }
        api.has_health("audit-failed").then_some(())
    });
    let refused = london.ctl(&["catalog", "rebuild"]);
    assert!(refused.code != 0 && refused.stderr.contains("the audit cannot be written"), "{refused:?}");
    for _ in 0..3 {
        version += 1;
        publish_model(&london, version, b"an artist goes on");
    }
    assert_eq!(london.api().list().versions.len(), 4);
    london.in_its_mounts(&format!("rm {audit}/fill")).expect(ExitCode::Ok);
    london.until("it is well again", |api| {
        london.ctl(&["unpin", &model(1)]);
        (!api.has_health("audit-failed")).then_some(())
    });
    london.ctl(&["catalog", "rebuild"]).expect(ExitCode::Ok);
    london.ctl(&["audit", "verify"]).expect(ExitCode::Ok);
}
