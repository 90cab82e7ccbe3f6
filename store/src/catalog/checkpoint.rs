//! Checkpoints: what the feeds came to at some point, in files beside the generations, so that a rebuild needs to apply
//! only what came later.
//!
//! They hold what follows from the feeds alone. Local files are not in them: a rebuild looks at the trees.

use std::fs::File;

use avalon_protocol::rel_path::RelPath;

use super::{
    CatalogStore, Table,
    snapshot::{self, Snapshot, SourceError},
};
use crate::{
    error_chain::ErrorChain,
    fs::{Dir, IoError, Overwrite, WriteMode, path_of},
};

/// How many are kept: a damaged one costs a longer replay, not one from the start.
const KEPT: usize = 2;
const GOOD: &str = "checkpoint-";
const BAD: &str = "bad-checkpoint-";
/// Cursors come first: a checkpoint of other feeds is refused at its first rows.
const TABLES: [Table; 3] = [Table::Cursors, Table::Versions, Table::Manifests];

/// The checkpoints in the directory of the catalog. Each is named by the number of records that it covers.
#[derive(Clone)]
pub(crate) struct Checkpoints {
    dir: Dir,
}

impl Checkpoints {
    pub(crate) fn new(dir: Dir) -> Self {
        Self { dir }
    }

    /// Returns how many records each covers, the newest first.
    pub(crate) fn all(&self) -> Result<Vec<u64>, IoError> {
        let mut numbers = self.names(GOOD)?;
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    /// Writes one of a store in which all of `records` were applied, durably, and removes those that are not needed any
    /// more. Nothing may be committed meanwhile.
    pub(crate) fn write(&self, store: &dyn CatalogStore, records: u64) -> Result<(), SourceError> {
        let content = |file: &File| snapshot::write(store, &TABLES, records, file);
        self.dir.write_streamed(&path(GOOD, records), WriteMode::Replace, content)?;
        for old in self.all()?.into_iter().skip(KEPT) {
            self.dir.remove_file(&path(GOOD, old))?;
        }
        Ok(())
    }

    /// Opens one; all of it was read and its hash compared.
    pub(crate) fn open(&self, records: u64) -> Result<Snapshot, SourceError> {
        Snapshot::open(self.dir.open_file(&path(GOOD, records))?)
    }

    /// Puts one aside for diagnosis and removes those put aside earlier. Failures here cost room on disk, nothing else.
    pub(crate) fn put_aside(&self, records: u64, why: &SourceError) {
        tracing::warn!(records, error = %ErrorChain(why), "checkpoint of the catalog put aside");
        if let Err(error) = self.try_put_aside(records) {
            tracing::warn!(records, error = %ErrorChain(&error), "checkpoint of the catalog stays");
        }
    }

    fn try_put_aside(&self, records: u64) -> Result<(), IoError> {
        for old in self.names(BAD)? {
            self.dir.remove_file(&path(BAD, old))?;
        }
        self.dir.rename(&path(GOOD, records), &self.dir, &path(BAD, records), Overwrite::Replace)?;
        self.dir.sync()
    }

    fn names(&self, prefix: &str) -> Result<Vec<u64>, IoError> {
        let entries = self.dir.list(None)?;
        let numbers = entries.iter().filter_map(|entry| {
            let name = entry.rel_path().ok()?;
            name.as_str().strip_prefix(prefix)?.parse().ok()
        });
        Ok(numbers.collect())
    }
}

fn path(prefix: &str, records: u64) -> RelPath {
    path_of(&format!("{prefix}{records}"))
}
