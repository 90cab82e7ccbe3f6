//! The look before anything is moved: what happens to each file, or who is in its way.

use avalon_protocol::{
    id::VersionSlot,
    manifest::{FileEntry, Manifest},
    rel_path::RelPath,
};
use rayon::prelude::*;

use super::{PlaceError, Placing, Replaces};
use crate::{
    fs::{Dir, FileKind, FileStat},
    object::{
        hash::{HashError, hash_file_by_pool},
        incoming::VerifiedFile,
    },
};

/// What placing does with one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Its place is free.
    Move,
    /// Other content lies there that may be replaced, and goes to the trash.
    Replace,
    /// The right content lies there and stays.
    Leave,
    /// It lies there, and somebody wrote it since the version was put together and made durable: it is synced, and stays.
    Sync,
}

impl Placing<'_> {
    /// Decides on every file, with what is known of the one that will be there.
    pub(super) fn check_all(&self, version_dir: &Dir) -> Result<Vec<(Step, FileStat)>, PlaceError> {
        self.files().map(|(file, verified)| self.check(version_dir, file, verified)).collect()
    }

    fn check(
        &self,
        version_dir: &Dir,
        file: &FileEntry,
        verified: &VerifiedFile,
    ) -> Result<(Step, FileStat), PlaceError> {
        let occupied = || PlaceError::Occupied { path: self.in_project(&file.path) };
        let there = match version_dir.stat(&file.path) {
            Err(error) if error.is_not_a_directory() => return Err(occupied()),
            there => there.map_err(|e| self.failed(e))?,
        };
        match (verified, there) {
            (VerifiedFile::InTree(stat), None) => Ok((Step::Move, *stat)),
            (VerifiedFile::InPlace(then), Some(now)) if then.identity() == now.identity() => {
                Ok((Step::Leave, now))
            }
            (VerifiedFile::InTree(stat), Some(now)) => match same_content(version_dir, file, &now) {
                Ok(Some(now)) => Ok((Step::Sync, now)),
                Ok(None) if self.is_damaged(file, &now) => Ok((Step::Replace, *stat)),
                // That it may not be read is no damage.
                Err(PlaceError::Compare(HashError::Io { source, .. }))
                    if !source.is_not_allowed() && self.is_damaged(file, &now) =>
                {
                    Ok((Step::Replace, *stat))
                }
                Ok(None) if self.may_replace(version_dir, file, &now)? => Ok((Step::Replace, *stat)),
                Ok(None) => Err(occupied()),
                Err(error) => Err(error),
            },
            (VerifiedFile::InPlace(_), now) => {
                let same = now.map(|now| same_content(version_dir, file, &now)).transpose()?.flatten();
                let vanished = || PlaceError::Vanished { path: self.in_project(&file.path) };
                same.map(|now| (Step::Sync, now)).ok_or_else(vanished)
            }
        }
    }

    /// Says whether what lies in a file's place, and is not it, is a damaged copy of it that is replaced.
    fn is_damaged(&self, file: &FileEntry, now: &FileStat) -> bool {
        let found = self.options.damaged.and_then(|damaged| damaged.get(&self.in_project(&file.path)));
        now.kind == FileKind::File && found == Some(&now.identity())
    }

    /// Says whether other content that lies in a file's place may go to the trash.
    fn may_replace(&self, version_dir: &Dir, file: &FileEntry, now: &FileStat) -> Result<bool, PlaceError> {
        if now.kind != FileKind::File {
            return Ok(false);
        }
        match self.options.replaces {
            Replaces::Nothing => Ok(false),
            Replaces::Hero(_) => Ok(self.manifest().version().slot == VersionSlot::Hero),
            Replaces::Rewritten => Ok(true),
            Replaces::Followed(followed) => self.is_as_one_says(followed, version_dir, &file.path, now),
        }
    }

    /// Says whether a file is exactly what one of these generations says of its path.
    pub(super) fn is_as_one_says(
        &self,
        followed: &[Manifest],
        version_dir: &Dir,
        path: &RelPath,
        now: &FileStat,
    ) -> Result<bool, PlaceError> {
        let said: Vec<&FileEntry> = followed
            .iter()
            .filter_map(|old| entry_of(old, path))
            .filter(|old| old.size == now.size)
            .collect();
        if said.is_empty() || now.kind != FileKind::File {
            return Ok(false);
        }
        match hash_file_by_pool(version_dir, path) {
            Ok(hashed) => Ok(said.iter().any(|old| old.hash == hashed.blocks.object())),
            Err(HashError::Symlink { .. } | HashError::NotRegular { .. }) => Ok(false),
            Err(error) => Err(PlaceError::Compare(error)),
        }
    }
}

fn entry_of<'m>(manifest: &'m Manifest, path: &RelPath) -> Option<&'m FileEntry> {
    let files = manifest.files();
    let found = files.binary_search_by(|file| file.path.cmp(path)).ok()?;
    files.get(found)
}

/// Hashes what lies in a file's place, to be sure; `None` when it is not the file's content.
fn same_content(dir: &Dir, file: &FileEntry, now: &FileStat) -> Result<Option<FileStat>, PlaceError> {
    if now.kind != FileKind::File || now.size != file.size {
        return Ok(None);
    }
    match hash_file_by_pool(dir, &file.path) {
        Ok(hashed) => Ok(Some(hashed.stat).filter(|_| hashed.blocks.object() == file.hash)),
        Err(HashError::Symlink { .. } | HashError::NotRegular { .. }) => Ok(None),
        Err(error) => Err(PlaceError::Compare(error)),
    }
}
