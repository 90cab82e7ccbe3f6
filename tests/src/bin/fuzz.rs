//! Runs the decoders of peers' bytes on mutated and made-up inputs: `cargo run --release -p avalon-tests --bin fuzz --
//! [--target NAME] [--seconds 600] [--seed N] [--keep]`. Prints a line for people to standard error and one line of JSON for each
//! target; `--keep` replaces the corpus in `tests/data/fuzz` by what was found. A broken promise is printed with its input and
//! makes the exit code 1. `--renew-studio` makes the certificates anew that the corpus is about.

use std::{fs, process::ExitCode, time::Duration};

use avalon_tests::fuzz::{Campaign, Meter, TARGETS, Target, corpus, studio};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

struct Counted;

impl Meter for Counted {
    fn now(&self) -> usize {
        MEMORY.current_usage()
    }
    fn peak(&self) -> usize {
        MEMORY.peak_usage()
    }
    fn reset(&self) {
        MEMORY.reset_peak_usage();
    }
}

struct Options {
    targets: Vec<Target>,
    seconds: u64,
    seed: u64,
    keep: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { targets: TARGETS.to_vec(), seconds: 10, seed: 1, keep: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--keep" {
            options.keep = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{name} needs a number, not {value}"));
        match name.as_str() {
            "--target" => options.targets = vec![target(&value)?],
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            _ => return Err(format!("{name} is not known; there are --target, --seconds, --seed, --keep")),
        }
    }
    Ok(options)
}

fn target(name: &str) -> Result<Target, String> {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    let names = || TARGETS.map(|target| target.name).join(", ");
    found.ok_or_else(|| format!("{name} is no target; there are {}", names()))
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--renew-studio") {
        return match studio::renew() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error.to_string()),
        };
    }
    let options = match options() {
        Ok(options) => options,
        Err(error) => return failed(&error),
    };
    // A panic is caught, counted and printed with its input; the message alone helps nobody.
    std::panic::set_hook(Box::new(|_| {}));
    let mut code = ExitCode::SUCCESS;
    for target in &options.targets {
        if let Err(error) = run(target, &options) {
            code = failed(&error);
        }
    }
    code
}

fn run(target: &Target, options: &Options) -> Result<(), String> {
    let kept = corpus::read(target.name).map_err(|error| error.to_string())?;
    let mut campaign =
        Campaign::new(target, options.seed, kept, &Counted).map_err(|broken| broken.to_string())?;
    let broken = campaign.run(Duration::from_secs(options.seconds));
    let mut figures = campaign.figures();
    figures.violations = u64::from(broken.is_err());
    eprintln!(
        "{}: {} inputs in {} s, {} refused, {} accepted, {} outcomes, most memory {} KiB for an input of {} bytes, \
         slowest {} ms, peak RSS {} MiB, {} broken promises",
        figures.target,
        figures.inputs,
        figures.seconds,
        figures.refused,
        figures.accepted,
        figures.outcomes,
        figures.most_bytes >> 10,
        figures.most_bytes_input,
        figures.slowest_ms,
        peak_rss_mib(),
        figures.violations,
    );
    println!("{}", serde_json::to_string(&figures).map_err(|error| error.to_string())?);
    broken.map_err(|broken| broken.to_string())?;
    if options.keep {
        corpus::write(target.name, &campaign.corpus()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Returns the most memory that this process had, zstd's included, which the allocator here does not see.
fn peak_rss_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) >> 10
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("{reason}");
    ExitCode::FAILURE
}
