//! Turns records and changes of local files into one [`WriteSet`] over what a store has.

use std::collections::BTreeMap;

use avalon_protocol::{
    access::{Action, Admission},
    feed::{FeedHead, FeedId, Group},
    hash::ManifestId,
    id::{ProjectName, VersionId},
    record::{Published, Record, RecordError},
    rel_path::RelPath,
    signing::Signer,
    version_fold::VersionFold,
};

use super::{
    CatalogError, CatalogStore, LocalFile, Table, Value, WriteSet,
    rows::{cursor_key, file_key, object_key, version_key},
};

/// A change of what is known about one file of a project tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalChange {
    /// The file is there.
    Put {
        /// The project.
        project: ProjectName,
        /// Where it lies, relative to the project directory.
        path: RelPath,
        /// What is known about it.
        file: LocalFile,
    },
    /// The file is gone, or nothing is known about it any more.
    Remove {
        /// The project.
        project: ProjectName,
        /// Where it lay.
        path: RelPath,
    },
}

/// Judges the records of a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge<'a> {
    pub(crate) admission: &'a Admission,
    /// Under which certificate the group is signed.
    pub(crate) signer: Signer,
}

impl Judge<'_> {
    pub(crate) fn admits(&self, feed: &FeedId, seq: u64, record: &Record) -> Result<(), Action> {
        self.admission.admits(feed, seq, self.signer, record)
    }
}

/// A [`WriteSet`] in the making; reads see what it has written already.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    store: &'a dyn CatalogStore,
    set: WriteSet,
    folds: BTreeMap<VersionId, VersionFold>,
    /// The generations that became known.
    pub(crate) published: Vec<Published>,
    /// Which records state nothing because their author lacked a right.
    pub(crate) refused: Vec<(FeedId, u64, Action)>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(store: &'a dyn CatalogStore) -> Self {
        let set = WriteSet::default();
        Self { store, set, folds: BTreeMap::new(), published: Vec::new(), refused: Vec::new() }
    }

    /// Adds all records of a group, which ends at `head`, as far as `judge` admits them. Records that this version does not know
    /// are passed over: they stay in the feed.
    pub(crate) fn apply_group(
        &mut self,
        group: &Group,
        head: FeedHead,
        judge: Judge<'_>,
    ) -> Result<(), CatalogError> {
        for (seq, raw) in (group.first_seq..).zip(&group.records) {
            match Record::in_feed(raw, &group.feed.project) {
                Ok(record) => match judge.admits(&group.feed, seq, &record) {
                    Ok(()) => self.apply_record(&group.feed, seq, record)?,
                    Err(action) => {
                        tracing::debug!(feed = %group.feed, seq, %action, "record without the right to it passed over");
                        self.refused.push((group.feed.clone(), seq, action));
                    }
                },
                Err(RecordError::Unknown { kind, version }) => {
                    tracing::debug!(feed = %group.feed, seq, kind, version, "unknown record kept");
                }
                Err(error @ (RecordError::Damaged { .. } | RecordError::Elsewhere { .. })) => {
                    tracing::warn!(feed = %group.feed, seq, %error, "record passed over");
                }
            }
        }
        self.set.put(Table::Cursors, cursor_key(&group.feed), head.to_bytes());
        Ok(())
    }

    fn apply_record(&mut self, feed: &FeedId, seq: u64, record: Record) -> Result<(), CatalogError> {
        let Some(version) = record.version() else { return Ok(()) };
        if !self.folds.contains_key(version) {
            let known = VersionFold::load(self.store, &version_key(version))?;
            self.folds.insert(version.clone(), known.unwrap_or_default());
        }
        if let Some(fold) = self.folds.get_mut(version) {
            fold.apply(&feed.node, seq, &record);
        }
        if let Record::Published(published) = record {
            self.name_manifest(published.manifest, &published.version)?;
            self.published.push(published);
        }
        Ok(())
    }

    /// Where dishonest nodes claim one manifest for two versions, the first in order stands: every order of arrival
    /// gives the same rows.
    fn name_manifest(&mut self, manifest: ManifestId, version: &VersionId) -> Result<(), CatalogError> {
        let known: Option<VersionId> = self.load(manifest.as_bytes())?;
        if known.is_none_or(|known| *version < known) {
            self.set.put(Table::Manifests, manifest.as_bytes().to_vec(), version.to_bytes());
        }
        Ok(())
    }

    /// Looks a row up, with the changes so far.
    fn load<V: Value>(&self, key: &[u8]) -> Result<Option<V>, CatalogError> {
        match self.set.change(V::TABLE, key) {
            Some(change) => change.map(|bytes| V::from_row(self.store, bytes)).transpose(),
            None => V::load(self.store, key),
        }
    }

    /// Returns what is known about a file, with the changes so far.
    pub(crate) fn local_file(
        &self,
        project: &ProjectName,
        path: &RelPath,
    ) -> Result<Option<LocalFile>, CatalogError> {
        self.load(&file_key(project, path))
    }

    /// Adds a change of a local file, in both indexes.
    pub(crate) fn apply_local(&mut self, change: &LocalChange) -> Result<(), CatalogError> {
        let (LocalChange::Put { project, path, .. } | LocalChange::Remove { project, path }) = change;
        let key = file_key(project, path);
        if let Some(old) = self.load::<LocalFile>(&key)? {
            self.set.remove(Table::Objects, object_key(&old.hash, &key));
        }
        match change {
            LocalChange::Put { file, .. } => {
                self.set.put(Table::Objects, object_key(&file.hash, &key), Vec::new());
                self.set.put(Table::LocalFiles, key, file.to_bytes());
            }
            LocalChange::Remove { .. } => self.set.remove(Table::LocalFiles, key),
        }
        Ok(())
    }

    /// Returns how many changes there are so far, for those who bound a batch.
    pub(crate) fn len(&self) -> usize {
        self.set.len() + self.folds.len()
    }

    /// Returns the changes.
    pub(crate) fn finish(mut self) -> WriteSet {
        for (version, fold) in &self.folds {
            self.set.put(Table::Versions, version_key(version), fold.to_bytes());
        }
        self.set
    }
}
