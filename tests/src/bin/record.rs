//! Keeps what a node of this version writes and says, for the tests of later versions: `cargo run -p avalon-tests --bin record --
//! tests/data/recorded/VERSION`, once for each release. The directory must not be there yet.
//!
//! This program is also the daemon and the command line.

use std::{path::Path, process::ExitCode};

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    if let Some(code) = avalon_tests::daemons::by_name() {
        return code;
    }
    let args: Vec<String> = std::env::args().collect();
    let [_, to] = args.as_slice() else {
        eprintln!("which directory is it to be written to?");
        return ExitCode::from(2);
    };
    if Path::new(to).exists() {
        eprintln!("{to} is there already; a recording is never changed");
        return ExitCode::from(2);
    }
    let links = match tempfile::tempdir() {
        Ok(links) => links,
        Err(error) => {
            eprintln!("no directory for links to this program: {error}");
            return ExitCode::FAILURE;
        }
    };
    avalon_tests::recorded::record(avalon_tests::bench::programs(links.path()), Path::new(to));
    ExitCode::SUCCESS
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("this needs Linux");
    ExitCode::FAILURE
}
