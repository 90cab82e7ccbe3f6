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
/// How long a peer may say that it has more of this node's feed without any of it coming, over all of its connections. A feed
/// is all of the catalog at worst, over a slow line; each record that comes starts the time anew.
pub const CLAIM_PATIENCE: Duration = Duration::from_secs(30);
/// Peers of which it is remembered, for each feed, for how long they were believed in vain: more than a studio has certificates.
const MAX_DOUBTED: usize = 1024;

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

/// What a peer said of this node's feed, and since when nothing of it came.
#[derive(Debug, Clone, Copy)]
struct Claim {
    next_seq: u64,
    since: Duration,
    /// For how long it had been believed in vain on earlier connections.
    spent: Duration,
}

impl Claim {
    fn waited(&self, now: Duration) -> Duration {
        self.spent.saturating_add(now.saturating_sub(self.since))
    }

    /// Returns until when it is believed by who is as patient.
    fn believed_until(&self, patience: Duration) -> Duration {
        self.since.saturating_add(patience.saturating_sub(self.spent))
    }
}

#[derive(Debug, Default)]
struct Own {
    next_seq: u64,
    /// What each connected peer that shares the project says that it has.
    claims: BTreeMap<NodeId, Claim>,
    /// Peers that said they had more and gave nothing, and for how long they were believed.
    spent: BTreeMap<NodeId, Duration>,
    /// How many records it is known to have had: what a damaged feed left, or 0.
    at_least: u64,
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

    /// Knows that the own feed about a project had at least so many records, which are not all here: whatever peers say, nothing is
    /// written before they are.
    pub fn had(&mut self, project: &ProjectName, records: u64) {
        let own = self.feeds.entry(project.clone()).or_default();
        own.at_least = own.at_least.max(records);
    }

    /// Returns how many records the own feed about a project had that are not all here; nothing when they are.
    pub fn lacks(&self, project: &ProjectName) -> Option<u64> {
        self.feeds.get(project).filter(|own| own.next_seq < own.at_least).map(|own| own.at_least)
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
        own.end_claim(peer, now);
        let spent = own.spent.get(peer).copied().unwrap_or_default();
        own.claims.insert(peer.clone(), Claim { next_seq, since: now, spent });
        own.is_settled |= next_seq <= own.next_seq;
    }

    /// Hears that the own feed about a project has so many records now, whoever they came from.
    pub fn advanced(&mut self, project: &ProjectName, next_seq: u64) {
        let own = self.feeds.entry(project.clone()).or_default();
        if next_seq <= own.next_seq {
            return;
        }
        own.next_seq = next_seq;
        own.is_settled |= own.claims.values().any(|claim| claim.next_seq <= next_seq);
    }

    /// Hears that a peer gave records of the own feed about a project that were not here, which has so many now. Its word is
    /// good again, and what others say has time while records come.
    pub fn came(&mut self, project: &ProjectName, peer: &NodeId, next_seq: u64, now: Duration) {
        self.advanced(project, next_seq);
        let own = self.feeds.entry(project.clone()).or_default();
        own.spent.remove(peer);
        for (claimant, claim) in &mut own.claims {
            // Who was not believed any more is not believed for what somebody else gives.
            if claimant == peer || claim.waited(now) < CLAIM_PATIENCE {
                (claim.since, claim.spent) = (now, Duration::ZERO);
            }
        }
    }

    /// Hears that a peer is gone; what it said stands no more.
    pub fn gone(&mut self, peer: &NodeId, now: Duration) {
        self.peers.remove(peer);
        self.feeds.values_mut().for_each(|own| own.end_claim(peer, now));
    }

    /// Hears from a person that nothing more is to be waited for. Whoever says now that it has more is believed again when it
    /// has given something.
    pub fn release(&mut self, project: &ProjectName) {
        let own = self.feeds.entry(project.clone()).or_default();
        own.is_settled = true;
        own.at_least = 0;
        let ours = own.next_seq;
        own.claims
            .values_mut()
            .filter(|claim| claim.next_seq > ours)
            .for_each(|claim| claim.spent = CLAIM_PATIENCE);
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
        self.but_for_claims(own, now)
    }

