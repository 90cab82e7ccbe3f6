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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeDaemon;

    fn verified(ok: bool, problems: &[&str]) -> FakeDaemon {
        let daemon = FakeDaemon::start();
        daemon.on(
            "POST /v1/catalog/verify",
            &VerifyReply {
                schema: "avalonctl.catalog-verify/1".into(),
                ok,
                rows: 120,
                problems: problems.iter().map(|&problem| problem.to_owned()).collect(),
                seconds: 0.5,
            },
        );
        daemon
    }

    #[test]
    fn a_catalog_that_does_not_match_is_an_integrity_error_with_the_remedy() {
        let ran = verified(true, &[]).run(&["catalog", "verify"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "ok: 120 rows read in 0.5s\n"));
        let ran = verified(false, &["missing row 7"]).run(&["catalog", "verify"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (8, "missing row 7\n"));
        assert!(ran.stderr.contains("1 problem in 120 rows\n  hint: no data is lost"), "{ran:?}");
        let ran = verified(false, &["missing row 7"]).run(&["catalog", "verify", "--json"]);
        assert_eq!((ran.json()["ok"].as_bool(), ran.error().exit), (Some(false), 8));
    }

    #[test]
    fn rebuild_and_stats_are_shown() {
        let daemon = FakeDaemon::start();
        daemon.on(
            "POST /v1/catalog/rebuild",
            &RebuildReply {
                schema: "avalonctl.catalog-rebuild/1".into(),
                generation: 3,
                records: 1,
                rows: 9,
                seconds: 70.0,
            },
        );
        daemon.on(
            "GET /v1/catalog/stats",
            &CatalogStatsReply {
                schema: "avalonctl.catalog-stats/1".into(),
                generation: 3,
                versions: 4,
                manifests: 5,
                local_files: 6,
                feeds: 2,
                records: 7,
                disk_bytes: 1024,
            },
        );
        let ran = daemon.run(&["catalog", "rebuild"]);
        assert_eq!(ran.stdout, "rebuilt as generation 3: 9 rows from 1 record in 1m 10s\n");
        let ran = daemon.run(&["catalog", "stats"]);
        assert!(ran.stdout.ends_with("records     7\non disk     1.0 KiB\n"), "{ran:?}");
        assert_eq!(daemon.run(&["catalog", "stats", "--json"]).json()["disk_bytes"], 1024);
    }
}
