//! [`Names`]: which names the nodes of the studio that issue say that they gave. A hint to refuse a name, and nothing else: who says
//! so proves nothing, and an issuing node that is cut off does not hear of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{
    access::Role,
    feed::{FeedId, Group},
    id::{NodeId, ProjectName},
    limits::RECORDS_FRAME_TARGET_BYTES,
    record::Record,
};
use avalon_store::ledger::Ledger;

use crate::log::ErrorChain;

/// Names that are remembered of one node: more than a studio gives in its time.
const MAX_NAMES: usize = 10_000;

/// What the studio's feeds say of names, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Reading>);

#[derive(Debug, Default)]
struct Reading {
    next_seq: BTreeMap<NodeId, u64>,
    given: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Names {
    /// Says whether somebody who may issue says that this name was given. Reads what is new; blocks.
    pub(super) fn is_given(&self, ledger: &Ledger, node: &NodeId) -> bool {
        self.read(ledger).given.values().any(|given| given.contains(node))
    }

    /// Returns which names a node says that it gave. Reads what is new; blocks.
    pub(super) fn given_by(&self, ledger: &Ledger, issuer: &NodeId) -> BTreeSet<NodeId> {
        self.read(ledger).given.get(issuer).cloned().unwrap_or_default()
    }

    fn read(&self, ledger: &Ledger) -> MutexGuard<'_, Reading> {
        // What was read is taken group by group.
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, head) in ledger.heads(&ProjectName::studio()) {
            reading.go_on(ledger, &node, head.next_seq);
        }
        reading
    }
}

impl Reading {
    fn go_on(&mut self, ledger: &Ledger, node: &NodeId, end: u64) {
        let feed = FeedId { project: ProjectName::studio(), node: node.clone() };
        loop {
            let from_seq = self.next_seq.get(node).copied().unwrap_or(0);
            if from_seq >= end {
                return;
            }
            let groups = match ledger.read_groups(&feed, from_seq, RECORDS_FRAME_TARGET_BYTES) {
                Ok(groups) if !groups.is_empty() => groups,
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%feed, error = %ErrorChain(&error), "names that were given cannot be read");
                    return;
                }
            };
            for body in groups.iter().filter_map(|group| postcard::from_bytes::<Group>(&group.body).ok()) {
                self.take(ledger, &feed, &body);
                self.next_seq.insert(node.clone(), body.first_seq + body.records.len() as u64);
            }
        }
    }

    fn take(&mut self, ledger: &Ledger, feed: &FeedId, body: &Group) {
        // Others issue for nobody.
        if !matches!(ledger.role_at(feed, body.first_seq), Some(Role::Admin | Role::Site)) {
            return;
        }
        let given = self.given.entry(feed.node.clone()).or_default();
        for raw in &body.records {
            if let Ok(Record::Issued(issued)) = Record::in_feed(raw, &feed.project)
                && given.len() < MAX_NAMES
            {
                given.insert(issued.node);
            }
        }
    }
}
