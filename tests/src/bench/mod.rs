//! Benchmarks: each shape makes its data, runs ours and a baseline in turns, and prints medians and ratios.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

pub mod congestion;
pub mod contender;
pub mod cpu;
pub mod delta;
pub mod ends;
pub mod hash;
pub mod latency;
pub mod limit;
pub mod multi_source;
pub mod ours;
pub mod preempt;
pub mod publish;
pub mod raw_quinn;
pub mod report;
pub mod rsync;
pub mod scale;
pub mod syncthing;
pub mod transfer;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use crate::daemons::Programs;

const USAGE: &str = "\
usage: bench SHAPE [--rounds N] [--seed N] [--limit SECONDS] [--source DIR] [--only NAME,NAME]
shapes: lan-large lan-small wan-large wan-small grid delta multi-source preempt limit latency hash publish
        netem [--mbit N] [--rtt-ms N] [--loss SHARE] [--check]   a link for programs started by hand
        scale [--versions N,N] ...       a catalog of so many versions; --held, --cgroup MIB and others
        watch [--versions N] ...         a tree of so many directories and files
        congestion grid|shares|loopback [ROUNDS] [CONTROLLER]    congestion controllers on one stream of raw quinn
Links are emulated with network namespaces: that needs root.";

/// What all shapes take.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often each contender has its turn.
    pub rounds: usize,
    /// Data is drawn from it.
    pub seed: u64,
    /// Whoever takes longer is left out.
    pub limit: Duration,
    /// Versions to publish instead of generated ones, where a shape can use them.
    pub source: Option<PathBuf>,
    /// The contenders beside ours, by the beginnings of their names; all when it is empty. Only the shapes that move one
    /// version from near to far know it.
    pub only: Vec<String>,
}

impl Options {
    /// Reads the arguments; nothing when they are wrong.
    fn read(args: &[String]) -> Option<Self> {
        let mut options = Self { rounds: 3, seed: 1, limit: transfer::LIMIT, source: None, only: Vec::new() };
        for pair in args.chunks(2) {
            let [name, value] = pair else { return None };
            match name.as_str() {
                "--rounds" => options.rounds = value.parse().ok().filter(|rounds| *rounds > 0)?,
                "--seed" => options.seed = value.parse().ok()?,
                "--limit" => options.limit = Duration::from_secs(value.parse().ok()?),
                "--source" => options.source = Some(value.into()),
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                _ => return None,
            }
        }
        Some(options)
    }
}

/// Runs what the arguments ask for, without the program's own name.
pub fn main(args: &[String]) -> ExitCode {
    let usage = || {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    };
    let Some((shape, args)) = args.split_first() else { return usage() };
    match shape.as_str() {
        "netem" => return crate::netem::command::run(args),
        "congestion" => return congestion::run(args),
        "scale" => return scale::run(args),
        "watch" => return scale::watch::run(args),
        "raw-quinn" => return raw_quinn::command(args),
        _ => {}
    }
    let Some(options) = Options::read(args) else { return usage() };
    match shape.as_str() {
        "latency" => latency::run(),
        "hash" => hash::run(&options),
        "delta" => delta::run(&options),
        "multi-source" => multi_source::run(&options),
        "preempt" => preempt::run(&options),
        "limit" => limit::run(&options),
        "publish" => publish::run(&options),
        _ => transfer::run(shape, &options).unwrap_or_else(usage),
    }
}

/// Makes this program answer to the names of the daemon and the command line, in a directory of its own.
pub fn programs(dir: &Path) -> Programs {
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
