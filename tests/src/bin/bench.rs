//! Benchmarks with real daemons: `cargo run --release -p avalon-tests --bin bench -- SHAPE`.
//!
//! Each shape prints a table and, last, one line of JSON. Figures are medians, and ratios against a baseline that was
//! measured in the same run, alternating: the machine may be busy with other things.
//!
//! This program is also the daemon and the command line that it measures: started by one of their names, it is them.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    avalon_tests::daemons::by_name().unwrap_or_else(|| avalon_tests::bench::main(&args))
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("the benchmarks need Linux: they emulate links with network namespaces");
    ExitCode::from(2)
}
