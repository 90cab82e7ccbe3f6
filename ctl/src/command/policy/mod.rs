//! `avalonctl policy`: what the studio says about what goes where.

mod check;

use avalon_protocol::exit_code::ExitCode;
use clap::{Args, Subcommand};

use self::check::CheckArgs;
use crate::{context::Context, failure::Failure};

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    action: PolicyAction,
}

#[derive(Debug, Subcommand)]
enum PolicyAction {
    /// Check a document, and show every problem with its line. Works without a daemon.
    Check(CheckArgs),
}

/// Works on the policy.
pub(crate) fn run(context: &Context<'_>, args: &PolicyArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        PolicyAction::Check(args) => check::run(context, args),
    }
}
