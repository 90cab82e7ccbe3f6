//! What this node says that it holds, once a version was looked at.

use std::{collections::BTreeSet, sync::Arc};

use avalon_protocol::{
    control::EventKind,
    hash::{ManifestId, ObjectHash},
    manifest::Manifest,
    record::{Held, Record},
    rel_path::RelPath,
};
use avalon_store::catalog::{LocalChange, LocalFile};

use super::{
    super::{hash::NamedFile, manifest::Entries},
    RecordError, Recording, superseded,
};
use crate::core::blocking;

impl Recording<'_> {
    /// Returns what this node says that it holds and of which files are missing here.
    pub(super) async fn not_whole(&self, entries: &Entries) -> Vec<ManifestId> {
        let (ledger, held) = (self.core.ledger.clone(), self.fold.held_by(&self.core.me).collect::<Vec<_>>());
        let here: BTreeSet<(RelPath, ObjectHash)> =
            entries.files.iter().map(|file| (file.path.clone(), file.hash)).collect();
        blocking(move || {
            let lacks = |id: &ManifestId| match ledger.manifest(*id) {
                Ok(Some(whole)) => {
                    !whole.files().iter().all(|file| here.contains(&(file.path.clone(), file.hash)))
                }
                _ => false,
            };
            held.into_iter().filter(lacks).collect()
        })
        .await
    }

    /// Returns what this node does not hold any more once these files lie in the version's directory.
    pub(super) async fn superseded(&self, manifest: &Manifest) -> Vec<Record> {
        let (core, fold, manifest) = (Arc::clone(self.core), self.fold.clone(), manifest.clone());
        blocking(move || superseded(&core, &fold, &manifest)).await
    }

    pub(super) async fn drop_held(&self, gone: &[ManifestId]) -> Result<(), RecordError> {
        let held: Vec<ManifestId> =
            self.fold.held_by(&self.core.me).filter(|held| gone.contains(held)).collect();
        let dropped = |manifest: &ManifestId| {
            Record::Dropped(Held { version: self.version.clone(), manifest: *manifest })
        };
        if held.is_empty() {
            return Ok(());
        }
        self.commit(held.iter().map(dropped).collect(), Vec::new()).await?;
        for manifest in held {
            self.core.events.emit(EventKind::Dropped {
                reference: self.version.to_string(),
                manifest: manifest.to_string(),
                by: None,
                bytes: None,
            });
        }
        Ok(())
    }

    /// Nothing is new but perhaps what the file system says of the files: the catalog learns it, no record is made.
    pub(super) async fn note_local(&self, manifest: ManifestId) -> Result<(), RecordError> {
        let (ledger, project) = (self.core.ledger.clone(), self.project.name().clone());
        let changes = self.local_changes(manifest);
        let noted = blocking(move || {
            let is_known = |change: &LocalChange| match change {
                LocalChange::Put { path, file, .. } => {
                    ledger.local_file(&project, path).is_ok_and(|known| known.as_ref() == Some(file))
                }
                LocalChange::Remove { .. } => false,
            };
            let news: Vec<LocalChange> = changes.into_iter().filter(|change| !is_known(change)).collect();
            if news.is_empty() { Ok(()) } else { ledger.update_local_wait(news) }
        });
        noted.await.map_err(|source| RecordError::Ledger { version: self.version.clone(), source })
    }

    pub(super) async fn commit(
        &self,
        records: Vec<Record>,
        local: Vec<LocalChange>,
    ) -> Result<(), RecordError> {
        let concluded = (self.project.name().clone(), self.came_back);
        let committed = self.core.commit_concluded(concluded, records, local).await;
        committed.map(drop).map_err(|source| RecordError::Ledger { version: self.version.clone(), source })
    }

    pub(super) fn local_changes(&self, manifest: ManifestId) -> Vec<LocalChange> {
        let put = |file: &NamedFile| LocalChange::Put {
            project: self.project.name().clone(),
            path: file.path.clone(),
            file: LocalFile::new(file.object, &file.stat, manifest),
        };
        self.named.iter().map(put).collect()
    }
}
