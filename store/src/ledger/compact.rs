//! Copying the catalog into a new generation while it is in use, because the engine never gives room back.
//!
//! A thread of its own copies page after page. Meanwhile the old generation answers and takes commits as always, and
//! [`Watched`] notes which rows they change. At the end the writing thread copies those again, compares the sums of all
//! tables, and switches: equal sums prove that the new generation has every row and no other.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
};

use avalon_protocol::id::ProjectName;

use super::writer::Writer;
use crate::{
    catalog::{
        CatalogError, CatalogStore, Cause, MAX_PAGE_ROWS, Row, SourceError, Table, TableSum, WriteSet,
    },
    error_chain::ErrorChain,
};

/// How many times the bytes of its rows a new generation may need while it is written.
const ROOM_FACTOR: u64 = 4;

/// A copy that is under way.
pub(super) struct Compaction {
    old: Arc<Watched>,
    new: Arc<dyn CatalogStore>,
    stop: Arc<AtomicBool>,
    copier: JoinHandle<Result<(), CatalogError>>,
}

/// A store that notes which rows are changed.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn CatalogStore>,
    touched: Mutex<BTreeSet<(Table, Vec<u8>)>>,
    /// So many are too many.
    max_touched: usize,
}

impl CatalogStore for Watched {
    fn generation(&self) -> u64 {
        self.inner.generation()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        self.inner.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, CatalogError> {
        self.inner.scan(table, prefix, after, limit)
    }

    fn commit(&self, set: &WriteSet) -> Result<(), CatalogError> {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if touched.len() < self.max_touched {
            touched.extend(set.iter().map(|(table, key, _)| (table, key.to_vec())));
        }
        drop(touched);
        self.inner.commit(set)
    }

    fn sync(&self) -> Result<(), CatalogError> {
        self.inner.sync()
    }

    fn sum(&self, table: Table) -> TableSum {
        self.inner.sum(table)
    }

    fn versions_in(&self, project: &ProjectName) -> Result<u64, CatalogError> {
        self.inner.versions_in(project)
    }

    fn rows_read(&self) -> u64 {
        self.inner.rows_read()
    }

    fn disk_bytes(&self) -> Result<u64, CatalogError> {
        self.inner.disk_bytes()
    }

    fn verify(&self) -> Result<u64, CatalogError> {
        self.inner.verify()
    }
}

/// Copies all rows of `old`, as they are when their page is read.
fn copy(old: &dyn CatalogStore, new: &dyn CatalogStore, stop: &AtomicBool) -> Result<(), CatalogError> {
    for table in Table::ALL {
        let mut after: Option<Vec<u8>> = None;
        while !stop.load(Ordering::Acquire) {
            let rows = old.scan(table, &[], after.as_deref(), MAX_PAGE_ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            let mut set = WriteSet::default();
            rows.into_iter().for_each(|(key, value)| set.put(table, key, value));
            new.commit(&set)?;
        }
    }
    new.sync()
}

/// Copies rows that may have changed since their page was read.
fn copy_again(
    old: &dyn CatalogStore,
    new: &dyn CatalogStore,
    touched: impl Iterator<Item = (Table, Vec<u8>)>,
) -> Result<(), CatalogError> {
    let mut set = WriteSet::default();
    for (table, key) in touched {
        match old.get(table, &key)? {
            Some(value) => set.put(table, key, value),
            None => set.remove(table, key),
        }
        if set.len() >= MAX_PAGE_ROWS {
            new.commit(&std::mem::take(&mut set))?;
        }
    }
    new.commit(&set)
}

impl Writer {
    /// Does what is due for the catalog: begins a copy, ends one that has all rows, writes a checkpoint.
    pub(super) fn look_after_catalog(&mut self) {
        if self.shared.damage().is_some() {
            self.give_up_compaction("the catalog is damaged");
            return;
        }
        match self.compaction.take_if(|compaction| compaction.copier.is_finished()) {
            Some(compaction) => self.end_compaction(compaction),
            None => self.begin_compaction_if_due(),
        }
        self.write_checkpoint_if_due();
    }

    fn write_checkpoint_if_due(&mut self) {
        let records = self.shared.total_records();
        if !self.care.is_checkpoint_due(records) {
            return;
        }
        self.care.checkpointed(records);
        let write = || self.checkpoints.write(&*self.shared.store(), records);
        match self.shared.long_work(write) {
            Ok(()) => {
                self.shared.note_checkpoint(records);
                tracing::info!(records, "checkpoint of the catalog written");
            }
            Err(SourceError::Catalog(error)) => {
                self.shared.note_damage(&error);
            }
            Err(error) => {
                tracing::warn!(records, error = %ErrorChain(&error), "checkpoint of the catalog not written");
            }
        }
    }

    fn begin_compaction_if_due(&mut self) {
        let now = self.generations.now();
        if self.compaction.is_some() || !self.care.is_time_to_look(now) {
            return;
        }
        let store = self.shared.store();
        let (disk, live) = match store.disk_bytes() {
            Ok(disk) => (disk, store.live_bytes()),
            Err(error) => {
                self.shared.note_damage(&error);
                return;
            }
        };
        let Some(reason) = self.care.reason_to_compact(now, disk, live) else { return };
        self.care.begun(now, disk);
        let room = self.generations.free_bytes().unwrap_or(0);
        if room < live.saturating_mul(ROOM_FACTOR) {
            tracing::warn!(
                ?reason,
                disk,
                live,
                room,
                "catalog not copied: there is no room for a second one"
            );
            return;
        }
        match self.begin_compaction(store) {
            Ok(compaction) => {
                tracing::info!(?reason, disk, live, "catalog is copied into a new generation");
                self.compaction = Some(compaction);
            }
            Err(error) => tracing::warn!(error = %ErrorChain(&error), "catalog not copied"),
        }
    }

    fn begin_compaction(&self, store: Arc<dyn CatalogStore>) -> Result<Compaction, CatalogError> {
        let new = self.generations.create_next()?;
        let max_touched = self.care.max_touched_rows();
        let old = Arc::new(Watched { inner: store, touched: Mutex::default(), max_touched });
        let stop = Arc::new(AtomicBool::new(false));
        let (from, to, stopped) = (Arc::clone(&old.inner), Arc::clone(&new), Arc::clone(&stop));
        // From here on every commit goes through it; only this thread commits.
        let plain = self.shared.replace_store(Arc::clone(&old) as Arc<dyn CatalogStore>);
        let copier = Builder::new().name("catalog-copy".into()).spawn(move || copy(&*from, &*to, &stopped));
        match copier {
            Ok(copier) => Ok(Compaction { old, new, stop, copier }),
            Err(error) => {
                self.shared.replace_store(plain);
                self.generations.discard(new.generation());
                Err(CatalogError::damaged(new.generation(), Cause::Engine { text: error.to_string() }))
            }
        }
    }

    fn end_compaction(&mut self, compaction: Compaction) {
        let Compaction { old, new, copier, .. } = compaction;
        let copied = copier.join().unwrap_or_else(|_| {
            let cause = Cause::Panic { text: "the thread that copies it panicked".into() };
            Err(CatalogError::damaged(new.generation(), cause))
        });
        let before = old.inner.generation();
        match copied.and_then(|()| self.finish_copy(&old, &*new)) {
            Ok(()) => {
                let (disk, generation) = (new.disk_bytes().ok(), new.generation());
                self.shared.replace_store(new);
                self.care.switched(self.generations.now(), disk);
                self.generations.note_compacted(generation, disk.unwrap_or(0));
                self.generations.discard(before);
                tracing::info!(generation, disk, "catalog copied; the old generation is removed");
            }
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "catalog not copied; the old generation stays");
                if matches!(&error, CatalogError::Damaged { generation, .. } if *generation == before) {
                    self.shared.note_damage(&error);
                }
                self.shared.replace_store(Arc::clone(&old.inner));
                self.generations.discard(new.generation());
            }
        }
    }

