//! `avalonctl deliver REF... --to DIR`: a verified package of versions for somebody who has no daemon.
//!
//! The command copies what lies in the project, so it needs no right that its user does not have; the daemon only says what
//! belongs to a version. The package is put together beside its place and gets its name when all is in it.

mod package;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use avalon_protocol::{
    control::{
        ApiError, ErrorCode, InfoReply, MissingInput, PlanState, Presence, PullItem, PullReply, PullRequest,
        route,
    },
    exit_code::ExitCode,
    reference::Reference,
};
use clap::Args;

use self::package::{Entry, Layout, Package, Version};
use crate::{
    command::pull::{self, PullArgs, missing_words},
    context::{Context, said, with_hint},
    escape::escape,
    failure::Failure,
    measure::{count, size},
};

/// Arguments of `deliver`.
#[derive(Debug, Args)]
pub(crate) struct DeliverArgs {
    /// Which versions; globs are allowed.
    #[arg(value_name = "REF", required = true)]
    references: Vec<String>,
    /// The directory of the package; it must be empty or not there.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// What they were made from, too, and what that was made from.
    #[arg(long)]
    with_inputs: bool,
    /// One directory for each version, such as robot_modelDefault_v003, instead of the layout of the project.
    #[arg(long)]
    flat: bool,
    /// Fetch what is not here first.
    #[arg(long)]
    pull: bool,
    /// Go on with a package that was cut off: what is in it already is verified and kept.
    #[arg(long)]
    resume: bool,
    /// Say what would be delivered, and do nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Delivers.
pub(crate) async fn run(context: &Context<'_>, args: &DeliverArgs) -> Result<ExitCode, Failure> {
    for text in &args.references {
        text.parse::<Reference>()?;
    }
    let mut plan = ask(context, args).await?;
    if args.pull && !args.dry_run && plan.versions.iter().any(|item| item.state != PlanState::Here) {
        let ended =
            pull::run(context, &PullArgs::of(args.references.clone()).with_inputs(args.with_inputs)).await?;
        // What is missing of the inputs is told below.
        if !matches!(ended, ExitCode::Ok | ExitCode::Partial) {
            return Ok(ended);
        }
        plan = ask(context, args).await?;
    }
    let away: Vec<&PullItem> = plan.versions.iter().filter(|item| item.state != PlanState::Here).collect();
    if !away.is_empty() && !args.dry_run {
        return Err(not_here(&away));
    }
    let mut versions = Vec::with_capacity(plan.versions.len());
    for item in plan.versions.iter().filter(|item| item.state == PlanState::Here) {
        versions.push(version(context, args, &item.reference).await?);
    }
    let package = Package::new(args.to.clone(), versions, plan.missing, context.output)?;
    if args.dry_run {
        package.show(&away);
        return Ok(ExitCode::Ok);
    }
    let missing = package.missing.len() as u64 + plan.missing_more;
    // Who has waited for a pull has to look for signals; before that they end the process.
    let interrupt = args.pull.then_some(context.interrupt);
    if !package.write(args.resume, interrupt).await.map_err(Failure::Said)? {
        return Ok(ExitCode::Interrupted);
    }
    if missing > 0 {
        let error = lacks(&package.missing, missing);
        context.output.error(&error);
        return Ok(ExitCode::Partial);
    }
    Ok(ExitCode::Ok)
}

async fn ask(context: &Context<'_>, args: &DeliverArgs) -> Result<PullReply, Failure> {
    let request = PullRequest {
        refs: args.references.clone(),
        project: context.project.clone(),
        dry_run: true,
        with_inputs: args.with_inputs,
        frames: None,
    };
    let reply = context.client.post(route::PULL, &request).await;
    reply.map_err(|error| with_hint(error.into(), ErrorCode::NotFound, "list what exists: avalonctl ls"))
}

async fn version(context: &Context<'_>, args: &DeliverArgs, reference: &str) -> Result<Version, Failure> {
    let info: InfoReply = context.client.get(route::INFO, &[("ref", Some(reference))]).await?;
    let changed = |why: &str| {
        said(ErrorCode::BadPath, format!("{reference} {why}"), "see avalonctl where, and run it again")
    };
    if info.here != Presence::Complete {
        return Err(changed("is not whole here any more"));
    }
    let Some(source) = info.path.as_deref().map(PathBuf::from) else {
        return Err(changed("has no place at this node"));
    };
    let layout = if args.flat { Layout::Flat } else { Layout::Project };
    let dir = layout.dir(&info).ok_or_else(|| changed("has a place that cannot be delivered"))?;
    let entries = info.files.iter().map(Entry::of).collect::<Option<Vec<_>>>();
    let entries = entries.ok_or_else(|| changed("has files that cannot be delivered"))?;
    Ok(Version { info, source, dir, entries })
}

fn not_here(away: &[&PullItem]) -> Failure {
    let names: Vec<&str> = away.iter().take(5).map(|item| item.reference.as_str()).collect();
    let more = if away.len() > names.len() {
        format!(" and {} more", away.len() - names.len())
    } else {
        String::new()
    };
    let bytes: u64 = away.iter().map(|item| item.bytes.saturating_sub(item.bytes_here)).sum();
    let message = format!(
        "{} not here, {} to fetch: {}{more}",
        if away.len() == 1 { "1 version is".to_owned() } else { format!("{} versions are", away.len()) },
        size(bytes),
        names.join(", ")
    );
    let hint = format!("fetch it first: avalonctl pull {}; or let deliver do that: --pull", names.join(" "));
    said(ErrorCode::NotHere, message, &hint)
}

fn lacks(missing: &[MissingInput], total: u64) -> ApiError {
    let first = missing.first().map(missing_words).unwrap_or_default();
    let message = format!("the package lacks {}: {first}", count(total, "input"));
    ApiError::new(ErrorCode::InputsMissing, escape(&message))
        .with_hint("manifest.json lists all of them under `missing`")
}