    /// Says whether a record that takes a node out of the studio may be written at `now`. What peers say holds it for moments
    /// alone, in which what they have would come: the node that is taken out may be one of them. Where the disk shows that this
    /// state was restored, peers that know more are likely, and it waits as long as everything else, but is not refused for it.
    pub fn revoking(&self, project: &ProjectName, now: Duration) -> Writing {
        let Some(own) = self.feeds.get(project) else { return self.writing(project, now) };
        let patience = self.patience_of_revocations();
        if own.ahead(patience, now).next().is_some() { Writing::Waits } else { self.but_for_claims(own, now) }
    }

    fn patience_of_revocations(&self) -> Duration {
        if matches!(self.signs, Signs::Restored { .. }) { CLAIM_PATIENCE } else { GRACE }
    }

    fn but_for_claims(&self, own: &Own, now: Duration) -> Writing {
        let is_over = now >= self.started + GRACE;
        let may = match &self.signs {
            // A backup may be older than the first word of a peer, so whoever dials has a moment to be heard.
            Signs::Restored { .. } if self.is_alone => is_over,
            _ if self.is_alone => true,
            Signs::None => own.is_settled || is_over,
            // All that are there within the grace are heard: the first need not be the one that knows most.
            Signs::Restored { .. } => own.is_settled && is_over,
            Signs::New => own.is_settled || (is_over && self.has_met && own.claims.is_empty()),
        };
        let may = may && own.next_seq >= own.at_least;
        match (may, is_over) {
            (true, _) => Writing::Free,
            (false, false) => Writing::Waits,
            (false, true) => Writing::Refused,
        }
    }

    /// Returns the peers that say to have more of the own feed about a project, and how much, as long as they are believed.
    pub fn ahead(&self, project: &ProjectName, now: Duration) -> impl Iterator<Item = (&NodeId, u64)> {
        self.feeds.get(project).into_iter().flat_map(move |own| own.ahead(CLAIM_PATIENCE, now))
    }

    /// Returns when something may change without anybody saying anything; `None` when nothing will.
    pub fn next_change(&self, now: Duration) -> Option<Duration> {
        let patiences = [self.patience_of_revocations(), CLAIM_PATIENCE];
        let ends = self.feeds.values().flat_map(|own| {
            let ahead = own.claims.values().filter(|claim| claim.next_seq > own.next_seq);
            ahead.flat_map(|claim| patiences.map(|patience| claim.believed_until(patience)))
        });
        ends.chain([self.started + GRACE]).filter(|at| *at > now).min()
    }
}

impl Own {
    /// Returns who says to have more than there is, as long as that is believed by who is as patient.
    fn ahead(&self, patience: Duration, now: Duration) -> impl Iterator<Item = (&NodeId, u64)> {
        let ahead = self
            .claims
            .iter()
            .filter(move |(_, claim)| claim.next_seq > self.next_seq && now < claim.believed_until(patience));
        ahead.map(|(peer, claim)| (peer, claim.next_seq))
    }

    /// Takes back what a peer said, and remembers for how long it was believed in vain.
    fn end_claim(&mut self, peer: &NodeId, now: Duration) {
        let Some(claim) = self.claims.remove(peer).filter(|claim| claim.next_seq > self.next_seq) else {
            return;
        };
        if self.spent.len() >= MAX_DOUBTED && !self.spent.contains_key(peer) {
            let least = self.spent.iter().min_by_key(|(_, spent)| **spent).map(|(peer, _)| peer.clone());
            least.map(|peer| self.spent.remove(&peer));
        }
        self.spent.insert(peer.clone(), claim.waited(now).min(CLAIM_PATIENCE));
    }
}

#[cfg(test)]
mod tests;
