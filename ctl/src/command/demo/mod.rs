//! `avalonctl demo`: all of it on one machine, with real daemons: a studio of three sites in a temporary directory.
//!
//! A show is put into london's project. montreal mirrors it by itself, is killed in mid-transfer and comes back; home pulls
//! one version. At the end every file is compared. Nothing outside the temporary directory is touched, and no process is left
//! behind.

mod compare;
mod node;
mod show;
mod story;
mod studio;
mod teller;
mod visibility;

use std::{io, path::PathBuf, time::Duration};

use avalon_certs::AuthorityError;
use avalon_protocol::{
    control::{ApiError, ErrorCode},
    exit_code::ExitCode,
};
use clap::Args;
use thiserror::Error;
use tokio::time::{Instant, timeout};

pub(crate) use self::studio::find_avalond;
use self::{
    story::{Outcome, Story},
    studio::Studio,
    teller::Teller,
};
use crate::{
    args::time_span,
    client::ClientError,
    context::Context,
    failure::{Failure, chain},
    measure::duration,
};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Use the versions of this project directory instead of a generated show; it is only read.
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Exit when all is shown: 0 when every file is equal everywhere, else 1.
    #[arg(long)]
    once: bool,
    /// Keep the temporary directory with the daemons' logs.
    #[arg(long)]
    keep: bool,
    /// Fail when it takes longer than this.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = time_span)]
    timeout: Duration,
}

