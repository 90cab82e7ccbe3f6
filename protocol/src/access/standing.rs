//! Who is revoked, and up to where what they said in the studio's own feeds counts.
//!
//! Whoever revokes a node says where that node's feed of the studio stood. What lies behind that place was written by somebody whom
//! nobody trusts any more, whoever passes it on and whenever. Admins that revoke each other, two or more in a ring, cannot be put in
//! an order: all of them are revoked. All of it follows from the records alone, so that it is the same at all nodes that have them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{id::NodeId, record::Revoked};

/// That one node revoked another.
#[derive(Debug, Clone)]
pub(super) struct Revocation {
    pub(super) by: NodeId,
    pub(super) seq: u64,
    pub(super) revoked: Revoked,
}

/// That somebody said where a node's own feed of the studio stood.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) by: NodeId,
    pub(super) seq: u64,
    pub(super) at_ms: u64,
    pub(super) about: NodeId,
    pub(super) next_seq: u64,
}

/// Since when a node is revoked, and where its feed of the studio ends for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    /// The earliest time that a revocation names.
    at_ms: u64,
    /// The lowest place that was named with a revocation; none where whoever revoked it named none. Then times count.
    next_seq: Option<u64>,
}

impl End {
    fn is_before(self, seq: u64, said_at_ms: Option<u64>) -> bool {
        match self.next_seq {
            Some(end) => seq < end,
            None => said_at_ms.is_some_and(|at_ms| at_ms < self.at_ms),
        }
    }
}

/// Who is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Since when, in milliseconds since 1970.
    revoked: BTreeMap<NodeId, u64>,
    ends: BTreeMap<NodeId, End>,
    /// Whom each node revoked, whether that counts or not.
    said_of: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Standing {
    /// Works out who is revoked. The order of what it is given does not matter.
    pub(super) fn of(revocations: &[Revocation], statements: &[Statement]) -> Self {
        let mut said_of: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for Revocation { by, revoked, .. } in revocations {
            said_of.entry(by.clone()).or_default().insert(revoked.node.clone());
        }
        let standing = Self { said_of, ..Self::default() };
        let mut court = Court { standing, ..Court::default() };
        revocations.iter().for_each(|one| court.revocations.entry(&one.revoked.node).or_default().push(one));
        statements.iter().for_each(|one| court.statements.entry(&one.about).or_default().push(one));
        revocations.iter().for_each(|one| court.judge(&one.revoked.node));
        court.standing
    }

    pub(super) fn revoked(&self) -> &BTreeMap<NodeId, u64> {
        &self.revoked
    }

    /// Says whether what stands at `seq` in a node's feed of the studio was said while the node was trusted.
    pub(super) fn stands(&self, node: &NodeId, seq: u64, said_at_ms: Option<u64>) -> bool {
        self.ends.get(node).is_none_or(|end| end.is_before(seq, said_at_ms))
    }

    /// Says whether both revoked each other, or did so in a ring.
    pub(super) fn are_in_ring(&self, by: &NodeId, node: &NodeId) -> bool {
        let (mut seen, mut left) = (BTreeSet::new(), vec![node]);
        while let Some(next) = left.pop() {
            if next == by {
                return true;
            }
            if seen.insert(next) {
                left.extend(self.said_of.get(next).into_iter().flatten());
            }
        }
        false
    }
}

/// A [`Standing`] in the making.
#[derive(Default)]
struct Court<'a> {
    standing: Standing,
    /// By the node that they are about.
    revocations: BTreeMap<&'a NodeId, Vec<&'a Revocation>>,
    statements: BTreeMap<&'a NodeId, Vec<&'a Statement>>,
    judged: BTreeSet<NodeId>,
}

