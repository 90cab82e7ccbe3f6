//! Asking the voters for one number.

use std::collections::{BTreeMap, BTreeSet};

use super::Answer;
use crate::id::NodeId;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask this voter.
    Ask(NodeId),
    /// It is over.
    Done(Outcome),
}

/// What came of asking for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The number belongs to who asked.
    Won,
    /// It belongs to somebody else.
    Taken {
        /// A number that is worth asking for.
        next: u32,
        /// To whom it belongs.
        by: NodeId,
    },
    /// Too few voters answered: nobody knows.
    NoQuorum {
        /// Who promised it.
        promised: Vec<NodeId>,
        /// Who did not answer, and why.
        silent: Vec<(NodeId, String)>,
    },
}

/// One number, asked for at each of the voters in the order of their names.
#[derive(Debug)]
pub struct Poll {
    /// A majority of each is needed: of the voters of the policy in effect, and of those before it when they were others. So who
    /// still goes by the one and who goes by the other have a voter in common.
    groups: Vec<BTreeSet<NodeId>>,
    answers: BTreeMap<NodeId, Result<(), String>>,
    taken: Option<(u32, NodeId)>,
}

impl Poll {
    /// Begins. Without voters nothing is won.
    pub fn new(groups: impl IntoIterator<Item = BTreeSet<NodeId>>) -> Self {
        let groups = groups.into_iter().filter(|group| !group.is_empty()).collect();
        Self { groups, answers: BTreeMap::new(), taken: None }
    }

    /// Says what to do next.
    pub fn next(&self) -> Step {
        if let Some((next, by)) = &self.taken {
            return Step::Done(Outcome::Taken { next: *next, by: by.clone() });
        }
        let promised = |node: &&NodeId| self.answers.get(*node).is_some_and(Result::is_ok);
        let silent = |node: &&NodeId| self.answers.get(*node).is_some_and(Result::is_err);
        let majority = |group: &BTreeSet<NodeId>| group.len() / 2 + 1;
        let is_won = |group: &BTreeSet<NodeId>| group.iter().filter(promised).count() >= majority(group);
        let is_lost =
            |group: &BTreeSet<NodeId>| group.len() - group.iter().filter(silent).count() < majority(group);
        if !self.groups.is_empty() && self.groups.iter().all(is_won) {
            return Step::Done(Outcome::Won);
        }
        // Whose group has its majority already is not asked.
        let open = self.groups.iter().filter(|group| !is_won(group)).flatten();
        let open: BTreeSet<&NodeId> = open.filter(|node| !self.answers.contains_key(*node)).collect();
        match open.first() {
            Some(node) if !self.groups.iter().any(is_lost) => Step::Ask((*node).clone()),
            _ => Step::Done(self.no_quorum()),
        }
    }

    /// Notes what a voter said.
    pub fn answered(&mut self, node: &NodeId, answer: Answer) {
        let answer = match answer {
            Answer::Promised => Ok(()),
            Answer::Taken { next, by } => {
                self.taken = Some((next, by));
                Ok(())
            }
            Answer::Unsure => Err("it cannot tell at this moment".to_owned()),
            Answer::OtherPolicy => Err("it goes by a newer policy, which has not come here yet".to_owned()),
        };
        self.answers.insert(node.clone(), answer);
    }

    /// Notes that a voter did not answer, and why.
    pub fn silent(&mut self, node: &NodeId, why: String) {
        self.answers.insert(node.clone(), Err(why));
    }

