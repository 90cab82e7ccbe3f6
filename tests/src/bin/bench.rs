//! Benchmarks with real daemons: `cargo run --release -p avalon-tests --bin bench -- SHAPE`.
//!
//! Each shape prints a table and, last, one line of JSON. Figures are medians, and ratios against a baseline that was
//! measured in the same run, alternating: the machine may be busy with other things.
//!
//! This program is also the daemon and the command line that it measures: started by one of their names, it is them.

use std::process::ExitCode;

use avalon_tests::bench;

fn main() -> ExitCode {
    let mut args = std::env::args();
    let name = args.next().unwrap_or_default();
    match name.rsplit('/').next() {
        Some("avalond") => avalond::command::main(),
        Some("avalonctl") => ExitCode::from(avalonctl::app::main().code()),
        _ => match args.next().as_deref() {
            Some("latency") => bench::latency::run(),
            #[cfg(target_os = "linux")]
            Some("netem") => avalon_tests::netem::command::run(&args.collect::<Vec<_>>()),
            _ => {
                eprintln!("usage: bench latency");
                ExitCode::from(2)
            }
        },
    }
}
