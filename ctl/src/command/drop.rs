//! `avalonctl drop REF...`: frees the room that versions take at this node, once other sites have proved that they have them.

use avalon_protocol::{
    control::{DropItem, DropReply, DropRequest, DropState, ErrorCode, route},
    exit_code::ExitCode,
};
use clap::Args;

use crate::{
    context::{Context, with_hint},
    escape::escape,
    failure::Failure,
    measure::size,
    table::{self, Cell},
};

/// Arguments of `drop`.
#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    /// What to drop; globs are allowed.
    #[arg(value_name = "REF", required = true)]
    refs: Vec<String>,
    /// Only show what would go, and why the rest stays; other nodes are asked what their records say.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Drops versions, or shows what would go.
pub(crate) async fn run(context: &Context<'_>, args: &DropArgs) -> Result<ExitCode, Failure> {
    let request =
        DropRequest { refs: args.refs.clone(), project: context.project.clone(), dry_run: args.dry_run };
    let asked = context.client.post(route::DROP, &request).await;
    let reply: DropReply = asked
        .map_err(|error| with_hint(error.into(), ErrorCode::NotFound, "list what exists: avalonctl ls"))?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(exit(&reply));
    }
    let header = ["STATE", "VERSION", "FILES", "SIZE", "WHY"];
    table::print(context.output, &header, reply.versions.iter().map(row).collect());
    for item in &reply.versions {
        for holder in &item.holders {
            let says = holder.detail.as_deref().unwrap_or("has it");
            context.output.detail(&format!(
                "{}: {}: {}",
                escape(&item.reference),
                escape(&holder.node),
                escape(says)
            ));
        }
    }
    let gone = reply.versions.iter().filter(|item| is_gone(item));
    let (versions, bytes) = (gone.clone().count(), gone.map(|item| item.bytes).sum());
    let verb = if args.dry_run { "would go" } else { "dropped; the trash keeps them for a while" };
    context.output.talk(&format!("{versions} of {} versions, {}, {verb}", reply.versions.len(), size(bytes)));
    Ok(exit(&reply))
}

fn is_gone(item: &DropItem) -> bool {
    matches!(item.state, DropState::Dropped | DropState::WouldDrop)
}

/// What is not here needs no dropping.
fn exit(reply: &DropReply) -> ExitCode {
    let stays = reply.versions.iter().filter(|item| item.state == DropState::Stays).count();
    match stays {
        0 => ExitCode::Ok,
        stays if stays < reply.versions.len() => ExitCode::Partial,
        _ => ExitCode::Error,
    }
}

fn row(item: &DropItem) -> Vec<Cell> {
    let state = match item.state {
        DropState::Dropped => "dropped",
        DropState::WouldDrop => "would go",
        DropState::Stays => "stays",
        DropState::Absent => "not here",
    };
    vec![
        Cell::text(state),
        Cell::text(&item.reference),
        Cell::number(item.files, item.files.to_string()),
        Cell::number(item.bytes, size(item.bytes)),
        Cell::text(item.reason.clone().unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::DropHolder;

    use super::*;
    use crate::fake::FakeDaemon;

    fn item(number: u32, state: DropState, reason: Option<&str>) -> DropItem {
        let bytes = if reason.is_some() || state == DropState::Absent { 0 } else { 2048 };
        DropItem {
            reference: format!("lantern:robot/modelDefault@v{number:03}"),
            state,
            bytes,
            files: bytes / 1024,
            why: reason.map(|_| "pinned".into()),
            reason: reason.map(Into::into),
            min_copies: Some(1),
            holders: vec![DropHolder {
                node: "srv@montreal".into(),
                counts: reason.is_none(),
                detail: reason.map(Into::into),
            }],
        }
    }

    fn reply(versions: Vec<DropItem>) -> DropReply {
        DropReply { schema: "avalonctl.drop/1".into(), versions }
    }

    #[test]
    fn what_went_and_what_stays_is_told_with_the_reason() {
        let daemon = FakeDaemon::start();
        let stays = item(2, DropState::Stays, Some("anna pinned it"));
        daemon.on("POST /v1/drop", &reply(vec![item(1, DropState::Dropped, None), stays]));
        let ran = daemon.run(&["drop", "robot/*@*"]);
        assert_eq!(
            ran.stdout,
            "dropped\tlantern:robot/modelDefault@v001\t2\t2048\t\n\
             stays\tlantern:robot/modelDefault@v002\t0\t0\tanna pinned it\n"
        );
        assert_eq!(ran.stderr, "1 of 2 versions, 2.0 KiB, dropped; the trash keeps them for a while\n");
        assert_eq!(ran.exit, 3);
        assert_eq!(daemon.requests(), ["POST /v1/drop {\"refs\":[\"robot/*@*\"],\"dry_run\":false}"]);
        let ran = daemon.run(&["drop", "robot/*@*", "-v"]);
        assert!(ran.stderr.contains("srv@montreal: has it\n"), "{ran:?}");
    }

    #[test]
    fn a_dry_run_says_what_would_go_and_ends_as_the_drop_would() {
        let daemon = FakeDaemon::start();
        daemon
            .on("POST /v1/drop", &reply(vec![item(1, DropState::WouldDrop, None)]))
            .on("POST /v1/drop", &reply(vec![item(1, DropState::Stays, Some("0 of 1 other site"))]))
            .on("POST /v1/drop", &reply(vec![item(1, DropState::Absent, None)]));
        let ran = daemon.run(&["drop", "-n", "robot/modelDefault"]);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, "1 of 1 versions, 2.0 KiB, would go\n"));
        assert!(daemon.requests()[0].contains("\"dry_run\":true"));
        assert_eq!(daemon.run(&["drop", "-n", "robot/modelDefault"]).exit, 1);
        let ran = daemon.run(&["drop", "robot/modelDefault", "--json"]);
        assert_eq!((ran.exit, &ran.json()["versions"][0]["state"]), (0, &"absent".into()));
    }
}