impl Court<'_> {
    /// Works out whether a node is revoked. Whoever revoked it from outside of its ring is judged before; rings have no rings, so this
    /// ends, at a depth of as many as there are admins.
    fn judge(&mut self, node: &NodeId) {
        if !self.judged.insert(node.clone()) {
            return;
        }
        let mut counting: Vec<&Revocation> = Vec::new();
        for one in self.revocations.get(node).cloned().unwrap_or_default() {
            let in_ring = self.standing.are_in_ring(&one.by, node);
            if !in_ring {
                self.judge(&one.by);
            }
            if in_ring || self.standing.stands(&one.by, one.seq, Some(one.revoked.at_ms)) {
                let at_ms = self.standing.revoked.entry(node.clone()).or_insert(one.revoked.at_ms);
                *at_ms = one.revoked.at_ms.min(*at_ms);
                counting.push(one);
            }
        }
        let Some(at_ms) = self.standing.revoked.get(node).copied() else { return };
        // What was said last before the revocation. Older places are those of lists of certificates.
        let place = |revocation: &&Revocation| {
            let said = self.statements.get(node).into_iter().flatten().filter(|said| {
                said.by == revocation.by
                    && said.seq < revocation.seq
                    && (self.standing.are_in_ring(&said.by, node)
                        || self.standing.stands(&said.by, said.seq, Some(said.at_ms)))
            });
            said.max_by_key(|said| (said.seq, Reverse(said.next_seq))).map(|said| said.next_seq)
        };
        let next_seq = counting.iter().filter_map(place).min();
        self.standing.ends.insert(node.clone(), End { at_ms, next_seq });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Record, tests::revoked};

    const AT_MS: u64 = 1000;

    fn node(name: &str) -> NodeId {
        format!("{name}@x").parse().unwrap()
    }

    fn revocation(by: &str, seq: u64, whom: &str) -> Revocation {
        let Record::Revoked(revoked) = revoked(&format!("{whom}@x")) else { panic!() };
        Revocation { by: node(by), seq, revoked: Revoked { at_ms: AT_MS, ..revoked } }
    }

    /// That `by` says, just before it revokes at `seq`, where the feed of `about` stood.
    fn statement(by: &str, seq: u64, about: &str, next_seq: u64) -> Statement {
        Statement { by: node(by), seq: seq - 1, at_ms: AT_MS, about: node(about), next_seq }
    }

    fn names(standing: &Standing) -> Vec<String> {
        standing.revoked().keys().map(|node| node.to_string().trim_end_matches("@x").to_owned()).collect()
    }

    #[test]
    fn who_is_revoked_revokes_behind_its_end_only_who_revoked_it() {
        let revocations = [
            revocation("a", 5, "eve"),
            revocation("eve", 3, "old"),
            revocation("eve", 20, "a"),
            revocation("eve", 21, "b"),
            revocation("eve", 22, "c"),
            revocation("c", 9, "thief"),
        ];
        let standing = Standing::of(&revocations, &[statement("a", 5, "eve", 10)]);
        assert_eq!(names(&standing), ["a", "eve", "old", "thief"], "c stays, and so does what it said");
        assert!(standing.stands(&node("eve"), 9, None) && !standing.stands(&node("eve"), 10, Some(0)));
        assert!(standing.stands(&node("b"), 99, None));
    }

    #[test]
    fn all_of_a_ring_are_revoked_and_who_revokes_one_of_it_from_outside_counts_as_well() {
        let ring = [revocation("a", 5, "b"), revocation("b", 5, "c"), revocation("c", 5, "a")];
        let ends = [statement("a", 5, "b", 4), statement("b", 5, "c", 4), statement("c", 5, "a", 4)];
        let standing = Standing::of(&ring, &ends);
        assert_eq!(names(&standing), ["a", "b", "c"]);
        let mut more: Vec<Revocation> = ring.into();
        more.push(revocation("d", 2, "a"));
        let mut lower: Vec<Statement> = ends.into();
        lower.push(statement("d", 2, "a", 2));
        let standing = Standing::of(&more, &lower);
        assert!(standing.stands(&node("a"), 1, None) && !standing.stands(&node("a"), 2, None));
        // Of a place that somebody names who did not revoke it nothing follows.
        lower.push(statement("d", 2, "b", 0));
        assert!(Standing::of(&more, &lower).stands(&node("b"), 3, None));
    }

    #[test]
    fn the_place_that_counts_is_that_in_front_of_the_revocation() {
        let said =
            |end| [statement("a", 3, "eve", 4), statement("a", 9, "eve", end), statement("a", 12, "eve", 2)];
        let stands =
            |seq| Standing::of(&[revocation("a", 9, "eve")], &said(20)).stands(&node("eve"), seq, None);
        assert_eq!([stands(4), stands(19), stands(20)], [true, true, false]);
    }

    #[test]
    fn without_a_place_the_times_count() {
        let standing = Standing::of(&[revocation("a", 5, "eve")], &[]);
        let stands = |at_ms| standing.stands(&node("eve"), 0, at_ms);
        assert_eq!([stands(Some(AT_MS - 1)), stands(Some(AT_MS)), stands(None)], [true, false, false]);
    }

    proptest! {
        #[test]
        fn the_order_in_which_they_come_does_not_matter_and_nobody_keeps_up_its_own_standing(
            said in prop::collection::vec((0..4_usize, 1..9_u64, 0..4_usize, 0..9_u64), 1..10),
        ) {
            let name = |index: usize| ["a", "b", "c", "d"][index];
            let make = |of: &[(usize, u64, usize, u64)]| {
                let revocations: Vec<Revocation> =
                    of.iter().map(|(by, seq, whom, _)| revocation(name(*by), *seq, name(*whom))).collect();
                let statements: Vec<Statement> =
                    of.iter().map(|(by, seq, whom, end)| statement(name(*by), *seq, name(*whom), *end)).collect();
                Standing::of(&revocations, &statements)
            };
            let mut reversed = said.clone();
            reversed.reverse();
            let standing = make(&said);
            prop_assert_eq!(&standing, &make(&reversed));
            // Whoever was revoked by somebody whom nobody revoked is revoked, whatever it says.
            for (by, _, whom, end) in &said {
                if !said.iter().any(|(_, _, whom, _)| whom == by) {
                    prop_assert!(standing.revoked().contains_key(&node(name(*whom))));
                    prop_assert!(!standing.stands(&node(name(*whom)), *end, Some(AT_MS)));
                }
            }
        }
    }
}
