//! One look at a version directory: what the decision that it is whole is made from.

use std::{fs::File, os::unix::fs::FileExt as _};

use avalon_protocol::{
    limits::MAX_MANIFEST_FILES,
    rel_path::{PathRule, RelPath},
    settle::{
        Blocker, BlockerKind, DirSnapshot, EndMark, Exclusion, HEAD_BYTES, NameProblem, ProblemKind,
        SeenFile, TAIL_BYTES, classify, collisions, end_mark, has_end_mark, hero_backup,
    },
};
use avalon_store::fs::{Dir, DirEntry, FileKind, FileStat, IoError};
use thiserror::Error;

/// Why a version directory could not be looked at.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// It is not there.
    #[error("the version directory {dir} is not there")]
    Gone {
        /// The directory, relative to the project.
        dir: RelPath,
    },
    /// It, or a directory in it, cannot be read.
    #[error("cannot look into the version directory {dir}")]
    Unreadable {
        /// The directory, relative to the project.
        dir: RelPath,
        /// What failed.
        #[source]
        source: IoError,
    },
    /// More files than a manifest takes.
    #[error("{dir} has more than {MAX_MANIFEST_FILES} files; publish it as several subsets")]
    TooManyFiles {
        /// The directory, relative to the project.
        dir: RelPath,
    },
}

/// Looks at the version directory `version` of the project `project`. Blocks.
///
/// The files come in the order of their paths. Of files whose format has an end mark, the first and last bytes are read. A
/// file that vanishes meanwhile is as if it had not been there.
///
/// # Errors
/// [`SnapshotError`]; nothing may be concluded then.
pub fn snapshot_version(project: &Dir, version: &RelPath) -> Result<DirSnapshot, SnapshotError> {
    snapshot_again(project, version, &[])
}

/// As [`snapshot_version`], without reading those files again that `previous`, the files of an earlier look in the order of
/// their paths, has unchanged and closed.
///
/// # Errors
/// [`SnapshotError`] as for [`snapshot_version`].
pub fn snapshot_again(
    project: &Dir,
    version: &RelPath,
    previous: &[SeenFile],
) -> Result<DirSnapshot, SnapshotError> {
    let unreadable = |source: IoError| match source.is_not_found() {
        true => SnapshotError::Gone { dir: version.clone() },
        false => SnapshotError::Unreadable { dir: version.clone(), source },
    };
    let root = project.open_dir(version).map_err(unreadable)?;
    let mut look = Look { version, previous, seen: DirSnapshot::default() };
    look.directory(&root, None)?;
    if version.file_name() == "hero" {
        look.hero_backups(project).map_err(unreadable)?;
    }
    let mut seen = look.seen;
    seen.problems.extend(collisions(seen.files.iter().map(|file| &file.path)));
    seen.problems.sort();
    Ok(seen)
}

struct Look<'a> {
    version: &'a RelPath,
    /// In the order of their paths.
    previous: &'a [SeenFile],
    seen: DirSnapshot,
}

