//! A link that loses packets, and at its end a volume that fills up meanwhile.

use avalon_protocol::{
    control::{ErrorCode, JobState},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use avalon_tests::{
    daemons::{daemon::may_mount, tree},
    netem::{Emulator, may_emulate, wan},
};

use crate::support::{LONDON, MODEL, MONTREAL, model, studio};

const FILES: u64 = 300;
const FILE_BYTES: u64 = 64 << 10;

#[test]
fn a_volume_that_fills_up_while_a_version_comes_over_a_lossy_link_keeps_it_waiting_and_then_it_is_whole() {
    if !may_mount() || !may_emulate() {
        return;
    }
    let link = Emulator::start(&wan(60, 20, 0.01)).unwrap();
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    london.config.listen = format!("{}:0", link.address("near"));
    london.set_network(link.namespace("near"));
    london.start();
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.listen = format!("{}:0", link.address("far"));
    montreal.config.peers = vec![london.listen()];
    let root = montreal.config.root.display().to_string();
    montreal.set_network(link.namespace("far"));
    montreal.set_mounts(&format!("mount -t tmpfs -o size=48m tmpfs {root} && mkdir {root}/lantern"));
    montreal.start();

    let dir = london.path(&format!("{MODEL}/v001"));
    for file in 0..FILES {
        let path = dir.join(format!("modelDefault.{:04}.exr", 1001 + file));
        tree::write(&path, &tree::noise(file, usize::try_from(FILE_BYTES).unwrap()));
    }
    assert_eq!(london.api().publish(&dir).error, None);
    montreal.until("some of it is here", |api| {
        api.jobs().into_iter().find(|job| job.bytes_present > 0 && job.state == JobState::Running)
    });
    // The copy writes until nothing more goes.
    montreal.in_its_mounts(&format!("cat /dev/zero > {root}/fill 2> /dev/null; true")).expect(ExitCode::Ok);
    montreal.until("it waits for room", |api| {
        let mut jobs = api.jobs().into_iter();
        jobs.find(|job| job.state == JobState::Waiting && job.error == Some(ErrorCode::DiskFull))
    });
    assert!(montreal.api().has_health("disk-full"), "{:?}", montreal.api().status().health);
    let there = montreal.path(&format!("{MODEL}/v001"));
    assert!(!montreal.seen_by_it(&there).exists(), "nothing of it is visible");

    montreal.in_its_mounts(&format!("rm {root}/fill")).expect(ExitCode::Ok);
    montreal.until_complete_at(&model(1), MONTREAL);
    tree::assert_equal(&dir, &montreal.seen_by_it(&there));
    montreal.until("it is well again", |api| (!api.has_health("disk-full")).then_some(()));
}
