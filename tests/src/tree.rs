//! The project trees of one node: version directories that appear by a rename and are durable after an fsync.

use std::collections::{BTreeMap, BTreeSet};

use avalon_protocol::{
    hash::ObjectHash,
    id::{ProjectName, VersionId},
    manifest::{FileEntry, Manifest},
    rel_path::RelPath,
};

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::content::Bytes;

/// The file that every version has.
pub const MAIN_FILE: &str = "main.abc";

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
    /// Files that were renamed in and not synced yet.
    pub unsynced: BTreeSet<RelPath>,
    /// Files that an artist has just written: nobody has synced them.
    pub unsaved: BTreeSet<RelPath>,
}

/// What a loss of power took of the trees.
#[derive(Debug, Default)]
pub struct Fallen {
    /// Versions that were in the middle of being placed.
    pub interrupted: Vec<VersionId>,
    /// Files that artists had just saved, and what is there now.
    pub saved: Vec<(VersionId, RelPath, Option<ObjectHash>)>,
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
        !self.unsynced_whole && !self.unsynced.contains(path) && !self.unsaved.contains(path)
    }

    /// Makes everything that a manifest names durable, whoever wrote it.
    pub fn sync(&mut self, manifest: &Manifest) {
        self.unsynced_whole = false;
        for file in manifest.files() {
            self.unsynced.remove(&file.path);
            self.unsaved.remove(&file.path);
        }
    }

    /// Makes what artists saved of a manifest durable, before anything comes beside it.
    pub fn sync_saved(&mut self, manifest: &Manifest) {
        for file in manifest.files() {
            self.unsaved.remove(&file.path);
        }
    }

    /// Loses what artists had just saved, or the end of it; without its main file a version is not left half.
    fn lose_saved(&mut self, dice: &mut ChaCha8Rng) -> Vec<(RelPath, Option<ObjectHash>)> {
        let unsaved = std::mem::take(&mut self.unsaved);
        let mut lost = Vec::new();
        let mut all_gone = false;
        for path in unsaved.iter().rev() {
            let Some(file) = self.files.get_mut(path) else { continue };
            let fate = dice.random_range(0..3);
            if fate == 0 {
                all_gone |= path.as_str() == MAIN_FILE;
                self.files.remove(path);
                lost.push((path.clone(), None));
            } else if fate == 1 && !file.bytes.is_empty() {
                let end = dice.random_range(0..file.bytes.len());
                file.bytes = file.bytes[..end].into();
                file.object = ObjectHash::of(&file.bytes);
                lost.push((path.clone(), Some(file.object)));
            }
        }
        if all_gone {
            lost.clear();
            for path in unsaved {
                self.files.remove(&path);
                lost.push((path, None));
            }
        }
        lost
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

    /// Says whether an object is in any version of a project for certain.
    pub fn has_durable(&self, project: &ProjectName, object: &ObjectHash) -> bool {
        let mut dirs = self.dirs.iter().filter(|(version, _)| version.project == *project);
        dirs.any(|(_, dir)| {
            dir.files.iter().any(|(path, file)| file.object == *object && dir.is_durable(path))
        })
    }

    /// Loses renames that were not synced, each by itself, and what artists had just saved.
    pub fn crash(&mut self, dice: &mut ChaCha8Rng) -> Fallen {
        let mut fallen = Fallen::default();
        self.dirs.retain(|version, dir| {
            if dir.unsynced_whole || !dir.unsynced.is_empty() {
                fallen.interrupted.push(version.clone());
            }
            let lost = dir.lose_saved(dice);
            fallen.saved.extend(lost.into_iter().map(|(path, torn)| (version.clone(), path, torn)));
            if std::mem::take(&mut dir.unsynced_whole) && dice.random_bool(0.5) {
                return false;
            }
            for path in std::mem::take(&mut dir.unsynced) {
                if dice.random_bool(0.5) {
                    dir.files.remove(&path);
                }
            }
            !dir.files.is_empty()
        });
        fallen
    }
}
