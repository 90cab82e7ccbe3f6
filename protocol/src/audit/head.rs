//! [`AuditHead`]: how far a node's audit went, said where it cannot be taken back.

use serde::{Deserialize, Serialize};

use crate::{
    feed::{Group, SealedGroup},
    hash::AuditHash,
    record::Record,
};

/// The payload of [`Record::AuditHead`]: the audit of this feed's node has so many entries, with this hash.
///
/// Whoever rewrites the files later cannot rewrite this: the record stands in a signed feed, of which other nodes have
/// copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// How many entries there were.
    pub entries: u64,
    /// The hash of the last of them.
    pub hash: AuditHash,
    /// When that was, in milliseconds since 1970, by the node's clock.
    pub at_ms: u64,
}

/// Returns the heads in groups of a studio feed, in their order.
pub fn audit_heads(groups: &[SealedGroup]) -> Vec<AuditHead> {
    let bodies = groups.iter().filter_map(|group| postcard::from_bytes::<Group>(&group.body).ok());
    let heads = bodies.flat_map(|body| {
        let project = body.feed.project;
        body.records.into_iter().filter_map(move |raw| match Record::in_feed(&raw, &project) {
            Ok(Record::AuditHead(head)) => Some(head),
            _ => None,
        })
    });
    heads.collect()
}