    /// Brings the copy up to the old generation, proves that both are the same, and makes the copy the one that counts.
    fn finish_copy(&self, old: &Watched, new: &dyn CatalogStore) -> Result<(), CatalogError> {
        let touched = std::mem::take(&mut *old.touched.lock().unwrap_or_else(PoisonError::into_inner));
        if touched.len() >= old.max_touched {
            let text = "too many rows changed meanwhile".into();
            return Err(CatalogError::damaged(new.generation(), Cause::Engine { text }));
        }
        copy_again(&*old.inner, new, touched.into_iter())?;
        if let Some(table) = Table::ALL.into_iter().find(|table| old.inner.sum(*table) != new.sum(*table)) {
            return Err(CatalogError::damaged(new.generation(), Cause::Rows { table }));
        }
        new.sync()?;
        self.generations.switch(new.generation()).map_err(CatalogError::switch)
    }

    /// Ends a copy that is under way and goes on with the old generation alone.
    pub(super) fn give_up_compaction(&mut self, why: &'static str) {
        let Some(Compaction { old, new, stop, copier }) = self.compaction.take() else { return };
        stop.store(true, Ordering::Release);
        if copier.join().is_err() {
            tracing::error!("the thread that copies the catalog panicked");
        }
        self.shared.replace_store(Arc::clone(&old.inner));
        self.generations.discard(new.generation());
        tracing::info!(why, "copy of the catalog given up");
    }
}
