//! Moving a version from where artists see it into the trash, and nothing else with it.

use std::collections::{BTreeMap, BTreeSet};

use avalon_protocol::{manifest::Manifest, rel_path::RelPath};
use thiserror::Error;

use super::{TRASH, walk};
use crate::fs::{Dir, FileKind, FileStat, IoError, Overwrite, path_of};

/// What was moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discarded {
    /// How many files.
    pub files: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
    /// Files of the version that somebody changed meanwhile, relative to the version: they stay where they are.
    pub left: Vec<RelPath>,
}

/// Why a version was not moved, or not all of it. What was not moved lies where it was.
#[derive(Debug, Error)]
#[error("the version at {dir} cannot be moved to the trash")]
pub struct DiscardError {
    /// The version directory, relative to the project.
    pub dir: RelPath,
    /// What and why.
    #[source]
    pub source: IoError,
}

/// Makes sure beforehand that a version could be moved: the trash is there, and this user may change the directory that the
/// version lies in.
///
/// # Errors
/// [`DiscardError`]; it could not.
pub fn prepare(project: &Dir, manifest: &Manifest) -> Result<(), DiscardError> {
    let failed = |source| DiscardError { dir: manifest.dir().clone(), source };
    project.create_dirs(&path_of(TRASH)).map_err(failed)?;
    let dirs = manifest.files().iter().map(|file| manifest.dir().join(&file.path).ok()?.parent());
    let dirs: BTreeSet<RelPath> = dirs.flatten().chain(manifest.dir().parent()).collect();
    dirs.iter().try_for_each(|dir| project.check_writable(dir)).map_err(failed)
}

/// Moves the files of a version to the trash. When this returns, that is durable.
///
/// `known` says of each file, in the order of the manifest, how it looked when it was last known to be what was published. A
/// file that looks different now is somebody's work and stays, as does everything that the manifest does not name. The whole
/// directory goes at once where it has nothing else; else the entries of representations go first, so that nobody who finds
/// one lacks files.
///
/// # Errors
/// [`DiscardError`]; files that were moved before stay in the trash.
pub fn discard(
    project: &Dir,
    manifest: &Manifest,
    known: &[FileStat],
    now_ms: u64,
) -> Result<Discarded, DiscardError> {
    let failed = |source| DiscardError { dir: manifest.dir().clone(), source };
    let discarding = Discarding { project, manifest, known };
    let version_dir = match project.open_dir(manifest.dir()) {
        Err(error) if error.is_not_found() => return Ok(Discarded::default()),
        opened => opened.map_err(failed)?,
    };
    let done = match discarding.is_exactly_the_version(&version_dir).map_err(failed)? {
        true => discarding.whole(now_ms),
        false => discarding.by_files(&version_dir, now_ms),
    };
    done.map_err(failed)
}

pub(super) struct Discarding<'a> {
    pub(super) project: &'a Dir,
    pub(super) manifest: &'a Manifest,
    pub(super) known: &'a [FileStat],
}

