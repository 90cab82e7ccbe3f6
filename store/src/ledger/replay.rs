//! Building the catalog from what is true: feeds, manifests, and the files that are there.

use std::collections::BTreeSet;

use avalon_protocol::{
    access::Admission,
    feed::{FeedHead, FeedId, Group},
    hash::ManifestId,
    id::VersionId,
    manifest::{FileEntry, Manifest},
    record::Record,
    rel_path::RelPath,
    version_fold::VersionFold,
};

use super::{RebuildError, admit::signer_of, shared::Shared};
use crate::{
    catalog::{
        Batch, CatalogError, CatalogStore, Cause, Judge, LocalChange, LocalFile, MAX_PAGE_ROWS, Table, Value,
        cursor_key, feed_of_key, manifest_of_key, version_key,
    },
    error_chain::ErrorChain,
    feed::{FeedFileError, FeedIndex, body_of},
    fs::{Dir, FileKind},
};

/// How many bytes of a feed are read at a time.
const READ_BYTES: usize = 4 << 20;
/// After so many changes a batch is committed.
pub(super) const BATCH_CHANGES: usize = 2000;

/// How far a rebuild of the catalog is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RebuildProgress {
    /// The records applied so far; those that a checkpoint stands for count at once.
    pub records: u64,
    /// All records in the feeds.
    pub total_records: u64,
    /// The files looked at so far, once the records are done.
    pub files: u64,
}

/// Returns the versions that the records of a group are about.
pub(super) fn versions_of(group: &Group) -> BTreeSet<VersionId> {
    let records = group.records.iter().filter_map(|raw| Record::in_feed(raw, &group.feed.project).ok());
    records.filter_map(|record| record.version().cloned()).collect()
}

fn unreadable(feed: &FeedId, source: FeedFileError) -> RebuildError {
    RebuildError::Feed { feed: feed.clone(), source: source.into() }
}

/// Says why a store does not belong to these feeds, if it does not: each cursor must be a place in its feed.
pub(super) fn check_cursors(
    shared: &Shared,
    store: &dyn CatalogStore,
) -> Result<Option<Cause>, RebuildError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store.scan(Table::Cursors, &[], after.as_deref(), MAX_PAGE_ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(None) };
        after = Some(last.clone());
        for (key, value) in rows {
            let cursor = FeedHead::from_row(store, &value)?;
            let Some(feed) = feed_of_key(&key) else {
                return Ok(Some(Cause::Row { table: Table::Cursors }));
            };
            if !stands_in(shared, &feed, cursor)? {
                return Ok(Some(Cause::Cursor { feed }));
            }
        }
    }
}

pub(super) fn stands_in(shared: &Shared, feed: &FeedId, cursor: FeedHead) -> Result<bool, RebuildError> {
    let Some(index) = shared.feed(feed) else { return Ok(cursor == FeedHead::EMPTY) };
    let head = index.head();
    if cursor.next_seq >= head.next_seq {
        return Ok(cursor == head);
    }
    match index.read(cursor.next_seq, 1) {
        Ok(groups) => {
            let next = groups.first().and_then(body_of);
            Ok(next.is_some_and(|(body, _)| body.previous == cursor.chain))
        }
        Err(FeedFileError::NotABoundary { .. }) => Ok(false),
        Err(error) => Err(unreadable(feed, error)),
    }
}

/// Brings a store that has been in use up to the heads of all feeds. Files of this node's versions that the new records are
/// about are looked at again. Returns how many records were applied.
pub(super) fn catch_up(shared: &Shared, store: &dyn CatalogStore) -> Result<u64, RebuildError> {
    let (mut own, mut records) = (BTreeSet::new(), 0);
    replay_feeds(shared, store, &mut |group| own.extend(versions_of(group)), &mut |applied| {
        records += applied
    })?;
    relearn_versions(shared, store, &own, &mut |_| {})?;
    Ok(records)
}

/// Applies what is in the feeds behind the cursors of a store. Calls `own` with each group of this node, and `applied` with
/// numbers of records.
pub(super) fn replay_feeds(
    shared: &Shared,
    store: &dyn CatalogStore,
    own: &mut dyn FnMut(&Group),
    applied: &mut dyn FnMut(u64),
) -> Result<(), RebuildError> {
    // One reading for all of it, and first of all what it was read from: what comes meanwhile is behind the cursors.
    let admission = shared.admission();
    let (of_studio, others): (Vec<_>, Vec<_>) =
        shared.all_feeds().into_iter().partition(|index| index.feed().is_of_studio());
    let mut records = 0;
    for index in of_studio {
        replay_feed(shared, store, (&index, &admission), own, &mut |more| records += more)?;
    }
    applied(records);
    others.iter().try_for_each(|index| replay_feed(shared, store, (index, &admission), own, applied))
}

