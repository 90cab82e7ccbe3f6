//! A version directory gets another number: renamed at once, never over anything.
//!
//! Where files have other names under the new number, the directory is renamed to a place of its own in between, where nobody
//! sees it, the files are renamed there, and then it appears whole. Each step is found on disk again after a crash, and gone on
//! from.

use std::collections::BTreeSet;

use avalon_protocol::{
    hash::ObjectHash,
    manifest::{Manifest, Renumbered},
    rel_path::RelPath,
};
use thiserror::Error;

use super::PlacedFile;
use crate::{
    fs::{Dir, FileKind, FileStat, IoError, Overwrite, path_of},
    object::hash::{HashError, hash_file_by_pool},
};

/// Why a version directory was not renamed.
#[derive(Debug, Error)]
pub enum RenumberFailed {
    /// Something lies where it would go. Nothing was moved.
    #[error("{path} is there already; nothing was renamed")]
    Taken {
        /// The path, relative to the project.
        path: RelPath,
    },
    /// A file is not as it was published. Nothing was moved.
    #[error("{path} is not as it was published; nothing was renamed")]
    Changed {
        /// The path, relative to the project.
        path: RelPath,
    },
    /// The version directory is not there.
    #[error("there is no {dir}")]
    Gone {
        /// The version directory, relative to the project.
        dir: RelPath,
    },
    /// A file cannot be read.
    #[error("a file of the version cannot be compared")]
    Compare(#[source] HashError),
    /// The system refuses.
    #[error("{dir} cannot be renamed")]
    Io {
        /// The version directory, relative to the project.
        dir: RelPath,
        /// What and why.
        #[source]
        source: IoError,
    },
}

/// Says what a file held when it was last looked at, if it is still that.
pub type KnownObject<'a> = dyn Fn(&RelPath, &FileStat) -> Option<ObjectHash> + 'a;

/// Renames the directory of `old` to that of the renumbered manifest, with everything in it. When this returns, it is durable.
/// Returns the files of the version at their new paths, in the order of the old manifest.
///
/// # Errors
/// [`RenumberFailed`]; what was begun is gone on with by the next call.
pub fn renumber(
    project: &Dir,
    old: &Manifest,
    new: &Renumbered,
    known: &KnownObject<'_>,
) -> Result<Vec<PlacedFile>, RenumberFailed> {
    let work = Work { project, old, new, known };
    let (from, to) = (old.dir(), new.manifest.dir());
    let is_renamed = new.files.iter().any(|(from, to)| from != to);
    let between = path_of(&format!(".avalon/renumber/{}", new.manifest.id()));
    if is_renamed && work.is_there(&between)? {
        // A crash came in between; what may lie at the old number by now is another version's.
        work.rename_files(&between)?;
        work.rename_dir(&between, to)?;
    } else if work.is_there(from)? {
        work.check(from, |(from, _)| from)?;
        if work.is_there(to)? {
            return Err(RenumberFailed::Taken { path: to.clone() });
        }
        if is_renamed {
            work.rename_dir(from, &between)?;
            work.rename_files(&between)?;
            work.rename_dir(&between, to)?;
        } else {
            work.rename_dir(from, to)?;
        }
    } else if !work.is_there(to)? {
        return Err(RenumberFailed::Gone { dir: from.clone() });
    }
    work.check(to, |(_, to)| to)
}

struct Work<'a> {
    project: &'a Dir,
    old: &'a Manifest,
    new: &'a Renumbered,
    known: &'a KnownObject<'a>,
}

impl Work<'_> {
    fn failed(&self, source: IoError) -> RenumberFailed {
        RenumberFailed::Io { dir: self.old.dir().clone(), source }
    }

    fn is_there(&self, path: &RelPath) -> Result<bool, RenumberFailed> {
        self.project.stat(path).map(|stat| stat.is_some()).map_err(|e| self.failed(e))
    }

    /// Looks at every file of the version in `dir`, where it is called as `name` says: it must hold what was published.
    fn check(
        &self,
        dir: &RelPath,
        name: impl Fn(&(RelPath, RelPath)) -> &RelPath,
    ) -> Result<Vec<PlacedFile>, RenumberFailed> {
        let mut files = Vec::with_capacity(self.new.files.len());
        for (file, names) in self.old.files().iter().zip(&self.new.files) {
            let path = dir.join(name(names)).map_err(|_| RenumberFailed::Gone { dir: dir.clone() })?;
            let changed = || RenumberFailed::Changed { path: path.clone() };
            let stat = self.project.stat(&path).map_err(|e| self.failed(e))?.ok_or_else(changed)?;
            if stat.kind != FileKind::File || stat.size != file.size {
                return Err(changed());
            }
            let stat = match (self.known)(&path, &stat) {
                Some(object) if object == file.hash => stat,
                _ => {
                    let hashed = hash_file_by_pool(self.project, &path).map_err(RenumberFailed::Compare)?;
                    if hashed.object() != file.hash {
                        return Err(changed());
                    }
                    hashed.stat
                }
            };
            files.push(PlacedFile { path, object: file.hash, stat });
        }
        Ok(files)
    }

    /// Renames a directory; both names are durable when this returns.
    fn rename_dir(&self, from: &RelPath, to: &RelPath) -> Result<(), RenumberFailed> {
        let open = |path: &RelPath| match path.parent() {
            Some(parent) => self.project.create_dirs(&parent),
            None => Ok(self.project.clone()),
        };
        let (from_dir, to_dir) =
            (open(from).map_err(|e| self.failed(e))?, open(to).map_err(|e| self.failed(e))?);
        let (from_name, to_name) = (path_of(from.file_name()), path_of(to.file_name()));
        match from_dir.rename(&from_name, &to_dir, &to_name, Overwrite::Refuse) {
            Err(error) if error.is_already_there() => return Err(RenumberFailed::Taken { path: to.clone() }),
            renamed => renamed.map_err(|e| self.failed(e))?,
        }
        to_dir.sync().and_then(|()| from_dir.sync()).map_err(|e| self.failed(e))
    }

    /// Gives the files in `dir` their new names; those that have them already stay.
    fn rename_files(&self, dir: &RelPath) -> Result<(), RenumberFailed> {
        let dir = self.project.open_dir(dir).map_err(|e| self.failed(e))?;
        let (mut touched, mut left) = (BTreeSet::new(), BTreeSet::new());
        for (from, to) in self.new.files.iter().filter(|(from, to)| from != to) {
            if dir.stat(from).map_err(|e| self.failed(e))?.is_none() {
                continue;
            }
            if let Some(parent) = to.parent() {
                dir.create_dirs(&parent).map_err(|e| self.failed(e))?;
                touched.insert(parent);
            }
            left.extend(from.parent());
            match dir.rename(from, &dir, to, Overwrite::Refuse) {
                Err(error) if error.is_already_there() => {
                    return Err(RenumberFailed::Taken { path: to.clone() });
                }
                renamed => renamed.map_err(|e| self.failed(e))?,
            }
        }
        for emptied in left.iter().rev() {
            // What else lies in it keeps it.
            dir.remove_empty_dir(emptied).ok();
        }
        let sync = || -> Result<(), IoError> {
            touched.iter().try_for_each(|inner| dir.open_dir(inner)?.sync())?;
            dir.sync()
        };
        sync().map_err(|e| self.failed(e))
    }
}
