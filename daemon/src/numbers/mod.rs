//! Numbers that are asked for before they are published under, where the studio's policy names voters.
//!
//! The rules are in [`avalon_protocol::numbers`]. Here a voter keeps its promises in `numbers.json` in the state directory, durably
//! before it says them ([`vote`](Core::vote)), and a node that wants a number asks the voters ([`take`](Core::take_number)).

mod ask;

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use avalon_protocol::{
    control::{Health, Severity},
    id::{NodeId, VersionId, VersionSlot},
    numbers::{Answer, Known, Promises},
    version_fold::VersionFold,
    wire::AskNumber,
};
use avalon_store::{catalog::CatalogError, fs::Dir};
use serde::{Deserialize, Serialize};

pub use self::ask::{ReserveFailed, Reserved};
use crate::{core::Core, health::HealthBoard, log::ErrorChain, net::Net, state_file::StateFile};

const NAME: &str = "numbers.json";
const SCHEMA: &str = "avalond.numbers/1";
/// The health code of promises that cannot be read: this voter promises nothing then.
const UNREADABLE: &str = "numbers-unreadable";

/// How many promises wait to be used, of all nodes and of one. Most are used within a second, by the publish that asked; what is beyond
/// was reserved and forgotten, or somebody asks who should not. The file stays far below what is read of one.
const MAX_PROMISES: usize = 2048;
const MAX_OF_NODE: usize = 256;
/// From how many on those that the records make superfluous are looked for: each costs a look into the catalog.
const FORGET_FROM: usize = 64;

/// The numbers that this node promised as a voter, and who the voters are.
#[derive(Debug)]
pub struct Numbers {
    file: StateFile,
    /// `None` when what was promised cannot be read.
    state: Mutex<Option<State>>,
    net: OnceLock<Net>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    promises: Promises,
    voters: Voters,
}

/// Who the voters are, and who they were before the policy named others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Voters {
    /// The serial of the first policy that named these.
    since: u64,
    now: BTreeSet<NodeId>,
    before: BTreeSet<NodeId>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    voters: Voters,
    promises: Vec<(VersionId, NodeId)>,
}

impl Numbers {
    /// Reads what was promised. Blocks.
    pub fn open(dir: &Dir, health: &HealthBoard) -> Self {
        let file = StateFile::new(dir, NAME, SCHEMA);
        let state = match file.read::<Stored>() {
            Ok(stored) => Some(stored.map_or_else(State::default, |stored| State {
                promises: Promises::new(stored.promises),
                voters: stored.voters,
            })),
            Err(error) => {
                health.raise(Health {
                    code: UNREADABLE.into(),
                    severity: Severity::Error,
                    message: format!(
                        "the numbers that this node promised cannot be read, so it promises none: {}",
                        ErrorChain(&error)
                    ),
                    hint: Some(
                        "put numbers.json back from a backup of the state directory; or name another voter in the policy, \
                         then remove the file and restart avalond"
                            .into(),
                    ),
                });
                None
            }
        };
        Self { file, state: Mutex::new(state), net: OnceLock::new() }
    }

    /// Tells how to reach the voters; once, when the network is up.
    pub fn connect(&self, net: Net) {
        self.net.set(net).ok();
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        // What is under the lock is replaced as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a changed state; it holds only if that succeeds. Blocks.
    fn store(&self, held: &mut Option<State>, changed: State) -> bool {
        let promises = changed.promises.iter().map(|(version, node)| (version.clone(), node.clone()));
        let stored = Stored { voters: changed.voters.clone(), promises: promises.collect() };
        match self.file.write(&stored) {
            Ok(()) => {
                *held = Some(changed);
                true
            }
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "a number cannot be promised: it cannot be stored");
                false
            }
        }
    }
}

