//! Files whose content could not be made durable.
//!
//! When an fsync fails, the kernel may take what it could not write for written: the next fsync succeeds, and the file reads
//! well until its pages are forgotten. So it is remembered what such a file was, and nothing of it is recorded until the
//! disk gives back the same, or somebody has written it again.

use std::collections::HashMap;

use avalon_protocol::{hash::ObjectHash, rel_path::RelPath};
use avalon_store::{fs::FileIdentity, object::incoming::UnsyncedFile};

use super::hash::NamedFile;

/// How many files are remembered at most: those of one version at its largest. Of more, what the disk has is published.
const MOST: usize = avalon_protocol::limits::MAX_MANIFEST_FILES;

/// What files of a project were when they could not be made durable.
#[derive(Debug, Default)]
pub struct Unsynced(HashMap<RelPath, (FileIdentity, ObjectHash)>);

impl Unsynced {
    /// Notes what files were that could not be made durable. Of a file that was noted before, the first word stands unless it
    /// was written since.
    pub fn note(&mut self, files: impl IntoIterator<Item: Into<UnsyncedFile>>) {
        for UnsyncedFile { path, object, identity } in files.into_iter().map(Into::into) {
            let stands = self.0.get(&path).map(|known| known.0 == identity);
            if stands == Some(false) || (stands.is_none() && self.0.len() < MOST) {
                self.0.insert(path, (identity, object));
            }
        }
    }

    /// Forgets files that are durable now.
    pub fn forget<'a>(&mut self, paths: impl IntoIterator<Item = &'a RelPath>) {
        for path in paths {
            self.0.remove(path);
        }
    }

    /// Says whether the disk has something else than what the file was, though nobody has written to it since.
    pub fn has_lost(&self, file: &NamedFile) -> bool {
        let known = self.0.get(&file.path);
        known.is_some_and(|(identity, object)| *identity == file.stat.identity() && *object != file.object)
    }
}

impl From<&NamedFile> for UnsyncedFile {
    fn from(file: &NamedFile) -> Self {
        Self { path: file.path.clone(), object: file.object, identity: file.stat.identity() }
    }
}

#[cfg(test)]
mod tests {
    use avalon_store::fs::{FileKind, FileStat};

    use super::*;

    fn file(content: &[u8], ctime_ns: i64) -> NamedFile {
        let path: RelPath = "a/b.abc".parse().unwrap();
        let stat = FileStat {
            kind: FileKind::File,
            size: 1,
            mtime_ns: 1,
            ctime_ns,
            inode: 7,
            ..FileStat::from(&std::fs::metadata("/").unwrap())
        };
        NamedFile { inside: path.clone(), path, object: ObjectHash::of(content), stat, is_fresh: true }
    }

    #[test]
    fn a_file_whose_sync_failed_has_to_be_what_it_was_until_it_is_written_again() {
        let (mut unsynced, good, zeros) = (Unsynced::default(), file(b"x", 1), file(b"\0", 1));
        assert!(!unsynced.has_lost(&good));
        unsynced.note([&good]);
        assert!(!unsynced.has_lost(&good), "the disk has it");
        assert!(unsynced.has_lost(&zeros));
        unsynced.note([&zeros]);
        assert!(unsynced.has_lost(&zeros), "it is not believed because it fails once more");
        assert!(!unsynced.has_lost(&file(b"y", 2)), "somebody wrote it again");
        unsynced.forget([&good.path]);
        assert!(!unsynced.has_lost(&zeros));
    }
}
