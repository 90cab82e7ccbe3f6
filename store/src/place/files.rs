//! Placing into a version directory that exists: a version that grew, one that an artist has in part, and `hero`.

use std::collections::BTreeSet;

use avalon_protocol::{
    manifest::{FileEntry, Manifest},
    rel_path::RelPath,
};

use super::{PlaceError, Placing, Replaces, check::Step};
use crate::{
    fs::{Dir, FileKind, FileStat, IoError, Overwrite, path_of},
    object::incoming::{UnsyncedFile, note_place},
};

impl Placing<'_> {
    /// Checks everything, then moves the files whose place is free, the entries of representations last: whoever resolves
    /// one finds all that belongs to it. What somebody wrote meanwhile is durable before that: this version is said to be here, and
    /// what comes beside it must not be all that a power cut leaves.
    pub(super) fn place_files(&self) -> Result<Vec<FileStat>, PlaceError> {
        let (project, dir) = (&self.version.project, self.manifest().dir());
        let version_dir = project.open_dir(dir).map_err(|e| self.failed(e))?;
        let steps = self.check_all(&version_dir)?;
        self.sync_found(&steps)?;
        let all = || self.manifest().files().iter().zip(&steps).map(|(file, (step, _))| (file, *step));
        let to_move = || all().filter(|(_, step)| matches!(step, Step::Move | Step::Replace));
        if to_move().next().is_some() {
            let tree = self.tree()?;
            note_place(project, self.manifest()).map_err(|e| self.failed(e))?;
            let (mut entries, others): (Vec<_>, Vec<_>) =
                to_move().partition(|(file, _)| self.manifest().is_entry(file));
            // What lies in directories first: a scene in the version directory refers to it, not the other way round.
            entries.sort_by_key(|(file, _)| std::cmp::Reverse(file.path.parts().count()));
            self.move_files(&tree, &version_dir, &others)?;
            self.move_files(&tree, &version_dir, &entries)?;
        }
        self.trash_stale(&version_dir)?;
        project.sync_path(dir).map_err(|e| self.failed(e))?;
        Ok(steps.into_iter().map(|(_, stat)| stat).collect())
    }

    /// Makes durable what somebody wrote since the version was put together.
    fn sync_found(&self, steps: &[(Step, FileStat)]) -> Result<(), PlaceError> {
        let all = self.manifest().files().iter().zip(steps);
        let found = all.filter(|(_, (step, _))| *step == Step::Sync).map(|(file, (_, stat))| UnsyncedFile {
            path: self.in_project(&file.path),
            object: file.hash,
            identity: stat.identity(),
        });
        let files: Vec<UnsyncedFile> = found.collect();
        if files.is_empty() {
            return Ok(());
        }
        let paths: Vec<RelPath> = files.iter().map(|file| file.path.clone()).collect();
        let synced = self.version.project.sync_files(&paths);
        synced.map_err(|source| PlaceError::Sync { dir: self.manifest().dir().clone(), files, source })
    }

    fn move_files(
        &self,
        tree: &Dir,
        version_dir: &Dir,
        files: &[(&FileEntry, Step)],
    ) -> Result<(), PlaceError> {
        let mut touched: BTreeSet<RelPath> = BTreeSet::new();
        for (file, step) in files {
            if let Some(parent) = file.path.parent().filter(|parent| !touched.contains(parent)) {
                version_dir.create_dirs(&parent).map_err(|e| self.failed(e))?;
                touched.insert(parent);
            }
            if *step == Step::Replace {
                self.keep_in_trash(version_dir, &file.path)?;
            }
            let overwrite = match step {
                Step::Replace => Overwrite::Replace,
                Step::Move | Step::Leave | Step::Sync => Overwrite::Refuse,
            };
            match tree.rename(&file.path, version_dir, &file.path, overwrite) {
                Err(error) if error.is_already_there() => {
                    return Err(PlaceError::Occupied { path: self.in_project(&file.path) });
                }
                renamed => renamed.map_err(|e| self.failed(e))?,
            }
        }
        let sync = || -> Result<(), IoError> {
            touched.iter().try_for_each(|dir| version_dir.open_dir(dir)?.sync())?;
            version_dir.sync()
        };
        sync().map_err(|e| self.failed(e))
    }

    /// Gives the old file a second name in the trash, so that its place is never empty; where the volume has no links, it
    /// is moved there.
    fn keep_in_trash(&self, version_dir: &Dir, path: &RelPath) -> Result<(), PlaceError> {
        self.under_free_name(path, |trash, name| match version_dir.link(path, trash, name) {
            // A placement that was cut has kept it already.
            Err(error) if error.is_already_there() => {
                if is_same_file(trash.stat(name)?, version_dir.stat(path)?) { Ok(()) } else { Err(error) }
            }
            Err(_) => version_dir.rename(path, trash, name, Overwrite::Refuse),
            linked => linked,
        })
    }

    /// Runs `keep` with one name in the trash after the other until it finds one that is free. What is in the trash is
    /// never overwritten: a generation can be placed again, over newer work than before.
    fn under_free_name(
        &self,
        path: &RelPath,
        keep: impl Fn(&Dir, &RelPath) -> Result<(), IoError>,
    ) -> Result<(), PlaceError> {
        let trash = self.trash_for(path)?;
        let mut number: u64 = 0;
        let mut name = path.clone();
        loop {
            match keep(&trash, &name) {
                Err(error) if error.is_already_there() => {}
                kept => return kept.map_err(|e| self.failed(e)),
            }
            number += 1;
            name = numbered(path, number);
        }
    }

    /// Moves to the trash what the last generation of a hero, or the generations that this one follows, had and this one
    /// does not.
    fn trash_stale(&self, version_dir: &Dir) -> Result<(), PlaceError> {
        let (before, followed) = match self.options.replaces {
            Replaces::Hero(before) => (before.map_or(&[][..], std::slice::from_ref), None),
            Replaces::Followed(followed) => (followed, Some(followed)),
            Replaces::Nothing | Replaces::Rewritten => return Ok(()),
        };
        let files = self.manifest().files();
        let is_kept = |path: &RelPath| files.binary_search_by(|file| file.path.cmp(path)).is_ok();
        let stale: BTreeSet<&RelPath> = before
            .iter()
            .flat_map(Manifest::files)
            .map(|file| &file.path)
            .filter(|path| !is_kept(path))
            .collect();
        for path in stale {
            let there = match version_dir.stat(path) {
                Err(error) if error.is_not_a_directory() => None,
                there => there.map_err(|e| self.failed(e))?,
            };
            let Some(there) = there.filter(|there| there.kind == FileKind::File) else { continue };
            let is_theirs = match followed {
                Some(followed) => self.is_as_one_says(followed, version_dir, path, &there)?,
                None => true,
            };
            if is_theirs {
                self.under_free_name(path, |trash, name| {
                    version_dir.rename(path, trash, name, Overwrite::Refuse)
                })?;
            }
        }
        Ok(())
    }

    /// Opens the trash of this placement, ready for a file of this path in the version.
    fn trash_for(&self, path: &RelPath) -> Result<Dir, PlaceError> {
        let name = path_of(&format!(".avalon/trash/{}", self.manifest().id()));
        let open = || {
            let trash = self.version.project.create_dirs(&name)?;
            if let Some(parent) = path.parent() {
                trash.create_dirs(&parent)?;
            }
            Ok(trash)
        };
        open().map_err(|e| self.failed(e))
    }
}

/// Returns another name for a path in the trash; one in its root when the path would be too long.
fn numbered(path: &RelPath, number: u64) -> RelPath {
    let beside = format!("{path}.{number}").parse();
    beside.unwrap_or_else(|_| path_of(&format!("long-name.{number}")))
}

fn is_same_file(one: Option<FileStat>, other: Option<FileStat>) -> bool {
    let file = |stat: FileStat| (stat.device, stat.inode);
    one.is_some() && one.map(file) == other.map(file)
}
