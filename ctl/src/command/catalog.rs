//! `avalonctl catalog rebuild|verify|stats`: the catalog is derived from the feeds, so it can be made anew at any time.

use avalon_protocol::{
    control::{ApiError, CatalogStatsReply, ErrorCode, RebuildReply, VerifyReply, route},
    exit_code::ExitCode,
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    context::Context,
    escape::escape,
    failure::Failure,
    measure::{count, duration, size},
};

/// Arguments of `catalog`.
#[derive(Debug, Args)]
pub(crate) struct CatalogArgs {
    #[command(subcommand)]
    action: CatalogAction,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum CatalogAction {
    /// Make the catalog anew from the feeds.
    Rebuild,
    /// Compare the catalog with the feeds.
    Verify,
    /// Show what is in the catalog.
    Stats,
}

/// Works on the catalog.
pub(crate) async fn run(context: &Context<'_>, args: &CatalogArgs) -> Result<ExitCode, Failure> {
    match args.action {
        CatalogAction::Rebuild => rebuild(context).await,
        CatalogAction::Verify => verify(context).await,
        CatalogAction::Stats => stats(context).await,
    }
}

async fn rebuild(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: RebuildReply = context.client.post(route::CATALOG_REBUILD, &json!({})).await?;
    if context.output.is_json() {
        context.output.json(&reply);
    } else {
        context.output.data(&format!(
            "rebuilt as generation {}: {} from {} in {}",
            reply.generation,
            count(reply.rows, "row"),
            count(reply.records, "record"),
            duration(reply.seconds)
        ));
    }
    Ok(ExitCode::Ok)
}

async fn verify(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: VerifyReply = context.client.post(route::CATALOG_VERIFY, &json!({})).await?;
    if context.output.is_json() {
        context.output.json(&reply);
    } else {
        reply.problems.iter().for_each(|problem| context.output.data(&escape(problem)));
        if reply.ok {
            let (rows, time) = (count(reply.rows, "row"), duration(reply.seconds));
            context.output.data(&format!("ok: {rows} read in {time}"));
        }
    }
    if reply.ok {
        return Ok(ExitCode::Ok);
    }
    let problems = count(reply.problems.len() as u64, "problem");
    let message = format!("the catalog does not match the feeds: {problems} in {}", count(reply.rows, "row"));
    let error = ApiError::new(ErrorCode::Damaged, message);
    Err(Failure::Said(error.with_hint("no data is lost; make it anew: avalonctl catalog rebuild")))
}

async fn stats(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: CatalogStatsReply = context.client.get(route::CATALOG_STATS, &[]).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    for (name, value) in [
        ("generation", reply.generation.to_string()),
        ("versions", reply.versions.to_string()),
        ("manifests", reply.manifests.to_string()),
        ("files here", reply.local_files.to_string()),
        ("feeds", reply.feeds.to_string()),
        ("records", reply.records.to_string()),
        ("on disk", size(reply.disk_bytes)),
    ] {
        context.output.data(&format!("{name:<12}{value}"));
    }
    Ok(ExitCode::Ok)
}
