//! Reading the studio's feeds: what is new since the last time, and a document of the history.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    access::{Admission, Role},
    feed::{FeedId, Group, SealedGroup},
    id::{NodeId, ProjectName},
    limits::RECORDS_FRAME_TARGET_BYTES,
    record::{Record, RecordError},
    studio::{AppliedPolicy, Entry, PolicyFold, PolicyId, Stands},
};
use avalon_store::ledger::{Ledger, LedgerError};

use super::understand;

/// How far each feed was read, and what that adds up to.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Which records count, as they were read.
    admission: Arc<Admission>,
    fold: PolicyFold,
    next_seq: BTreeMap<NodeId, u64>,
    /// How many records of each node state nothing.
    ignored: BTreeMap<NodeId, u64>,
}

/// What one reading brought.
#[derive(Debug, Default)]
pub(super) struct Tidings {
    /// The policies that are new, in the order of the feeds.
    pub(super) applied: Vec<Stands>,
    /// All was read again, because other records count than before.
    pub(super) is_other: bool,
    /// Why a feed was not read to its end; it is tried again the next time.
    pub(super) failed: Option<LedgerError>,
    /// How many records state nothing, of nodes of which there are more than before.
    pub(super) ignored: BTreeMap<NodeId, u64>,
}

fn feed_of(node: &NodeId) -> FeedId {
    FeedId { project: ProjectName::studio(), node: node.clone() }
}

impl Reading {
    pub(super) fn fold(&self) -> &PolicyFold {
        &self.fold
    }

    /// Reads what all feeds of the studio have by now.
    pub(super) fn go_on(&mut self, ledger: &Ledger) -> Tidings {
        let mut tidings = Tidings::default();
        let heads = ledger.heads(&ProjectName::studio());
        let known = self.judge_by(ledger.admission(), heads.iter().map(|(node, _)| node));
        tidings.is_other = known.is_some();
        for (node, head) in heads {
            let feed = feed_of(&node);
            while self.next_seq.get(&node).is_none_or(|next| *next < head.next_seq) {
                let from_seq = self.next_seq.get(&node).copied().unwrap_or(0);
                match ledger.read_groups(&feed, from_seq, RECORDS_FRAME_TARGET_BYTES) {
                    Ok(groups) => {
                        let take = |group| self.take(ledger, &node, group, &mut tidings);
                        groups.iter().for_each(take);
                    }
                    Err(error) => {
                        tidings.failed = Some(error);
                        break;
                    }
                }
                // A feed that does not go on as its head says is left for the next time.
                if self.next_seq.get(&node).is_none_or(|next| *next <= from_seq) {
                    break;
                }
            }
        }
        if let Some(known) = known {
            tidings.applied.retain(|stands| !known.history().contains_key(&stands.id));
        }
        tidings
    }

    /// Goes by another admission; starts anew, and returns what was read before, when a policy may count otherwise by it.
    fn judge_by<'a>(
        &mut self,
        admission: Arc<Admission>,
        mut nodes: impl Iterator<Item = &'a NodeId>,
    ) -> Option<PolicyFold> {
        let changes = |node| self.admission.differs_from(&admission, &feed_of(node)).is_some();
        let known = nodes.any(changes).then(|| std::mem::take(self).fold);
        self.admission = admission;
        known
    }

    fn take(&mut self, ledger: &Ledger, node: &NodeId, group: &SealedGroup, tidings: &mut Tidings) {
        // The ledger took no group that does not parse.
        let Ok(body) = postcard::from_bytes::<Group>(&group.body) else { return };
        for (seq, raw) in (body.first_seq..).zip(&body.records) {
            match Record::in_feed(raw, &body.feed.project) {
                // Whoever is no admin applies nothing.
                Ok(record @ Record::Policy(_)) if self.lacks_right(ledger, &body.feed, seq, &record) => {
                    self.ignore(node, tidings);
                }
                Ok(Record::Policy(policy)) => {
                    let place = (node.clone(), seq);
                    tidings.applied.push(self.fold.apply(
                        place,
                        body.first_seq,
                        &policy,
                        understand(policy.document()).is_ok(),
                    ));
                }
                Ok(_) | Err(RecordError::Unknown { .. }) => {}
                Err(RecordError::Elsewhere { .. } | RecordError::Damaged { .. }) => {
                    self.ignore(node, tidings);
                }
            }
        }
        self.next_seq.insert(node.clone(), body.first_seq + body.records.len() as u64);
    }

    fn lacks_right(&self, ledger: &Ledger, feed: &FeedId, seq: u64, record: &Record) -> bool {
        let signer = ledger.signer_at(feed, seq).unwrap_or(Role::Vendor.into());
        self.admission.admits(feed, seq, signer, record).is_err()
    }

    fn ignore(&mut self, node: &NodeId, tidings: &mut Tidings) {
        let count = self.ignored.entry(node.clone()).or_default();
        *count += 1;
        tidings.ignored.insert(node.clone(), *count);
    }
}

/// Reads the document of an entry of the history back from its feed; nothing when it is not there any more. Blocks.
///
/// # Errors
/// [`LedgerError::Feed`] when the feed cannot be read.
pub fn read_document(ledger: &Ledger, id: &PolicyId, entry: &Entry) -> Result<Option<String>, LedgerError> {
    let groups = ledger.read_groups(&feed_of(&entry.place.0), entry.group, 1)?;
    let bodies = groups.iter().filter_map(|group| postcard::from_bytes::<Group>(&group.body).ok());
    let found = bodies.flat_map(|body| body.records).find_map(|raw| {
        match Record::in_feed(&raw, &ProjectName::studio()) {
            Ok(Record::Policy(policy)) if is_of(&policy, id) => Some(policy.document().to_owned()),
            _ => None,
        }
    });
    Ok(found)
}

fn is_of(policy: &AppliedPolicy, id: &PolicyId) -> bool {
    (policy.serial(), policy.hash()) == (id.serial, id.hash)
}
