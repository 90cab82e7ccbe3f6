//! `avalonctl where REF`: which nodes have a version.

use avalon_protocol::{
    control::{ErrorCode, HoldingState, NodeHolding, WhereItem, WhereReply, route},
    exit_code::ExitCode,
    reference::Reference,
};
use clap::Args;

use crate::{
    context::{Context, with_hint},
    escape::escape,
    failure::Failure,
    measure::count,
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
    table::print(
        context.output,
        &["VERSION", "NODE", "SITE", "STATE", "FILES", "VERIFIED", "NOTE"],
        rows.collect(),
    );
    for version in reply.versions.iter().filter(|version| !version.inputs.is_empty()) {
        let (inputs, reference) = (count(version.inputs.len() as u64, "input"), escape(&version.reference));
        context.output.talk(&format!("{reference} was made from {inputs}: avalonctl inputs {reference}"));
    }
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
        Cell::text(node.verified.as_deref().unwrap_or("")),
        Cell::text(if version.conflict { "conflict" } else { "" }),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::FakeDaemon;

    #[test]
    fn each_node_is_a_row_and_json_has_the_promised_fields() {
        let node = |node: &str, site: &str, state, files_present| NodeHolding {
            node: node.into(),
            site: site.into(),
            state,
            files_present,
            files_total: 5,
            verified: (site == "london").then(|| "2026-11-23T03:25:21Z".to_owned()),
        };
        let daemon = FakeDaemon::start();
        daemon.on(
            "GET /v1/where",
            &WhereReply {
                schema: "avalonctl.where/1".into(),
                versions: vec![WhereItem {
                    reference: "lantern:robot/modelDefault@v002".into(),
                    generation: 1,
                    manifest: "m2".into(),
                    conflict: false,
                    inputs: vec!["robot/look@v001".into()],
                    nodes: vec![
                        node("ws1", "london", HoldingState::Complete, 5),
                        node("srv", "montreal", HoldingState::Partial, 2),
                        node("anna", "home", HoldingState::Queued, 0),
                    ],
                }],
            },
        );
        let ran = daemon.run(&["where", "robot/modelDefault"]);
        assert_eq!(
            ran.stdout,
            "lantern:robot/modelDefault@v002\tws1\tlondon\tcomplete\t5/5\t2026-11-23T03:25:21Z\t\n\
             lantern:robot/modelDefault@v002\tsrv\tmontreal\tpartial\t2/5\t\t\n\
             lantern:robot/modelDefault@v002\tanna\thome\tqueued\t0/5\t\t\n"
        );
        assert_eq!(
            ran.stderr,
            "lantern:robot/modelDefault@v002 was made from 1 input: avalonctl inputs lantern:robot/modelDefault@v002\n"
        );
        assert!(daemon.run_at_terminal(&["where", "robot/modelDefault"]).stdout.starts_with("VERSION  "));
        let version = &daemon.run(&["where", "robot/modelDefault", "--json"]).json()["versions"][0];
        assert_eq!((&version["generation"], &version["manifest"]), (&json!(1), &json!("m2")));
        assert_eq!(
            version["nodes"][1],
            json!({"node": "srv", "site": "montreal", "state": "partial", "files_present": 2, "files_total": 5})
        );
    }
}
