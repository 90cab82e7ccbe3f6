//! Seeded studios whose nodes are put back to backups and copied: whoever is asked first does not fork, a fork that is made
//! all the same is found, proved and stopped everywhere, and nothing that was taken before is lost.
//!
//! Sessions, feeds, proofs and the rule of who may write run here as they are. `AVALON_SEED=123` runs one seed of each kind.

mod disk;
mod studio;

use std::collections::BTreeMap;

use studio::{Kind, Studio};

/// How many seeds each test runs.
const SEEDS: u64 = 500;

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("AVALON_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    }
}

/// Runs the seeds of one kind; returns how often each thing happened.
fn run(kind: Kind) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for seed in seeds() {
        let mut studio = Studio::new(seed, kind);
        studio.run();
        studio.counts.iter().for_each(|(what, count)| *counts.entry(*what).or_default() += count);
    }
    println!("{kind:?}: {counts:?}");
    counts
}

fn happened(counts: &BTreeMap<&'static str, u64>, what: &str) -> u64 {
    counts.get(what).copied().unwrap_or(0)
}

#[test]
fn a_restored_node_whose_peers_are_there_never_makes_a_second_history() {
    let counts = run(Kind::Near);
    assert_eq!(happened(&counts, "forked"), 0, "{counts:?}");
    if seeds().end - seeds().start > 100 {
        for what in ["restored", "restored behind", "taken back", "waited", "written"] {
            assert!(happened(&counts, what) > 0, "{what}: {counts:?}");
        }
    }
}

#[test]
fn without_the_rule_the_same_studios_fork() {
    if seeds().end - seeds().start > 100 {
        let counts = run(Kind::NearWithoutRule);
        assert!(happened(&counts, "forked") > 100, "the test above proves nothing: {counts:?}");
    }
}

#[test]
fn a_fork_that_is_made_all_the_same_is_found_and_stopped_at_every_node() {
    for kind in [Kind::Far, Kind::Copied] {
        let counts = run(kind);
        if seeds().end - seeds().start > 100 {
            for what in ["forked", "found", "own stopped", "refused"] {
                assert!(happened(&counts, what) > 0, "{kind:?}: {what}: {counts:?}");
            }
        }
    }
}
