//! What a list of revoked certificates, signed by the studio's CA, does to the records that were signed under them.
//!
//! The CA stands above every admin: what is on its list counts also against who brought it. An admin's node only brings it, and whoever is no
//! admin any more cannot. Of several lists the newest counts whose author could say so when it was said, by that list itself.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    id::NodeId,
    limits::MAX_CRLS_KEPT,
    signing::{CertificateList, Signer},
};

/// The list of revoked certificates that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    list: CertificateList,
    /// Who brought it.
    by: NodeId,
    /// Where whoever brought it said that the studio feeds of others stood: what is signed under a revoked certificate ends there.
    ends: BTreeMap<NodeId, u64>,
}

impl Listed {
    /// Returns the list.
    pub fn list(&self) -> &CertificateList {
        &self.list
    }

    /// Returns who brought it.
    pub fn by(&self) -> &NodeId {
        &self.by
    }

    /// Returns since when what somebody signs under does not count any more, in milliseconds since 1970; nothing while it does.
    pub fn since(&self, signer: &Signer) -> Option<u64> {
        let known = signer.certificates.iter().flatten();
        known.filter_map(|id| self.list.revoked.get(id)).min().copied()
    }

    /// Returns where a node's feed of the studio ends for what it signed under a revoked certificate, if whoever brought the list said so.
    pub fn end_of(&self, node: &NodeId) -> Option<u64> {
        self.ends.get(node).copied()
    }

    /// Says whether what stands at `seq` in a node's feed of the studio was said while its certificate was good.
    pub(super) fn stands(&self, node: &NodeId, seq: u64, signer: &Signer, said_at_ms: Option<u64>) -> bool {
        let Some(since_ms) = self.since(signer) else { return true };
        said_at_ms.is_some_and(|at_ms| at_ms < since_ms) && self.ends.get(node).is_none_or(|end| seq < *end)
    }
}

/// A list, and where the record stands that brought it.
#[derive(Debug, Clone)]
pub(super) struct Brought {
    pub(super) by: NodeId,
    pub(super) seq: u64,
    pub(super) signer: Signer,
    pub(super) at_ms: u64,
    pub(super) list: CertificateList,
}

impl Brought {
    /// Makes it the list that counts, where `ends` says where its author said that studio feeds stood.
    pub(super) fn listed(&self, ends: BTreeMap<NodeId, u64>) -> Listed {
        Listed { list: self.list.clone(), by: self.by.clone(), ends }
    }
}

/// The lists that were brought, the newest first, and no more than are looked at.
#[derive(Debug, Default)]
pub(super) struct Lists(Vec<Brought>);

impl Lists {
    /// Adds one. The order in which they come does not matter.
    pub(super) fn add(&mut self, brought: Brought) {
        let order = |one: &Brought| {
            let facts = (Reverse(one.list.made_at_ms), one.by.clone(), one.seq);
            (Reverse(one.list.number), facts)
        };
        self.0.push(brought);
        self.0.sort_by_cached_key(order);
        self.0.truncate(MAX_CRLS_KEPT);
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Brought> {
        self.0.iter()
    }
}
