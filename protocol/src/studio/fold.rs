//! What all policies that were ever applied add up to: which stands, which is in effect here, and the history.
//!
//! As with versions, the order in which records arrive does not matter: nodes that have the same records see the same
//! policy standing. Which of them a node can read may differ between versions of the software, so that is an input.

use std::{
    collections::{BTreeMap, btree_map::Entry as Slot},
    sync::Arc,
};

use super::AppliedPolicy;
use crate::{hash::PolicyHash, id::NodeId};

/// How many policies are remembered, the highest ones. A node that applies one after the other must not fill the
/// memory of all others; the records stay in the feeds.
pub const MAX_HISTORY: usize = 1000;

/// Names a policy, and says which stands: the one with the higher serial, and of one serial, which two people applied at once, the higher hash of the
/// text. Any total order does, if all nodes use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyId {
    /// Its serial.
    pub serial: u64,
    /// The hash of its text.
    pub hash: PolicyHash,
}

/// One policy that was applied, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the record stands: the node, and its number in the feed; of several with one id, the first in order.
    pub place: (NodeId, u64),
    /// The number of the first record of the group that it stands in; reading starts there.
    pub group: u64,
    /// How long the text is.
    pub bytes: usize,
    /// Who applied it.
    pub author: String,
    /// What they said about it.
    pub comment: String,
    /// When, in milliseconds since 1970; for display only.
    pub applied_at_ms: u64,
    /// Whether this node can read it.
    pub is_understood: bool,
}

/// A policy with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// Its id.
    pub id: PolicyId,
    /// Who applied it, and when.
    pub entry: Entry,
    /// The text.
    pub document: Arc<str>,
}

/// The state of the studio's policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyFold {
    history: BTreeMap<PolicyId, Entry>,
    standing: Option<Stands>,
    in_effect: Option<Stands>,
}

impl PolicyFold {
    /// Adds a policy that stands at `place` in a feed, in the group that starts at `group`, and returns it as it was added.
    /// Adding it again changes nothing. Whether this node understands it must follow from the text alone.
    pub fn apply(
        &mut self,
        place: (NodeId, u64),
        group: u64,
        policy: &AppliedPolicy,
        is_understood: bool,
    ) -> Stands {
        let id = PolicyId { serial: policy.serial(), hash: policy.hash() };
        let entry = Entry {
            place,
            group,
            bytes: policy.document().len(),
            author: policy.author().to_owned(),
            comment: policy.comment().to_owned(),
            applied_at_ms: policy.applied_at_ms(),
            is_understood,
        };
        let stands = Stands { id, entry: entry.clone(), document: policy.document().into() };
        if is_understood {
            take(&mut self.in_effect, stands.clone());
        }
        take(&mut self.standing, stands.clone());
        match self.history.entry(id) {
            Slot::Vacant(slot) => drop(slot.insert(entry)),
            Slot::Occupied(mut slot) if entry.place < slot.get().place => drop(slot.insert(entry)),
            Slot::Occupied(_) => {}
        }
        // What falls out has so many above it that no order of arrival would keep it.
        while self.history.len() > MAX_HISTORY {
            self.history.pop_first();
        }
        stands
    }

    /// Returns the serial that stands; 0 when no policy was applied yet.
    pub fn serial(&self) -> u64 {
        self.standing.as_ref().map_or(0, |stands| stands.id.serial)
    }

    /// Returns the policy that stands, whether or not this node can read it.
    pub fn standing(&self) -> Option<&Stands> {
        self.standing.as_ref()
    }

    /// Returns the policy that is in effect here: the highest that this node can read.
    pub fn in_effect(&self) -> Option<&Stands> {
        self.in_effect.as_ref()
    }

    /// Returns what was applied, the lowest first; at most [`MAX_HISTORY`].
    pub fn history(&self) -> &BTreeMap<PolicyId, Entry> {
        &self.history
    }

    /// Returns the other policies that were applied at the same time as the one that stands: same serial, other text.
    pub fn rivals(&self) -> impl DoubleEndedIterator<Item = (&PolicyId, &Entry)> {
        let (serial, standing) = (self.serial(), self.standing.as_ref().map(|stands| stands.id));
        let first = PolicyId { serial, hash: PolicyHash::from_bytes([0; 32]) };
        self.history.range(first..).filter(move |(id, _)| Some(**id) != standing)
    }
}

