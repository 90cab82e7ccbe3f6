//! What a harness came to.
#![expect(clippy::disallowed_methods, reason = "how long a harness takes is real time")]

use std::{
    any::Any,
    collections::BTreeMap,
    env,
    panic::{self, AssertUnwindSafe},
    process::Command,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

/// What a harness came to; one line of JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Which harness, with what it was asked for.
    pub harness: String,
    /// The arguments that it was started with.
    pub arguments: String,
    /// The version of the product, and the commit in the directory where this runs.
    pub version: String,
    /// When it began, in seconds since 1970.
    pub begun: u64,
    /// The seed of all runs.
    pub seed: u64,
    /// How many studios met a fault.
    pub runs: u64,
    /// In how many of them something was wrong.
    pub bad: u64,
    /// How many faults there were, by kind.
    pub faults: BTreeMap<String, u64>,
    /// The most steps that a run had, where steps are counted; of a full disk, how many bytes the scenario takes.
    pub steps: u64,
    /// How many files the verifier read.
    pub files: u64,
    /// How many records.
    pub records: u64,
    /// How long it took.
    pub seconds: f64,
    /// How long it took until the victim answered again, where that is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back: Option<Back>,
    /// What else was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<serde_json::Value>,
    #[serde(skip)]
    clock: Option<Instant>,
}

/// In milliseconds from the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Back {
    /// Half of them took no longer.
    pub median_ms: u64,
    /// None took longer.
    pub max_ms: u64,
}

impl Back {
    /// Takes them from all times; none when there are none.
    pub fn of(mut times: Vec<u64>) -> Option<Self> {
        times.sort_unstable();
        Some(Self { median_ms: *times.get(times.len() / 2)?, max_ms: *times.last()? })
    }
}

/// What one run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The fault, as `kill Rename`; none when it never came to it.
    pub fault: Option<String>,
    /// Those of a run that meets many, by kind.
    pub faults: BTreeMap<String, u64>,
    /// How many files the verifier read.
    pub files: u64,
    /// How many records.
    pub records: u64,
}

impl Report {
    /// Begins.
    pub fn new(harness: String, seed: u64) -> Self {
        Self {
            harness,
            arguments: env::args().skip(1).collect::<Vec<_>>().join(" "),
            version: version(),
            begun: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            seed,
            runs: 0,
            bad: 0,
            faults: BTreeMap::new(),
            steps: 0,
            files: 0,
            records: 0,
            seconds: 0.0,
            back: None,
            figures: None,
            clock: Some(Instant::now()),
        }
    }

    /// Takes the time so far for all of it.
    pub fn stop(&mut self) {
        self.seconds = self.clock.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
    }

    /// Plays a run; what goes wrong in it is printed and counted. Returns what it came to, if it came to an end.
    pub fn run(&mut self, name: &str, play: impl FnOnce() -> Result<Outcome, String>) -> Option<Outcome> {
        self.runs += 1;
        let played = panic::catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| Err(words(&*panic)));
        self.stop();
        match played {
            Ok(outcome) => {
                self.files += outcome.files;
                self.records += outcome.records;
                let one = outcome.fault.iter().map(|fault| (fault, &1));
                for (fault, times) in one.chain(&outcome.faults) {
                    *self.faults.entry(fault.clone()).or_default() += times;
                }
                Some(outcome)
            }
            Err(why) => {
                self.bad += 1;
                eprintln!("BAD {} {name}: {why}", self.harness);
                None
            }
        }
    }
}

/// The version of the product with the commit, `-dirty` when files were changed since.
fn version() -> String {
    let product = env!("CARGO_PKG_VERSION");
    let described = Command::new("git").args(["describe", "--always", "--dirty", "--exclude", "*"]).output();
    let commit = described.ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    commit.map_or_else(|| product.to_owned(), |commit| format!("{product}+{}", commit.trim()))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
