//! `avalond`: the daemon's executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    avalond::command::main()
}
