//! `avalonctl node`: who belongs to the studio, and who does not any more.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use avalon_protocol::{
    control::{NodeItem, NodesReply, RevokeReply, RevokeRequest, route},
    exit_code::ExitCode,
    id::NodeId,
    limits::MAX_CRL_BYTES,
};
use clap::{Args, Subcommand};

use super::ca::CaError;
use crate::{
    context::Context,
    escape::escape,
    failure::Failure,
    table::{self, Cell},
};

/// Arguments of `node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    action: NodeAction,
}

#[derive(Debug, Subcommand)]
enum NodeAction {
    /// List the nodes of the studio with their roles and what they may do.
    List,
    /// Take a node out of the studio for good: no node talks to it any more, and its name is never given again.
    Revoke {
        /// The node, such as ws12@london.
        #[arg(value_name = "NODE@SITE", required_unless_present = "list", conflicts_with = "list")]
        node: Option<NodeId>,
        /// Publish a list of revoked certificates instead, as `avalonctl ca revoke` made it.
        #[arg(long, value_name = "FILE")]
        list: Option<PathBuf>,
        /// Why.
        #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
        comment: String,
    },
}

/// Works on nodes.
pub(crate) async fn run(context: &Context<'_>, args: NodeArgs) -> Result<ExitCode, Failure> {
    match args.action {
        NodeAction::List => list(context).await,
        NodeAction::Revoke { node: Some(node), comment, .. } => revoke(context, &node, comment).await,
        NodeAction::Revoke { node: None, list, comment } => {
            publish_list(context, &list.unwrap_or_default(), comment).await
        }
    }
}

async fn list(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: NodesReply = context.client.get(route::NODES, &[]).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let header = ["NODE", "ROLE", "STATE", "PROJECT", "MAY"];
    table::print(context.output, &header, reply.nodes.iter().flat_map(rows).collect());
    Ok(ExitCode::Ok)
}

/// A row for each project; the node stands in each, so that they can be filtered.
fn rows(item: &NodeItem) -> Vec<Vec<Cell>> {
    let state = match (&item.revoked, item.connected) {
        (Some(since), _) => format!("revoked {since}"),
        (None, true) => "connected".to_owned(),
        (None, false) => "not connected".to_owned(),
    };
    let row = |project: &str, may: String| {
        let cells = [&*escape(&item.node), item.role.as_str(), &state, &*escape(project), &may];
        cells.into_iter().map(Cell::text).collect()
    };
    if item.rights.is_empty() {
        return vec![row("-", "-".to_owned())];
    }
    let may = |actions: &[avalon_protocol::access::Action]| {
        let words: Vec<&str> = actions.iter().map(|action| action.as_str()).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    };
    item.rights.iter().map(|(project, actions)| row(project, may(actions))).collect()
}

async fn revoke(context: &Context<'_>, node: &NodeId, comment: String) -> Result<ExitCode, Failure> {
    let request = RevokeRequest { node: node.to_string(), list: None, author: String::new(), comment };
    let reply: RevokeReply = context.client.post(route::NODES_REVOKE, &request).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    context.output.data(&format!("{} is revoked", escape(&reply.node)));
    context.output.talk("every node that is connected closes its connections with it within seconds; others when they hear of it");
    context.output.talk("what it published before stays; the machine itself still has what it fetched");
    Ok(ExitCode::Ok)
}

async fn publish_list(context: &Context<'_>, path: &Path, comment: String) -> Result<ExitCode, Failure> {
    let mut der = Vec::new();
    let most = u64::try_from(MAX_CRL_BYTES).unwrap_or(u64::MAX);
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut der));
    read.map_err(|source| Failure::Ca(Box::new(CaError::Read { path: path.to_owned(), source })))?;
    let (node, author) = (String::new(), String::new());
    let request = RevokeRequest { node, list: Some(hex::encode(der)), author, comment };
    let reply: RevokeReply = context.client.post(route::NODES_REVOKE, &request).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let (number, certificates) = (reply.list.unwrap_or_default(), reply.certificates.unwrap_or_default());
    context.output.data(&format!("list {number} counts from now on; it revokes {certificates} certificates"));
    context.output.talk("every node that is connected closes its connections with them within seconds; others when they hear of it");
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use crate::fake::FakeDaemon;

    #[test]
    fn nodes_are_listed_with_what_they_may_do_and_revoked() {
        let daemon = FakeDaemon::start();
        let reply = r#"{"schema":"avalonctl.nodes/1","nodes":[
            {"node":"ws1@van","role":"vendor","connected":true,"revoked":null,"rights":{"comet":[],"lantern":["see","pull"]}},
            {"node":"ws2@van","role":"vendor","connected":false,"revoked":"2026-11-23T10:00:00Z","rights":{}}]}"#;
        daemon.answer("GET /v1/nodes", 200, reply.to_owned());
        daemon.answer(
            "POST /v1/nodes/revoke",
            200,
            r#"{"schema":"avalonctl.node-revoke/1","node":"ws1@van"}"#.to_owned(),
        );
        let ran = daemon.run(&["node", "list"]);
        assert_eq!(ran.exit, 0, "{}", ran.stderr);
        for part in ["ws1@van", "see, pull", "nothing", "revoked 2026-11-23T10:00:00Z"] {
            assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
        }
        let ran = daemon.run(&["node", "revoke", "ws1@van", "-m", "stolen"]);
        assert_eq!((ran.exit, ran.stdout.trim()), (0, "ws1@van is revoked"), "{}", ran.stderr);
        let ran = daemon.run(&["node", "revoke", "ws1"]);
        assert_eq!(ran.exit, 2, "{}", ran.stderr);
    }

    #[test]
    fn a_list_is_sent_as_it_lies_in_the_file_and_never_with_a_node() {
        let daemon = FakeDaemon::start();
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("revoked-3.crl");
        #[expect(clippy::disallowed_methods, reason = "a file of a test needs no durability")]
        std::fs::write(&list, [0x30, 0x82]).unwrap();
        let reply = r#"{"schema":"avalonctl.node-revoke/1","node":"","list":3,"certificates":5}"#;
        daemon.answer("POST /v1/nodes/revoke", 200, reply.to_owned());
        let list = list.to_str().unwrap();
        let ran = daemon.run(&["node", "revoke", "--list", list, "-m", "stolen"]);
        let expected = "list 3 counts from now on; it revokes 5 certificates";
        assert_eq!((ran.exit, ran.stdout.trim()), (0, expected), "{}", ran.stderr);
        assert_eq!(daemon.run(&["node", "revoke", "--list", list, "ws1@van"]).exit, 2);
        assert_eq!(daemon.run(&["node", "revoke"]).exit, 2);
        let ran = daemon.run(&["node", "revoke", "--list", "/nowhere/revoked-3.crl"]);
        assert!(ran.exit != 0 && ran.stderr.contains("could not read"), "{}", ran.stderr);
    }
}
