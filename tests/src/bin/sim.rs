//! Runs many seeds of the simulated studio: `cargo run --release -p avalon-tests --bin sim -- [--year] --seeds 20000
//! [--from N] [--jobs N] [--ledger FILE] [--small]`; with `--year`, studio years, with `--small` only those seeds whose studio
//! has 3 nodes, as few as there are. Prints one line of JSON, which `--ledger` also appends to
//! a file; a broken promise is printed to standard error and makes the exit code 1. `--seed N` runs one seed, and with `--keep
//! 0,3-5` only these pieces of its story. `--wrong NAME` runs seeds in a wrong way of `tests/src/mutation.rs`, or with `--year` of
//! `tests/src/year/mutation.rs`, and prints which notice it; of the former with the smallest story.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use avalon_tests::{
    event_log::Recording,
    harness::{Simulation, Summary, replay, run_seed, tell_smallest},
    mutation::Mutation,
    report::Report,
    shrink::{Kept, shrink},
    world::Run,
    year,
};

/// How many nodes the smallest studios have.
const SMALLEST: usize = 3;

/// What the command line asks for.
struct Options {
    simulation: Simulation,
    seeds: u64,
    from: u64,
    jobs: u64,
    seed: Option<u64>,
    keep: Option<Kept>,
    small: bool,
    wrong: Option<String>,
    ledger: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        simulation: Simulation::Catalogs,
        seeds: 1000,
        from: 0,
        jobs: 1,
        seed: None,
        keep: None,
        small: false,
        wrong: None,
        ledger: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--year" {
            options.simulation = Simulation::Year;
            continue;
        }
        if name == "--small" {
            options.small = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} needs a number, not {value}"));
        match name.as_str() {
            "--wrong" => options.wrong = Some(value),
            "--keep" => options.keep = Some(value.parse()?),
            "--ledger" => options.ledger = Some(value.into()),
            "--seed" => options.seed = Some(number()?),
            "--seeds" => options.seeds = number()?,
            "--from" => options.from = number()?,
            "--jobs" => options.jobs = number()?.max(1),
            _ => {
                return Err(format!(
                    "{name} is not known; there are --year, --small, --seeds, --from, --jobs, --ledger, --seed, \
                     --keep and --wrong"
                ));
            }
        }
    }
    if options.keep.is_some() && (options.seed.is_none() || options.simulation == Simulation::Year) {
        return Err("--keep names pieces of the story of one --seed, and not of a year".to_owned());
    }
    if options.small
        && (options.seed.is_some() || options.wrong.is_some() || options.simulation == Simulation::Year)
    {
        return Err("--small chooses among many seeds of the studio, and not of a year".to_owned());
    }
    Ok(options)
}

/// Runs seeds in a wrong way and prints which of them notice it.
fn run_wrong(options: &Options, name: &str) -> Result<(), String> {
    let seeds = options.from..options.from + options.seeds;
    if options.simulation == Simulation::Year {
        let ways = year::mutation::Mutation::ALL;
        let way = ways.into_iter().find(|way| format!("{way:?}") == name);
        let way = way.ok_or_else(|| format!("{name} is no wrong way; there are {ways:?}"))?;
        for seed in seeds {
            if let Err(failure) = year::run(seed, Recording::HashOnly, Some(way)) {
                println!("{way:?}: seed {seed}, {}", failure.violation.invariant);
            }
        }
        return Ok(());
    }
    let way = Mutation::ALL.into_iter().find(|way| format!("{way:?}") == name);
    let way = way.ok_or_else(|| format!("{name} is no wrong way; there are {:?}", Mutation::ALL))?;
    for seed in seeds {
        if let Some(smallest) = shrink(&Run { wrong: Some(way), ..Run::new(seed) }) {
            println!("{way:?}: seed {seed}, {}", tell_smallest(&smallest));
        }
    }
    Ok(())
}

/// Runs one seed, or some pieces of its story.
fn run_one(options: &Options, seed: u64) -> Result<(), String> {
    let log_dir = std::env::temp_dir();
    let report = match &options.keep {
        Some(kept) => replay(seed, kept.clone(), &log_dir)?,
        None => run_seed(options.simulation, seed, &log_dir)?,
    };
    println!("{report:#?}");
    Ok(())
}

/// Appends a line to the ledger.
fn append(ledger: &Path, report: &Report) -> Result<(), String> {
    let line = serde_json::to_string(report).map_err(|error| error.to_string())?;
    let file = OpenOptions::new().append(true).create(true).open(ledger);
    let appended = file.and_then(|mut file| writeln!(file, "{line}"));
    appended.map_err(|error| format!("cannot append to {}: {error}; the line is {line}", ledger.display()))
}

/// Takes the next seed until there are none; returns what its seeds were like and how many failed.
fn work(options: &Options, next: &AtomicU64, end: u64) -> (Summary, u64) {
    let (mut summary, mut bad) = (Summary::default(), 0);
    let log_dir = std::env::temp_dir();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return (summary, bad);
        }
        if options.small && Run::new(seed).scenario().nodes.len() > SMALLEST {
            continue;
        }
        match run_seed(options.simulation, seed, &log_dir) {
            Ok(report) => summary.add(&report),
            Err(failure) => {
                eprintln!("{failure}");
                bad += 1;
            }
        }
    }
}

/// Runs all seeds and says what they came to.
fn run_all(options: &Options) -> Result<(), String> {
    let (next, end) = (AtomicU64::new(options.from), options.from + options.seeds);
    let name = match (options.simulation, options.small) {
        (Simulation::Catalogs, false) => "simulation",
        (Simulation::Catalogs, true) => "simulation, studios of 3 nodes",
        (Simulation::Year, _) => "simulated years",
    };
    let mut report = Report::new(name.to_owned(), options.from);
    let results: Vec<(Summary, u64)> = thread::scope(|scope| {
        let jobs: Vec<_> = (0..options.jobs).map(|_| scope.spawn(|| work(options, &next, end))).collect();
        jobs.into_iter().map(|job| job.join().expect("a job does not panic")).collect()
    });
    let mut total = Summary::default();
    results.iter().for_each(|(summary, _)| total.merge(summary));
    report.stop();
    report.bad = results.iter().map(|(_, bad)| bad).sum();
    (report.runs, report.steps) = (total.seeds + report.bad, total.steps);
    report.faults = total.counts.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect();
    let rate = report.runs as f64 / report.seconds;
    let line = serde_json::json!({
        "report": report, "seeds_per_second": rate, "slowest_convergence_ms": total.slowest_ms,
    });
    println!("{line}");
    options.ledger.iter().try_for_each(|ledger| append(ledger, &report))?;
    if report.bad == 0 { Ok(()) } else { Err(format!("{} seeds broke a promise", report.bad)) }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let done = match (&options.wrong, options.seed) {
        (Some(name), _) => run_wrong(&options, name),
        (None, Some(seed)) => run_one(&options, seed),
        (None, None) => run_all(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
