//! Benchmarks: each shape makes its data, runs ours and a baseline in turns, and prints medians and ratios.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

pub mod latency;

use std::{path::Path, time::Duration};

use crate::daemons::Programs;

/// Makes this program answer to the names of the daemon and the command line, in a directory of its own.
fn programs(dir: &Path) -> Programs {
    let me = std::env::current_exe().expect("this program has a path");
    let named = |name: &str| {
        let path = dir.join(name);
        std::os::unix::fs::symlink(&me, &path).expect("a link in a fresh directory");
        path
    };
    Programs { avalond: named("avalond"), avalonctl: named("avalonctl") }
}

/// Returns the median, the least and the greatest of some times, in seconds.
fn spread(times: &[Duration]) -> (f64, f64, f64) {
    let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    let at = |index: usize| seconds.get(index).copied().unwrap_or(f64::NAN);
    (at(seconds.len() / 2), at(0), at(seconds.len().saturating_sub(1)))
}
