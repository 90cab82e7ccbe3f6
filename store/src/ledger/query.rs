//! Reading: from any thread, without waiting for the one that writes.

use std::{collections::HashSet, sync::Arc, time::Duration};

use avalon_protocol::{
    feed::{FeedHead, FeedId, SealedGroup},
    hash::{ManifestId, ObjectHash},
    id::{AssetName, NodeId, ProjectName, SubsetName, VersionId},
    manifest::Manifest,
    rel_path::RelPath,
    version_fold::VersionFold,
};

use super::{Inner, Ledger, LedgerError};
use crate::{
    catalog::{
        CatalogError, CatalogStore, Cause, LocalFile, MAX_PAGE_ROWS, Table, Value, file_key, file_path,
        files_prefix, object_key, object_key_file, object_prefix, subset_prefix, version_key, version_of_key,
        versions_prefix,
    },
    error_chain::ErrorChain,
    manifest_file::{ManifestFileError, StoredManifest},
};

/// How many places of one object are returned at most.
pub const MAX_PLACES: usize = 16;

/// How long a question waits for a catalog that is being built anew: that of a few hundred thousand records is there by
/// then, and who asks need not know that anything happened.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatalogStats {
    /// The versions that records are about.
    pub versions: u64,
    /// The generations that were published.
    pub manifests: u64,
    /// The files of project trees that are known.
    pub local_files: u64,
    /// The rows of all tables.
    pub rows: u64,
    /// What the keys and values of all rows take, in bytes.
    pub live_bytes: u64,
    /// How many records the newest checkpoint stands for; 0 without one.
    pub checkpoint_records: u64,
    /// What the catalog takes on disk, in bytes; 0 while it is damaged.
    pub disk_bytes: u64,
    /// The number of the generation.
    pub generation: u64,
    /// The records of all feeds.
    pub records: u64,
    /// The feeds.
    pub feeds: u64,
}

/// What a verification read, and what is wrong.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// The rows of the catalog that were read.
    pub rows: u64,
    /// What is wrong with the catalog; it is being rebuilt then.
    pub catalog: Option<CatalogError>,
    /// The groups of feeds that were read.
    pub groups: u64,
    /// The feeds that cannot be read back.
    pub feeds: Vec<(FeedId, LedgerError)>,
    /// The manifests that were read.
    pub manifests: u64,
    /// The manifests that cannot be read back; they count as missing now.
    pub damaged_manifests: Vec<ManifestId>,
}

impl Inner {
    /// Asks the catalog. Damage that shows is noted and repaired by the thread that writes.
    fn ask_now<T>(
        &self,
        question: impl FnOnce(&dyn CatalogStore) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let store = self.shared.store();
        let answer = question(&*store);
        if let Err(error) = &answer {
            self.note(error);
        }
        answer
    }

    /// Asks the catalog, and if that is damaged the next one, should it come soon.
    fn ask<T>(
        &self,
        question: impl Fn(&dyn CatalogStore) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let seen = self.shared.mending.switches();
        match self.ask_now(&question) {
            Err(CatalogError::Damaged { .. }) if self.shared.mending.wait_for_switch(seen, PATIENCE) => {
                self.ask_now(&question)
            }
            answer => answer,
        }
    }
}

/// Says that a key is not one, though its row is as it was written.
fn bad_key(store: &dyn CatalogStore, table: Table) -> CatalogError {
    CatalogError::damaged(store.generation(), Cause::Row { table })
}

/// Returns the first version beneath `prefix`, then the first that is not of the same `group`, and so on.
fn first_of_each(
    store: &dyn CatalogStore,
    prefix: &[u8],
    limit: usize,
    group: impl Fn(&VersionId) -> Vec<u8>,
) -> Result<Vec<VersionId>, CatalogError> {
    let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
    while found.len() < limit {
        let rows = store.scan(Table::Versions, prefix, after.as_deref(), 1)?;
        let Some((key, _)) = rows.first() else { break };
        let id = version_of_key(key).ok_or_else(|| bad_key(store, Table::Versions))?;
        // No name has this byte.
        after = Some([group(&id), vec![u8::MAX]].concat());
        found.push(id);
    }
    Ok(found)
}