impl Core {
    /// Answers a node that asks for a number. Blocks.
    pub fn vote(&self, ask: &AskNumber, by: &NodeId) -> Answer {
        let AskNumber { version, fresh, serial } = ask;
        self.note_voters();
        let mut held = self.numbers.lock();
        // Under the lock: what a promise was forgotten for is known by then.
        let Ok(known) = self.known_number(version) else { return Answer::Unsure };
        let Some(state) = held.as_ref() else { return Answer::Unsure };
        if state.voters.since > *serial {
            return Answer::OtherPolicy;
        }
        let answer = state.promises.answer(version, by, *fresh, &known);
        if answer != Answer::Promised {
            return answer;
        }
        let mut changed = state.clone();
        if !changed.promises.give(version, by) {
            return answer;
        }
        if changed.promises.len() >= FORGET_FROM {
            changed.promises.forget(|version| self.is_published(version));
        }
        let of_node = changed.promises.iter().filter(|(_, node)| *node == by).count();
        if of_node > MAX_OF_NODE || changed.promises.len() > MAX_PROMISES {
            tracing::warn!(%version, %by, of_node, "a number is not promised: too many wait to be used");
            return Answer::Unsure;
        }
        if self.numbers.store(&mut held, changed) { answer } else { Answer::Unsure }
    }

    /// Returns of whose voters a majority is needed, and the serial of the policy that says so. Blocks.
    fn voters(&self) -> Result<(u64, [BTreeSet<NodeId>; 2]), ReserveFailed> {
        if !self.asks_for_numbers() {
            return Err(ReserveFailed::NoVoters);
        }
        self.note_voters();
        let held = self.numbers.lock();
        let unknown =
            || ReserveFailed::Other("who the voters were before cannot be read (numbers.json)".into());
        let voters = held.as_ref().map(|state| &state.voters).ok_or_else(unknown)?;
        Ok((self.policy_serial(), [voters.now.clone(), voters.before.clone()]))
    }

    /// Says whether the policy in effect names voters.
    pub fn asks_for_numbers(&self) -> bool {
        self.policy.in_effect().is_some_and(|policy| !policy.voters().is_empty())
    }

    fn policy_serial(&self) -> u64 {
        self.policy.serial()
    }

    /// Remembers whom the policy names, and whom it named before.
    fn note_voters(&self) {
        let now = self.policy.in_effect().map(|policy| policy.voters().clone()).unwrap_or_default();
        let serial = self.policy_serial();
        let mut held = self.numbers.lock();
        let Some(state) = held.as_ref().filter(|state| state.voters.now != now) else { return };
        let mut changed = state.clone();
        changed.voters = Voters { since: serial, before: std::mem::take(&mut changed.voters.now), now };
        // Without the change on disk it is found again at the next question.
        self.numbers.store(&mut held, changed);
    }

    /// Returns what the catalog knows of a number and of its subset. Blocks.
    fn known_number(&self, version: &VersionId) -> Result<Known, CatalogError> {
        let mut known = Known::default();
        for (other, fold) in self.ledger.subset_versions(version)? {
            let number = number_of(&other);
            if other == *version {
                known.published_by = publisher(&fold);
            }
            known.highest = known.highest.max(number.filter(|_| is_published(&fold)).unwrap_or(0));
            known.highest = fold.given_numbers().fold(known.highest, u32::max);
            let gives = |moved: &(_, u32)| Some(moved.1) == number_of(version);
            let giving = fold.resolutions().find(|one| one.moved.iter().any(gives));
            known.given_by = known.given_by.or_else(|| giving.map(|one| one.node.clone()));
        }
        Ok(known)
    }

    /// Says whether the records have a version. What cannot be told is not forgotten.
    fn is_published(&self, version: &VersionId) -> bool {
        self.ledger.version(version).is_ok_and(|fold| fold.as_ref().is_some_and(is_published))
    }
}

fn number_of(version: &VersionId) -> Option<u32> {
    match version.slot {
        VersionSlot::Number(number) => Some(number),
        VersionSlot::Hero => None,
    }
}

fn is_published(fold: &VersionFold) -> bool {
    !fold.generations().is_empty()
}

fn publisher(fold: &VersionFold) -> Option<NodeId> {
    fold.generations().values().map(|generation| &generation.node).min().cloned()
}

#[cfg(test)]
mod tests;
