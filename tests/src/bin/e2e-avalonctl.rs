//! The command line, built with the tests so that they find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(avalonctl::app::main().code())
}
