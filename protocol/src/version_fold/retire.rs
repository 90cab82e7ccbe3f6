//! Whether a version is in use: the highest round of Retired and Restored counts.

use serde::{Deserialize, Serialize};

use super::VersionFold;
use crate::{
    id::NodeId,
    record::{Note, Restored, Retired},
};

/// How long a version that was taken out of use stays where it is, when no policy says otherwise: 30 days.
pub const DEFAULT_UNDO_MS: u64 = 30 * 24 * 3_600_000;

/// What was said last about the use of a version. The order is the one that counts: the round, then Restored over Retired,
/// then anything that is the same at all nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Use {
    round: u32,
    is_in_use: bool,
    retirement: Retirement,
}

/// Who took a version out of use, why and when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Retirement {
    /// When, in milliseconds since 1970, by the clock of the node.
    pub at_ms: u64,
    /// At which node.
    pub node: NodeId,
    /// Who.
    pub author: Note,
    /// Why.
    pub comment: Note,
}

impl VersionFold {
    pub(super) fn retire(&mut self, node: &NodeId, retired: &Retired) {
        let Retired { round, author, comment, at_ms, .. } = retired.clone();
        let retirement = Retirement { at_ms, node: node.clone(), author, comment };
        self.note_use(Use { round, is_in_use: false, retirement });
    }

    pub(super) fn restore(&mut self, node: &NodeId, restored: &Restored) {
        let Restored { round, author, at_ms, .. } = restored.clone();
        let retirement = Retirement { at_ms, node: node.clone(), author, comment: Note::default() };
        self.note_use(Use { round, is_in_use: true, retirement });
    }

    fn note_use(&mut self, said: Use) {
        if self.last_use.as_ref().is_none_or(|known| said > *known) {
            self.last_use = Some(said);
        }
    }

    /// Returns who took the version out of use, if it is.
    pub fn retired(&self) -> Option<&Retirement> {
        self.last_use.as_ref().filter(|said| !said.is_in_use).map(|said| &said.retirement)
    }

    /// Returns the highest round of [`Retired`] and [`Restored`]; 0 before the first. Who retires takes one more, who restores
    /// the same.
    pub fn use_round(&self) -> u32 {
        self.last_use.as_ref().map_or(0, |said| said.round)
    }
}

impl Retirement {
    /// Says whether the undo window is over at `now_ms`: before, nothing of the version is removed anywhere. A time that is
    /// ahead of this node's clock has not come.
    pub fn is_past_undo(&self, undo_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) >= undo_ms && now_ms >= self.at_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{restored, retired};

    fn said(records: &[crate::record::Record]) -> VersionFold {
        let mut fold = VersionFold::default();
        for (seq, record) in (0..).zip(records) {
            fold.apply(&"a@x".parse().unwrap(), seq, record);
        }
        fold
    }

    #[test]
    fn the_highest_round_counts_and_of_equal_rounds_that_it_is_in_use() {
        let is_retired = |records: &[_]| said(records).retired().is_some();
        assert!(!is_retired(&[]));
        assert!(is_retired(&[retired(1, "anna")]));
        assert!(!is_retired(&[retired(1, "anna"), restored(1, "ben")]));
        assert!(!is_retired(&[restored(1, "ben"), retired(1, "anna")]), "in any order");
        let again = said(&[retired(2, "anna"), restored(1, "ben"), retired(1, "eve")]);
        assert_eq!((again.retired().unwrap().author.as_str(), again.use_round()), ("anna", 2));
    }

    #[test]
    fn the_undo_window_ends_after_its_time_and_a_clock_that_is_behind_does_not_end_it() {
        let fold = said(&[retired(1, "anna")]);
        let retirement = fold.retired().unwrap();
        let at = retirement.at_ms;
        let past = |now_ms| retirement.is_past_undo(1000, now_ms);
        assert_eq!([at - 5000, at, at + 999, at + 1000].map(past), [false, false, false, true]);
        assert!(!retirement.is_past_undo(0, at - 1), "not before it was retired");
    }
}
