//! The trash of a project: what was removed here and is kept for a while.
//!
//! `.avalon/trash/<manifest id>.<milliseconds since 1970>` has the files of a version that was dropped, at their paths in the
//! version, and its name says when. `.avalon/trash/<manifest id>` has what a `hero` had before; there the times of its
//! directories say when something came last.

mod discard;
#[cfg(test)]
mod tests;

use avalon_protocol::{hash::ManifestId, rel_path::RelPath};

pub use self::discard::{DiscardError, Discarded, discard, prepare};
use crate::fs::{Dir, FileKind, IoError, path_of};

const TRASH: &str = ".avalon/trash";

/// What a name in the trash stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A version was dropped; other sites proved then that they hold it.
    Dropped,
    /// A hero moved. Perhaps nobody else has these files.
    Replaced,
}

/// One name in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashEntry {
    path: RelPath,
    /// The manifest: of the version that was dropped, or of the hero's generation that took its place.
    pub manifest: ManifestId,
    /// When something came into it last, in milliseconds since 1970.
    pub came_ms: u64,
    /// Why it is there.
    pub cause: Cause,
}

impl TrashEntry {
    /// Opens it.
    ///
    /// # Errors
    /// [`IoError`], also when it is gone.
    pub fn open(&self, project: &Dir) -> Result<Dir, IoError> {
        project.open_dir(&self.path)
    }

    /// Removes it for good.
    ///
    /// # Errors
    /// [`IoError`] at the first name that cannot be removed.
    pub fn remove(&self, project: &Dir) -> Result<(), IoError> {
        project.remove_tree(&self.path)
    }

    /// Returns how many bytes its files have.
    ///
    /// # Errors
    /// [`IoError`] when it cannot be looked through.
    pub fn bytes(&self, project: &Dir) -> Result<u64, IoError> {
        let mut bytes = 0;
        walk(&self.open(project)?, |_, size, _| bytes += size)?;
        Ok(bytes)
    }
}

/// Returns what is in the trash, the oldest first. Names that are not ours are passed over.
///
/// # Errors
/// [`IoError`] when it cannot be read; that there is none is fine.
pub fn entries(project: &Dir) -> Result<Vec<TrashEntry>, IoError> {
    let listed = match project.list(Some(&path_of(TRASH))) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut entries = Vec::new();
    for name in listed.iter().filter(|entry| entry.kind == FileKind::Dir) {
        let name = name.display_name();
        let (manifest, came) = name.split_once('.').map_or((&*name, None), |(id, ms)| (id, Some(ms)));
        let (Ok(manifest), came) = (manifest.parse::<ManifestId>(), came.map(str::parse::<u64>)) else {
            continue;
        };
        let path = path_of(&format!("{TRASH}/{name}"));
        let (came_ms, cause) = match came {
            Some(Ok(ms)) => (ms, Cause::Dropped),
            Some(Err(_)) => continue,
            None => (last_change_ms(project, &path)?, Cause::Replaced),
        };
        entries.push(TrashEntry { path, manifest, came_ms, cause });
    }
    entries.sort_by(|a, b| (a.came_ms, &a.path).cmp(&(b.came_ms, &b.path)));
    Ok(entries)
}

/// When something last came into a directory or one beneath it: files keep their own times when they are moved.
fn last_change_ms(project: &Dir, path: &RelPath) -> Result<u64, IoError> {
    let mut newest_ns = project.stat(path)?.map_or(0, |stat| stat.mtime_ns);
    walk(&project.open_dir(path)?, |_, _, dir_ns| newest_ns = newest_ns.max(dir_ns))?;
    Ok(u64::try_from(newest_ns / 1_000_000).unwrap_or(0))
}

/// Tells of everything beneath a directory that is no directory: path, size, and when its directory changed. What no
/// version can be named is told as its directory with `None`.
fn walk(dir: &Dir, mut told: impl FnMut(Option<&RelPath>, u64, i64)) -> Result<(), IoError> {
    let mut dirs: Vec<Option<RelPath>> = vec![None];
    while let Some(at) = dirs.pop() {
        let changed_ns = match &at {
            Some(at) => dir.stat(at)?.map_or(0, |stat| stat.mtime_ns),
            None => 0,
        };
        for entry in dir.list(at.as_ref())? {
            let name = entry.rel_path().ok();
            let path = name.and_then(|name| match &at {
                Some(at) => at.join(&name).ok(),
                None => Some(name),
            });
            match (path, entry.kind) {
                (Some(path), FileKind::Dir) => dirs.push(Some(path)),
                (Some(path), _) => {
                    let size = dir.stat(&path)?.map_or(0, |stat| stat.size);
                    told(Some(&path), size, changed_ns);
                }
                (None, _) => told(None, 0, changed_ns),
            }
        }
    }
    Ok(())
}
