//! The `avalonctl` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(avalonctl::app::main().code())
}
