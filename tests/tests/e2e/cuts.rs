//! `kill -9` of either end in mid-transfer, again and again.

use std::time::{Duration, Instant};

use avalon_protocol::{
    control::{EventKind, JobState, JobStatus},
    exit_code::ExitCode,
};
use avalon_tests::daemons::{PATIENCE, Studio, daemon::Daemon, tree};

use crate::support::{LONDON, MODEL, MONTREAL, model, studio};

const MIB: u64 = 1 << 20;

/// Enough for every cut to hit another place.
const FILE_BYTES: u64 = 200 * MIB;

/// What a cut may cost.
const RESENT_BYTES: u64 = 4 * MIB;

fn cuts() -> u64 {
    std::env::var("AVALON_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(10)
}

/// London with a large version, and montreal that mirrors it.
fn transfer(studio: &Studio) -> (Daemon, Daemon) {
    let london = studio.on_demand(LONDON, &[]);
    let dir = london.path(&format!("{MODEL}/v001"));
    tree::write_noise(&dir.join("modelDefault.usdc"), 7, FILE_BYTES);
    assert_eq!(london.api().publish(&dir).error, None);
    // Slow enough for every cut to find it under way.
    london.ctl(&["limit", "set", "40MiB/s"]).expect(ExitCode::Ok);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    (london, montreal)
}

/// Waits until a running job has this much, and returns it as it stands then, which is just before the cut; nothing when
/// it was done before anybody looked.
fn running_job(montreal: &Daemon, bytes_present: u64) -> Option<JobStatus> {
    let mut looks = montreal.api().events(0);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let jobs = montreal.api().jobs();
        if jobs.iter().any(|job| job.state == JobState::Done) {
            return None;
        }
        let far = |job: &JobStatus| job.bytes_present >= bytes_present && job.bytes_received > 0;
        if let Some(job) = jobs.into_iter().find(|job| job.state == JobState::Running && far(job)) {
            return Some(job);
        }
        looks.next_within(Duration::from_millis(2));
    }
    panic!("the transfer does not come to {bytes_present} bytes: {:#?}", montreal.api().status());
}

/// How much is here when cut number `cut` comes.
fn mark(cut: u64) -> u64 {
    FILE_BYTES * (cut + 1) / (cuts() + 2)
}

#[test]
fn a_receiver_that_is_killed_again_and_again_goes_on_where_it_was() {
    let studio = studio();
    let (london, mut montreal) = transfer(&studio);
    let (mut received, mut made) = (0, 0);
    for cut in 0..cuts() {
        let Some(job) = running_job(&montreal, mark(cut)) else { break };
        montreal.kill9();
        received += job.bytes_received;
        made += 1;
        assert!(!montreal.path(MODEL).exists(), "nothing is visible before all of it");
        montreal.start();
    }
    montreal.until_complete_at(&model(1), MONTREAL);
    received += last_job(&montreal).bytes_received;
    check(received, made, &london, &montreal);
}

#[test]
fn a_publisher_that_is_killed_again_and_again_publishes_every_version_once() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    london.config.peers = vec![montreal.listen()];
    for version in 1..=8u32 {
        let mut events = london.events();
        let file = london.path(&format!("{MODEL}/v{version:03}/modelDefault.usdc"));
        tree::write(&file, &tree::noise(version.into(), 3_000_000));
        events.wait("a sign of the version", |kind| match kind {
            EventKind::Pending { .. } if version % 2 == 0 => Some(()),
            EventKind::Published { .. } => Some(()),
            _ => None,
        });
        london.kill9();
        london.start();
    }
    for version in 1..=8 {
        montreal.until_complete_at(&model(version), MONTREAL);
        assert_eq!(montreal.api().locate_one(&model(version)).unwrap().generation, 1);
    }
    tree::assert_equal(&london.path(""), &montreal.path(""));
    for daemon in [&london, &montreal] {
        let health = daemon.api().status().health;
        assert!(health.is_empty(), "{health:#?}");
    }
}

#[test]
fn a_sender_that_is_killed_again_and_again_is_asked_for_the_rest() {
    let studio = studio();
    let (mut london, montreal) = transfer(&studio);
    // Back again, it dials by itself: montreal is less eager with a peer that it keeps losing.
    london.config.peers = vec![montreal.listen()];
    let mut made = 0;
    for cut in 0..cuts() {
        if running_job(&montreal, mark(cut)).is_none() {
            break;
        }
        london.kill9();
        london.start();
        made += 1;
    }
    montreal.until_complete_at(&model(1), MONTREAL);
    check(last_job(&montreal).bytes_received, made, &london, &montreal);
}

/// Waits for the end of the job, which comes just after the version is visible.
fn last_job(montreal: &Daemon) -> JobStatus {
    montreal.until("the job is done", |api| api.jobs().into_iter().find(|job| job.state == JobState::Done))
}

fn check(received: u64, cuts_made: u64, london: &Daemon, montreal: &Daemon) {
    tree::assert_equal(&london.path(""), &montreal.path(""));
    assert_eq!(cuts_made, cuts(), "the transfer was done before");
    let allowed = FILE_BYTES + RESENT_BYTES * cuts_made;
    println!("{received} bytes came for {FILE_BYTES} with {cuts_made} cuts");
    assert!(received <= allowed, "{received} bytes came, {allowed} were allowed");
}
