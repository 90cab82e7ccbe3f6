//! Filling a new generation: from a checkpoint or an export as far as that goes, then from the feeds and the trees.

use avalon_protocol::{
    feed::FeedHead,
    id::{ProjectName, VersionId},
    rel_path::RelPath,
    version_fold::VersionFold,
};

use super::{
    RebuildError, admit,
    replay::{BATCH_CHANGES, RebuildProgress, flush, relearn_versions, replay_feeds, stands_in},
    shared::Shared,
};
use crate::{
    catalog::{
        Batch, CatalogError, CatalogStore, LocalChange, LocalFile, MAX_PAGE_ROWS, SourceError, SourceRow,
        Table, Value, WriteSet, feed_of_key, file_path, version_of_key,
    },
    fs::FileStat,
};

/// Rows to start from. Those of local files come last.
pub(super) type SourceRows<'a> = &'a mut dyn Iterator<Item = Result<SourceRow, SourceError>>;

/// What a new generation was built from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// How many records were read from the feeds and applied.
    pub replayed_records: u64,
    /// How many records the checkpoint or export stood for; 0 without one.
    pub loaded_records: u64,
}

/// Why a generation was not filled.
#[derive(Debug)]
pub(super) enum FillError {
    /// What it was to start from cannot be used; another source may do.
    Source(SourceError),
    /// No source would help.
    Rebuild(RebuildError),
}

impl From<SourceError> for FillError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<RebuildError> for FillError {
    fn from(error: RebuildError) -> Self {
        Self::Rebuild(error)
    }
}

impl From<CatalogError> for FillError {
    fn from(error: CatalogError) -> Self {
        Self::Rebuild(error.into())
    }
}

/// Fills an empty store with everything and makes it durable. Files that still have the size and time that their manifest
/// says are taken as unchanged, without hashing them again.
pub(super) fn fill(
    shared: &Shared,
    store: &dyn CatalogStore,
    source: Option<SourceRows<'_>>,
    progress: &mut dyn FnMut(RebuildProgress),
) -> Result<Rebuilt, FillError> {
    let total_records = shared.total_records();
    let mut state = RebuildProgress { total_records, ..RebuildProgress::default() };
    let mut built = Rebuilt::default();
    let mut rest = None;
    if let Some(rows) = source {
        let first = load_base(shared, store, rows, &mut built.loaded_records)?;
        let (then, now) = (admit::judged_by(shared, store)?, shared.admission());
        if admit::has_changed(shared, store, (&then, &now), &mut || {})? {
            return Err(SourceError::Rights.into());
        }
        rest = Some((first, rows));
        state.records = built.loaded_records;
    }
    replay_feeds(shared, store, &mut |_| {}, &mut |records| {
        state.records += records;
        built.replayed_records += records;
        progress(state);
    })?;
    relearn_held(shared, store, &mut |files| {
        state.files += files;
        progress(state);
    })?;
    if let Some((first, rows)) = rest {
        load_local(shared, store, &mut first.into_iter().map(Ok).chain(rows))?;
    }
    store.verify()?;
    store.sync()?;
    Ok(built)
}

/// Takes rows up to the first of a local file, which is returned.
fn load_base(
    shared: &Shared,
    store: &dyn CatalogStore,
    rows: SourceRows<'_>,
    records: &mut u64,
) -> Result<Option<SourceRow>, FillError> {
    let mut set = WriteSet::default();
    for row in rows {
        let (table, key, value) = row?;
        match table {
            Table::Cursors => *records += check_cursor(shared, store, &key, &value)?,
            Table::Versions | Table::Manifests => {}
            Table::LocalFiles => {
                store.commit(&set)?;
                return Ok(Some((table, key, value)));
            }
            Table::Objects => return Err(SourceError::damaged("it has rows of objects").into()),
        }
        set.put(table, key, value);
        if set.len() >= BATCH_CHANGES {
            store.commit(&std::mem::take(&mut set))?;
        }
    }
    store.commit(&set)?;
    Ok(None)
}

/// Returns how many records a cursor stands for, where it is a place in its feed.
fn check_cursor(
    shared: &Shared,
    store: &dyn CatalogStore,
    key: &[u8],
    value: &[u8],
) -> Result<u64, FillError> {
    let bad = || SourceError::damaged("a cursor cannot be read");
    let feed = feed_of_key(key).ok_or_else(bad)?;
    let cursor = FeedHead::from_row(store, value).map_err(|_| bad())?;
    if stands_in(shared, &feed, cursor)? {
        Ok(cursor.next_seq)
    } else {
        Err(SourceError::Cursor { feed }.into())
    }
}

/// Looks at the files of every version that this node holds, in the order of the versions.
fn relearn_held(
    shared: &Shared,
    store: &dyn CatalogStore,
    looked_at: &mut dyn FnMut(u64),
) -> Result<(), RebuildError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        shared.go_on()?;
        let rows = store.scan(Table::Versions, &[], after.as_deref(), MAX_PAGE_ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        after = Some(last.clone());
        let mut held: Vec<VersionId> = Vec::new();
        for (key, value) in &rows {
            let fold = VersionFold::from_row(store, value)?;
            if fold.held_by(&shared.me).next().is_some() {
                held.extend(version_of_key(key));
            }
        }
        relearn_versions(shared, store, &held, looked_at)?;
    }
}

/// Takes rows of local files that still are as the rows say; of others the trees have just told.
fn load_local(shared: &Shared, store: &dyn CatalogStore, rows: SourceRows<'_>) -> Result<(), FillError> {
    let mut batch = Batch::new(store);
    for row in rows {
        let (table, key, value) = row?;
        let bad = || SourceError::damaged("a row of a local file cannot be read");
        let ((project, path), file) = match table {
            Table::LocalFiles => {
                (file_path(&key).ok_or_else(bad)?, LocalFile::from_row(store, &value).map_err(|_| bad())?)
            }
            _ => return Err(SourceError::damaged("rows stand behind those of local files").into()),
        };
        if stat_of(shared, &project, &path).is_some_and(|stat| stat.identity() == file.identity()) {
            batch.apply_local(&LocalChange::Put { project, path, file })?;
            batch = flush(store, batch)?;
        }
    }
    Ok(store.commit(&batch.finish())?)
}

fn stat_of(shared: &Shared, project: &ProjectName, path: &RelPath) -> Option<FileStat> {
    shared.projects.get(project)?.stat(path).ok().flatten()
}