impl Discarding<'_> {
    fn expected(&self) -> BTreeMap<&RelPath, &FileStat> {
        self.manifest.files().iter().map(|file| &file.path).zip(self.known).collect()
    }

    fn is_unchanged(&self, dir: &Dir, path: &RelPath, known: &FileStat) -> Result<bool, IoError> {
        let now = match dir.stat(path) {
            Err(error) if error.is_not_a_directory() || error.is_symlink() => None,
            now => now?,
        };
        Ok(now.is_some_and(|now| now.kind == FileKind::File && now.identity() == known.identity()))
    }

    fn is_exactly_the_version(&self, version_dir: &Dir) -> Result<bool, IoError> {
        let expected = self.expected();
        let (mut found, mut strange) = (Vec::new(), false);
        walk(version_dir, |path, _, _| match path {
            Some(path) if expected.contains_key(path) => found.push(path.clone()),
            _ => strange = true,
        })?;
        if strange || found.len() != expected.len() {
            return Ok(false);
        }
        for (path, known) in expected {
            if !self.is_unchanged(version_dir, path, known)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds a name in the trash that is free; two drops of one version in a millisecond are possible in tests only.
    fn entry_name(&self, now_ms: u64) -> Result<RelPath, IoError> {
        let mut ms = now_ms;
        loop {
            let name = path_of(&format!("{TRASH}/{}.{ms}", self.manifest.id()));
            if self.project.stat(&name)?.is_none() {
                return Ok(name);
            }
            ms += 1;
        }
    }

    fn whole(&self, now_ms: u64) -> Result<Discarded, IoError> {
        let (dir, trash) = (self.manifest.dir(), self.project.create_dirs(&path_of(TRASH))?);
        let name = self.entry_name(now_ms)?;
        self.project.rename(dir, &trash, &path_of(name.file_name()), Overwrite::Refuse)?;
        let mut moved = self.sums(&[]);
        moved.left = self.put_back(&name)?;
        trash.sync()?;
        match dir.parent() {
            Some(parent) => self.project.open_dir(&parent)?.sync()?,
            None => self.project.sync()?,
        }
        Ok(moved)
    }

    /// Returns to its place what somebody put into the directory, or changed, in the moment before it went.
    pub(super) fn put_back(&self, name: &RelPath) -> Result<Vec<RelPath>, IoError> {
        let entry = self.project.open_dir(name)?;
        let (expected, mut strange) = (self.expected(), Vec::new());
        let mut found = Vec::new();
        walk(&entry, |path, _, _| found.extend(path.cloned()))?;
        for path in found {
            let known = expected.get(&path);
            if !known.is_some_and(|known| self.is_unchanged(&entry, &path, known).unwrap_or(false)) {
                strange.push(path);
            }
        }
        if strange.is_empty() {
            return Ok(strange);
        }
        let version_dir = self.project.create_dirs(self.manifest.dir())?;
        for path in &strange {
            if let Some(parent) = path.parent() {
                version_dir.create_dirs(&parent)?;
            }
            entry.rename(path, &version_dir, path, Overwrite::Refuse)?;
        }
        version_dir.sync_files(&strange)?;
        strange.retain(|path| expected.contains_key(path));
        Ok(strange)
    }

    fn by_files(&self, version_dir: &Dir, now_ms: u64) -> Result<Discarded, IoError> {
        let entry = self.project.create_dirs(&self.entry_name(now_ms)?)?;
        let files = self.manifest.files().iter().zip(self.known);
        let (entries, others): (Vec<_>, Vec<_>) = files.partition(|(file, _)| self.manifest.is_entry(file));
        let mut left = Vec::new();
        let mut dirs = BTreeSet::new();
        for step in [entries, others] {
            for (file, known) in step {
                if !self.is_unchanged(version_dir, &file.path, known)? {
                    left.push(file.path.clone());
                    continue;
                }
                if let Some(parent) = file.path.parent().filter(|parent| !dirs.contains(parent)) {
                    entry.create_dirs(&parent)?;
                    dirs.insert(parent);
                }
                version_dir.rename(&file.path, &entry, &file.path, Overwrite::Refuse)?;
            }
            // What was an entry is durably gone before what belongs to it goes.
            for dir in &dirs {
                entry.open_dir(dir)?.sync()?;
                version_dir.open_dir(dir)?.sync()?;
            }
            entry.sync()?;
            version_dir.sync()?;
        }
        self.remove_empty(version_dir, &dirs)?;
        Ok(self.sums(&left))
    }

    /// Removes the directories that are empty now; one that has anything in it stays.
    fn remove_empty(&self, version_dir: &Dir, dirs: &BTreeSet<RelPath>) -> Result<(), IoError> {
        let mut all: BTreeSet<RelPath> = dirs.clone();
        for dir in dirs {
            all.extend(std::iter::successors(dir.parent(), RelPath::parent));
        }
        for dir in all.iter().rev() {
            version_dir.remove_empty_dir(dir)?;
        }
        self.project.remove_empty_dir(self.manifest.dir())
    }

    fn sums(&self, left: &[RelPath]) -> Discarded {
        let moved = self.manifest.files().iter().filter(|file| !left.contains(&file.path));
        Discarded {
            files: moved.clone().count() as u64,
            bytes: moved.map(|file| file.size).sum(),
            left: left.to_vec(),
        }
    }
}
