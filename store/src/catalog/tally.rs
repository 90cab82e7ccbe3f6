//! What a store knows without reading its rows: the sums of its tables, and how many versions each project has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    FORMAT, Table,
    envelope::{RowMark, Sums},
};

/// Kept up to date by each commit, and stored with its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) sums: Sums,
    pub(super) versions: Counts,
}

/// The rows of the versions by the first name of their keys, which is the project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts(BTreeMap<Vec<u8>, u64>);

/// How a tally is stored. The counts came later than the sums: in a row without them, they are to be taken once.
#[derive(Serialize, Deserialize)]
struct SumsRow {
    format: u16,
    sums: Sums,
}

impl Tally {
    /// Notes that a row has changed from one to the other.
    pub(super) fn replace(&mut self, table: Table, key: &[u8], old: Option<RowMark>, new: Option<RowMark>) {
        if let Some(old) = old {
            self.sums.of_mut(table).subtract(&old);
        }
        if let Some(new) = new {
            self.sums.of_mut(table).add(&new);
        }
        if table == Table::Versions {
            self.versions.replace(key, old.is_some(), new.is_some());
        }
    }

    /// Returns the table in which the two differ first.
    pub(super) fn difference(&self, other: &Self) -> Option<Table> {
        let versions = (self.versions != other.versions).then_some(Table::Versions);
        self.sums.difference(&other.sums).or(versions)
    }

    /// Returns its bytes.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        let row = postcard::to_stdvec(&SumsRow { format: FORMAT, sums: self.sums })?;
        postcard::to_extend(&self.versions, row)
    }

    /// Reads its bytes, where the format is ours. The counts are missing in those of an earlier version.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<(Sums, Option<Counts>)> {
        let (row, rest) = postcard::take_from_bytes::<SumsRow>(bytes).ok()?;
        let versions = if rest.is_empty() { None } else { Some(postcard::from_bytes(rest).ok()?) };
        Some((row.sums, versions))
    }
}

impl Counts {
    /// Notes whether a row was there and is now.
    pub(super) fn replace(&mut self, key: &[u8], was_there: bool, is_there: bool) {
        let name = key.split(|byte| *byte == 0).next().unwrap_or_default();
        match (was_there, is_there) {
            (false, true) => match self.0.get_mut(name) {
                Some(count) => *count += 1,
                None => drop(self.0.insert(name.to_vec(), 1)),
            },
            (true, false) => {
                let left = self.of(name).saturating_sub(1);
                if left == 0 {
                    self.0.remove(name);
                } else {
                    self.0.insert(name.to_vec(), left);
                }
            }
            _ => {}
        }
    }

    /// Returns how many there are with this first name.
    pub(super) fn of(&self, name: &[u8]) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}
