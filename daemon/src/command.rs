//! The command line of `avalond`.

use std::{path::PathBuf, process::ExitCode};

use avalon_protocol::exit_code::ExitCode as Code;
use clap::{Parser, Subcommand};

use crate::{
    app,
    config::{Config, ConfigError},
    fsck::{self, FsckArgs},
    join::command::{self as join, JoinArgs},
    log::{self, ErrorChain},
};

/// Avalon sync's daemon: notices publishes and brings versions to the sites that want them.
#[derive(Debug, Parser)]
#[command(name = "avalond", version)]
struct Args {
    /// The configuration file.
    #[arg(long, env = "AVALOND_CONFIG", default_value = "/etc/avalond/avalond.toml")]
    config: PathBuf,
    /// Check the configuration, say what is wrong with it, and stop; nothing is bound, opened or written.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the program does instead of serving.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make this machine a node of a studio; `avalonctl join` runs this.
    #[command(hide = true)]
    Join(Box<JoinArgs>),
    /// Check all that the state directory holds, and change nothing; `avalonctl fsck` runs this.
    #[command(hide = true)]
    Fsck(FsckArgs),
}

/// Runs the daemon as the command line says.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Join(join)) = &args.command {
        return join::main(join);
    }
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if let Some(Command::Fsck(fsck_args)) = &args.command {
        return fsck::main(&config, fsck_args).unwrap_or_else(|error| {
            fail(&format!("avalond: cannot check: {error:#}"));
            ExitCode::from(code_of(&error).code())
        });
    }
    if args.check_config {
        let projects = match config.projects.len() {
            1 => "1 project".to_owned(),
            count => format!("{count} projects"),
        };
        say(&format!("{}: ok, {projects}", args.config.display()));
        return ExitCode::SUCCESS;
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain once, to whoever started the daemon, whatever the log level.
            fail(&format!("avalond: cannot start: {error:#}"));
            ExitCode::from(code_of(&error).code())
        }
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    fail(&format!("avalond: {}", ErrorChain(error)));
    ExitCode::from(Code::Usage.code())
}

/// Says what is wrong; in the journal, as an error.
fn fail(line: &str) {
    let priority = if log::stderr_is_the_journal() { "<3>" } else { "" };
    say(&format!("{priority}{line}"));
}

#[expect(clippy::print_stderr, reason = "the process has no log yet, or ends with this line")]
fn say(line: &str) {
    eprintln!("{line}");
}

fn run(config: Config) -> anyhow::Result<()> {
    let log = log::init(&config.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(app::run(config, log));
    // Work that waits for a disk may hang for ever; the process does not.
    runtime.shutdown_background();
    ended
}

/// Returns the exit code for what prevented the start.
fn code_of(error: &anyhow::Error) -> Code {
    if error.downcast_ref::<avalon_certs::IdentityError>().is_some() {
        return Code::Denied;
    }
    let full = |io: &avalon_store::fs::IoError| io.is_no_space();
    match error.chain().find_map(|cause| cause.downcast_ref::<avalon_store::fs::IoError>()) {
        Some(io) if full(io) => Code::DiskFull,
        _ => Code::Error,
    }
}
