//! More happens than the system can tell.

use std::fs;

use avalon_protocol::control::EventKind;
use avalon_tests::daemons::tree;
use rustix::process::Signal;

use crate::support::{LONDON, MODEL, studio};

const VERSIONS: u32 = 12;

#[test]
fn what_happened_while_the_queue_overflowed_is_found_by_a_scan() {
    let studio = studio();
    let mut london = studio.node(LONDON, avalon_protocol::mode::ProjectMode::OnDemand);
    let dir = |version: u32| format!("{MODEL}/v{version:03}/modelDefault.dat");
    (1..=VERSIONS).for_each(|version| fs::create_dir_all(london.path(&dir(version))).unwrap());
    london.start();
    assert!(london.process().log.wait_for("reason=Started"), "every directory is watched");
    let mut events = london.events();
    let queue: u32 =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // A file is made, written and closed: half of them fill the queue.
    let files = queue / VERSIONS * 2 / 3;
    london.process().signal(Signal::STOP);
    for version in 1..=VERSIONS {
        for file in 1..=files {
            let name = format!("modelDefault.{file:05}.dat");
            tree::write(&london.path(&dir(version)).join(name), &file.to_le_bytes());
        }
    }
    london.process().signal(Signal::CONT);
    let mut missing: Vec<String> =
        (1..=VERSIONS).map(|version| format!("lantern:robot/modelDefault@v{version:03}")).collect();
    while !missing.is_empty() {
        let published = events.wait("every version is published", |kind| match kind {
            EventKind::Published { reference, .. } => Some(reference.clone()),
            _ => None,
        });
        missing.retain(|version| *version != published);
    }
    for version in 1..=VERSIONS {
        let info = london.api().info(&format!("robot/modelDefault@v{version:03}")).unwrap();
        assert_eq!(info.files.len(), files as usize, "{version}");
    }
    assert!(london.log().contains("reason=Overflow"), "the queue was too short for that:\n{}", london.log());
}
