//! Seeded simulation of studios of 3 to 7 nodes, with delay, loss, partitions, crashes and a liar: after every step all
//! promises hold, and once the faults are over everything arrives where it belongs.
//!
//! `AVALON_SEED=123` runs that seed alone, `AVALON_SEEDS=5000` as many seeds in all. Each test runs its share, so that they
//! run in parallel.

use std::path::Path;

use avalon_tests::{
    event_log::Recording,
    harness::{Simulation, Summary, run_share},
    world::{CONVERGENCE_LIMIT_MS, run},
};

/// How many seeds the tests below run together.
const SEEDS: u64 = 1000;
/// How many tests share them.
const SHARES: u64 = 4;

fn log_dir() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn share(index: u64) {
    run_share(Simulation::Catalogs, (index, SHARES), SEEDS, log_dir(), check);
}

/// The seeds only mean something if what they should survive has happened.
fn check(summary: &Summary) {
    println!("{summary:#?}");
    assert!(summary.slowest_ms <= CONVERGENCE_LIMIT_MS);
    if summary.seeds < 100 {
        return;
    }
    for what in [
        "published",
        "grew",
        "found",
        "placed",
        "conflict",
        "blocked",
        "refused",
        "unanswered",
        "bad_groups",
        "duplicate_connection",
        "resumed",
        "crashed_while_placing",
        "lost_tail",
        "copied_locally",
        "woke_up",
        "applied",
        "applied_twice",
    ] {
        assert!(summary.counts.contains_key(what), "no seed had {what}: {summary:#?}");
    }
}

#[test]
fn catalogs_converge_and_promises_hold_first_quarter() {
    share(0);
}

#[test]
fn catalogs_converge_and_promises_hold_second_quarter() {
    share(1);
}

#[test]
fn catalogs_converge_and_promises_hold_third_quarter() {
    share(2);
}

#[test]
fn catalogs_converge_and_promises_hold_last_quarter() {
    share(3);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let trace =
        |seed, recording| run(seed, recording).map(|report| report.trace).expect("no promise is broken");
    assert_eq!(trace(7, Recording::HashOnly), trace(7, Recording::Full));
    assert_ne!(trace(7, Recording::HashOnly), trace(8, Recording::HashOnly));
}
