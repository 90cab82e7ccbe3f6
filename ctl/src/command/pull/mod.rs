//! `avalonctl pull REF...`: fetches versions and returns when they are here, whole and verified.
//!
//! The daemon does the work. This command asks for it and then only watches, so it can be interrupted at any time
//! without harm: the jobs go on.

mod follow;
mod inputs;
mod plan;
mod progress;
mod summary;
#[cfg(test)]
mod tests;

use std::time::Duration;

use avalon_protocol::{
    control::{
        ApiError, ErrorCode, JobState, MissingInput, PlanState, PullItem, PullReply, PullRequest, route,
    },
    exit_code::ExitCode,
    frames::FrameSet,
    reference::Reference,
};
use clap::Args;
use tokio::time::Instant;

pub(crate) use self::inputs::words as missing_words;
use self::{
    follow::{Ending, Followed, Follower},
    summary::Summary,
};
use crate::{
    args::time_span,
    context::{Context, said, with_hint},
    escape::escape,
    failure::Failure,
    measure::{count, duration},
};

/// Arguments of `pull`.
#[derive(Debug, Default, Args)]
pub(crate) struct PullArgs {
    /// Which versions; globs are allowed: robot/* is the latest of all that the asset has.
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
    /// Say what would happen, and do nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Fetch what they were made from, too: textures, rigs, caches, and what those were made from.
    #[arg(long)]
    with_inputs: bool,
    /// Only these frames, such as 1001-1050x10 or 1001,1010-1020, coarse to fine; each pass can be used before the next one
    /// comes. Only where the configuration allows parts of versions.
    #[arg(long, value_name = "FRAMES", conflicts_with = "with_inputs")]
    frames: Option<FrameSet>,
    /// Return at once; the daemon goes on.
    #[arg(long, conflicts_with = "timeout")]
    detach: bool,
    /// Give up waiting after this time, such as 30m, with exit code 10; the daemon goes on. Until then it also waits for
    /// versions whose holders cannot be reached.
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    timeout: Option<Duration>,
}

impl PullArgs {
    /// Fetches these and waits for them, however long it takes.
    pub(crate) fn of(references: Vec<String>) -> Self {
        Self { references, ..Self::default() }
    }

    /// With what they were made from, or without.
    pub(crate) fn with_inputs(self, with_inputs: bool) -> Self {
        Self { with_inputs, ..self }
    }
}

/// Fetches versions.
pub(crate) async fn run(context: &Context<'_>, args: &PullArgs) -> Result<ExitCode, Failure> {
    for text in &args.references {
        text.parse::<Reference>()?;
    }
    if args.dry_run {
        let reply = ask(context, args, Dry::Yes).await?;
        plan::show_dry_run(context.output, &reply, args);
        return Ok(ExitCode::Ok);
    }
    let started = Instant::now();
    if args.with_inputs {
        let reply = ask(context, args, Dry::Yes).await?;
        inputs::talk_plan(context.output, &reply);
        inputs::check_room(&reply)?;
    }
    // Connected before anything is asked for, so that no event of the jobs is missed.
    let events = context.client.events(None).await?;
    let reply = ask(context, args, Dry::No).await?;
    let lacks = Lacks { missing: reply.missing, more: reply.missing_more };
    let plan = Plan::of(reply.versions, args);
    // Of a whole closure what is here was counted.
    let told = plan.followed.iter().filter(|f| !args.with_inputs || f.item.state != PlanState::Here);
    told.for_each(|followed| plan::talk(context.output, &followed.item));
    plan.errors.iter().for_each(|(_, error)| context.output.error(error));
    if args.detach {
        return Ok(detach(context, args, &plan, &lacks));
    }
    let mut follower = Follower::new(context, events, plan.followed);
    let ending = follower.follow(args.timeout.map(|timeout| started + timeout)).await?;
    let followed = follower.into_followed();
    finish(context, args, Waited { followed, errors: plan.errors, lacks, ending })
}

/// Whether the daemon only says what it would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dry {
    Yes,
    No,
}

/// The inputs that cannot be fetched, and how many are not listed.
#[derive(Debug)]
struct Lacks {
    missing: Vec<MissingInput>,
    more: u64,
}

impl Lacks {
    /// Returns them for the summary, unless nobody asked for inputs.
    fn shown(&self, args: &PullArgs) -> Option<&[MissingInput]> {
        args.with_inputs.then_some(self.missing.as_slice())
    }

    /// Tells what is missing, and returns the kind of error if something is.
    fn tell(&self, context: &Context<'_>) -> Option<ErrorCode> {
        let error = inputs::tell_missing(context.output, &self.missing, self.more)?;
        context.output.error(&error);
        Some(error.code)
    }
}

