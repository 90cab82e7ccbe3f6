//! Attacks a daemon while an honest peer pulls from it: `cargo run --release -p avalon-tests --bin hostile -- [--rounds 5]
//! [--mib 512] [--half-open 1000] [--short] [--verbose]`. Prints a table for people to standard error and one line of JSON. The
//! exit code is 1 when the honest peer kept less than 80 % of its throughput, a daemon had too much memory, or something was
//! written beside the roots. `--short` leaves the throughput out of it.
//!
//! This program is also the daemon, the command line and the attacker.

use std::{path::Path, process::ExitCode};

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    if let Some(code) = avalon_tests::daemons::by_name() {
        return code;
    }
    let args: Vec<String> = std::env::args().collect();
    if let [_, attack, plan, counts] = args.as_slice()
        && attack == "attack"
    {
        let ended = avalon_tests::hostile::attack::main(Path::new(plan), Path::new(counts));
        return ended.unwrap_or_else(|error| failed(&error.to_string()));
    }
    match run(args.get(1..).unwrap_or_default()) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

#[cfg(target_os = "linux")]
fn run(args: &[String]) -> Result<ExitCode, String> {
    use avalon_tests::{bench, hostile};

    let mut options = hostile::Options { rounds: 5, mib: 512, half_open: 1000, verbose: false };
    let (mut short, mut args) = (false, args.iter());
    while let Some(name) = args.next() {
        match name.as_str() {
            "--short" => short = true,
            "--verbose" => options.verbose = true,
            "--rounds" | "--mib" | "--half-open" => {
                let value = args.next().ok_or_else(|| format!("{name} needs a number"))?;
                let number: u32 = value.parse().map_err(|_| format!("{name} needs a number, not {value}"))?;
                match name.as_str() {
                    "--rounds" => options.rounds = (number as usize).max(1),
                    "--mib" => options.mib = u64::from(number).max(1),
                    _ => options.half_open = number as usize,
                }
            }
            _ => {
                return Err(format!(
                    "{name} is not known; there are --rounds, --mib, --half-open, --short, --verbose"
                ));
            }
        }
    }
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let report = hostile::run(bench::programs(dir.path()), &me, &options);
    eprintln!(
        "honest peer alone {:.0} MiB/s, attacked {:.0} MiB/s: {:.2}; attacked daemon {} MiB at most ({} before), honest one \
         {} MiB; canary unchanged: {}",
        report.alone_mib_s,
        report.attacked_mib_s,
        report.share,
        report.rss_mib,
        report.rss_before_mib,
        report.honest_rss_mib,
        report.canary_unchanged,
    );
    println!("{}", serde_json::to_string(&report).map_err(|error| error.to_string())?);
    let faults = report.faults(!short);
    for fault in &faults {
        eprintln!("{fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    failed("this needs Linux: it reads the memory of processes from /proc")
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("{reason}");
    ExitCode::FAILURE
}
