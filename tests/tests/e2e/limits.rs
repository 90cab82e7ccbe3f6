//! Limits on what sites send each other, set while it flows.

use std::{
    fs,
    time::{Duration, Instant},
};

use avalon_protocol::control::EventKind;
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{LONDON, MODEL, MONTREAL, model, publish_model, studio};

const MIB: usize = 1 << 20;

/// 8 MiB at 4 MiB/s are two seconds; what may go at once is far less than the rest.
const BYTES: usize = 8 * MIB;
const AT_LEAST: Duration = Duration::from_millis(1700);

/// London with versions of noise, and montreal that knows them.
fn sites(versions: u32) -> (Studio, Daemon, Daemon) {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.on_demand(MONTREAL, &[&london]);
    for version in 1..=versions {
        publish_model(&london, version, &tree::noise(u64::from(version), BYTES));
    }
    let last = model(versions);
    montreal.until("the versions are known", |api| {
        api.list().versions.iter().any(|known| known.reference == last).then_some(())
    });
    (studio, london, montreal)
}

fn pull(montreal: &Daemon, version: u32) -> Duration {
    let start = Instant::now();
    montreal.ctl(&["pull", &model(version), "--json"]).good();
    start.elapsed()
}

fn limits(daemon: &Daemon) -> Vec<Value> {
    let said = daemon.ctl(&["limit", "--json"]).good();
    assert_eq!(said["schema"], "avalonctl.limit/1");
    said["limits"].as_array().unwrap().clone()
}

fn assert_arrived(london: &Daemon, montreal: &Daemon, version: u32) {
    let dir = format!("{MODEL}/v{version:03}");
    tree::assert_equal(&london.path(&dir), &montreal.path(&dir));
}

#[test]
fn a_limit_on_either_side_holds_from_when_it_is_set() {
    let (_studio, london, montreal) = sites(2);
    london.ctl(&["limit", "set", "4MiB/s", "--site", "montreal", "--direction", "send", "--json"]).good();
    let sent = pull(&montreal, 1);
    assert!(sent >= AT_LEAST, "{sent:?}");
    london.ctl(&["limit", "clear", "--all", "--json"]).good();
    montreal.ctl(&["limit", "set", "4MiB/s", "--direction", "receive", "--json"]).good();
    let received = pull(&montreal, 2);
    assert!(received >= AT_LEAST, "{received:?}");
    assert_arrived(&london, &montreal, 1);
    assert_arrived(&london, &montreal, 2);
}

#[test]
fn a_pull_that_a_limit_stops_goes_on_when_it_is_cleared() {
    for (limits_london, direction) in [(true, "send"), (false, "receive")] {
        let (_studio, london, montreal) = sites(1);
        let limited = if limits_london { &london } else { &montreal };
        let set = limited.ctl(&["limit", "set", "0", "--direction", direction, "--json"]).good();
        montreal.api().pull(&model(1)).unwrap();
        // Records are exempt: the next version becomes known while nothing of the first comes.
        publish_model(&london, 2, b"a small one");
        montreal.until("the next version is known", |api| {
            api.list().versions.iter().any(|known| known.reference == model(2)).then_some(())
        });
        let job = montreal.api().job_of(&model(1));
        assert!(
            job.bytes_present == 0 && job.bytes_received < 1000,
            "{direction}: only a block list: {job:?}"
        );
        let id = set["limits"][0]["id"].as_str().unwrap().to_owned();
        limited.ctl(&["limit", "clear", &id, "--json"]).good();
        pull(&montreal, 1);
        assert_arrived(&london, &montreal, 1);
    }
}

#[test]
fn limits_set_by_command_survive_a_restart_and_those_of_the_configuration_a_reload() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    london
        .ctl(&["limit", "set", "200Mbit/s", "--class", "backfill", "--when", "mon-fri 09:00-19:00", "--json"])
        .good();
    let before = limits(&london);
    assert_eq!(before.len(), 2, "{before:?}");
    london.restart();
    let kept = |limits: &[Value]| -> Vec<(Value, Value, Value, Value)> {
        let part = |limit: &Value, name: &str| limit[name].clone();
        let parts = |limit: &Value| {
            (part(limit, "id"), part(limit, "rate"), part(limit, "class"), part(limit, "when"))
        };
        limits.iter().map(parts).collect()
    };
    assert_eq!(kept(&limits(&london)), kept(&before));

    let mut events = london.events();
    let text = format!("{}[[limit]]\nrate = \"1Gbit/s\"\ndirection = \"send\"\n", london.config.text());
    fs::write(london.config.file(), text).unwrap();
    london.process().signal(Signal::HUP);
    let changes = events.wait("reloaded", |kind| match kind {
        EventKind::Reloaded { changes } => Some(changes.clone()),
        _ => None,
    });
    assert_eq!(changes, ["limits"]);
    let all = limits(&london);
    assert_eq!((&all[0]["id"], &all[0]["origin"], all.len()), (&"config-1".into(), &"config".into(), 3));
    let refused = london.ctl(&["limit", "clear", "config-1"]);
    assert!(refused.stderr.contains("edit the configuration"), "{refused:?}");
}

#[test]
fn a_damaged_file_of_limits_is_a_warning() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    london.terminate();
    fs::write(london.config.state_dir.join("limits.json"), "{").unwrap();
    london.start();
    assert!(london.api().has_health("limits-unreadable"));
    london.ctl(&["limit", "set", "1Gbit/s", "--json"]).good();
    assert!(!london.api().has_health("limits-unreadable"));
}