async fn ask(context: &Context<'_>, args: &PullArgs, dry: Dry) -> Result<PullReply, Failure> {
    let request = PullRequest {
        refs: args.references.clone(),
        project: context.project.clone(),
        dry_run: dry == Dry::Yes,
        with_inputs: args.with_inputs,
        frames: args.frames.as_ref().map(ToString::to_string),
    };
    let reply = context.client.post(route::PULL, &request).await;
    reply.map_err(|error| with_hint(error.into(), ErrorCode::NotFound, "list what exists: avalonctl ls"))
}

/// What is waited for, and what cannot be.
struct Plan {
    followed: Vec<Followed>,
    /// Versions that nobody needs to wait for, with why.
    errors: Vec<(PullItem, ApiError)>,
}

impl Plan {
    fn of(items: Vec<PullItem>, args: &PullArgs) -> Self {
        let mut plan = Self { followed: Vec::new(), errors: Vec::new() };
        for item in items {
            match item.state {
                PlanState::Conflict => plan.errors.push((item.clone(), plan::conflict(&item))),
                PlanState::Forbidden => plan.errors.push((item.clone(), plan::forbidden(&item))),
                PlanState::Retired => plan.errors.push((item.clone(), plan::retired(&item))),
                PlanState::NoSource if args.timeout.is_none() && !args.detach => {
                    plan.errors.push((item.clone(), plan::no_source(&item)));
                }
                PlanState::Here | PlanState::Fetch | PlanState::NoSource => {
                    plan.followed.push(Followed::new(item));
                }
            }
        }
        plan
    }
}

fn detach(context: &Context<'_>, args: &PullArgs, plan: &Plan, lacks: &Lacks) -> ExitCode {
    let summary = Summary::new(&plan.followed, &plan.errors, lacks.shown(args));
    if context.output.is_json() {
        context.output.json(&summary);
    } else {
        for followed in plan.followed.iter().filter(|followed| !followed.status.state.is_final()) {
            let (job, reference) = (escape(&followed.status.id), escape(&followed.item.reference));
            context.output.data(&format!("{job}\t{reference}"));
        }
    }
    let mut codes = summary.codes();
    codes.extend(lacks.tell(context));
    exit_of_parts(plan.followed.len(), &codes)
}

/// What there is to say when waiting is over.
struct Waited {
    followed: Vec<Followed>,
    errors: Vec<(PullItem, ApiError)>,
    lacks: Lacks,
    ending: Ending,
}

fn finish(context: &Context<'_>, args: &PullArgs, waited: Waited) -> Result<ExitCode, Failure> {
    let Waited { followed, mut errors, lacks, ending } = waited;
    for failed in followed.iter().filter_map(Followed::failure) {
        context.output.error(&failed.1);
        errors.push(failed);
    }
    let summary = Summary::new(&followed, &errors, lacks.shown(args));
    if context.output.is_json() {
        context.output.json(&summary);
    }
    let mut codes = summary.codes();
    codes.extend(lacks.tell(context));
    let pending = followed.iter().filter(|followed| !followed.status.state.is_final());
    match ending {
        Ending::Finished => {
            let done = followed.iter().filter(|followed| followed.status.state == JobState::Done).count();
            Ok(exit_of_parts(done, &codes))
        }
        Ending::TimedOut => Err(timed_out(args, &pending.collect::<Vec<_>>())),
        Ending::Interrupted => {
            for Followed { item, status, .. } in pending {
                context.output.talk(&format!(
                    "{} goes on in the daemon; to give it up: avalonctl cancel {}",
                    escape(&item.reference),
                    escape(&status.id)
                ));
            }
            Ok(ExitCode::Interrupted)
        }
    }
}

fn timed_out(args: &PullArgs, pending: &[&Followed]) -> Failure {
    let waited = duration(args.timeout.unwrap_or_default().as_secs_f64());
    let name = |followed: &&Followed| match &followed.status.reason {
        Some(reason) => format!("{} ({reason})", followed.item.reference),
        None => followed.item.reference.clone(),
    };
    let (versions, names) = (count(pending.len() as u64, "version"), pending.iter().map(name));
    let message = format!("{versions} not here after {waited}: {}", names.collect::<Vec<_>>().join(", "));
    let jobs: Vec<&str> = pending.iter().map(|followed| followed.status.id.as_str()).collect();
    let hint = match jobs.as_slice() {
        [job] => format!("job {job} goes on in the daemon; to give it up: avalonctl cancel {job}"),
        jobs => format!("jobs {} go on in the daemon; to give one up: avalonctl cancel JOB", jobs.join(" ")),
    };
    said(ErrorCode::TimedOut, message, &hint)
}

/// Returns the exit code of a command of which `done` parts succeeded and others failed with `codes`.
pub(crate) fn exit_of_parts(done: usize, codes: &[ErrorCode]) -> ExitCode {
    match codes {
        [] => ExitCode::Ok,
        _ if done > 0 => ExitCode::Partial,
        [first, rest @ ..] if rest.iter().all(|code| code.exit() == first.exit()) => first.exit(),
        _ => ExitCode::Error,
    }
}
