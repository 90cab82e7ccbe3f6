//! When time alone changes what the policy says, and about which versions.

use std::collections::BTreeSet;

use avalon_protocol::id::VersionId;

/// How many versions are remembered, the soonest: where ages are in a policy every version may have such a time.
const MOST: usize = 10_000;

/// Versions to be looked at again, by time.
#[derive(Debug, Default)]
pub(super) struct Changes {
    times: BTreeSet<(u64, VersionId)>,
    /// Those that were not remembered begin here: then everything is looked at.
    everything_ms: Option<u64>,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// These versions.
    Versions(Vec<VersionId>),
    /// All there are.
    Everything,
}

impl Changes {
    /// Notes when a version is to be looked at, in milliseconds since 1970.
    pub(super) fn note(&mut self, at_ms: u64, version: VersionId) {
        self.times.insert((at_ms, version));
        if self.times.len() > MOST
            && let Some((latest, _)) = self.times.pop_last()
        {
            self.everything_ms = Some(self.everything_ms.map_or(latest, |other| other.min(latest)));
        }
    }

    /// Returns when something is due next, in milliseconds since 1970.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let first = self.times.first().map(|(at, _)| *at);
        first.into_iter().chain(self.everything_ms).min()
    }

    /// Takes what is due at `now_ms`.
    pub(super) fn take(&mut self, now_ms: u64) -> Due {
        if self.everything_ms.is_some_and(|at| at <= now_ms) {
            self.clear();
            return Due::Everything;
        }
        let mut due = BTreeSet::new();
        while self.times.first().is_some_and(|(at, _)| *at <= now_ms) {
            due.extend(self.times.pop_first().map(|(_, version)| version));
        }
        Due::Versions(due.into_iter().collect())
    }

    /// Forgets all: another policy holds.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::id::VersionSlot;

    use super::*;

    fn version(number: u32) -> VersionId {
        VersionId {
            project: "lantern".parse().unwrap(),
            asset: "robot".parse().unwrap(),
            subset: "rig".parse().unwrap(),
            slot: VersionSlot::Number(number),
        }
    }

    #[test]
    fn what_is_due_comes_once_and_in_time() {
        let mut changes = Changes::default();
        changes.note(200, version(2));
        changes.note(100, version(1));
        changes.note(150, version(1));
        assert_eq!(changes.next_ms(), Some(100));
        assert_eq!(changes.take(99), Due::Versions(vec![]));
        assert_eq!(changes.take(150), Due::Versions(vec![version(1)]));
        assert_eq!(changes.next_ms(), Some(200));
    }

    #[test]
    fn what_is_too_much_to_remember_is_all_looked_at_when_the_first_of_it_is_due() {
        let mut changes = Changes::default();
        (0..12_000).rev().for_each(|number| changes.note(u64::from(number), version(number)));
        assert_eq!(changes.take(9_999), Due::Versions((0..10_000).map(version).collect()));
        assert_eq!(changes.next_ms(), Some(10_000));
        assert_eq!(changes.take(10_000), Due::Everything);
        assert_eq!(changes.next_ms(), None);
    }
}
