//! A version that is deleted at its source in mid-transfer.

use std::{fs, time::Duration};

use avalon_protocol::{
    control::{HoldingState, JobState, JobStatus},
    exit_code::ExitCode,
};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_beauty, publish_model, studio};

const FILES: u64 = 40;
const FILE_BYTES: u64 = 4 << 20;

/// London with a version of many files.
fn london(studio: &Studio) -> Daemon {
    let london = studio.on_demand(LONDON, &[]);
    let dir = london.path(&format!("{MODEL}/v001"));
    for number in 0..FILES {
        tree::write_noise(&dir.join(format!("modelDefault.part{number:02}")), number, FILE_BYTES);
    }
    assert_eq!(london.api().publish(&dir).error, None);
    // Slow enough to be found in the middle.
    london.ctl(&["limit", "set", "60MiB/s"]).expect(ExitCode::Ok);
    london
}

fn job(montreal: &Daemon, what: &str, wanted: impl Fn(&JobStatus) -> bool) -> JobStatus {
    let mut looks = montreal.api().events(0);
    for _ in 0..30_000 {
        if let Some(job) = montreal.api().jobs().into_iter().find(|job| wanted(job)) {
            return job;
        }
        looks.next_within(Duration::from_millis(2));
    }
    panic!("no job {what}: {:#?}", montreal.api().jobs());
}

/// Starts a transfer to montreal and takes the version away in the middle of it; returns where it went.
fn cut_off(london: &Daemon, montreal: &mut Daemon) -> std::path::PathBuf {
    montreal.start();
    job(montreal, "under way", |job| job.state == JobState::Running && job.bytes_present > FILE_BYTES);
    let away = london.config.dir.join("away");
    fs::rename(london.path(&format!("{MODEL}/v001")), &away).unwrap();
    let waiting = job(montreal, "that waits", |job| job.state == JobState::Waiting);
    assert!(waiting.reason.as_ref().is_some_and(|reason| !reason.is_empty()), "{waiting:?}");
    assert!(!montreal.path(MODEL).exists(), "nothing of it is visible");
    away
}

#[test]
fn the_job_waits_with_a_reason_and_goes_on_when_the_version_is_put_back() {
    let studio = studio();
    let london = london(&studio);
    let mut montreal = studio.node(MONTREAL, avalon_protocol::mode::ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    let away = cut_off(&london, &mut montreal);
    fs::rename(away, london.path(&format!("{MODEL}/v001"))).unwrap();
    montreal.until_complete_at(&model(1), MONTREAL);
    tree::assert_equal(&london.path(""), &montreal.path(""));
}

#[test]
fn a_version_that_was_renamed_away_with_all_above_it_is_noticed_when_it_is_back() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    // Of two versions one may go without a doubt about the volume.
    publish_beauty(&london, "v001");
    publish_model(&london, 1, b"model");
    let away = london.path("elsewhere");
    fs::rename(london.path("assets"), &away).unwrap();
    let text = london.config.text().replace("\"1h\"", "\"1s\"");
    fs::write(london.config.file(), text).unwrap();
    london.process().signal(rustix::process::Signal::HUP);
    london.until("nobody has it", |api| {
        let item = api.locate_one(&model(1))?;
        item.nodes.iter().all(|holding| holding.state != HoldingState::Complete).then_some(())
    });
    fs::rename(away, london.path("assets")).unwrap();
    london.until_complete_at(&model(1), LONDON);
}

#[test]
fn the_job_goes_on_with_another_holder() {
    let studio = studio();
    let london = london(&studio);
    let mut home = studio.on_demand(HOME, &[&london]);
    home.until("home knows it", |api| api.locate_one(&model(1)));
    home.until_connected(LONDON);
    home.ctl(&["pull", &model(1)]).expect(avalon_protocol::exit_code::ExitCode::Ok);
    london.until_complete_at(&model(1), HOME);
    home.terminate();
    let mut montreal = studio.node(MONTREAL, avalon_protocol::mode::ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen(), home.listen()];
    cut_off(&london, &mut montreal);
    home.config.peers.push(montreal.listen());
    home.start();
    montreal.until_complete_at(&model(1), MONTREAL);
    tree::assert_equal(&home.path(""), &montreal.path(""));
}
