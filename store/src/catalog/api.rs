//! The seam between the ledger and what stores its indexes.

use std::collections::BTreeMap;

use avalon_protocol::id::ProjectName;

use super::{CatalogError, envelope::TableSum};

/// Most rows that one scan returns; callers page with the last key.
pub const MAX_PAGE_ROWS: usize = 1000;

/// A table of the catalog. The number is the first byte of every key on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// What all records about a version add up to, in the order of project, asset, subset and number.
    Versions = 1,
    /// Which version a manifest belongs to.
    Manifests = 2,
    /// What is known about a file of a project tree, by its path.
    LocalFiles = 3,
    /// Where the files of an object lie.
    Objects = 4,
    /// How far each feed has been applied.
    Cursors = 5,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Versions, Self::Manifests, Self::LocalFiles, Self::Objects, Self::Cursors];

    /// Returns the first byte of its keys on disk.
    pub fn tag(self) -> u8 {
        self as u8
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Versions => "versions",
            Self::Manifests => "manifests",
            Self::LocalFiles => "local files",
            Self::Objects => "objects",
            Self::Cursors => "cursors",
        })
    }
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Changes to any number of tables that become visible together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteSet {
    changes: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

impl WriteSet {
    /// Sets a row; the last change of a row counts.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert((table, key), Some(value));
    }

    /// Removes a row, if it is there.
    pub fn remove(&mut self, table: Table, key: Vec<u8>) {
        self.changes.insert((table, key), None);
    }

    /// Returns what this set does to a row: `None` when it leaves it alone.
    pub fn change(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        self.changes.get(&(table, key.to_vec())).map(Option::as_deref)
    }

    /// Returns every change in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.changes.iter().map(|((table, key), value)| (*table, key.as_slice(), value.as_deref()))
    }

    /// Returns how many rows it changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Says whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Where the ledger keeps its indexes.
///
/// One thread commits, any number read. A store that fails once is of no use any more: every later call fails with
/// [`CatalogError::Damaged`], and the ledger builds the next generation.
pub trait CatalogStore: Send + Sync + std::fmt::Debug {
    /// Returns the number of the generation; 0 for one in memory.
    fn generation(&self) -> u64;

    /// Returns the value of a key.
    ///
    /// # Errors
    /// [`CatalogError`] when the store has failed or the row is damaged.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError>;

    /// Returns the rows whose key starts with `prefix` and is greater than `after`, in the order of their keys: at most
    /// `limit` and at most [`MAX_PAGE_ROWS`].
    ///
    /// # Errors
    /// [`CatalogError`] when the store has failed or a row is damaged.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, CatalogError>;

    /// Makes all changes of `set` visible at once. They are durable after the next [`CatalogStore::sync`].
    ///
    /// # Errors
    /// [`CatalogError`]; nothing of the set is visible then.
    fn commit(&self, set: &WriteSet) -> Result<(), CatalogError>;

    /// Makes every commit so far durable.
    ///
    /// # Errors
    /// [`CatalogError`]; the store is of no use afterwards.
    fn sync(&self) -> Result<(), CatalogError>;

    /// Returns what the rows of a table add up to, from counters.
    fn sum(&self, table: Table) -> TableSum;

    /// Returns how many rows a table has, from a counter.
    fn row_count(&self, table: Table) -> u64 {
        self.sum(table).rows
    }

    /// Returns how many versions of a project there are, from a counter: that may be asked often.
    ///
    /// # Errors
    /// [`CatalogError`] when the store has failed.
    fn versions_in(&self, project: &ProjectName) -> Result<u64, CatalogError>;

    /// Returns how many bytes the keys and values of all rows take, from counters.
    fn live_bytes(&self) -> u64 {
        Table::ALL.into_iter().map(|table| self.sum(table).bytes).sum()
    }

    /// Returns how many rows were read so far for [`CatalogStore::get`] and [`CatalogStore::scan`]: what questions cost.
    fn rows_read(&self) -> u64;

    /// Returns how many bytes it takes on disk.
    ///
    /// # Errors
    /// [`CatalogError`] when the store has failed.
    fn disk_bytes(&self) -> Result<u64, CatalogError>;

    /// Reads every row and proves that none was altered, lost or added; returns how many there are. Commits may go on
    /// meanwhile.
    ///
    /// # Errors
    /// [`CatalogError::Damaged`] says what is wrong.
    fn verify(&self) -> Result<u64, CatalogError>;
}

/// Makes what the engine wrote durable.
pub(crate) type Fsync = Box<dyn Fn() -> std::io::Result<()> + Send + Sync>;
