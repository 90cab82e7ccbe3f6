//! The short form of every harness of `--bin reliability`; `docs/reliability.md` has the long ones. What a machine does not
//! allow is said and left out.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use avalon_tests::{daemons::daemon::may_mount, reliability::trace::Tracer};
use serde::Deserialize;

const PROGRAM: &str = env!("CARGO_BIN_EXE_reliability");

#[derive(Debug, Deserialize)]
struct Report {
    runs: u64,
    bad: u64,
    faults: BTreeMap<String, u64>,
    files: u64,
}

/// Runs a harness; all its runs must be good and some of them meet their fault.
fn harness(arguments: &str) -> Vec<Report> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments.split(' ')).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {}\n{said}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    print!("{lines}");
    let reports: Vec<Report> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!reports.is_empty(), "{arguments}");
    for report in &reports {
        assert!(report.bad == 0 && report.runs > 0 && report.files > 0, "{report:?}");
        assert!(!report.faults.is_empty(), "nothing went wrong in any run: {report:?}");
    }
    reports
}

fn may_trace() -> bool {
    let temp = tempfile::tempdir().unwrap();
    let checked = Tracer::check(Path::new(PROGRAM), temp.path());
    if let Err(why) = &checked {
        println!("SKIPPED: this machine lets no process be traced: {why}");
    }
    checked.is_ok()
}

/// The file systems that can be made and mounted here.
fn systems() -> Vec<&'static str> {
    if !may_mount() {
        return Vec::new();
    }
    let has_loop = Command::new("losetup").arg("--find").output().is_ok_and(|output| output.status.success());
    if !has_loop {
        println!("SKIPPED: this machine has no loop device to mount an image by");
        return Vec::new();
    }
    let can_make = |system: &&str| {
        let found = Command::new("sh").args(["-c", &format!("command -v mkfs.{system}")]).output();
        let is_there = found.is_ok_and(|output| output.status.success());
        if !is_there {
            println!("SKIPPED {system}: there is no mkfs.{system}");
        }
        is_there
    };
    ["ext4", "xfs"].into_iter().filter(can_make).collect()
}

#[test]
fn a_daemon_that_is_killed_at_any_step_loses_nothing_acknowledged() {
    if may_trace() {
        assert_eq!(harness("crash-points --runs 6").len(), 5);
    }
}

#[test]
fn daemons_that_are_killed_at_random_lose_nothing_acknowledged() {
    harness("kills --runs 10");
}

#[test]
fn daemons_that_work_and_fail_all_the_time_grow_by_nothing_and_lose_nothing() {
    harness("soak --minutes 0.4");
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    if may_trace() {
        for system in systems() {
            harness(&format!("power-cuts --scenario publish --fs {system} --runs 4"));
            harness(&format!("power-cuts --scenario receive --fs {system} --runs 3"));
        }
    }
}

#[test]
fn an_error_of_the_disk_loses_nothing_acknowledged() {
    if may_trace() {
        for kind in ["write", "sync"] {
            harness(&format!("io-errors --scenario publish --kind {kind} --runs 4"));
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_acknowledged_and_passes() {
    if systems().contains(&"ext4") {
        harness("no-space --scenario publish --fs ext4 --runs 2");
    }
}

#[test]
fn every_bit_that_rots_is_found_and_comes_back_from_the_other_node() {
    if systems().contains(&"ext4") {
        harness("bit-flips --runs 20");
    }
}

#[test]
fn a_damaged_catalog_is_built_anew_and_never_gives_a_wrong_answer() {
    harness("catalog-damage --runs 8");
}
