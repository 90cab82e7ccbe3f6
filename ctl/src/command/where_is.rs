//! `avalonctl where REF`: which nodes have a version.

use avalon_protocol::{
    control::{ErrorCode, HoldingState, NodeHolding, WhereItem, WhereReply, route},
    exit_code::ExitCode,
    reference::Reference,
};
use clap::Args;

use crate::{
    context::{Context, with_hint},
    failure::Failure,
    table::{self, Cell},
};

/// Arguments of `where`.
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// Which versions.
    #[arg(value_name = "REF")]
    reference: String,
}

/// Shows where versions are.
pub(crate) async fn run(context: &Context<'_>, args: &WhereArgs) -> Result<ExitCode, Failure> {
    let reply = ask(context, &args.reference).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let rows = reply.versions.iter().flat_map(|version| version.nodes.iter().map(|node| row(version, node)));
    table::print(context.output, &["VERSION", "NODE", "SITE", "STATE", "FILES", "NOTE"], rows.collect());
    Ok(ExitCode::Ok)
}

/// Asks the daemon where versions are.
pub(crate) async fn ask(context: &Context<'_>, reference: &str) -> Result<WhereReply, Failure> {
    let checked: Reference = reference.parse()?;
    let hint = format!("list what exists: avalonctl ls {}", checked.asset);
    let reply = context.client.get(route::WHERE, &context.query(Some(reference))).await;
    reply.map_err(|error| with_hint(error.into(), ErrorCode::NotFound, &hint))
}

fn row(version: &WhereItem, node: &NodeHolding) -> Vec<Cell> {
    let state = match node.state {
        HoldingState::Complete => "complete",
        HoldingState::Partial => "partial",
        HoldingState::Queued => "queued",
        HoldingState::None => "none",
    };
    let files = format!("{}/{}", node.files_present, node.files_total);
    vec![
        Cell::text(&version.reference),
        Cell::text(&node.node),
        Cell::text(&node.site),
        Cell::text(state),
        Cell::number(&files, &files),
        Cell::text(if version.conflict { "conflict" } else { "" }),
    ]
}
