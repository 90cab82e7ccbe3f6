//! What people decided about contents that sites published under one number: which keeps it, and which numbers the
//! others get.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Generation, Standing, VersionFold};
use crate::{
    hash::{ContentId, ManifestId},
    id::{NodeId, VersionSlot},
    record::{Note, Resolved, Said},
};

/// One decision about a conflict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resolution {
    /// What it says of a generation counts over what lower rounds say of it.
    pub round: u32,
    /// What keeps the number.
    pub keep: ManifestId,
    /// What gets which number instead.
    pub moved: Vec<(ManifestId, u32)>,
    /// The node at which it was decided.
    pub node: NodeId,
    /// Who decided it.
    pub author: Note,
    /// Why.
    pub comment: Note,
    /// When, in milliseconds since 1970; for display only.
    pub at_ms: u64,
}

/// What was decided about one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Moved(u32),
}

/// A generation that a node holds under a number that is not its own any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub manifest: ManifestId,
    /// Its new number.
    pub number: u32,
}

impl VersionFold {
    pub(super) fn resolve(&mut self, node: &NodeId, resolved: &Resolved) {
        let Said { author, comment, at_ms } = resolved.said();
        self.resolutions.insert(Resolution {
            round: resolved.round(),
            keep: resolved.keep(),
            moved: resolved.moved().to_vec(),
            node: node.clone(),
            author,
            comment,
            at_ms,
        });
    }

    /// Returns what people decided about conflicts, in the order of their rounds.
    pub fn resolutions(&self) -> impl Iterator<Item = &Resolution> {
        self.resolutions.iter()
    }

    /// Returns the numbers that decisions gave to contents of this one: nothing else is to be published under them, also
    /// while no holder has renamed anything yet.
    pub fn given_numbers(&self) -> impl Iterator<Item = u32> {
        self.resolutions.iter().flat_map(|one| one.moved.iter().map(|(_, number)| *number))
    }

    /// Returns the decisions of the highest round when they keep different contents: then the conflict stays.
    pub fn disagreement(&self) -> Vec<&Resolution> {
        let round = self.resolutions.last().map_or(0, |last| last.round);
        let last: Vec<&Resolution> = self.resolutions.iter().filter(|one| one.round == round).collect();
        let agree =
            last.iter().all(|one| last.first().is_none_or(|first| self.same_as(&one.keep, &first.keep)));
        if agree { Vec::new() } else { last }
    }

    /// Returns what was decided about each content. A decision that keeps what is not known yet does not count yet: it would
    /// leave nothing. What is kept by one and moved by another of the same round is kept, so that a conflict stays; of
    /// two numbers the lower counts.
    fn fates(&self) -> BTreeMap<ContentId, (u32, Fate)> {
        let mut fates: BTreeMap<ContentId, (u32, Fate)> = BTreeMap::new();
        let known = self.resolutions.iter().filter(|one| self.generations.contains_key(&one.keep));
        for one in known {
            let kept = std::iter::once((&one.keep, Fate::Kept));
            let moved = one.moved.iter().map(|(id, number)| (id, Fate::Moved(*number)));
            for (id, fate) in kept.chain(moved) {
                let Some(content) = self.generations.get(id).map(|generation| generation.content) else {
                    continue;
                };
                let (round, before) = fates.entry(content).or_insert((one.round, fate));
                *before = match (one.round.cmp(round), &before, fate) {
                    (std::cmp::Ordering::Less, before, _) => **before,
                    (std::cmp::Ordering::Greater, _, fate) => fate,
                    (_, Fate::Moved(one), Fate::Moved(other)) => Fate::Moved((*one).min(other)),
                    _ => Fate::Kept,
                };
                *round = one.round.max(*round);
            }
        }
        let inherited = self.inherited(&fates);
        fates.extend(inherited);
        fates
    }

    /// Returns the contents that nobody decided about and that only follow moved ones: they grew at a site that did not know
    /// of the decision yet, and go where what they grew from goes.
    fn inherited(
        &self,
        decided: &BTreeMap<ContentId, (u32, Fate)>,
    ) -> impl Iterator<Item = (ContentId, (u32, Fate))> + use<> {
        let mut inherited: BTreeMap<ContentId, Option<(u32, Fate)>> = BTreeMap::new();
        for generation in self.generations.values().filter(|one| !decided.contains_key(&one.content)) {
            let moved = self.decided_before(generation, decided).filter(|(_, fate)| *fate != Fate::Kept);
            let known = inherited.entry(generation.content).or_insert(moved);
            *known = match (*known, moved) {
                (Some((round, Fate::Moved(one))), Some((_, Fate::Moved(other)))) => {
                    Some((round, Fate::Moved(one.min(other))))
                }
                // Published for itself as well.
                _ => None,
            };
        }
        inherited.into_iter().filter_map(|(content, fate)| Some((content, fate?)))
    }

