//! The catalog in memory: the model that the engine is compared with, and the simulation's store.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use avalon_protocol::id::ProjectName;

use super::{
    CatalogError, CatalogStore, MAX_PAGE_ROWS, Row, Table, WriteSet,
    envelope::{TableSum, row_mark},
};

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A catalog in a map. It never fails and keeps nothing.
#[derive(Debug, Default)]
pub struct MemStore {
    rows: RwLock<Rows>,
}

impl CatalogStore for MemStore {
    fn generation(&self) -> u64 {
        0
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, CatalogError> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let found = rows
            .range((table, prefix.to_vec())..)
            .take_while(|((of, key), _)| *of == table && key.starts_with(prefix))
            .filter(|((_, key), _)| after.is_none_or(|after| key.as_slice() > after))
            .take(limit.min(MAX_PAGE_ROWS));
        Ok(found.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, set: &WriteSet) -> Result<(), CatalogError> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (table, key, value) in set.iter() {
            match value {
                Some(value) => rows.insert((table, key.to_vec()), value.to_vec()),
                None => rows.remove(&(table, key.to_vec())),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), CatalogError> {
        Ok(())
    }

    fn sum(&self, table: Table) -> TableSum {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let mut sum = TableSum::default();
        for ((_, key), value) in rows.iter().filter(|((of, _), _)| *of == table) {
            sum.add(&row_mark(table.tag(), key, value));
        }
        sum
    }

    fn row_count(&self, table: Table) -> u64 {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.keys().filter(|(of, _)| *of == table).count() as u64
    }

    fn versions_in(&self, project: &ProjectName) -> Result<u64, CatalogError> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let name = project.as_str().as_bytes();
        let is_of = |key: &[u8]| key.split(|byte| *byte == 0).next() == Some(name);
        Ok(rows.keys().filter(|(of, key)| *of == Table::Versions && is_of(key)).count() as u64)
    }

    fn rows_read(&self) -> u64 {
        0
    }

    fn disk_bytes(&self) -> Result<u64, CatalogError> {
        Ok(0)
    }

    fn verify(&self) -> Result<u64, CatalogError> {
        Ok(self.rows.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }
}