    fn no_quorum(&self) -> Outcome {
        let of = |is_ok: bool| self.answers.iter().filter(move |(_, answer)| answer.is_ok() == is_ok);
        Outcome::NoQuorum {
            promised: of(true).map(|(node, _)| node.clone()).collect(),
            silent: of(false)
                .filter_map(|(node, answer)| Some((node.clone(), answer.clone().err()?)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        numbers::{Known, Promises},
        record::tests::version,
    };

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn group(names: &[&str]) -> BTreeSet<NodeId> {
        names.iter().map(|name| node(name)).collect()
    }

    fn asked(poll: &Poll) -> String {
        match poll.next() {
            Step::Ask(node) => node.to_string(),
            Step::Done(outcome) => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn voters_are_asked_in_order_until_most_of_them_have_promised() {
        let mut poll = Poll::new([group(&["c@c", "a@a", "b@b"])]);
        assert_eq!(asked(&poll), "a@a");
        poll.silent(&node("a@a"), "it is not connected".into());
        assert_eq!(asked(&poll), "b@b");
        poll.answered(&node("b@b"), Answer::Promised);
        assert_eq!(asked(&poll), "c@c");
        poll.answered(&node("c@c"), Answer::Promised);
        assert_eq!(poll.next(), Step::Done(Outcome::Won));
    }

    #[test]
    fn one_voter_that_gave_it_away_is_enough_and_who_cannot_tell_counts_as_silent() {
        let mut poll = Poll::new([group(&["a@a", "b@b", "c@c"])]);
        poll.answered(&node("a@a"), Answer::Promised);
        poll.answered(&node("b@b"), Answer::Taken { next: 6, by: node("x@x") });
        assert_eq!(poll.next(), Step::Done(Outcome::Taken { next: 6, by: node("x@x") }));
        let mut poll = Poll::new([group(&["a@a", "b@b", "c@c"])]);
        poll.answered(&node("a@a"), Answer::Unsure);
        poll.answered(&node("b@b"), Answer::OtherPolicy);
        let Step::Done(Outcome::NoQuorum { promised, silent }) = poll.next() else { panic!("{poll:?}") };
        assert_eq!((promised.len(), silent.len()), (0, 2), "the third is not worth asking");
        assert!(matches!(Poll::new([]).next(), Step::Done(Outcome::NoQuorum { .. })));
    }

    #[test]
    fn while_voters_change_a_majority_of_both_is_needed() {
        let mut poll = Poll::new([group(&["a@a", "b@b", "c@c"]), group(&["c@c", "d@d", "e@e"])]);
        for name in ["a@a", "b@b", "c@c"] {
            assert_eq!(asked(&poll), name);
            poll.answered(&node(name), Answer::Promised);
            if name == "b@b" {
                assert_eq!(asked(&poll), "c@c", "it is of the second group as well");
            }
        }
        assert_eq!(asked(&poll), "d@d");
        poll.answered(&node("d@d"), Answer::Promised);
        assert_eq!(poll.next(), Step::Done(Outcome::Won));
    }

    proptest! {
        /// Two who ask, whatever voters each of them reaches and in whatever order their questions come: never both get it.
        #[test]
        fn no_number_is_won_twice(
            voters in 1_usize..7,
            reach in prop::collection::vec((any::<bool>(), any::<bool>()), 7),
            turns in prop::collection::vec(any::<bool>(), 20),
        ) {
            let names: Vec<NodeId> = (0..voters).map(|n| node(&format!("v{n}@s{n}"))).collect();
            let mut promises = vec![Promises::default(); voters];
            let asking = [node("x@x"), node("y@y")];
            let mut polls = [0, 1].map(|_| Poll::new([names.iter().cloned().collect()]));
            for turn in turns.into_iter().chain(std::iter::repeat_n(true, 7)).chain(std::iter::repeat_n(false, 7)) {
                let who = usize::from(turn);
                let Step::Ask(voter) = polls[who].next() else { continue };
                let index = names.iter().position(|name| *name == voter).unwrap();
                if !(if turn { reach[index].1 } else { reach[index].0 }) {
                    polls[who].silent(&voter, "away".into());
                    continue;
                }
                let answer = promises[index].answer(&version(1), &asking[who], false, &Known::default());
                if answer == Answer::Promised {
                    promises[index].give(&version(1), &asking[who]);
                }
                polls[who].answered(&voter, answer);
            }
            let won = polls.iter().filter(|poll| poll.next() == Step::Done(Outcome::Won)).count();
            prop_assert!(won <= 1, "{promises:?}");
            if reach.iter().take(voters).all(|reach| reach.0 && reach.1) {
                prop_assert_eq!(won, 1, "who reaches all does not leave it to nobody");
            }
        }
    }
}
