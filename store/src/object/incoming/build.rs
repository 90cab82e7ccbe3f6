//! The last step before placing: the tree with its final names, and one act that makes all of it durable.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, PoisonError},
};

use avalon_protocol::{
    manifest::{FileEntry, Manifest},
    rel_path::RelPath,
};
use rayon::prelude::*;

use super::{
    Incoming, IncomingError, UnsyncedFile,
    area::part_name,
    claim::claim_name,
    persist::Claiming,
    slot::{Slot, is_empty_object},
};
use crate::fs::{Dir, FILES_SYNCED_ONE_BY_ONE, FileStat, IoError, Overwrite, Parents, path_of};

/// How many files one thread takes at a time.
const FILES_AT_ONCE: usize = 256;

/// A version whose every byte was verified and is durable, and that nobody sees yet.
///
/// Only [`Incoming::finish`] makes one; only [`crate::place::place`] takes one.
#[derive(Debug)]
pub struct VerifiedVersion {
    pub(crate) project: Dir,
    pub(crate) area: Dir,
    pub(crate) manifest: Arc<Manifest>,
    /// As many as the manifest has files, in the same order.
    pub(crate) files: Vec<VerifiedFile>,
}

/// Where a verified file is, and what the file system said of it then.
#[derive(Debug, Clone, Copy)]
pub(crate) enum VerifiedFile {
    /// In the area's tree, under its path in the version.
    InTree(FileStat),
    /// In its final place already.
    InPlace(FileStat),
}

impl VerifiedVersion {
    /// Returns the manifest of the version.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }
}

impl Incoming {
    /// Builds the tree of the version when all objects are complete, and makes it durable. To be called by one thread at
    /// a time; may be called again after a failure.
    ///
    /// Parts are not read again: each block was hashed when it came, or when the area was opened, or by an earlier run
    /// that then synced and claimed it. Bits that rot on the disk, or are changed by somebody, after a block was claimed
    /// are not noticed here.
    ///
    /// # Errors
    /// [`IncomingError::Incomplete`]. [`IncomingError::Io`]: all that was here is still here.
    /// [`IncomingError::CopyMismatch`]: an object rotted since it came, and is needed again.
    /// [`IncomingError::Fsync`], [`IncomingError::FsyncInPlace`]: nothing is here any more, [`Incoming::needs`] says everything again.
    pub fn finish(&self) -> Result<VerifiedVersion, IncomingError> {
        // An error that a sync for a claim was told of, the sync below might not be told again.
        self.set_claiming(Claiming::Stopped);
        let finished = self.build();
        if finished.is_err() {
            self.set_claiming(Claiming::Allowed);
        }
        finished
    }

    fn build(&self) -> Result<VerifiedVersion, IncomingError> {
        // Lets every write end that has begun. Later ones find their object complete and write nothing.
        drop(self.building.write().unwrap_or_else(PoisonError::into_inner));
        let objects = self.slots.values().filter(|slot| !slot.is_complete()).count();
        if objects > 0 {
            return Err(IncomingError::Incomplete { objects });
        }
        let name = path_of("tree");
        let is_begun = self.area.stat(&name).map_err(|e| self.failed(e))?.is_some();
        let tree = self.area.create_dirs_unsynced(&name).map_err(|e| self.failed(e))?;
        self.make_dirs(&tree).map_err(|e| self.failed(e))?;
        let mut slots: Vec<&Slot> = self.slots.values().collect();
        // In the order of the files, so that neighbours share a directory.
        slots.sort_by_key(|slot| slot.files.first());
        slots.par_chunks(FILES_AT_ONCE).try_for_each(|slots| {
            let mut parents = Parents::of(&tree);
            slots.iter().try_for_each(|slot| self.move_into_tree(&tree, &mut parents, is_begun, slot))
        })?;
        let files = self.verified_files(&tree).map_err(|e| self.failed(e))?;
        self.make_durable(&tree)?;
        let (project, area, manifest) = (self.project.clone(), self.area.clone(), self.manifest.clone());
        Ok(VerifiedVersion { project, area, manifest, files })
    }

    /// Makes the directories of all files that are not in place, parents before what is in them.
    fn make_dirs(&self, tree: &Dir) -> Result<(), IoError> {
        let mut dirs = BTreeSet::new();
        let indexes: HashSet<usize> =
            self.slots.values().flat_map(|slot| slot.files.iter().copied()).collect();
        for (index, file) in self.manifest.files().iter().enumerate() {
            let mut dir = file.path.parent().filter(|_| indexes.contains(&index));
            while let Some(path) = dir {
                dir = path.parent();
                if !dirs.insert(path) {
                    break;
                }
            }
        }
        for dir in &dirs {
            tree.create_dirs_unsynced(dir)?;
        }
        Ok(())
    }

