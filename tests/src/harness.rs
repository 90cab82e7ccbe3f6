//! Runs seeds, checks that they replay, and says how to replay a failure.

use std::{collections::BTreeMap, ops::Range, path::Path};

use crate::{
    event_log::Recording,
    shrink::{Kept, Smallest, shrink},
    world::{self, Failure, Report, Run},
    year,
};

/// One seed in this many is run twice: the traces must be the same.
const REPLAY_EVERY: u64 = 50;

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Simulation {
    /// Minutes of a studio: records and files on their way, [`crate::world`].
    Catalogs,
    /// A year of it: policies and room, [`crate::year`].
    Year,
}

impl Simulation {
    /// Runs a seed to its end.
    ///
    /// # Errors
    /// [`Failure`] at the first broken promise.
    pub fn run(self, seed: u64, recording: Recording) -> Result<Report, Box<Failure>> {
        match self {
            Self::Catalogs => world::run(seed, recording),
            Self::Year => year::run(seed, recording, None),
        }
    }

    /// Returns the name of its test.
    fn test(self) -> &'static str {
        match self {
            Self::Catalogs => "sim_catalogs_converge",
            Self::Year => "sim_studio_year",
        }
    }
}

/// What many seeds were like.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many seeds ran.
    pub seeds: u64,
    /// Their steps together.
    pub steps: u64,
    /// The longest time to convergence in virtual milliseconds.
    pub slowest_ms: u64,
    /// How often each kind of thing happened in all of them.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        let Report { steps, converged_after_ms, counts, .. } = report.clone();
        self.merge(&Self { seeds: 1, steps, slowest_ms: converged_after_ms, counts });
    }

    /// Adds other runs.
    pub fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        for (name, count) in &other.counts {
            *self.counts.entry(name).or_default() += count;
        }
    }
}

/// Runs seeds one after the other.
///
/// # Errors
/// The text of the first failure: what broke, where the log is, how to replay it.
pub fn run_seeds(simulation: Simulation, seeds: Range<u64>, log_dir: &Path) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for seed in seeds {
        summary.add(&run_seed(simulation, seed, log_dir)?);
    }
    Ok(summary)
}

/// Runs one of `shares` equal shares of the seeds from 0 to `seeds`, and checks what they were like. `AVALON_SEEDS` says how many
/// instead; with `AVALON_SEED` only that seed is run, in its share, and printed; of it, only the pieces that `AVALON_KEEP` names.
///
/// # Panics
/// When a promise is broken, or a variable is not a number.
pub fn run_share(
    simulation: Simulation,
    (index, shares): (u64, u64),
    seeds: u64,
    log_dir: &Path,
    check: impl FnOnce(&Summary),
) {
    let result = match number("AVALON_SEED") {
        Some(seed) if seed % shares != index => return,
        Some(seed) => match std::env::var("AVALON_KEEP") {
            Ok(kept) => kept.parse().and_then(|kept| replay(seed, kept, log_dir)),
            Err(_) => run_seed(simulation, seed, log_dir),
        }
        .map(|report| println!("{report:#?}")),
        None => {
            let seeds = number("AVALON_SEEDS").unwrap_or(seeds).div_ceil(shares);
            run_seeds(simulation, index * seeds..(index + 1) * seeds, log_dir).map(|summary| check(&summary))
        }
    };
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Runs one seed, some of them twice.
///
/// # Errors
/// The text of the failure.
pub fn run_seed(simulation: Simulation, seed: u64, log_dir: &Path) -> Result<Report, String> {
    let report = simulation
        .run(seed, Recording::HashOnly)
        .map_err(|failure| explain(simulation, &failure, log_dir))?;
    if seed.is_multiple_of(REPLAY_EVERY) {
        let again = simulation
            .run(seed, Recording::Full)
            .map_err(|failure| explain(simulation, &failure, log_dir))?;
        if again != report {
            return Err(format!("seed {seed} ran twice and differed: {report:?}, then {again:?}"));
        }
    }
    Ok(report)
}

/// Tells what is left of the story of a seed, with a full log of it.
///
/// # Errors
/// The text of the failure.
pub fn replay(seed: u64, kept: Kept, log_dir: &Path) -> Result<Report, String> {
    let run = Run { keep: Some(kept), ..Run::new(seed) };
    world::tell(&run, Recording::Full)
        .map_err(|failure| format!("{}\n{}", broke(&failure), written(&failure, log_dir)))
}

fn broke(failure: &Failure) -> String {
    format!(
        "seed {} broke the promise `{}` at step {} ({} ms): {}",
        failure.seed, failure.violation.invariant, failure.step, failure.at_ms, failure.violation.detail
    )
}

/// Writes the log of a failure and says where.
fn written(failure: &Failure, log_dir: &Path) -> String {
    let file = log_dir.join(format!("sim-{}.jsonl", failure.seed));
    failure.log.write(&file).map_or_else(
        |error| format!("the log could not be written to {}: {error}", file.display()),
        |()| format!("every step is in {}", file.display()),
    )
}

/// Runs the failed seed again with a full log, writes the log and says everything that a person needs.
fn explain(simulation: Simulation, failure: &Failure, log_dir: &Path) -> String {
    let seed = failure.seed;
    let written = match simulation.run(seed, Recording::Full) {
        Err(again) => written(&again, log_dir),
        Ok(_) => {
            "the same seed then ran without failure: the simulation itself is not deterministic".to_owned()
        }
    };
    let test = simulation.test();
    let replay = format!("replay: AVALON_SEED={seed} cargo test -p avalon-tests --test {test}");
    let smallest = match simulation {
        Simulation::Catalogs => shrink(&Run::new(seed)).map(|smallest| tell_smallest(&smallest)),
        Simulation::Year => None,
    };
    [Some(broke(failure)), Some(written), Some(replay), smallest]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n")
}

/// Says what is left of a story that was shrunk, and how to run that.
pub fn tell_smallest(smallest: &Smallest) -> String {
    let Smallest { run, failure, runs } = smallest;
    let kept = run.keep.clone().unwrap_or_default();
    let story = run.told().words().join("\n    ");
    format!(
        "the smallest story of {runs} that still does:\n    {story}\n    {}\nreplay it: AVALON_SEED={seed} \
         AVALON_KEEP={kept} cargo test -p avalon-tests --test sim_catalogs_converge, or --bin sim -- --seed {seed} \
         --keep {kept}",
        broke(failure),
        seed = run.seed,
    )
}
