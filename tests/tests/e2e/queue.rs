//! The queue of what comes, with artists who pause it and put things first.

use avalon_protocol::{
    control::{JobState, QueueReply, route},
    exit_code::ExitCode,
};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};

use crate::support::{LONDON, MODEL, MONTREAL, model, publish_model, studio};

const MIB: usize = 1 << 20;

/// London with versions of noise, and montreal that knows them and gets 1 MiB/s.
fn sites(versions: u32) -> (Studio, Daemon, Daemon) {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.on_demand(MONTREAL, &[&london]);
    montreal.ctl(&["limit", "set", "1MiB/s", "--direction", "receive"]).expect(ExitCode::Ok);
    for version in 1..=versions {
        publish_model(&london, version, &tree::noise(u64::from(version), 16 * MIB));
    }
    let last = model(versions);
    montreal.until("the versions are known", |api| {
        api.list().versions.iter().any(|known| known.reference == last).then_some(())
    });
    (studio, london, montreal)
}

fn queue(daemon: &Daemon) -> QueueReply {
    daemon.api().get(route::QUEUE).unwrap()
}

fn unlimited(daemon: &Daemon) {
    daemon.ctl(&["limit", "clear", "--all"]).expect(ExitCode::Ok);
}

#[test]
fn a_paused_version_keeps_what_came_also_over_a_crash_and_goes_on_from_there() {
    let (_studio, london, mut montreal) = sites(1);
    let reference = model(1);
    montreal.api().pull(&reference).unwrap();
    let came = montreal.until("something has come", |_| {
        let job = queue(&montreal).jobs.into_iter().next()?;
        (job.bytes_present > 2 * MIB as u64).then_some(job.bytes_present)
    });
    montreal.ctl(&["pause", &reference]).expect(ExitCode::Ok);
    montreal.until("it is paused", |api| (api.job_of(&reference).state == JobState::Paused).then_some(()));
    assert!(!montreal.path(MODEL).exists());
    montreal.kill9();
    montreal.start();
    unlimited(&montreal);
    montreal.until_connected(LONDON);
    let paused = montreal.until("it is known to be paused", |_| {
        queue(&montreal).jobs.into_iter().find(|job| job.state == JobState::Paused)
    });
    assert!(paused.reason.as_ref().is_some_and(|reason| reason.starts_with("paused by")), "{paused:?}");
    let said = montreal.ctl(&["why", &reference]).expect(ExitCode::Ok);
    assert!(said.stdout.contains("paused by"), "{said:?}");
    montreal.ctl(&["resume", &reference]).expect(ExitCode::Ok);
    montreal.until_complete_at(&reference, MONTREAL);
    let job = montreal.api().job_of(&reference);
    let received = 16 * MIB as u64 - came;
    assert!(job.bytes_received <= received + 5 * MIB as u64, "{job:?} of which {came} had come");
    tree::assert_equal(&london.path(MODEL), &montreal.path(MODEL));
}

#[test]
fn a_node_that_is_paused_fetches_nothing_says_so_and_goes_on_with_one_word() {
    let (_studio, london, montreal) = sites(2);
    montreal.ctl(&["pause"]).expect(ExitCode::Ok);
    assert!(montreal.api().has_health("fetching-paused"));
    let pulled = montreal.ctl(&["pull", &model(1), &model(2), "--detach"]);
    pulled.expect(ExitCode::Ok);
    let jobs = queue(&montreal).jobs;
    assert_eq!(jobs.len(), 2);
    assert!(jobs.iter().all(|job| job.state == JobState::Paused), "{jobs:?}");
    // Others still get what they ask for, and records flow.
    publish_model(&london, 3, b"small");
    montreal.until("the next version is known", |api| {
        api.list().versions.iter().any(|known| known.reference == model(3)).then_some(())
    });
    unlimited(&montreal);
    montreal.ctl(&["resume"]).expect(ExitCode::Ok);
    for version in [1, 2] {
        montreal.until_complete_at(&model(version), MONTREAL);
    }
    montreal.until("nothing is left in the queue", |api| {
        (!api.has_health("fetching-paused") && queue(&montreal).jobs.is_empty()).then_some(())
    });
}

#[test]
fn who_is_put_first_comes_before_those_that_were_asked_for_earlier() {
    let (_studio, _london, montreal) = sites(14);
    let all: Vec<String> = (1..=14).map(model).collect();
    for reference in &all {
        montreal.api().pull(reference).unwrap();
    }
    // Twelve run at once.
    let jobs = queue(&montreal).jobs;
    let turns: Vec<&str> =
        jobs.iter().filter(|job| job.position.is_some()).map(|job| job.reference.as_str()).collect();
    assert_eq!(turns, [&all[12], &all[13]]);
    let said = montreal.ctl(&["prio", "now", &all[13], "--json"]).good();
    assert_eq!((&said["jobs"][0]["position"], &said["jobs"][0]["prio"]), (&1.into(), &"now".into()));
    let said = montreal.ctl(&["prio", "low", &all[13], "--json"]).good();
    assert_eq!(said["jobs"][0]["position"], 2);
    // 13 x 16 MiB come before, at 1 MiB/s.
    let eta = montreal.until("the rate is known", |_| {
        queue(&montreal).jobs.iter().find(|job| job.position == Some(2))?.eta_seconds
    });
    assert!(eta > 60.0, "{eta}");
    let jobs = queue(&montreal).jobs;
    montreal.ctl(&["prio", "high", "robot/none"]).expect(ExitCode::NotFound);
    montreal.ctl(&["cancel", &jobs[0].id]).expect(ExitCode::Ok);
    montreal.until("the next one runs", |_| {
        queue(&montreal)
            .jobs
            .iter()
            .all(|job| job.reference != all[12] || job.position.is_none())
            .then_some(())
    });
}
