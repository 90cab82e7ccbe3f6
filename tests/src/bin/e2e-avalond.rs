//! The daemon, built with the tests so that they find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    avalond::command::main()
}
