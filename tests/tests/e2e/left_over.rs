//! What an earlier run of the daemon left in the incoming areas.

use std::{fs, path::PathBuf};

use avalon_protocol::{control::JobState, exit_code::ExitCode};
use avalon_tests::daemons::{daemon::Daemon, tree};

use crate::support::{HOME, LONDON, MODEL, model, publish_model, studio};

fn areas(daemon: &Daemon) -> Vec<PathBuf> {
    let areas = fs::read_dir(daemon.path(".avalon/incoming"));
    areas.into_iter().flatten().map(|area| area.unwrap().path()).collect()
}

#[test]
fn a_pull_that_is_cancelled_stays_cancelled_after_a_restart() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut home = studio.on_demand(HOME, &[&london]);
    let dir = london.path(&format!("{MODEL}/v001"));
    tree::write_noise(&dir.join("modelDefault.usdc"), 4, 120 << 20);
    assert_eq!(london.api().publish(&dir).error, None);
    home.until("home knows it", |api| api.locate_one(&model(1)));
    home.until_connected(LONDON);
    home.ctl(&["limit", "set", "20MiB/s"]).expect(ExitCode::Ok);
    let id = home.api().pull(&model(1)).unwrap().versions[0].job.clone().unwrap();
    home.until("bytes are here", |api| api.job(&id).filter(|job| job.bytes_present > 0));
    home.ctl(&["cancel", &id]).expect(ExitCode::Ok);
    // Without waiting for the job to end.
    home.restart();
    assert_eq!(areas(&home), [] as [PathBuf; 0], "nothing of it is kept");
    publish_model(&london, 2, b"two");
    home.until("home knows the other", |api| api.locate_one(&model(2)));
    home.until_connected(LONDON);
    home.ctl(&["pull", &model(2)]).expect(ExitCode::Ok);
    let jobs = home.api().jobs();
    assert!(jobs.iter().all(|job| job.reference == model(2) && job.state == JobState::Done), "{jobs:#?}");
    assert!(!home.path(&format!("{MODEL}/v001")).exists());
    // It comes when somebody asks for it again.
    home.ctl(&["limit", "clear", "--all"]).expect(ExitCode::Ok);
    home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    tree::assert_equal(&london.path(""), &home.path(""));
}

#[test]
fn what_is_left_of_a_version_that_is_here_goes_at_the_start_and_what_nobody_knows_stays() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    publish_model(&london, 1, b"one");
    let manifest = london.api().locate_one(&model(1)).unwrap().manifest;
    london.terminate();
    let incoming = london.path(".avalon/incoming");
    let known = incoming.join(&manifest);
    let unknown = incoming.join("7".repeat(manifest.len()));
    for area in [&known, &unknown] {
        tree::write(&area.join("parts").join("0".repeat(64)), b"left");
    }
    london.start();
    london.until("it is gone", |_| (!known.exists()).then_some(()));
    assert!(unknown.join("parts").exists(), "its record may still come");
    tree::write(&london.path(&format!("{MODEL}/v002/modelDefault.usdc")), b"two");
    publish_model(&london, 3, b"three");
    assert_eq!(areas(&london), [unknown]);
}
