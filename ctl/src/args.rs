//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::command::{
    audit::AuditArgs,
    ca::CaArgs,
    cancel::CancelArgs,
    catalog::CatalogArgs,
    completions::CompletionsArgs,
    conflict::{ConflictsArgs, ResolveArgs},
    deliver::DeliverArgs,
    demo::DemoArgs,
    drop::DropArgs,
    feed::FeedArgs,
    fsck::FsckArgs,
    info::InfoArgs,
    ingest::IngestArgs,
    inputs::InputsArgs,
    invite::{InviteArgs, InvitesArgs},
    join::JoinArgs,
    lifetime::{AcceptArgs, RestoreArgs, RetireArgs},
    limit::LimitArgs,
    log::LogArgs,
    ls::LsArgs,
    node::NodeArgs,
    pin::{PinArgs, PinsArgs},
    policy::PolicyArgs,
    problems::ProblemsArgs,
    publish::PublishArgs,
    pull::PullArgs,
    queue::{PauseArgs, PrioArgs, QueueArgs, ResumeArgs},
    report::ReportArgs,
    reserve::ReserveArgs,
    service::ServiceArgs,
    status::StatusArgs,
    verify::VerifyArgs,
    wait::WaitArgs,
    where_is::WhereArgs,
    why::WhyArgs,
};

const AFTER_HELP: &str = "\
REF is [project:]asset/subset[/representation][@version]: robot/modelDefault, lantern:robot/modelDefault@v002.
The version is v012, 12, latest (when none is written) or hero; * and ? stand for any text and one character.

Environment:
  AVALONCTL_PROJECT  as --project; without it AVALON_PROJECT, which Avalon's launcher sets
  AVALONCTL_SOCKET   as --socket
  NO_COLOR           no colours

Exit codes: 0 done, 1 failed, 2 wrong command line, 3 part of it done, or published with problems, 4 nothing by
that name, 5 no daemon, 6 no holder can be reached, 7 disk full, 8 damaged or in conflict, 9 not allowed,
10 timed out (the job goes on), 130 interrupted. Any other code is a failure.";

/// Publish, find and fetch versions with Avalon sync.
#[derive(Debug, Parser)]
#[command(name = "avalonctl", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Returns the whole command line, for completions and documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Reads a time as people write it: `90s`, `30m`, `1h 30m`.
pub(crate) fn time_span(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    parsed.ok_or_else(|| "write a time with its unit, such as 90s, 30m or 1h 30m".to_owned())
}

/// What holds for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Answer in JSON: one object, or one per line for commands that take long, the summary last.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The project of references that name none.
    #[arg(long, global = true, value_name = "PROJECT")]
    pub(crate) project: Option<String>,
    /// The daemon's socket; by default a daemon of your own if it runs, else that of this machine.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Print results and errors only.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more about what is done.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Whether to use colours.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
    /// Show no progress.
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Record versions on disk as whole, so that other sites get them.
    Publish(PublishArgs),
    /// Fetch versions, and wait until they are here.
    Pull(PullArgs),
    /// Make a version of material from outside.
    Ingest(IngestArgs),
    /// Put versions into a package with checksums, for somebody who has no daemon.
    Deliver(DeliverArgs),
    /// Wait until versions are complete at a site.
    Wait(WaitArgs),
    /// List versions.
    Ls(LsArgs),
    /// Show which nodes have a version.
    Where(WhereArgs),
    /// Say why a version is here, is not, or is not yet.
    Why(WhyArgs),
    /// Show all that is known about a version.
    Info(InfoArgs),
    /// Show what versions were made from.
    Inputs(InputsArgs),
    /// Show what is wrong with versions: missing frames, broken files, names that break elsewhere.
    Problems(ProblemsArgs),
    /// Take versions out of use; nothing is removed.
    Retire(RetireArgs),
    /// Bring versions back, or put back what was changed in place here.
    Restore(RestoreArgs),
    /// Let files that were changed in place here be the next generation of their version.
    Accept(AcceptArgs),
    /// List versions of which sites published different content.
    Conflicts(ConflictsArgs),
    /// Decide which content keeps the number of a version.
    Resolve(ResolveArgs),
    /// Ask for a version number that nobody else publishes under.
    Reserve(ReserveArgs),
    /// Show how the daemon is, its peers and its jobs.
    Status(StatusArgs),
    /// Add up what was published and transferred.
    Report(ReportArgs),
    /// Show what happens.
    Log(LogArgs),
    /// Show what is coming, in its order.
    Queue(QueueArgs),
    /// Stop jobs, or all fetching at this node, and keep what came.
    Pause(PauseArgs),
    /// Let what is paused go on.
    Resume(ResumeArgs),
    /// Let jobs come sooner or later.
    Prio(PrioArgs),
    /// Give up a job.
    Cancel(CancelArgs),
    /// Free the room that versions take here, once other sites have proved that they have them.
    Drop(DropArgs),
    /// Read what is here again, all of it, to find what the disk damaged.
    Verify(VerifyArgs),
    /// Let versions stay here, whatever room is needed.
    Pin(PinArgs),
    /// Let versions go again when room is needed.
    Unpin(PinArgs),
    /// Show what is pinned here.
    Pins(PinsArgs),
    /// Show, set or clear limits on what is sent and received.
    Limit(LimitArgs),
    /// Check what the studio says about what goes where.
    Policy(PolicyArgs),
    /// Check, show or export who did what.
    Audit(AuditArgs),
    /// Show the feeds that the daemon keeps, and decide about those with two histories.
    Feed(FeedArgs),
    /// Check all that the daemon keeps on disk, also while it does not run, and say what mends it.
    Fsck(FsckArgs),
    /// Check, rebuild, export or import the daemon's catalog.
    Catalog(CatalogArgs),
    /// Let a machine join the studio: print the token that it joins with.
    Invite(InviteArgs),
    /// List the invites of this node.
    Invites(InvitesArgs),
    /// See who belongs to the studio and may do what; take a node out of it.
    Node(NodeArgs),
    /// Make this machine a node of the studio that invited it.
    Join(JoinArgs),
    /// Make the studio's certificate authority and issue identities to nodes.
    Ca(CaArgs),
    /// Install avalond as a systemd service.
    Service(ServiceArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Show it all on this machine: three sites of real daemons in a temporary directory.
    Demo(DemoArgs),
}