fn replay_feed(
    shared: &Shared,
    store: &dyn CatalogStore,
    (index, admission): (&FeedIndex, &Admission),
    own: &mut dyn FnMut(&Group),
    applied: &mut dyn FnMut(u64),
) -> Result<(), RebuildError> {
    let feed = index.feed();
    let mut cursor = FeedHead::load(store, &cursor_key(feed))?.unwrap_or(FeedHead::EMPTY);
    loop {
        shared.go_on()?;
        let groups = index.read(cursor.next_seq, READ_BYTES).map_err(|error| unreadable(feed, error))?;
        if groups.is_empty() {
            return Ok(());
        }
        let start = cursor.next_seq;
        let mut batch = Batch::new(store);
        for group in &groups {
            let damaged = || FeedFileError::NotABoundary { feed: feed.clone(), seq: cursor.next_seq };
            let (body, head) = body_of(group).ok_or_else(damaged).map_err(|error| unreadable(feed, error))?;
            batch.apply_group(&body, head, Judge { admission, signer: signer_of(index, &body) })?;
            if feed.node == shared.me {
                own(&body);
            }
            cursor = head;
            batch = flush(store, batch)?;
        }
        store.commit(&batch.finish())?;
        applied(cursor.next_seq - start);
    }
}

/// Commits a batch that has become large, and starts the next.
pub(super) fn flush<'a>(store: &'a dyn CatalogStore, batch: Batch<'a>) -> Result<Batch<'a>, CatalogError> {
    if batch.len() < BATCH_CHANGES {
        return Ok(batch);
    }
    store.commit(&batch.finish())?;
    Ok(Batch::new(store))
}

/// Looks at the files of versions again, as far as this node holds them.
pub(super) fn relearn_versions<'a>(
    shared: &Shared,
    store: &dyn CatalogStore,
    versions: impl IntoIterator<Item = &'a VersionId>,
    looked_at: &mut dyn FnMut(u64),
) -> Result<(), CatalogError> {
    let mut batch = Batch::new(store);
    for version in versions {
        if let Some(fold) = VersionFold::load(store, &version_key(version))? {
            looked_at(relearn(shared, &mut batch, version, &fold)?);
            batch = flush(store, batch)?;
        }
    }
    store.commit(&batch.finish())
}

/// Looks at the files of every generation of a version that this node holds, the newest last.
fn relearn(
    shared: &Shared,
    batch: &mut Batch<'_>,
    version: &VersionId,
    fold: &VersionFold,
) -> Result<u64, CatalogError> {
    let Some(project_dir) = shared.projects.get(&version.project) else { return Ok(0) };
    let mut held: Vec<ManifestId> = fold.held_by(&shared.me).collect();
    held.sort_by_key(|id| (fold.generation(id).map(|generation| generation.generation), *id));
    let mut files = 0;
    for id in held {
        match shared.manifests.get(id) {
            Ok(Some(manifest)) => {
                for entry in manifest.files() {
                    relearn_file(batch, project_dir, &manifest, entry)?;
                    files += 1;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "files of a manifest not looked at");
                if error.is_damage() {
                    shared.note_missing(id, version.clone());
                }
            }
        }
    }
    Ok(files)
}

fn relearn_file(
    batch: &mut Batch<'_>,
    project_dir: &Dir,
    manifest: &Manifest,
    entry: &FileEntry,
) -> Result<(), CatalogError> {
    let project = manifest.project().clone();
    let Ok(path) = manifest.dir().join(&entry.path) else { return Ok(()) };
    let stat = project_dir.stat(&path).unwrap_or_else(|error| {
        tracing::debug!(error = %ErrorChain(&error), "file not looked at");
        None
    });
    let unchanged = stat.filter(|stat| {
        stat.kind == FileKind::File && stat.size == entry.size && stat.mtime_ns == entry.mtime_ns
    });
    if let Some(stat) = unchanged {
        let file = LocalFile {
            hash: entry.hash,
            size: stat.size,
            mtime_ns: stat.mtime_ns,
            ctime_ns: stat.ctime_ns,
            inode: stat.inode,
            manifest: manifest.id(),
        };
        return batch.apply_local(&LocalChange::Put { project, path, file });
    }
    remove_row(batch, manifest, path)
}

/// The row may belong to another manifest by now; then it stays.
fn remove_row(batch: &mut Batch<'_>, manifest: &Manifest, path: RelPath) -> Result<(), CatalogError> {
    let project = manifest.project().clone();
    match batch.local_file(&project, &path)? {
        Some(row) if row.manifest == manifest.id() => {
            batch.apply_local(&LocalChange::Remove { project, path })
        }
        _ => Ok(()),
    }
}

/// Notes every published generation whose manifest is not here. A part of the manifests at a time: all their names would take
/// memory that is never given back.
pub(super) fn find_missing(shared: &Shared, store: &dyn CatalogStore) -> Result<(), CatalogError> {
    for byte in 0..=u8::MAX {
        let stored = shared.manifests.ids_beginning(byte).map_err(CatalogError::switch)?;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = store.scan(Table::Manifests, &[byte], after.as_deref(), MAX_PAGE_ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for (key, value) in rows {
                if let Some(id) = manifest_of_key(&key).filter(|id| !stored.contains(id)) {
                    shared.note_missing(id, VersionId::from_row(store, &value)?);
                }
            }
        }
    }
    Ok(())
}
