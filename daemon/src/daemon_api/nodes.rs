//! `node`: who belongs to the studio and may do what, and who does not any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use avalon_protocol::{
    access::{Action, Role},
    control::{ApiError, ErrorCode, NodeItem, NodesReply, RevokeReply, RevokeRequest},
    feed::FeedId,
    id::NodeId,
};

use super::{DaemonApi, lifetime::Doer};
use crate::{
    api::Caller,
    clock::time_of_ms,
    core::{Core, blocking},
    log::ErrorChain,
    rights::RevokeError,
};

impl DaemonApi {
    pub(super) async fn nodes_reply(&self) -> NodesReply {
        let connected: BTreeSet<NodeId> = self.net.links().iter().map(|link| link.node().clone()).collect();
        let core = Arc::clone(&self.core);
        let nodes = blocking(move || items(&core, &connected)).await;
        NodesReply { schema: "avalonctl.nodes/1".into(), nodes }
    }

    pub(super) async fn node_revoked(
        &self,
        request: RevokeRequest,
        caller: Caller,
    ) -> Result<RevokeReply, ApiError> {
        let bad = |message: String| ApiError::new(ErrorCode::BadRequest, message);
        if let Some(list) = request.list {
            if !request.node.is_empty() {
                return Err(bad("either a node or a list is revoked, not both".into()));
            }
            let der =
                hex::decode(list).map_err(|error| bad(format!("the list is not in hex digits: {error}")))?;
            let Doer { author, comment } = Doer::new(&request.author, &request.comment, caller)?;
            let core = Arc::clone(&self.core);
            let list = blocking(move || core.revoke_list(der, author, comment)).await;
            let list = list.map_err(|error| refused(&error))?;
            return Ok(RevokeReply {
                schema: "avalonctl.node-revoke/1".into(),
                node: String::new(),
                list: Some(list.number),
                certificates: Some(list.revoked.len() as u64),
            });
        }
        let node: NodeId = request.node.parse().map_err(|error| bad(format!("{error}")))?;
        let Doer { author, comment } = Doer::new(&request.author, &request.comment, caller)?;
        let (core, name) = (Arc::clone(&self.core), node.to_string());
        // Not dropped when the caller hangs up: who asks again hears that it is done.
        let revoked = blocking(move || core.revoke_node(&node, author, comment).map(drop)).await;
        revoked.map_err(|error| refused(&error))?;
        let schema = "avalonctl.node-revoke/1".into();
        Ok(RevokeReply { schema, node: name, list: None, certificates: None })
    }
}

fn items(core: &Core, connected: &BTreeSet<NodeId>) -> Vec<NodeItem> {
    let (admission, now_ms) = (core.ledger.admission(), core.now_ms());
    let mut roles: BTreeMap<NodeId, Role> = BTreeMap::new();
    // Under which certificate a node writes now is not in every feed of it: it is not out as long as one of them goes on.
    let mut listed: BTreeMap<NodeId, Option<u64>> = BTreeMap::new();
    for project in core.feed_projects() {
        for (node, head) in core.ledger.heads(&project) {
            let feed = FeedId { project: project.clone(), node: node.clone() };
            let signer = head.next_seq.checked_sub(1).and_then(|seq| core.ledger.signer_at(&feed, seq));
            let Some(signer) = signer else { continue };
            roles.insert(node.clone(), signer.role);
            let since_ms = admission.listed_since(&signer);
            let of_node = listed.entry(node).or_insert(since_ms);
            *of_node = of_node.and_then(|before| Some(before.min(since_ms?)));
        }
    }
    let mut revoked: BTreeMap<NodeId, u64> = admission.revoked().clone();
    for (node, since_ms) in
        listed.into_iter().filter(|(node, _)| *node != core.me && !connected.contains(node))
    {
        if let Some(since_ms) = since_ms {
            revoked.entry(node).or_insert(since_ms);
        }
    }
    roles.insert(core.me.clone(), core.ledger.own_role());
    for node in admission.revoked().keys() {
        roles.entry(node.clone()).or_insert(Role::Vendor);
    }
    let item = |(node, certified): (NodeId, Role)| {
        let rights = core.projects.keys().map(|project| {
            let rights = admission.rights(&node, certified, project, now_ms);
            (project.to_string(), rights.actions().collect::<Vec<Action>>())
        });
        NodeItem {
            role: admission.policy().role(&node, certified),
            connected: node == core.me || connected.contains(&node),
            revoked: revoked.get(&node).map(|at_ms| time_of_ms(*at_ms)),
            rights: rights.collect(),
            node: node.to_string(),
        }
    };
    let mut items: Vec<NodeItem> = roles.into_iter().map(item).collect();
    let place =
        |item: &NodeItem| item.node.split_once('@').map(|(node, site)| (site.to_owned(), node.to_owned()));
    items.sort_by_cached_key(place);
    items
}

fn refused(error: &RevokeError) -> ApiError {
    let (code, hint) = match error {
        RevokeError::NotAllowed { .. } => (
            ErrorCode::Denied,
            "do it at a node with the role admin; the studio CA gives it: avalonctl ca issue --role admin",
        ),
        RevokeError::Itself { .. } => (ErrorCode::BadRequest, "do it at another node with the role admin"),
        RevokeError::Already { .. } => (ErrorCode::BadRequest, "avalonctl node list shows since when"),
        RevokeError::List { .. } => {
            (ErrorCode::BadRequest, "take the file that avalonctl ca revoke made where the studio CA is")
        }
        RevokeError::OldList { .. } => {
            (ErrorCode::BadRequest, "take the file with the highest number from the studio CA's directory")
        }
        RevokeError::ShorterList { .. } => (
            ErrorCode::BadRequest,
            "bring the lists of all copies of the studio CA's directory together in one, then: avalonctl ca revoke",
        ),
        RevokeError::ListAhead { .. } => (
            ErrorCode::BadRequest,
            "set the clocks of this machine and of that with the studio CA, then make the list again: avalonctl ca revoke",
        ),
        RevokeError::LongList => {
            (ErrorCode::BadRequest, "revoke nodes by name: avalonctl node revoke NODE@SITE")
        }
        RevokeError::Ledger { source } if source.is_no_space() => {
            (ErrorCode::DiskFull, "make room on the disk of the state directory")
        }
        RevokeError::Ledger { .. } => (ErrorCode::Internal, "avalonctl status says what is wrong"),
    };
    ApiError::new(code, ErrorChain(error).to_string()).with_hint(hint)
}
