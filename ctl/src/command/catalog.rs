//! `avalonctl catalog rebuild|verify|export|import|stats`: the catalog is derived from the feeds, so it can be made anew at
//! any time.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

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

#[derive(Debug, Clone, Subcommand)]
enum CatalogAction {
    /// Make the catalog anew from the feeds.
    Rebuild,
    /// Compare the catalog with the feeds.
    Verify,
    /// Write the catalog out as text: one JSON object on each line.
    Export(ExportArgs),
    /// Make the catalog anew from what export wrote on this node; what came later is added from the feeds.
    Import {
        /// The text.
        file: PathBuf,
    },
    /// Show what is in the catalog.
    Stats,
}

#[derive(Debug, Clone, Args)]
struct ExportArgs {
    /// As JSON lines, which is the only form there is.
    #[arg(long)]
    jsonl: bool,
    /// Write to this file instead of stdout; one that exists is replaced once all has come.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Works on the catalog.
pub(crate) async fn run(context: &Context<'_>, args: &CatalogArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        CatalogAction::Rebuild => rebuild(context).await,
        CatalogAction::Verify => verify(context).await,
        CatalogAction::Export(args) => export(context, args).await,
        CatalogAction::Import { file } => import(context, file).await,
        CatalogAction::Stats => stats(context).await,
    }
}

async fn rebuild(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: RebuildReply = context.client.post(route::CATALOG_REBUILD, &json!({})).await?;
    if context.output.is_json() {
        context.output.json(&reply);
    } else {
        context.output.data(&made_anew("rebuilt", &reply));
    }
    Ok(ExitCode::Ok)
}

fn made_anew(how: &str, reply: &RebuildReply) -> String {
    format!(
        "{how} as generation {}: {} from {}, {} of them replayed, in {}",
        reply.generation,
        count(reply.rows, "row"),
        count(reply.records, "record"),
        reply.replayed,
        duration(reply.seconds)
    )
}

async fn export(context: &Context<'_>, args: &ExportArgs) -> Result<ExitCode, Failure> {
    let mut text = context.client.download(route::CATALOG_EXPORT).await?;
    let Some(path) = &args.out else {
        while let Some(piece) = text.next().await? {
            context.output.bytes(&piece);
            if context.output.is_closed() {
                let error =
                    ApiError::new(ErrorCode::Internal, "stdout was closed before the end of the export");
                return Err(Failure::Said(
                    error.with_hint("write to a file: avalonctl catalog export --out FILE"),
                ));
            }
        }
        return Ok(ExitCode::Ok);
    };
    let failed = |error: io::Error| unusable("written", path, &error);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    let mut bytes = 0;
    while let Some(piece) = text.next().await? {
        file.write_all(&piece).map_err(failed)?;
        bytes += piece.len() as u64;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    context.output.talk(&format!("{} written to {}", size(bytes), escape(&path.display().to_string())));
    Ok(ExitCode::Ok)
}

async fn import(context: &Context<'_>, path: &Path) -> Result<ExitCode, Failure> {
    let file = File::open(path).map_err(|error| unusable("read", path, &error))?;
    let reply: RebuildReply = context.client.upload(route::CATALOG_IMPORT, file).await?;
    if context.output.is_json() {
        context.output.json(&reply);
    } else {
        context.output.data(&made_anew("imported", &reply));
    }
    Ok(ExitCode::Ok)
}

fn unusable(how: &str, path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::PermissionDenied => ErrorCode::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        _ => ErrorCode::Internal,
    };
    Failure::Said(ApiError::new(
        code,
        format!("{} cannot be {how}: {error}", escape(&path.display().to_string())),
    ))
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
        ("rows", format!("{}, {}", reply.rows, size(reply.live_bytes))),
        ("on disk", size(reply.disk_bytes)),
        ("checkpoint", format!("at {}", count(reply.checkpoint_records, "record"))),
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
                replayed: 1,
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
                rows: 30,
                live_bytes: 512,
                checkpoint_records: 5,
            },
        );
        let ran = daemon.run(&["catalog", "rebuild"]);
        assert_eq!(
            ran.stdout,
            "rebuilt as generation 3: 9 rows from 1 record, 1 of them replayed, in 1m 10s\n"
        );
        let ran = daemon.run(&["catalog", "stats"]);
        let end = "records     7\nrows        30, 512 B\non disk     1.0 KiB\ncheckpoint  at 5 records\n";
        assert!(ran.stdout.ends_with(end), "{ran:?}");
        assert_eq!(daemon.run(&["catalog", "stats", "--json"]).json()["disk_bytes"], 1024);
    }

    #[test]
    fn an_export_goes_to_stdout_or_whole_into_a_file_and_a_file_is_imported() {
        let daemon = FakeDaemon::start();
        let text = "{\"schema\":\"avalon.catalog/1\"}\n{\"rows\":0}\n";
        daemon.answer("GET /v1/catalog/export", 200, text.into());
        daemon.on(
            "POST /v1/catalog/import",
            &RebuildReply {
                schema: "avalonctl.catalog-import/1".into(),
                generation: 4,
                records: 7,
                replayed: 2,
                rows: 9,
                seconds: 1.0,
            },
        );
        assert_eq!(daemon.run(&["catalog", "export"]).stdout, text);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.jsonl");
        let file = path.to_str().unwrap();
        let ran = daemon.run(&["catalog", "export", "--jsonl", "--out", file]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(dir.path().read_dir().unwrap().count(), 1, "nothing temporary stays");
        let ran = daemon.run(&["catalog", "import", file]);
        assert_eq!(
            ran.stdout,
            "imported as generation 4: 9 rows from 7 records, 2 of them replayed, in 1.0s\n"
        );
        assert_eq!(daemon.requests().pop().unwrap(), format!("POST /v1/catalog/import {}", text.trim_end()));
        let ran = daemon.run(&["catalog", "import", "nothing-there"]);
        assert_eq!(ran.exit, 4, "{ran:?}");
    }

    #[test]
    fn an_export_that_is_refused_leaves_the_file_as_it_was() {
        let daemon = FakeDaemon::start();
        daemon.refuse("GET /v1/catalog/export", &ApiError::new(ErrorCode::DiskFull, "no room"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.jsonl");
        File::create(&path).unwrap().write_all(b"old").unwrap();
        let ran = daemon.run(&["catalog", "export", "--out", path.to_str().unwrap()]);
        assert_eq!((ran.exit, std::fs::read_to_string(&path).unwrap().as_str()), (7, "old"));
    }
}