    /// Returns what was decided about the nearest generation before one.
    fn decided_before(
        &self,
        generation: &Generation,
        decided: &BTreeMap<ContentId, (u32, Fate)>,
    ) -> Option<(u32, Fate)> {
        let mut at = generation;
        // Only a node that lies makes a circle of predecessors.
        for _ in 0..self.generations.len() {
            at = self.generations.get(&at.predecessor?)?;
            if let Some(fate) = decided.get(&at.content) {
                return Some(*fate);
            }
        }
        None
    }

    /// Returns the contents that do not stand for the number any more, with the numbers that they got.
    pub(super) fn set_aside(&self, slot: VersionSlot) -> BTreeMap<ContentId, u32> {
        if slot == VersionSlot::Hero || self.resolutions.is_empty() {
            return BTreeMap::new();
        }
        let moved = self.fates().into_iter().filter_map(|(content, (_, fate))| match fate {
            Fate::Moved(number) => Some((content, number)),
            Fate::Kept => None,
        });
        moved.collect()
    }

    /// Says whether `newer` is `older`, or follows it over any number of generations.
    pub fn precedes(&self, older: &ManifestId, newer: &ManifestId) -> bool {
        let Some(wanted) = self.generations.get(older).map(|generation| generation.content) else {
            return false;
        };
        let mut at = Some(*newer);
        // Only a node that lies makes a circle of predecessors.
        for _ in 0..=self.generations.len() {
            let Some(generation) = at.and_then(|at| self.generations.get(&at)) else { return false };
            if generation.content == wanted {
                return true;
            }
            at = generation.predecessor;
        }
        false
    }

    /// Returns what `node` holds under this number that got another one: the newest of it. What the generation that is moved
    /// followed is moved with it, unless it leads to what stands as well.
    pub fn to_move(&self, slot: VersionSlot, node: &NodeId) -> Option<Move> {
        self.moved_of(slot, self.held_by(node).collect())
    }

    /// Returns the number that a generation got instead of this one, whoever holds it.
    pub fn moved_to(&self, slot: VersionSlot, manifest: ManifestId) -> Option<u32> {
        self.moved_of(slot, vec![manifest]).map(|one| one.number)
    }

