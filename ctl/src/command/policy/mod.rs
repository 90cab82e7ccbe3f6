//! `avalonctl policy`: what the studio says about what goes where.

mod apply;
mod check;
mod diff;
mod history;
mod show;

use avalon_protocol::{control::PolicyItem, exit_code::ExitCode};
use clap::{Args, Subcommand};

use self::{apply::ApplyArgs, check::CheckArgs, diff::DiffArgs, show::ShowArgs};
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
    /// Say what a document would change: what would be copied where, what could be freed, what would have too few copies.
    Diff(DiffArgs),
    /// Make a document the policy of the whole studio.
    Apply(ApplyArgs),
    /// Show the policy that stands.
    Show(ShowArgs),
    /// List all policies that were applied.
    History,
}

/// Works on the policy.
pub(crate) async fn run(context: &Context<'_>, args: PolicyArgs) -> Result<ExitCode, Failure> {
    match args.action {
        PolicyAction::Check(args) => check::run(context, &args),
        PolicyAction::Diff(args) => diff::run(context, &args).await,
        PolicyAction::Apply(args) => apply::run(context, args).await,
        PolicyAction::Show(args) => show::run(context, &args).await,
        PolicyAction::History => history::run(context).await,
    }
}

/// Says what a policy is to the daemon that was asked.
fn state(policy: &PolicyItem) -> &'static str {
    match (policy.stands, policy.in_effect, policy.understood) {
        (true, true, _) => "in effect",
        (true, false, _) => "stands, not in effect here",
        (false, true, _) => "replaced, still in effect here",
        (false, false, true) => "replaced",
        (false, false, false) => "replaced, not understood here",
    }
}

#[cfg(test)]
mod fixture {
    use avalon_protocol::control::{PolicyItem, PolicyReply};

    /// A policy that anna applied in london.
    pub(super) fn item(serial: u64) -> PolicyItem {
        PolicyItem {
            serial,
            hash: "ab".repeat(32),
            bytes: 20,
            author: "anna".into(),
            comment: "nights".into(),
            node: "srv@london".into(),
            applied: "2026-11-22T10:00:00Z".into(),
            stands: true,
            in_effect: true,
            understood: true,
        }
    }

    pub(super) fn reply(serial: u64) -> PolicyReply {
        PolicyReply {
            schema: "avalonctl.policy-show/1".into(),
            policy: item(serial),
            document: "# nights\nkeep = \"\u{1b}[2J\"\n".into(),
            problem: None,
            in_effect: Some(serial),
        }
    }
}
