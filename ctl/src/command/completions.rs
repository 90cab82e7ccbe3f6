//! `avalonctl completions SHELL`.

use avalon_protocol::exit_code::ExitCode;
use clap::Args;
use clap_complete::Shell;

use crate::{args, context::Context};

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the completions.
pub(crate) fn run(context: &Context<'_>, args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "avalonctl", &mut script);
    context.output.bytes(&script);
    ExitCode::Ok
}