    fn moved_of(&self, slot: VersionSlot, held: Vec<ManifestId>) -> Option<Move> {
        let aside = self.set_aside(slot);
        if aside.is_empty() {
            return None;
        }
        let standing = match self.standing(slot) {
            Standing::Unknown => return None,
            Standing::Head(head) => vec![head],
            Standing::Conflict(heads) => heads,
        };
        let numbered = self.generations.iter().filter_map(|(id, g)| Some((id, *aside.get(&g.content)?)));
        let numbered: Vec<(&ManifestId, u32)> = numbered.collect();
        let held = held.into_iter().filter(|held| !standing.iter().any(|head| self.precedes(held, head)));
        let moves = held.filter_map(|held| {
            let led_to = numbered.iter().filter(|(moved, _)| self.precedes(&held, moved));
            let number = led_to.map(|(_, number)| *number).min()?;
            Some(Move { manifest: held, number })
        });
        moves.max_by_key(|one| self.rank(&one.manifest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{
        Record,
        tests::{published, resolved},
    };

    const SLOT: VersionSlot = VersionSlot::Number(1);

    fn id(byte: u8) -> ManifestId {
        ManifestId::from_bytes([byte; 32])
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    /// Manifest 1 by a, 2 by b, each its own content, and what else is said.
    fn fold(more: &[(&str, Record)]) -> VersionFold {
        let mut fold = VersionFold::default();
        fold.apply(&node("a@x"), 0, &Record::Published(published(1, 1, 11, 1, None)));
        fold.apply(&node("b@y"), 0, &Record::Published(published(1, 2, 12, 1, None)));
        for (seq, (name, record)) in (10..).zip(more) {
            fold.apply(&node(name), seq, record);
        }
        fold
    }

    #[test]
    fn what_was_moved_does_not_stand_any_more_and_whoever_holds_it_renumbers_it() {
        let fold = fold(&[("c@z", resolved(1, 1, &[(2, 5)]))]);
        assert_eq!(fold.standing(SLOT), Standing::Head(id(1)));
        assert_eq!(fold.to_move(SLOT, &node("b@y")), Some(Move { manifest: id(2), number: 5 }));
        assert_eq!(fold.to_move(SLOT, &node("a@x")), None);
        assert!(fold.disagreement().is_empty());
        assert_eq!((fold.moved_to(SLOT, id(2)), fold.moved_to(SLOT, id(1))), (Some(5), None));
        assert_eq!(fold.given_numbers().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_later_publish_of_other_content_is_a_new_conflict() {
        let other = Record::Published(published(1, 3, 13, 1, None));
        let fold = fold(&[("c@z", resolved(1, 1, &[(2, 5)])), ("c@z", other)]);
        assert!(matches!(fold.standing(SLOT), Standing::Conflict(heads) if heads.len() == 2));
        assert_eq!(
            fold.to_move(SLOT, &node("b@y")).map(|one| one.number),
            Some(5),
            "what is decided is decided"
        );
    }

    #[test]
    fn decisions_that_keep_different_contents_leave_the_conflict_and_a_later_round_ends_it() {
        let both = [("c@z", resolved(1, 1, &[(2, 5)])), ("d@z", resolved(1, 2, &[(1, 5)]))];
        let fold_of_both = fold(&both);
        assert!(matches!(fold_of_both.standing(SLOT), Standing::Conflict(heads) if heads.len() == 2));
        assert_eq!(fold_of_both.disagreement().len(), 2);
        assert_eq!(fold_of_both.to_move(SLOT, &node("b@y")), None);
        let ended = fold(&[both[0].clone(), both[1].clone(), ("c@z", resolved(2, 2, &[(1, 6)]))]);
        assert_eq!(ended.standing(SLOT), Standing::Head(id(2)));
        assert_eq!(ended.to_move(SLOT, &node("a@x")), Some(Move { manifest: id(1), number: 6 }));
        assert!(ended.disagreement().is_empty());
    }

    #[test]
    fn decisions_that_agree_on_what_is_kept_take_the_lower_number() {
        let fold = fold(&[("c@z", resolved(1, 1, &[(2, 6)])), ("d@z", resolved(1, 1, &[(2, 5)]))]);
        assert_eq!(fold.standing(SLOT), Standing::Head(id(1)));
        assert_eq!(fold.to_move(SLOT, &node("b@y")).map(|one| one.number), Some(5));
    }

    #[test]
    fn a_decision_that_keeps_what_is_not_known_yet_waits() {
        let fold = fold(&[("c@z", resolved(1, 9, &[(1, 4), (2, 5)]))]);
        assert!(matches!(fold.standing(SLOT), Standing::Conflict(heads) if heads.len() == 2));
        assert_eq!(fold.to_move(SLOT, &node("a@x")), None);
    }

    #[test]
    fn what_the_moved_one_followed_is_moved_with_it_and_what_leads_to_both_stays() {
        let grown =
            |manifest, content, before| Record::Published(published(1, manifest, content, 2, Some(before)));
        let fold_of_b = fold(&[("b@y", grown(3, 13, 2)), ("c@z", resolved(1, 1, &[(3, 5)]))]);
        let mut with_old = fold_of_b.clone();
        with_old.apply(
            &node("old@y"),
            0,
            &Record::Placed(crate::record::Held {
                version: crate::record::tests::version(1),
                manifest: id(2),
            }),
        );
        assert_eq!(with_old.to_move(SLOT, &node("old@y")), Some(Move { manifest: id(2), number: 5 }));
        assert_eq!(with_old.to_move(SLOT, &node("b@y")).map(|one| one.manifest), Some(id(3)), "the newest");
        // Both sites let the first generation of a grow, each in its own way.
        let shared = fold(&[
            ("c@z", resolved(1, 1, &[(2, 5)])),
            ("a@x", grown(4, 14, 1)),
            ("b@y", grown(5, 15, 1)),
            ("c@z", resolved(2, 4, &[(5, 6)])),
        ]);
        assert_eq!(shared.standing(SLOT), Standing::Head(id(4)));
        let mut with_first = shared;
        with_first.apply(
            &node("old@y"),
            0,
            &Record::Placed(crate::record::Held {
                version: crate::record::tests::version(1),
                manifest: id(1),
            }),
        );
        assert_eq!(with_first.to_move(SLOT, &node("old@y")), None, "it only lacks what came later");
    }

    #[test]
    fn what_grew_before_the_decision_was_known_goes_where_it_grew_from_goes() {
        let grown =
            |manifest, content, before| Record::Published(published(1, manifest, content, 2, Some(before)));
        let moved = ("c@z", resolved(1, 1, &[(2, 5)]));
        let late = [moved.clone(), ("b@y", grown(3, 13, 2)), ("b@y", grown(4, 14, 3))];
        for count in 2..=late.len() {
            let fold = fold(&late[..count]);
            assert_eq!(fold.standing(SLOT), Standing::Head(id(1)), "{count}");
            let newest = id(u8::try_from(count).unwrap() + 1);
            assert_eq!(fold.to_move(SLOT, &node("b@y")), Some(Move { manifest: newest, number: 5 }));
        }
        // What the one that is kept grew to stands, and who published the same for itself is in conflict.
        let kept = fold(&[moved.clone(), ("a@x", grown(3, 13, 1))]);
        assert_eq!(kept.standing(SLOT), Standing::Head(id(3)));
        let alone = Record::Published(published(1, 4, 13, 1, None));
        let own = fold(&[moved, ("b@y", grown(3, 13, 2)), ("d@z", alone)]);
        assert!(matches!(own.standing(SLOT), Standing::Conflict(heads) if heads.len() == 2), "{own:?}");
    }

    #[test]
    fn a_hero_has_no_conflict_to_decide() {
        let fold = fold(&[("c@z", resolved(1, 1, &[(2, 5)]))]);
        assert_eq!(fold.to_move(VersionSlot::Hero, &node("b@y")), None);
    }
}