fn places_in(
    store: &dyn CatalogStore,
    prefix: &[u8],
) -> Result<Vec<(ProjectName, RelPath, LocalFile)>, CatalogError> {
    let mut places = Vec::new();
    for (key, _) in store.scan(Table::Objects, prefix, None, MAX_PLACES)? {
        let bad = || bad_key(store, Table::Objects);
        let key = object_key_file(&key).ok_or_else(bad)?;
        let (project, path) = file_path(key).ok_or_else(bad)?;
        // A commit between the two reads may have taken the file away.
        if let Some(file) = LocalFile::load(store, key)? {
            places.push((project, path, file));
        }
    }
    Ok(places)
}

impl Ledger {
    /// Returns how far each feed of a project is durable here, in the order of the nodes. Does not touch the disk.
    pub fn heads(&self, project: &ProjectName) -> Vec<(NodeId, FeedHead)> {
        self.inner.shared.heads(project)
    }

    /// Returns whole groups of a feed, the first one being that which starts at `from_seq`: as many as fit into
    /// `max_bytes`, but one if there is one. A feed that is not here has none.
    ///
    /// # Errors
    /// [`LedgerError::Feed`] when no group starts there, or the feed cannot be read back.
    pub fn read_groups(
        &self,
        feed: &FeedId,
        from_seq: u64,
        max_bytes: usize,
    ) -> Result<Vec<SealedGroup>, LedgerError> {
        let Some(index) = self.inner.shared.feed(feed) else { return Ok(Vec::new()) };
        let read = index.read(from_seq, max_bytes);
        read.map_err(|source| LedgerError::Feed { feed: feed.clone(), source: Arc::new(source) })
    }

