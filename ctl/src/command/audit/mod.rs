//! `avalonctl audit verify|tail|export`: who did what at a node, when, and whether that is still what was written.
//!
//! With `--dir` all of it works on a copy of the files, without a daemon.

mod show;
mod source;

use std::path::PathBuf;

use avalon_protocol::{
    audit::{AuditHead, Known},
    control::{ApiError, AuditHeadsReply, AuditVerifyReply, ErrorCode, route},
    exit_code::ExitCode,
};
use clap::{Args, Subcommand, ValueEnum};
use jiff::{Timestamp, tz::TimeZone};

use self::show::Shown;
use crate::{command::report::moment, context::Context, escape::escape, failure::Failure, measure::count};

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    action: AuditAction,
}

#[derive(Debug, Clone, Subcommand)]
enum AuditAction {
    /// Check that nothing was changed, removed or added.
    Verify(VerifyArgs),
    /// Show the last entries.
    Tail(TailArgs),
    /// Write entries out, for a spreadsheet or another system.
    Export(ExportArgs),
}

#[derive(Debug, Clone, Args)]
struct VerifyArgs {
    /// Check a copy of an audit directory instead of the daemon's own.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// With --dir: ask the daemon for the heads that the node of the copy has published, and compare.
    #[arg(long, requires = "dir")]
    heads: bool,
}

#[derive(Debug, Clone, Args)]
struct TailArgs {
    /// How many.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    lines: u64,
    /// Read a copy of an audit directory instead of the daemon's own.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
struct ExportArgs {
    /// From when: a day such as 2026-11-01, or how long ago, such as 7d, 4w or 12h.
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Up to when, this day not included.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// As the lines stand in the files, or as CSV for a spreadsheet.
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    format: Format,
    /// Read a copy of an audit directory instead of the daemon's own.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// How entries are written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object on each line, hash included.
    Jsonl,
    /// For spreadsheets.
    Csv,
}

/// Which entries.
#[derive(Debug, Clone, Default)]
struct Wanted {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    last: Option<u64>,
}

/// Works on the audit.
pub(crate) async fn run(context: &Context<'_>, args: &AuditArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        AuditAction::Verify(args) => verify(context, args).await,
        AuditAction::Tail(args) => {
            let wanted = Wanted { last: Some(args.lines), ..Wanted::default() };
            let shown = if context.output.is_json() { Shown::Jsonl } else { Shown::People };
            source::lines(context, args.dir.as_deref(), &wanted, &mut |line| {
                show::line(context, shown, line)
            })
            .await?;
            Ok(ExitCode::Ok)
        }
        AuditAction::Export(args) => export(context, args).await,
    }
}

async fn export(context: &Context<'_>, args: &ExportArgs) -> Result<ExitCode, Failure> {
    let zone = TimeZone::system();
    #[expect(clippy::disallowed_methods, reason = "how long ago is counted from now")]
    let now = Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = |text: &Option<String>| text.as_deref().map(|text| moment(text, now, &zone)).transpose();
    let wanted = Wanted { since: time(&args.since)?, until: time(&args.until)?, last: None };
    let shown = match args.format {
        Format::Jsonl => Shown::Jsonl,
        Format::Csv => {
            context.output.bytes(show::csv_header().as_bytes());
            Shown::Csv
        }
    };
    source::lines(context, args.dir.as_deref(), &wanted, &mut |line| show::line(context, shown, line))
        .await?;
    if context.output.is_closed() {
        let error = ApiError::new(ErrorCode::Internal, "stdout was closed before the end of the export");
        return Err(Failure::Said(error));
    }
    Ok(ExitCode::Ok)
}

async fn verify(context: &Context<'_>, args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let reply = match &args.dir {
        None => context.client.get(route::AUDIT_VERIFY, &[]).await?,
        Some(dir) => {
            let mut reply = source::verify(dir, &Known::default())?;
            if args.heads
                && let Some(node) = reply.node.clone()
            {
                let heads: AuditHeadsReply =
                    context.client.get(route::AUDIT_HEADS, &[("node", Some(node.as_str()))]).await?;
                reply = source::verify(dir, &Known { heads: heads_of(&heads), running: None })?;
            }
            reply
        }
    };
    tell(context, &reply)
}

fn heads_of(reply: &AuditHeadsReply) -> Vec<AuditHead> {
    let head = |item: &avalon_protocol::control::AuditHeadItem| {
        let hash = item.hash.parse().ok()?;
        Some(AuditHead { entries: item.entries, hash, at_ms: 0 })
    };
    reply.heads.iter().filter_map(head).collect()
}

fn tell(context: &Context<'_>, reply: &AuditVerifyReply) -> Result<ExitCode, Failure> {
    if context.output.is_json() {
        context.output.json(reply);
    } else {
        for fault in &reply.faults {
            let place = match fault.line {
                0 => fault.file.clone(),
                line => format!("{}:{line}", fault.file),
            };
            context.output.data(&format!("{}: {}", escape(&place), escape(&fault.problem)));
        }
    }
    if !reply.ok {
        let faults = count(reply.faults_total, "fault");
        let message =
            format!("the audit is not what was written: {faults} in {}", count(reply.lines, "line"));
        let error = ApiError::new(ErrorCode::Damaged, message);
        return Err(Failure::Said(
            error.with_hint("keep a copy of the files as they are, and find out who was there"),
        ));
    }
    if !context.output.is_json() {
        let node = reply.node.as_deref().unwrap_or("nobody");
        context.output.data(&format!(
            "ok: {} of {} in {}, {} to {}; compared with {}",
            count(reply.lines, "line"),
            escape(node),
            count(reply.files, "file"),
            reply.first,
            reply.entries.saturating_sub(1),
            count(reply.heads_compared, "published head"),
        ));
    }
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests;
