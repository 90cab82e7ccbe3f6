//! `avalonctl ls [REF]`: which versions there are.

use avalon_protocol::{
    control::{ErrorCode, ListReply, Presence, VersionItem, route},
    exit_code::ExitCode,
    reference::{Reference, VersionSelector},
};
use clap::Args;

use crate::{
    context::{Context, with_hint},
    failure::Failure,
    measure::size,
    table::{self, Cell},
};

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// What to list: an asset, or a reference with or without globs; all of the project without one.
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// Show who published it and when.
    #[arg(short, long)]
    long: bool,
    /// Every version, not only the latest of each subset.
    #[arg(short, long)]
    all: bool,
}

/// Lists versions.
pub(crate) async fn run(context: &Context<'_>, args: &LsArgs) -> Result<ExitCode, Failure> {
    let reference = args.reference.as_deref().map(|text| listing(text, args.all)).transpose()?;
    let reply: ListReply =
        context.client.get(route::VERSIONS, &context.query(reference.as_deref())).await.map_err(|error| {
            with_hint(error.into(), ErrorCode::NotFound, "list what exists: avalonctl ls")
        })?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    if reply.versions.is_empty() {
        context.output.talk("no versions");
    }
    let header: &[&str] = if args.long {
        &["VERSION", "FILES", "SIZE", "HERE", "GENERATION", "AUTHOR", "PUBLISHED", "REPRESENTATIONS", "NOTE"]
    } else {
        &["VERSION", "FILES", "SIZE", "HERE", "REPRESENTATIONS", "NOTE"]
    };
    let rows = reply.versions.iter().map(|version| row(version, args.long)).collect();
    table::print(context.output, header, rows);
    Ok(ExitCode::Ok)
}

/// Checks a reference and returns what to ask for.
fn listing(text: &str, wants_all: bool) -> Result<String, Failure> {
    let mut reference = Reference::parse_listing(text)?;
    if wants_all && reference.version == VersionSelector::Latest {
        reference.version = VersionSelector::All;
        return Ok(reference.to_string());
    }
    Ok(text.to_owned())
}

fn row(version: &VersionItem, is_long: bool) -> Vec<Cell> {
    let mut row = vec![
        Cell::text(&version.reference),
        Cell::number(version.files, version.files.to_string()),
        Cell::number(version.bytes, size(version.bytes)),
        Cell::text(presence(version.here)),
    ];
    if is_long {
        row.push(Cell::number(version.generation, version.generation.to_string()));
        row.push(Cell::text(&version.author));
        row.push(Cell::text(&version.published));
    }
    row.push(Cell::text(version.representations.join(",")));
    row.push(Cell::text(if version.conflict { "conflict" } else { "" }));
    row
}

/// Returns the word for how much of a version is here.
pub(crate) fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Complete => "complete",
        Presence::Partial => "partial",
        Presence::None => "none",
    }
}
