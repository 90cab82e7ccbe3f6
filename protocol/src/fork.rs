//! Proof that a feed has two histories: two groups that its node signed and that cannot both stand in one feed.
//!
//! Whoever has the two can show them to anybody: the certificates of the feed tell that both signatures are the node's. A
//! claim of a peer alone, such as a head that does not fit, proves nothing and freezes nothing.

use serde::{Deserialize, Serialize};

use crate::{
    feed::{FeedId, Group, SealedGroup},
    hash::ChainHash,
};

/// Two groups of one feed that contradict each other. Their signatures are checked by whoever finds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkProof {
    /// The feed.
    pub feed: FeedId,
    /// The record at which the other history says something else, as far as the proof tells.
    pub seq: u64,
    /// The group that was here first.
    pub ours: SealedGroup,
    /// The other one.
    pub theirs: SealedGroup,
}

impl ForkProof {
    /// Finds among groups of ours one that `theirs` contradicts.
    pub fn find(feed: &FeedId, ours: &[SealedGroup], theirs: &SealedGroup) -> Option<Self> {
        let other = Place::of(theirs).filter(|other| other.feed == *feed)?;
        let found = ours.iter().find_map(|group| Some((group, Place::of(group)?.parts_from(&other)?)));
        let (ours, seq) = found?;
        Some(Self { feed: feed.clone(), seq, ours: ours.clone(), theirs: theirs.clone() })
    }

    /// Says whether the two groups contradict each other; not whether they are signed.
    pub fn holds(&self) -> bool {
        let places = (Place::of(&self.ours), Place::of(&self.theirs));
        let (Some(ours), Some(theirs)) = places else { return false };
        ours.feed == self.feed && theirs.feed == self.feed && ours.parts_from(&theirs) == Some(self.seq)
    }

    /// Returns how many records a node must have for both groups to mean something to it: one that has fewer takes them for
    /// a gap.
    pub fn shown_from(&self) -> u64 {
        let first = |group| Place::of(group).map_or(0, |place| place.first_seq);
        first(&self.ours).max(first(&self.theirs))
    }
}

/// Where a group stands by its own words.
#[derive(Debug)]
struct Place {
    feed: FeedId,
    first_seq: u64,
    end: u64,
    previous: ChainHash,
    chain: ChainHash,
}

impl Place {
    fn of(group: &SealedGroup) -> Option<Self> {
        let body: Group = postcard::from_bytes(&group.body).ok()?;
        let end = body.first_seq.checked_add(body.records.len() as u64)?;
        Some(Self {
            feed: body.feed,
            first_seq: body.first_seq,
            end,
            previous: body.previous,
            chain: group.chain(),
        })
    }

    /// Returns the record at which two groups part, if they cannot both be of one history.
    fn parts_from(&self, other: &Self) -> Option<u64> {
        if self.feed != other.feed || self.chain == other.chain {
            return None;
        }
        if self.end == other.first_seq && self.chain != other.previous {
            return Some(self.end.saturating_sub(1));
        }
        if other.end == self.first_seq && other.chain != self.previous {
            return Some(other.end.saturating_sub(1));
        }
        let overlap = self.first_seq < other.end && other.first_seq < self.end;
        overlap.then(|| self.first_seq.max(other.first_seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> FeedId {
        FeedId { project: "lantern".parse().unwrap(), node: "ws1@london".parse().unwrap() }
    }

    fn group(first_seq: u64, count: usize) -> SealedGroup {
        SealedGroup::unsigned(&feed(), first_seq, count)
    }

    #[test]
    fn groups_that_follow_each_other_or_are_the_same_prove_nothing() {
        let first = group(0, 2);
        let next = SealedGroup::unsigned_after(&feed(), 2, 1, first.chain());
        let far = group(7, 1);
        for ours in [&first, &far] {
            assert_eq!(ForkProof::find(&feed(), std::slice::from_ref(ours), &next), None);
        }
        assert_eq!(ForkProof::find(&feed(), std::slice::from_ref(&first), &first), None);
        let other = FeedId { node: "ws2@london".parse().unwrap(), ..feed() };
        assert_eq!(ForkProof::find(&feed(), &[first], &SealedGroup::unsigned(&other, 0, 1)), None);
    }

    #[test]
    fn two_groups_in_one_place_or_one_that_follows_another_are_a_proof() {
        let ours = group(0, 2);
        for (theirs, seq) in [(group(0, 3), 0), (group(1, 1), 1), (group(2, 4), 1)] {
            let proof = ForkProof::find(&feed(), std::slice::from_ref(&ours), &theirs).unwrap();
            assert_eq!((proof.seq, proof.holds()), (seq, true));
            let swapped =
                ForkProof { ours: proof.theirs.clone(), theirs: proof.ours.clone(), ..proof.clone() };
            assert!(swapped.holds(), "whoever has the other one says the same");
            assert!(!ForkProof { theirs: proof.ours.clone(), ..proof }.holds());
        }
    }

    #[test]
    fn it_means_something_to_whoever_has_what_both_groups_follow() {
        let proof = ForkProof::find(&feed(), &[group(2, 2)], &group(3, 5)).unwrap();
        assert_eq!(proof.shown_from(), 3);
    }
}
