//! What stands for the catalog from a start that found none of use until one is built: it answers nothing.

use avalon_protocol::id::ProjectName;

use super::{CatalogError, CatalogStore, Cause, Row, Table, TableSum, WriteSet};

/// A generation that cannot be used, by its number.
#[derive(Debug)]
pub(crate) struct Unbuilt {
    generation: u64,
    cause: Cause,
}

impl Unbuilt {
    /// Stands for a generation; 0 where there is none.
    pub(crate) fn new(generation: u64, cause: Cause) -> Self {
        Self { generation, cause }
    }

    fn refuse<T>(&self) -> Result<T, CatalogError> {
        Err(CatalogError::damaged(self.generation, self.cause.clone()))
    }
}

impl CatalogStore for Unbuilt {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn get(&self, _: Table, _: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        self.refuse()
    }

    fn scan(&self, _: Table, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<Row>, CatalogError> {
        self.refuse()
    }

    fn commit(&self, _: &WriteSet) -> Result<(), CatalogError> {
        self.refuse()
    }

    fn sync(&self) -> Result<(), CatalogError> {
        self.refuse()
    }

    fn sum(&self, _: Table) -> TableSum {
        TableSum::default()
    }

    fn versions_in(&self, _: &ProjectName) -> Result<u64, CatalogError> {
        self.refuse()
    }

    fn rows_read(&self) -> u64 {
        0
    }

    fn disk_bytes(&self) -> Result<u64, CatalogError> {
        self.refuse()
    }

    fn verify(&self) -> Result<u64, CatalogError> {
        self.refuse()
    }
}