/// Why the demo failed.
#[derive(Debug, Error)]
pub(crate) enum DemoError {
    /// There is no daemon to start.
    #[error("there is no avalond where AVALOND says, beside {}, or in PATH", beside.display())]
    NoDaemon {
        /// This program.
        beside: PathBuf,
    },
    /// A file or directory of the demo could not be made or read.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The source is not a project.
    #[error("{} has no versions such as assets/robot/publish/modelDefault/v001", path.display())]
    NoVersions {
        /// The source.
        path: PathBuf,
    },
    /// Something in the source has a name that cannot be synchronised.
    #[error("{} cannot be part of a show", path.display())]
    Name {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A socket in the temporary directory would have too long a path.
    #[error("{} is too long for the path of a socket", path.display())]
    LongPath {
        /// The socket.
        path: PathBuf,
    },
    /// The studio has no identities.
    #[error("could not make the demo's studio CA")]
    Certificates(#[source] AuthorityError),
    /// A daemon could not be started.
    #[error("could not start {}", avalond.display())]
    Start {
        /// The program.
        avalond: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A daemon ended by itself.
    #[error("avalond of {node} ended by itself ({status}); the end of its log: {log_tail}")]
    Died {
        /// The node.
        node: &'static str,
        /// How.
        status: String,
        /// The last lines of its log.
        log_tail: String,
    },
    /// A daemon did not answer as it should.
    #[error("{node} did not answer")]
    Api {
        /// The node.
        node: &'static str,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// home could not pull.
    #[error("home could not pull {reference}: {why}")]
    Pull {
        /// The version.
        reference: String,
        /// Why.
        why: String,
    },
    /// It takes too long.
    #[error("not done after {}: waited {}{detail}", duration(limit.as_secs_f64()), waiting_for)]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// What was waited for.
        waiting_for: String,
        /// What the daemons say about it.
        detail: String,
    },
    /// A worker of the demo panicked.
    #[error("comparing files failed")]
    Worker(#[source] tokio::task::JoinError),
    /// What was shown is not what was promised.
    #[error(
        "the sites do not agree: {differ} files differ, {missing} are missing, {extra} are too many, {half_visible} versions were seen half"
    )]
    Wrong {
        /// Files whose content differs.
        differ: u64,
        /// Files that are not there.
        missing: u64,
        /// Files that should not be there.
        extra: u64,
        /// How often a version was seen before all of it was there.
        half_visible: u64,
    },
}

impl DemoError {
    /// Returns what to print.
    pub(crate) fn report(&self) -> ApiError {
        let hint = match self {
            Self::NoDaemon { .. } => "build it with `cargo build`, or name it with AVALOND=FILE",
            Self::NoVersions { .. } => "name the directory of one project, which holds its silos",
            Self::LongPath { .. } => "set TMPDIR to a shorter directory",
            Self::TimedOut { .. } => {
                "give it longer with --timeout, or look at the daemons' logs with --keep"
            }
            Self::Died { .. } | Self::Wrong { .. } => "look at the daemons' logs: run it again with --keep",
            _ => return ApiError::new(ErrorCode::Internal, chain(self)),
        };
        ApiError::new(ErrorCode::Internal, chain(self)).with_hint(hint)
    }
}

/// Runs the demo.
pub(crate) async fn run(context: &Context<'_>, args: &DemoArgs) -> Result<ExitCode, Failure> {
    let teller = Teller::new(context.output);
    let started = Instant::now();
    let mut studio = Studio::create(context.environment, args.source.as_deref()).map_err(Failure::Demo)?;
    // Whatever happens from here on, the daemons are stopped and the directory is removed.
    let played = tokio::select! {
        played = play(context, args, &mut studio, &teller) => Some(played),
        () = context.interrupt.wait() => None,
    };
    teller.end();
    let exit = match played {
        None => Ok(ExitCode::Interrupted),
        Some(Err(error)) => {
            teller.summary(&Outcome::of_failure(studio.show()), started.elapsed(), false);
            Err(Failure::Demo(error))
        }
        Some(Ok(outcome)) => {
            teller.summary(&outcome, started.elapsed(), outcome.is_right());
            match outcome.wrong() {
                Some(wrong) => Err(Failure::Demo(wrong)),
                None if args.once => Ok(ExitCode::Ok),
                None => stay(context, &mut studio, &teller).await,
            }
        }
    };
    if !args.once || args.keep {
        teller.note("stopping the daemons");
    }
    studio.stop().await;
    if args.keep {
        teller.note(&format!("kept {}", studio.keep().display()));
    }
    exit
}

async fn play(
    context: &Context<'_>,
    args: &DemoArgs,
    studio: &mut Studio,
    teller: &Teller<'_>,
) -> Result<Outcome, DemoError> {
    let mut story = Story::new(context, studio, teller);
    match timeout(args.timeout, story.play()).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => {
            let waiting_for = teller.waiting_for();
            let detail = story.detail().await;
            Err(DemoError::TimedOut { limit: args.timeout, waiting_for, detail })
        }
    }
}

/// Leaves the studio running for the user to try things.
async fn stay(context: &Context<'_>, studio: &mut Studio, teller: &Teller<'_>) -> Result<ExitCode, Failure> {
    teller.note("the studio runs until Ctrl-C; try, in another terminal:");
    studio.suggestions().iter().for_each(|command| teller.note(&format!("  {command}")));
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = ticks.tick() => studio.check_alive().map_err(Failure::Demo)?,
            () = context.interrupt.wait() => return Ok(ExitCode::Ok),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{Line, run};

    #[test]
    fn without_a_daemon_to_start_it_says_where_it_looked() {
        let ran = run(&["demo", "--once"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains(", or in PATH\n  hint: build it with `cargo build`"), "{ran:?}");
    }

    #[test]
    fn a_source_without_versions_is_refused_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("comet");
        std::fs::create_dir(&project).unwrap();
        let any_file = std::env::current_exe().unwrap();
        let environment = vec![("AVALOND", any_file.to_str().unwrap().to_owned())];
        let line =
            Line { environment, ..Line::new(&["demo", "--once", "--source", project.to_str().unwrap()]) };
        let ran = line.run();
        assert_eq!(ran.exit, 1);
        assert!(ran.stderr.contains("comet has no versions such as assets/robot/publish/"), "{ran:?}");
    }
}