    /// Gives the first file of an object its part, the others copies, and all of them their times. Only a tree that an
    /// earlier call has begun is looked at for files that are there.
    fn move_into_tree(
        &self,
        tree: &Dir,
        parents: &mut Parents<'_>,
        is_begun: bool,
        slot: &Slot,
    ) -> Result<(), IncomingError> {
        let mut source: Option<&RelPath> = None;
        for file in slot.files.iter().filter_map(|index| self.manifest.files().get(*index)) {
            let (dir, name) = parents.open(&file.path).map_err(|e| self.failed(e))?;
            let is_built = is_begun && dir.stat(&name).map_err(|e| self.failed(e))?.is_some();
            if !is_built {
                self.build_file(tree, slot, (&dir, &name), source)?;
            }
            source.get_or_insert(&file.path);
            dir.set_mtime(&name, file.mtime_ns).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    fn build_file(
        &self,
        tree: &Dir,
        slot: &Slot,
        (dir, name): (&Dir, &RelPath),
        twin: Option<&RelPath>,
    ) -> Result<(), IncomingError> {
        if is_empty_object(slot.object, slot.size) {
            return dir.create_file(name).map(drop).map_err(|e| self.failed(e));
        }
        let part = match twin {
            None => part_name(slot.object),
            Some(twin) => {
                let from = tree.open_file(twin).map_err(|e| self.failed(e))?;
                let Some((copy, _)) = self.copy_verified(&from, slot.object, slot.size)? else {
                    tree.remove_file(twin).map_err(|e| self.failed(e))?;
                    slot.reset();
                    return Err(IncomingError::CopyMismatch { object: slot.object, path: twin.clone() });
                };
                copy
            }
        };
        self.parts.rename(&part, dir, name, Overwrite::Refuse).map_err(|e| self.failed(e))
    }

    fn verified_files(&self, tree: &Dir) -> Result<Vec<VerifiedFile>, IoError> {
        let files = self.manifest.files().par_chunks(FILES_AT_ONCE);
        let verified = files.zip(self.in_place.par_chunks(FILES_AT_ONCE)).map(|(files, in_place)| {
            let mut parents = Parents::of(tree);
            let files = files.iter().zip(in_place);
            files.map(|(file, in_place)| verified_file(&mut parents, file, in_place.as_ref())).collect()
        });
        let verified: Result<Vec<Vec<VerifiedFile>>, IoError> = verified.collect();
        Ok(verified?.concat())
    }

    /// Syncs every file of the version and the directories that it lies in; files in place too, somebody else may just have written them.
    fn make_durable(&self, tree: &Dir) -> Result<(), IncomingError> {
        let files = || self.manifest.files().iter().zip(&self.in_place);
        let in_place: Vec<_> =
            files().filter_map(|(file, stat)| self.not_durable(file, stat.as_ref()?)).collect();
        let in_tree = files().filter(|(_, stat)| stat.is_none()).map(|(file, _)| file.path.clone());
        let manifest = self.manifest.id();
        // An error of writing back that one sync was told of, the other might not be told: nothing is believed after either.
        let failed = |source: IoError, of_sync: &dyn Fn(IoError) -> IncomingError| {
            // Of a file that somebody took away, or could not be opened, nothing follows for the others.
            if !source.is_of_sync() {
                return self.failed(source);
            }
            self.forget_everything();
            of_sync(source)
        };
        if !in_place.is_empty() {
            let paths: Vec<RelPath> = in_place.iter().map(|file| file.path.clone()).collect();
            self.project.sync_files(&paths).map_err(|source| {
                failed(source, &|source| IncomingError::FsyncInPlace {
                    manifest,
                    files: in_place.clone(),
                    source,
                })
            })?;
        }
        self.sync_tree(tree, &in_tree.collect::<Vec<_>>())
            .map_err(|source| failed(source, &|source| IncomingError::Fsync { manifest, source }))
    }

    /// The area was opened before the first part was written: a sync of the volume by it tells all that went wrong since.
    fn sync_tree(&self, tree: &Dir, files: &[RelPath]) -> Result<(), IoError> {
        if files.len() >= FILES_SYNCED_ONE_BY_ONE && self.area.reports_sync_errors() {
            return self.area.sync_filesystem();
        }
        tree.sync_files(files)
    }

    fn not_durable(&self, file: &FileEntry, stat: &FileStat) -> Option<UnsyncedFile> {
        let path = self.manifest.dir().join(&file.path).ok()?;
        Some(UnsyncedFile { path, object: file.hash, identity: stat.identity() })
    }

    /// After a failed sync the pages look clean and the disk may have anything: no byte of the area is believed again.
    pub(super) fn forget_everything(&self) {
        for slot in self.slots.values() {
            slot.reset();
        }
        let tree = self.area.remove_tree(&path_of("tree"));
        let parts = self.slots.keys().try_for_each(|object| {
            self.parts.remove_tree(&claim_name(*object))?;
            self.parts.remove_tree(&part_name(*object))
        });
        if let Err(error) = tree.and(parts) {
            tracing::error!(%error, area = %self.area.path().display(), "data that could not be synced stays behind");
        }
    }
}

fn verified_file(
    parents: &mut Parents<'_>,
    file: &FileEntry,
    in_place: Option<&FileStat>,
) -> Result<VerifiedFile, IoError> {
    if let Some(stat) = in_place {
        return Ok(VerifiedFile::InPlace(*stat));
    }
    let (dir, name) = parents.open(&file.path)?;
    match dir.stat(&name)? {
        Some(stat) => Ok(VerifiedFile::InTree(stat)),
        None => Err(IoError::new("find", dir.path().join(name.as_str()), std::io::ErrorKind::NotFound)),
    }
}
