//! `limits.json`: the limits that commands have set.

use std::{collections::BTreeMap, io::Read as _};

use avalon_protocol::{
    id::{InvalidId, SiteName},
    limit::{Class, Direction, InvalidLimit, Limit, Rate},
    rel_path::{InvalidPath, RelPath},
};
use avalon_store::fs::{Dir, IoError, WriteMode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const NAME: &str = "limits.json";
const SCHEMA: &str = "avalond.limits/1";
/// Far more than it may hold: what is longer was not written by us.
const MAX_BYTES: u64 = 1 << 20;

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub(super) enum FileError {
    /// The system refuses.
    #[error("{NAME} cannot be read or written")]
    Io(#[source] IoError),
    /// Not what was written.
    #[error("{NAME} is damaged")]
    Json(#[source] serde_json::Error),
    /// Of another version of this program.
    #[error("{NAME} says {schema:?}, this version writes {SCHEMA:?}")]
    Schema { schema: String },
    /// A site that cannot be one.
    #[error("{NAME} is damaged")]
    Site(#[source] InvalidId),
    /// Times that are none.
    #[error("{NAME} is damaged")]
    When(#[source] InvalidLimit),
    /// The name of the file; it is one.
    #[error("{NAME} is no name")]
    Name(#[source] InvalidPath),
}

impl FileError {
    pub(super) fn is_no_space(&self) -> bool {
        matches!(self, Self::Io(error) if error.is_no_space())
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
    schema: String,
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

fn name() -> Result<RelPath, FileError> {
    NAME.parse().map_err(FileError::Name)
}

/// Reads the file; no limits when there is none.
pub(super) fn read(dir: &Dir) -> Result<Kept, FileError> {
    let file = match dir.open_file(&name()?) {
        Err(error) if error.is_not_found() => return Ok(Kept::default()),
        opened => opened.map_err(FileError::Io)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| FileError::Io(IoError::new("read", dir.path().join(NAME), error)))?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(FileError::Json)?;
    if stored.schema != SCHEMA {
        return Err(FileError::Schema { schema: stored.schema });
    }
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
    let stored = Stored { schema: SCHEMA.into(), last: kept.last, limits: limits.collect() };
    let mut bytes = serde_json::to_vec_pretty(&stored).map_err(FileError::Json)?;
    bytes.push(b'\n');
    dir.write_atomic(&name()?, &bytes, WriteMode::Replace).map_err(FileError::Io)
}
