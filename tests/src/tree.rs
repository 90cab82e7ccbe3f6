//! The project trees of one node: version directories that appear by a rename and are durable after an fsync.

use std::collections::BTreeMap;

use avalon_protocol::{
    hash::ObjectHash,
    id::{ProjectName, VersionId},
    manifest::{FileEntry, Manifest},
    rel_path::RelPath,
};

use crate::content::Bytes;

/// A visible file.
#[derive(Debug, Clone)]
pub struct TreeFile {
    /// What it should be.
    pub object: ObjectHash,
    /// What it is.
    pub bytes: Bytes,
}

/// A version directory.
#[derive(Debug, Clone, Default)]
pub struct VersionDir {
    /// The visible files.
    pub files: BTreeMap<RelPath, TreeFile>,
    /// The directory itself was renamed in and not synced yet.
    pub unsynced_whole: bool,
    /// Files that were renamed in and not synced yet, in that order.
    pub unsynced: Vec<RelPath>,
}

impl VersionDir {
    /// Says whether a file of a manifest is here.
    pub fn has(&self, file: &FileEntry) -> bool {
        self.files.get(&file.path).is_some_and(|here| here.object == file.hash)
    }

    /// Says whether every file of a manifest is here.
    pub fn has_all(&self, manifest: &Manifest) -> bool {
        manifest.files().iter().all(|file| self.has(file))
    }

    /// Says whether nothing is here but files of a manifest.
    pub fn is_part_of(&self, manifest: &Manifest) -> bool {
        let named = |path: &RelPath, here: &TreeFile| {
            let files = manifest.files();
            let found = files.binary_search_by(|file| file.path.cmp(path));
            found.is_ok_and(|index| files[index].hash == here.object)
        };
        self.files.iter().all(|(path, here)| named(path, here))
    }

    /// Says whether exactly the files of a manifest are here.
    pub fn is(&self, manifest: &Manifest) -> bool {
        self.files.len() == manifest.files().len() && self.is_part_of(manifest)
    }

    /// Says whether a path is certain to survive a crash.
    pub fn is_durable(&self, path: &RelPath) -> bool {
        !self.unsynced_whole && !self.unsynced.contains(path)
    }
}

/// All version directories of one node.
#[derive(Debug, Default)]
pub struct Tree {
    dirs: BTreeMap<VersionId, VersionDir>,
}

impl Tree {
    /// Returns the directories.
    pub fn dirs(&self) -> &BTreeMap<VersionId, VersionDir> {
        &self.dirs
    }

    /// Returns a directory.
    pub fn dir(&self, version: &VersionId) -> Option<&VersionDir> {
        self.dirs.get(version)
    }

    /// Returns a directory to change, making it where there is none.
    pub fn dir_mut(&mut self, version: &VersionId) -> &mut VersionDir {
        self.dirs.entry(version.clone()).or_default()
    }

    /// Finds the bytes of an object in any version of a project.
    pub fn object(&self, project: &ProjectName, object: &ObjectHash) -> Option<&Bytes> {
        let dirs = self.dirs.iter().filter(|(version, _)| version.project == *project);
        let mut files = dirs.flat_map(|(_, dir)| dir.files.values());
        files.find(|file| file.object == *object).map(|file| &file.bytes)
    }

    /// Loses renames that were not synced: a new directory when `survives(1)` says 0, and of a directory that grew all
    /// files but the first `survives(n)` of n. Returns the versions that were in the middle.
    pub fn crash(&mut self, mut survives: impl FnMut(usize) -> usize) -> Vec<VersionId> {
        let mut interrupted = Vec::new();
        self.dirs.retain(|version, dir| {
            if dir.unsynced_whole || !dir.unsynced.is_empty() {
                interrupted.push(version.clone());
            }
            if std::mem::take(&mut dir.unsynced_whole) && survives(1) == 0 {
                return false;
            }
            let unsynced = std::mem::take(&mut dir.unsynced);
            if !unsynced.is_empty() {
                for path in unsynced.iter().skip(survives(unsynced.len())) {
                    dir.files.remove(path);
                }
            }
            true
        });
        interrupted
    }
}
