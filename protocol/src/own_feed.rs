//! When a node may write its own feeds: a node that was restored from a backup first takes back what others know of them.
//!
//! What is written behind an old end of a feed is a second history of it, and nobody takes a node's word after that. Only
//! peers know how far a feed went; on the own disk a restore leaves signs ([`Signs`]), or none. So a start compares with a
//! peer before it writes, and does without only where nothing speaks of a restore and nobody can be asked. Time comes in.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::id::{NodeId, ProjectName};

/// How long a start waits for a peer that can say how far this node's feeds went. Peers that are there greet within a second.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long a peer may say that it has more of this node's feed without any of it coming. A feed is all of the catalog at
/// worst, over a slow line; each record that comes starts the time anew.
pub const CLAIM_PATIENCE: Duration = Duration::from_secs(30);

/// What the own disk says about where its state comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signs {
    /// The files are those that this node wrote last.
    None,
    /// Nothing has been written here yet: a new node, or one that lost everything.
    New,
    /// The files are copies of what this node wrote, or less than that.
    Restored {
        /// What shows it.
        why: String,
    },
}

/// Whether a node may write its feed about a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// It may.
    Free,
    /// It is about to be known: what is to be written waits, for seconds.
    Waits,
    /// Not before a peer, or a person, has said how far the feed went: what is to be written is refused.
    Refused,
}

/// What a peer said of this node's feed, and when something of it last came.
#[derive(Debug, Clone, Copy)]
struct Claim {
    next_seq: u64,
    since: Duration,
}

#[derive(Debug, Default)]
struct Own {
    next_seq: u64,
    /// What each connected peer that shares the project says that it has.
    claims: BTreeMap<NodeId, Claim>,
    /// A peer had no more than this node, or somebody said that nothing is to be waited for.
    is_settled: bool,
}

/// The standing of all feeds of one node, from its start on.
#[derive(Debug)]
pub struct OwnFeeds {
    signs: Signs,
    started: Duration,
    /// Nobody else is known, nor configured.
    is_alone: bool,
    feeds: BTreeMap<ProjectName, Own>,
    peers: BTreeSet<NodeId>,
    /// A peer has greeted since the start, whatever it shares.
    has_met: bool,
}

impl OwnFeeds {
    /// Starts at `now` with how many records each own feed has; `is_alone` says that no other node is known or configured.
    pub fn new(
        feeds: impl IntoIterator<Item = (ProjectName, u64)>,
        signs: Signs,
        is_alone: bool,
        now: Duration,
    ) -> Self {
        let own = |(project, next_seq)| (project, Own { next_seq, ..Own::default() });
        let feeds = feeds.into_iter().map(own).collect();
        Self { signs, started: now, is_alone, feeds, peers: BTreeSet::new(), has_met: false }
    }

    /// Returns what the own disk said at the start.
    pub fn signs(&self) -> &Signs {
        &self.signs
    }

    /// Returns the projects that it knows of.
    pub fn projects(&self) -> impl Iterator<Item = &ProjectName> {
        self.feeds.keys()
    }

    /// Hears that a peer has greeted.
    pub fn greeted(&mut self, peer: &NodeId) {
        self.peers.insert(peer.clone());
        self.has_met = true;
    }

    /// Hears how many records a peer says that it has of this node's feed about a project.
    pub fn heard(&mut self, project: &ProjectName, peer: &NodeId, next_seq: u64, now: Duration) {
        let own = self.feeds.entry(project.clone()).or_default();
        own.claims.insert(peer.clone(), Claim { next_seq, since: now });
        own.is_settled |= next_seq <= own.next_seq;
    }

    /// Hears that the own feed about a project has so many records now: some were written, or a peer gave some back.
    pub fn advanced(&mut self, project: &ProjectName, next_seq: u64, now: Duration) {
        let own = self.feeds.entry(project.clone()).or_default();
        if next_seq <= own.next_seq {
            return;
        }
        own.next_seq = next_seq;
        own.is_settled |= own.claims.values().any(|claim| claim.next_seq <= next_seq);
        own.claims.values_mut().for_each(|claim| claim.since = now);
    }

    /// Hears that a peer is gone; what it said stands no more.
    pub fn gone(&mut self, peer: &NodeId) {
        self.peers.remove(peer);
        self.feeds.values_mut().for_each(|own| own.claims.retain(|claimant, _| claimant != peer));
    }

    /// Hears from a person that nothing more is to be waited for.
    pub fn release(&mut self, project: &ProjectName) {
        let own = self.feeds.entry(project.clone()).or_default();
        own.is_settled = true;
        own.claims.retain(|_, claim| claim.next_seq <= own.next_seq);
    }

    /// Says whether the feed about a project may be written at `now`.
    pub fn writing(&self, project: &ProjectName, now: Duration) -> Writing {
        let Some(own) = self.feeds.get(project) else {
            return if self.is_alone { Writing::Free } else { Writing::Waits };
        };
        if self.ahead(project, now).next().is_some() {
            // It comes; whoever waited for all of a long feed would take the daemon for dead.
            return if now < self.started + GRACE { Writing::Waits } else { Writing::Refused };
        }
        let is_over = now >= self.started + GRACE;
        let may = match &self.signs {
            _ if self.is_alone => true,
            Signs::None => own.is_settled || is_over,
            // All that are there within the grace are heard: the first need not be the one that knows most.
            Signs::Restored { .. } => own.is_settled && is_over,
            Signs::New => own.is_settled || (is_over && self.has_met && own.claims.is_empty()),
        };
        match (may, is_over) {
            (true, _) => Writing::Free,
            (false, false) => Writing::Waits,
            (false, true) => Writing::Refused,
        }
    }

    /// Returns the peers that say to have more of the own feed about a project, and how much, as long as they are believed.
    pub fn ahead(&self, project: &ProjectName, now: Duration) -> impl Iterator<Item = (&NodeId, u64)> {
        let own = self.feeds.get(project);
        let claims =
            own.into_iter().flat_map(|own| own.claims.iter().map(move |claim| (own.next_seq, claim)));
        claims.filter_map(move |(ours, (peer, claim))| {
            let is_believed = now < claim.since + CLAIM_PATIENCE;
            (is_believed && claim.next_seq > ours).then_some((peer, claim.next_seq))
        })
    }

    /// Returns when something may change without anybody saying anything; `None` when nothing will.
    pub fn next_change(&self, now: Duration) -> Option<Duration> {
        let ends = self.feeds.values().flat_map(|own| {
            let ahead = own.claims.values().filter(|claim| claim.next_seq > own.next_seq);
            ahead.map(|claim| claim.since + CLAIM_PATIENCE)
        });
        ends.chain([self.started + GRACE]).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests;