    /// Returns what all records about a version add up to.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn version(&self, id: &VersionId) -> Result<Option<VersionFold>, CatalogError> {
        self.inner.ask(|store| VersionFold::load(store, &version_key(id)))
    }

    /// Returns versions of a project, or of one asset, in the order of their ids: those behind `after`, at most `limit` and
    /// at most 1000.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn versions(
        &self,
        project: &ProjectName,
        asset: Option<&AssetName>,
        after: Option<&VersionId>,
        limit: usize,
    ) -> Result<Vec<(VersionId, VersionFold)>, CatalogError> {
        self.inner.ask(|store| {
            let after = after.map(version_key);
            let prefix = versions_prefix(project, asset);
            let rows = store.scan(Table::Versions, &prefix, after.as_deref(), limit)?;
            let versions = rows.into_iter().map(|(key, value)| {
                let id = version_of_key(&key).ok_or_else(|| bad_key(store, Table::Versions))?;
                Ok((id, VersionFold::from_row(store, &value)?))
            });
            versions.collect()
        })
    }

    /// Returns all versions of the subset that `of` belongs to, in the order of their numbers, hero last.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn subset_versions(&self, of: &VersionId) -> Result<Vec<(VersionId, VersionFold)>, CatalogError> {
        self.inner.ask(|store| {
            let prefix = subset_prefix(of);
            let (mut versions, mut after) = (Vec::new(), None::<Vec<u8>>);
            loop {
                let rows = store.scan(Table::Versions, &prefix, after.as_deref(), MAX_PAGE_ROWS)?;
                let Some((last, _)) = rows.last() else { return Ok(versions) };
                after = Some(last.clone());
                for (key, value) in rows {
                    let id = version_of_key(&key).ok_or_else(|| bad_key(store, Table::Versions))?;
                    versions.push((id, VersionFold::from_row(store, &value)?));
                }
            }
        })
    }

    /// Returns how many versions of a project records are about, from a counter.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn version_count(&self, project: &ProjectName) -> Result<u64, CatalogError> {
        self.inner.ask(|store| store.versions_in(project))
    }

    /// Returns the names of assets of a project that begin with `start`, in order, at most `limit`. Reads a row for each.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn assets(
        &self,
        project: &ProjectName,
        start: &str,
        limit: usize,
    ) -> Result<Vec<AssetName>, CatalogError> {
        self.inner.ask(|store| {
            let prefix = [versions_prefix(project, None), start.as_bytes().to_vec()].concat();
            let known = first_of_each(store, &prefix, limit, |id| versions_prefix(project, Some(&id.asset)))?;
            Ok(known.into_iter().map(|id| id.asset).collect())
        })
    }

    /// Returns the names of subsets of an asset, in order, at most `limit`. Reads a row for each.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn subsets(
        &self,
        project: &ProjectName,
        asset: &AssetName,
        limit: usize,
    ) -> Result<Vec<SubsetName>, CatalogError> {
        self.inner.ask(|store| {
            let known = first_of_each(store, &versions_prefix(project, Some(asset)), limit, subset_prefix)?;
            Ok(known.into_iter().map(|id| id.subset).collect())
        })
    }

    /// Returns how many rows of the catalog were read so far for questions and changes.
    pub fn rows_read(&self) -> u64 {
        self.inner.shared.store().rows_read()
    }

    /// Returns the version that a published manifest belongs to.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn version_of(&self, manifest: ManifestId) -> Result<Option<VersionId>, CatalogError> {
        self.inner.ask(|store| VersionId::load(store, manifest.as_bytes()))
    }

    /// Returns what is known about a file of a project tree.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn local_file(
        &self,
        project: &ProjectName,
        path: &RelPath,
    ) -> Result<Option<LocalFile>, CatalogError> {
        self.inner.ask(|store| LocalFile::load(store, &file_key(project, path)))
    }

    /// Returns what is known about the files beneath a directory, or in the whole project, in the order of their paths:
    /// those behind `after`, at most `limit` and at most 1000.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn local_files_under(
        &self,
        project: &ProjectName,
        directory: Option<&RelPath>,
        after: Option<&RelPath>,
        limit: usize,
    ) -> Result<Vec<(RelPath, LocalFile)>, CatalogError> {
        self.inner.ask(|store| {
            let after = after.map(|path| file_key(project, path));
            let prefix = files_prefix(project, directory);
            let rows = store.scan(Table::LocalFiles, &prefix, after.as_deref(), limit)?;
            let files = rows.into_iter().map(|(key, value)| {
                let (_, path) = file_path(&key).ok_or_else(|| bad_key(store, Table::LocalFiles))?;
                Ok((path, LocalFile::from_row(store, &value)?))
            });
            files.collect()
        })
    }

    /// Returns where files with this content lie, at most [`MAX_PLACES`]. Whoever uses one compares its size and times
    /// first.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn locate(&self, hash: &ObjectHash) -> Result<Vec<(ProjectName, RelPath, LocalFile)>, CatalogError> {
        self.inner.ask(|store| places_in(store, &object_prefix(hash)))
    }

    /// As [`Ledger::locate`], in one project and without waiting for a damaged catalog: while the next
    /// one is built, what that knows already is returned.
    ///
    /// # Errors
    /// [`CatalogError`] when the catalog is being rebuilt and the next one knows no such file, yet.
    pub fn locate_meanwhile(
        &self,
        project: &ProjectName,
        hash: &ObjectHash,
    ) -> Result<Vec<(ProjectName, RelPath, LocalFile)>, CatalogError> {
        let prefix = object_key(hash, &files_prefix(project, None));
        let damaged = match self.inner.ask_now(|store| places_in(store, &prefix)) {
            Err(error @ CatalogError::Damaged { .. }) => error,
            answer => return answer,
        };
        let next = self.inner.shared.mending.next();
        let known = next.and_then(|next| places_in(&*next, &prefix).ok()).unwrap_or_default();
        if known.is_empty() { Err(damaged) } else { Ok(known) }
    }

    /// Makes a manifest durable. May be called before or after the record that names it.
    ///
    /// # Errors
    /// [`ManifestFileError`]; it is not stored then.
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<StoredManifest, ManifestFileError> {
        let stored = self.inner.shared.manifests.put(manifest)?;
        self.inner.shared.note_stored(stored.id(), manifest.project());
        Ok(stored)
    }

    /// As [`Ledger::put_manifest`] for many, which costs little more than one.
    ///
    /// # Errors
    /// [`ManifestFileError`]; some of them may be there then.
    pub fn put_manifests(&self, manifests: &[Manifest]) -> Result<(), ManifestFileError> {
        let bytes: Vec<Vec<u8>> = manifests.iter().map(Manifest::encode).collect();
        let with_bytes: Vec<(ManifestId, &[u8])> =
            manifests.iter().zip(&bytes).map(|(manifest, bytes)| (manifest.id(), bytes.as_slice())).collect();
        self.inner.shared.manifests.put_all(&with_bytes)?;
        let shared = &self.inner.shared;
        manifests.iter().for_each(|manifest| shared.note_stored(manifest.id(), manifest.project()));
        Ok(())
    }

    /// Says whether a manifest is here; it is not read.
    ///
    /// # Errors
    /// [`ManifestFileError::Io`] when the system refuses.
    pub fn has_manifest(&self, id: ManifestId) -> Result<bool, ManifestFileError> {
        self.inner.shared.manifests.has(id)
    }

    /// Reads a manifest, if it is here. One that is damaged, or gone, counts as missing from then on.
    ///
    /// # Errors
    /// [`ManifestFileError`] when it is damaged or cannot be read.
    pub fn manifest(&self, id: ManifestId) -> Result<Option<Manifest>, ManifestFileError> {
        self.noting_missing(id, self.inner.shared.manifests.get(id))
    }

    /// Reads the canonical bytes of a manifest, if it is here. One that is damaged, or gone, counts as missing from then on.
    ///
    /// # Errors
    /// [`ManifestFileError`] when it is damaged or cannot be read.
    pub fn manifest_bytes(&self, id: ManifestId) -> Result<Option<Vec<u8>>, ManifestFileError> {
        self.noting_missing(id, self.inner.shared.manifests.bytes(id))
    }

    pub(super) fn noting_missing<T>(
        &self,
        id: ManifestId,
        read: Result<Option<T>, ManifestFileError>,
    ) -> Result<Option<T>, ManifestFileError> {
        let is_missing = match &read {
            Ok(found) => found.is_none(),
            Err(error) => error.is_damage(),
        };
        if is_missing && let Ok(Some(version)) = self.version_of(id) {
            let project = version.project.clone();
            self.inner.shared.note_missing(id, version);
            // First noted, then looked for: somebody may have stored it meanwhile.
            if read.is_ok() && self.has_manifest(id).unwrap_or(false) {
                self.inner.shared.note_stored(id, &project);
            }
        }
        read
    }

    /// Returns published generations of a project whose manifest is not here, at most `limit`. Does not touch the disk.
    pub fn missing_manifests(&self, project: &ProjectName, limit: usize) -> Vec<(ManifestId, VersionId)> {
        self.inner.shared.missing(project, limit)
    }

    /// Counts the manifests that came to be missing: a number that has grown means that there is one more to fetch.
    pub fn manifests_went_missing(&self) -> u64 {
        self.inner.shared.went_missing()
    }

    /// Returns how much there is, from counters.
    pub fn stats(&self) -> CatalogStats {
        let store = self.inner.shared.store();
        let feeds = self.inner.shared.all_feeds();
        CatalogStats {
            versions: store.row_count(Table::Versions),
            manifests: store.row_count(Table::Manifests),
            local_files: store.row_count(Table::LocalFiles),
            rows: Table::ALL.into_iter().map(|table| store.row_count(table)).sum(),
            live_bytes: store.live_bytes(),
            checkpoint_records: self.inner.shared.checkpoint(),
            disk_bytes: self.inner.ask_now(|store| store.disk_bytes()).unwrap_or(0),
            generation: store.generation(),
            records: feeds.iter().map(|index| index.head().next_seq).sum(),
            feeds: feeds.len() as u64,
        }
    }

    /// Reads everything back: each row of the catalog, each group of each feed, each manifest. Takes as long as that does;
    /// writing goes on meanwhile. A damaged catalog is rebuilt.
    pub fn verify(&self) -> VerifyReport {
        let mut report = VerifyReport::default();
        match self.inner.ask_now(|store| store.verify()) {
            Ok(rows) => report.rows = rows,
            Err(error) => report.catalog = Some(error),
        }
        for index in self.inner.shared.all_feeds() {
            match index.count_groups() {
                Ok(groups) => report.groups += groups,
                Err(source) => {
                    let feed = index.feed().clone();
                    let source = Arc::new(source);
                    report.feeds.push((feed.clone(), LedgerError::Feed { feed, source }));
                }
            }
        }
        let ids = self.inner.shared.manifests.ids().unwrap_or_else(|error| {
            tracing::error!(error = %ErrorChain(&error), "manifests cannot be listed");
            HashSet::new()
        });
        for id in ids {
            report.manifests += 1;
            if self.manifest_bytes(id).is_err() {
                report.damaged_manifests.push(id);
            }
        }
        report
    }
}
