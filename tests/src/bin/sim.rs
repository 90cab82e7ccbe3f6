//! Runs many seeds of the simulated studio: `cargo run --release -p avalon-tests --bin sim -- [--year] --seeds 20000
//! [--from N] [--jobs N]`; with `--year`, studio years. Prints one line of JSON; a broken promise is printed to standard error
//! and makes the exit code 1. `--wrong NAME` runs years in a wrong way of `tests/src/year/mutation.rs` and prints the seeds
//! that notice it.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use avalon_tests::{
    event_log::Recording,
    harness::{Simulation, Summary, run_seed},
    year::{self, mutation::Mutation},
};

/// What the command line asks for.
struct Options {
    simulation: Simulation,
    seeds: u64,
    from: u64,
    jobs: u64,
    wrong: Option<Mutation>,
}

fn options() -> Result<Options, String> {
    let mut options =
        Options { simulation: Simulation::Catalogs, seeds: 1000, from: 0, jobs: 1, wrong: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--year" {
            options.simulation = Simulation::Year;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a number"))?;
        if name == "--wrong" {
            let way = Mutation::ALL.into_iter().find(|way| format!("{way:?}") == value);
            options.wrong =
                Some(way.ok_or_else(|| format!("{value} is no wrong way; there are {:?}", Mutation::ALL))?);
            continue;
        }
        let number = value.parse().map_err(|_| format!("{name} needs a number, not {value}"))?;
        match name.as_str() {
            "--seeds" => options.seeds = number,
            "--from" => options.from = number,
            "--jobs" => options.jobs = number.max(1),
            _ => {
                return Err(format!(
                    "{name} is not known; there are --year, --seeds, --from, --jobs and --wrong"
                ));
            }
        }
    }
    Ok(options)
}

/// Takes the next seed until there are none; returns what its seeds were like and how many failed.
fn work(simulation: Simulation, next: &AtomicU64, end: u64) -> (Summary, u64) {
    let (mut summary, mut bad) = (Summary::default(), 0);
    let log_dir = std::env::temp_dir();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return (summary, bad);
        }
        match run_seed(simulation, seed, &log_dir) {
            Ok(report) => summary.add(&report),
            Err(failure) => {
                eprintln!("{failure}");
                bad += 1;
            }
        }
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    if let Some(wrong) = options.wrong {
        for seed in options.from..options.from + options.seeds {
            if let Err(failure) = year::run(seed, Recording::HashOnly, Some(wrong)) {
                println!("{wrong:?}: seed {seed}, {}", failure.violation.invariant);
            }
        }
        return ExitCode::SUCCESS;
    }
    let (next, end) = (AtomicU64::new(options.from), options.from + options.seeds);
    #[expect(
        clippy::disallowed_methods,
        reason = "the speed of the simulation itself is measured in real time"
    )]
    let started = Instant::now();
    let results: Vec<(Summary, u64)> = thread::scope(|scope| {
        let jobs: Vec<_> =
            (0..options.jobs).map(|_| scope.spawn(|| work(options.simulation, &next, end))).collect();
        jobs.into_iter().map(|job| job.join().expect("a job does not panic")).collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    let mut total = Summary::default();
    results.iter().for_each(|(summary, _)| total.merge(summary));
    let bad: u64 = results.iter().map(|(_, bad)| bad).sum();
    let line = serde_json::json!({
        "from": options.from, "seeds": options.seeds, "ok": total.seeds, "bad": bad, "steps": total.steps,
        "slowest_convergence_ms": total.slowest_ms, "seconds": seconds,
        "seeds_per_second": options.seeds as f64 / seconds, "counts": total.counts,
    });
    println!("{line}");
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