fn take(highest: &mut Option<Stands>, stands: Stands) {
    let is_higher = highest.as_ref().is_none_or(|known| {
        stands.id > known.id || (stands.id == known.id && stands.entry.place < known.entry.place)
    });
    if is_higher {
        *highest = Some(stands);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(serial: u64, text: &str) -> AppliedPolicy {
        AppliedPolicy::new(serial, text.into(), format!("author of {text}"), String::new(), 7).unwrap()
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    /// The text that stands, and the one that is in effect.
    fn texts(fold: &PolicyFold) -> [&str; 2] {
        [fold.standing(), fold.in_effect()].map(|stands| stands.map_or("", |stands| &*stands.document))
    }

    #[test]
    fn the_highest_serial_stands_and_without_any_there_is_none() {
        let mut fold = PolicyFold::default();
        assert_eq!((fold.serial(), texts(&fold)), (0, ["", ""]));
        fold.apply((node("a@x"), 1), 0, &policy(2, "two"), true);
        fold.apply((node("b@y"), 1), 0, &policy(1, "one"), true);
        assert_eq!((fold.serial(), texts(&fold)), (2, ["two", "two"]));
        assert_eq!(fold.history().keys().map(|id| id.serial).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(fold.rivals().count(), 0);
    }

    #[test]
    fn one_that_is_not_understood_stands_and_the_one_before_stays_in_effect() {
        let mut fold = PolicyFold::default();
        fold.apply((node("a@x"), 1), 0, &policy(1, "old"), true);
        fold.apply((node("a@x"), 2), 2, &policy(2, "of a newer version"), false);
        assert_eq!(texts(&fold), ["of a newer version", "old"]);
        fold.apply((node("a@x"), 3), 3, &policy(3, "new"), true);
        assert_eq!(texts(&fold), ["new", "new"]);
    }

    #[test]
    fn of_two_that_were_applied_at_once_all_nodes_take_the_same_and_both_are_known() {
        let mut one = PolicyFold::default();
        one.apply((node("a@x"), 1), 0, &policy(1, "from a"), true);
        one.apply((node("b@y"), 1), 0, &policy(1, "from b"), true);
        let mut two = PolicyFold::default();
        two.apply((node("b@y"), 1), 0, &policy(1, "from b"), true);
        two.apply((node("a@x"), 1), 0, &policy(1, "from a"), true);
        assert_eq!(one, two);
        let (winner, loser) = (one.standing().unwrap().id, *one.rivals().next().unwrap().0);
        assert!(winner.serial == 1 && loser.serial == 1 && winner.hash > loser.hash);
    }

    #[test]
    fn a_node_that_floods_the_history_pushes_out_neither_memory_nor_what_is_in_effect() {
        let mut fold = PolicyFold::default();
        fold.apply((node("a@x"), 1), 0, &policy(1, "good"), true);
        for serial in 2..MAX_HISTORY as u64 + 50 {
            fold.apply((node("b@y"), serial), serial, &policy(serial, "junk"), false);
        }
        assert_eq!(fold.history().len(), MAX_HISTORY);
        assert_eq!(texts(&fold), ["junk", "good"]);
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            moves in prop::collection::vec((0u8..3, 1u64..5, 0u8..4), 1..20), shuffle in any::<u64>()
        ) {
            let mut records: Vec<((NodeId, u64), AppliedPolicy)> = moves
                .iter()
                .zip(0..)
                .map(|(&(who, serial, text), seq)| {
                    let place = (node(["a@x", "b@x", "c@y"][who as usize]), seq);
                    (place, policy(serial, &format!("text {text}")))
                })
                .collect();
            let fold = |records: &[((NodeId, u64), AppliedPolicy)]| {
                let mut fold = PolicyFold::default();
                for (place, policy) in records {
                    fold.apply(place.clone(), place.1, policy, policy.document() != "text 3");
                }
                fold
            };
            let one = fold(&records);
            let mut state = shuffle;
            for i in (1..records.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                records.swap(i, (state >> 33) as usize % (i + 1));
            }
            records.extend(records.first().cloned());
            prop_assert_eq!(one, fold(&records));
        }
    }
}
