//! Whether anything is lost: `cargo run --release -p avalon-tests --bin reliability -- HARNESS`; without arguments it says which
//! there are. Each prints a line of JSON; the exit code is 1 when anything was wrong, which is told to standard error.
//!
//! This program is also the daemon, the command line and the tracer.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = avalon_tests::daemons::by_name() {
        return code;
    }
    let args: Vec<String> = std::env::args().collect();
    run(args.get(1..).unwrap_or_default())
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn run(args: &[String]) -> ExitCode {
    avalon_tests::reliability::command::main(args)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn run(_args: &[String]) -> ExitCode {
    eprintln!("this needs Linux on x86_64: it stops daemons at their system calls");
    ExitCode::FAILURE
}
