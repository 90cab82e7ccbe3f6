//! What a voter has promised.

use std::collections::BTreeMap;

use super::Answer;
use crate::id::{NodeId, VersionId, VersionSlot};

/// What a voter's catalog knows of the number that it is asked for, and of the others of its subset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Who published the number; of several the first in order.
    pub published_by: Option<NodeId>,
    /// The highest number of the subset that was published, or given to something when a conflict was resolved.
    pub highest: u32,
    /// Whether the number was given to something when a conflict was resolved, by whom.
    pub given_by: Option<NodeId>,
}

/// The promises of one voter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Promises {
    given: BTreeMap<VersionId, NodeId>,
}

impl Promises {
    /// Takes what was stored.
    pub fn new(given: impl IntoIterator<Item = (VersionId, NodeId)>) -> Self {
        Self { given: given.into_iter().collect() }
    }

    /// Returns all of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&VersionId, &NodeId)> {
        self.given.iter()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.given.len()
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Says what to answer when `by` asks for the number of `version`; when it asks for a `fresh` one, what it has already is taken
    /// as well. [`Answer::Promised`] holds once it was stored: [`Promises::give`].
    pub fn answer(&self, version: &VersionId, by: &NodeId, fresh: bool, known: &Known) -> Answer {
        let is_own = known.published_by.as_ref() == Some(by);
        let given_by = known.given_by.as_ref().filter(|_| !is_own);
        let others = self.given.get(version).into_iter().chain(&known.published_by);
        let others = others.filter(|owner| fresh || *owner != by);
        match given_by.into_iter().chain(others).next() {
            Some(other) => Answer::Taken { next: self.next(version, known), by: other.clone() },
            None => Answer::Promised,
        }
    }

    /// Promises a number; says whether that is new.
    pub fn give(&mut self, version: &VersionId, to: &NodeId) -> bool {
        self.given.insert(version.clone(), to.clone()).as_ref() != Some(to)
    }

    /// Forgets promises that the records make superfluous: of these numbers it is known who published them.
    pub fn forget(&mut self, is_published: impl Fn(&VersionId) -> bool) {
        self.given.retain(|version, _| !is_published(version));
    }

    fn next(&self, version: &VersionId, known: &Known) -> u32 {
        let of_subset = self.given.keys().filter(|other| {
            (&other.project, &other.asset, &other.subset)
                == (&version.project, &version.asset, &version.subset)
        });
        let promised = of_subset.filter_map(|other| match other.slot {
            VersionSlot::Number(number) => Some(number),
            VersionSlot::Hero => None,
        });
        promised.max().unwrap_or(0).max(known.highest).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::version;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[test]
    fn a_number_is_promised_to_one_node_and_to_it_again() {
        let mut promises = Promises::default();
        let (anna, ben, known) =
            (node("ws1@home"), node("ws2@van"), Known { highest: 3, ..Known::default() });
        assert_eq!(promises.answer(&version(4), &anna, false, &known), Answer::Promised);
        assert!(promises.give(&version(4), &anna) && !promises.give(&version(4), &anna));
        assert_eq!(promises.answer(&version(4), &anna, false, &known), Answer::Promised);
        let taken = Answer::Taken { next: 5, by: anna.clone() };
        assert_eq!(promises.answer(&version(4), &ben, false, &known), taken);
        assert_eq!(promises.answer(&version(5), &ben, false, &known), Answer::Promised);
        let fresh = Answer::Taken { next: 5, by: anna.clone() };
        assert_eq!(promises.answer(&version(4), &anna, true, &known), fresh);
        assert_eq!(promises.answer(&version(5), &anna, true, &known), Answer::Promised);
        let again = Promises::new(promises.iter().map(|(version, node)| (version.clone(), node.clone())));
        assert_eq!(again, promises);
    }

    #[test]
    fn what_was_published_belongs_to_who_did_and_what_a_decision_gave_away_to_nobody_who_asks() {
        let (anna, ben) = (node("ws1@home"), node("ws2@van"));
        let published = Known { published_by: Some(anna.clone()), highest: 7, given_by: None };
        let promises = Promises::default();
        let taken = Answer::Taken { next: 8, by: anna.clone() };
        assert_eq!(promises.answer(&version(2), &anna, false, &published), Answer::Promised);
        assert_eq!(promises.answer(&version(2), &ben, false, &published), taken);
        // Whoever decided that something gets the number has no use for it either.
        let given = Known { given_by: Some(anna.clone()), ..Known { published_by: None, ..published } };
        assert_eq!(promises.answer(&version(2), &anna, false, &given), taken);
        assert_eq!(promises.answer(&version(2), &ben, false, &given), taken);
        let renumbered = Known { published_by: Some(ben.clone()), ..given };
        assert_eq!(promises.answer(&version(2), &ben, false, &renumbered), Answer::Promised);
    }

    #[test]
    fn a_lower_number_that_nobody_has_is_promised_and_the_next_is_above_all_of_the_subset() {
        let mut promises = Promises::default();
        let (anna, ben, known) =
            (node("ws1@home"), node("ws2@van"), Known { highest: 9, ..Known::default() });
        assert_eq!(promises.answer(&version(2), &anna, false, &known), Answer::Promised);
        promises.give(&version(2), &anna);
        promises.give(&version(12), &anna);
        let other = VersionId { subset: "rigDefault".parse().unwrap(), ..version(40) };
        promises.give(&other, &anna);
        assert_eq!(
            promises.answer(&version(2), &ben, false, &known),
            Answer::Taken { next: 13, by: anna.clone() }
        );
        promises.forget(|version| version.slot == VersionSlot::Number(12));
        assert_eq!((promises.len(), promises.is_empty()), (2, false));
        assert_eq!(promises.answer(&version(2), &ben, false, &known), Answer::Taken { next: 10, by: anna });
    }
}
