//! `limits.json`: the limits that commands have set.

use std::collections::BTreeMap;

use avalon_protocol::{
    id::{InvalidId, SiteName},
    limit::{Class, Direction, InvalidLimit, Limit, Rate},
};
use avalon_store::fs::Dir;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::state_file::{StateFile, StateFileError};

const NAME: &str = "limits.json";
const SCHEMA: &str = "avalond.limits/1";

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub(super) enum FileError {
    /// It cannot be read or written, or is not one.
    #[error(transparent)]
    File(#[from] StateFileError),
    /// A site that cannot be one.
    #[error("{NAME} is damaged")]
    Site(#[source] InvalidId),
    /// Times that are none.
    #[error("{NAME} is damaged")]
    When(#[source] InvalidLimit),
}

impl FileError {
    pub(super) fn is_no_space(&self) -> bool {
        matches!(self, Self::File(error) if error.is_no_space())
    }
}

/// Limits by their number. A number is not given out twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Kept {
    pub(super) limits: BTreeMap<u32, Limit>,
    last: u32,
}

impl Kept {
    /// Puts a limit in, in place of one that differs in the rate only, and returns its number.
    pub(super) fn put(&mut self, limit: Limit) -> u32 {
        let same = |other: &Limit| Limit { rate: limit.rate, ..other.clone() } == limit;
        let known = self.limits.iter().find(|(_, other)| same(other)).map(|(number, _)| *number);
        let number = known.unwrap_or(self.last + 1);
        self.last = self.last.max(number);
        self.limits.insert(number, limit);
        number
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    last: u32,
    limits: Vec<StoredLimit>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredLimit {
    number: u32,
    bytes_per_second: u64,
    direction: Direction,
    site: Option<String>,
    class: Option<Class>,
    when: String,
}

fn file(dir: &Dir) -> StateFile {
    StateFile::new(dir, NAME, SCHEMA)
}

/// Reads the file; no limits when there is none.
pub(super) fn read(dir: &Dir) -> Result<Kept, FileError> {
    let Some(stored) = file(dir).read::<Stored>()? else { return Ok(Kept::default()) };
    let mut kept = Kept { last: stored.last, ..Kept::default() };
    for stored in stored.limits {
        let site: Option<Result<SiteName, _>> = stored.site.map(|site| site.parse());
        let limit = Limit {
            rate: Rate { bytes_per_second: stored.bytes_per_second },
            direction: stored.direction,
            site: site.transpose().map_err(FileError::Site)?,
            class: stored.class.map(Into::into),
            when: stored.when.parse().map_err(FileError::When)?,
        };
        kept.last = kept.last.max(stored.number);
        kept.limits.insert(stored.number, limit);
    }
    Ok(kept)
}

/// Writes the file; it is on disk when this returns.
pub(super) fn write(dir: &Dir, kept: &Kept) -> Result<(), FileError> {
    let limits = kept.limits.iter().map(|(number, limit)| StoredLimit {
        number: *number,
        bytes_per_second: limit.rate.bytes_per_second,
        direction: limit.direction,
        site: limit.site.as_ref().map(ToString::to_string),
        class: limit.class.map(Into::into),
        when: limit.when.to_string(),
    });
    Ok(file(dir).write(&Stored { last: kept.last, limits: limits.collect() })?)
}