impl Look<'_> {
    fn directory(&mut self, dir: &Dir, inside: Option<&RelPath>) -> Result<(), SnapshotError> {
        let entries = match dir.list(None) {
            Err(error) if inside.is_some() && error.is_not_found() => return Ok(()),
            entries => entries.map_err(|e| self.unreadable(e))?,
        };
        for entry in entries {
            self.entry(dir, inside, &entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &Dir, inside: Option<&RelPath>, entry: &DirEntry) -> Result<(), SnapshotError> {
        let (name, path) = match self.path_of(inside, entry) {
            Ok(paths) => paths,
            Err(rule) => {
                self.problem(inside, entry, ProblemKind::Name(rule));
                return Ok(());
            }
        };
        match (classify(&path), entry.kind) {
            (Exclusion::Ignored, _) => Ok(()),
            (Exclusion::Blocks(kind), _) => {
                self.seen.blockers.push(Blocker { path, kind });
                Ok(())
            }
            (_, FileKind::Symlink) => {
                self.problem(inside, entry, ProblemKind::Symlink);
                Ok(())
            }
            (Exclusion::None, FileKind::Dir) => match dir.open_dir(&name) {
                Err(error) if error.is_not_found() => Ok(()),
                opened => {
                    let opened = opened.map_err(|e| self.unreadable(e))?;
                    self.directory(&opened, Some(&path))
                }
            },
            (Exclusion::None, FileKind::File) => self.file(dir, &name, path),
            (Exclusion::None, FileKind::Other) => {
                self.problem(inside, entry, ProblemKind::Special);
                Ok(())
            }
        }
    }

    /// Returns the entry's name in its directory and its path in the version.
    fn path_of(&self, inside: Option<&RelPath>, entry: &DirEntry) -> Result<(RelPath, RelPath), PathRule> {
        let name = entry.rel_path().map_err(|e| e.rule)?;
        let path =
            inside.map_or_else(|| Ok(name.clone()), |inside| inside.join(&name)).map_err(|e| e.rule)?;
        // The manifest's limit is on the whole path.
        self.version.join(&path).map_err(|e| e.rule)?;
        Ok((name, path))
    }

    fn file(&mut self, dir: &Dir, name: &RelPath, path: RelPath) -> Result<(), SnapshotError> {
        let Some(stat) = dir.stat(name).map_err(|e| self.unreadable(e))? else { return Ok(()) };
        if stat.kind != FileKind::File {
            return Ok(());
        }
        if self.seen.files.len() >= MAX_MANIFEST_FILES {
            return Err(SnapshotError::TooManyFiles { dir: self.version.clone() });
        }
        let mut file = seen_file(path, &stat);
        if has_end_mark(name.as_str()) && !self.was_closed(&mut file) {
            file.end_mark = read_end_mark(dir, name, stat.size);
        }
        self.seen.files.push(file);
        Ok(())
    }

    /// Takes over the mark of an earlier look if the file was closed and is unchanged.
    ///
    /// Another mark is read again: one that is written within a tick of the file system's clock changes no time.
    fn was_closed(&self, file: &mut SeenFile) -> bool {
        let before = self.previous.binary_search_by(|before| before.path.cmp(&file.path));
        let before = before.ok().and_then(|index| self.previous.get(index));
        let was_closed = before.is_some_and(|b| b.end_mark == EndMark::Closed && b.is_unchanged(file));
        if was_closed {
            file.end_mark = EndMark::Closed;
        }
        was_closed
    }

    /// An integrator that replaces a hero renames the old directory aside until it is done.
    fn hero_backups(&mut self, project: &Dir) -> Result<(), IoError> {
        for entry in project.list(self.version.parent().as_ref())? {
            if let (Ok(path), FileKind::Dir) = (entry.rel_path(), entry.kind)
                && hero_backup(path.as_str())
            {
                self.seen.blockers.push(Blocker { path, kind: BlockerKind::Backup });
            }
        }
        Ok(())
    }

    fn problem(&mut self, inside: Option<&RelPath>, entry: &DirEntry, kind: ProblemKind) {
        let name = entry.display_name();
        let name = inside.map_or_else(|| name.to_string(), |inside| format!("{inside}/{name}"));
        self.seen.problems.push(NameProblem { name, kind });
    }

    fn unreadable(&self, source: IoError) -> SnapshotError {
        SnapshotError::Unreadable { dir: self.version.clone(), source }
    }
}

fn seen_file(path: RelPath, stat: &FileStat) -> SeenFile {
    let FileStat { size, mtime_ns, ctime_ns, inode, .. } = *stat;
    SeenFile { path, size, mtime_ns, ctime_ns, inode, end_mark: EndMark::Unknown }
}

/// A file that cannot be read says nothing here; hashing it will say why.
fn read_end_mark(dir: &Dir, name: &RelPath, size: u64) -> EndMark {
    let Ok(file) = dir.open_file(name) else { return EndMark::Unknown };
    let head = read_at(&file, 0, size.min(HEAD_BYTES as u64));
    let tail_bytes = size.min(TAIL_BYTES as u64);
    let tail = read_at(&file, size - tail_bytes, tail_bytes);
    match (head, tail) {
        (Some(head), Some(tail)) => end_mark(name.as_str(), size, &head, &tail),
        _ => EndMark::Unknown,
    }
}

fn read_at(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}
