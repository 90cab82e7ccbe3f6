//! [`IoError`]: what was done, to which path, and what the system said.

use std::{
    error, fmt, io,
    path::{Path, PathBuf},
};

use rustix::io::Errno;
use thiserror::Error;

/// What an [`IoError`] says of a sync of a file or directory, and of a volume.
pub(super) const FSYNC: &str = "fsync";
pub(super) const SYNC_VOLUME: &str = "sync the volume of";

/// A system call on a path that failed.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub struct IoError {
    /// What was tried, as a verb: "open", "rename".
    pub action: &'static str,
    /// The path that it was tried on, for people; it may have moved since.
    pub path: PathBuf,
    /// What the system answered.
    #[source]
    pub source: io::Error,
}

impl IoError {
    /// Says what failed on which path.
    pub fn new(action: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self { action, path: path.as_ref().to_owned(), source: source.into() }
    }

    pub(super) fn not_regular(path: PathBuf) -> Self {
        Self { action: "open", path, source: io::Error::new(io::ErrorKind::InvalidInput, NotRegular) }
    }

    /// Says whether there is nothing of that name.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Says whether there is something of that name already.
    pub fn is_already_there(&self) -> bool {
        matches!(self.errno(), Some(Errno::EXIST | Errno::NOTEMPTY))
    }

    /// Says whether the volume or the quota is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// Says whether this user may not do it, or nobody may because the volume is mounted read-only.
    pub fn is_not_allowed(&self) -> bool {
        matches!(self.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS))
    }

    /// Says whether the disk did not give back what lies there, or did not take it.
    pub fn is_of_disk(&self) -> bool {
        self.errno() == Some(Errno::IO)
    }

    /// Says whether it was a sync that failed, not the way to what was to be synced.
    pub fn is_of_sync(&self) -> bool {
        matches!(self.action, FSYNC | SYNC_VOLUME)
    }

    /// Says whether the volume is mounted read-only.
    pub fn is_read_only(&self) -> bool {
        self.errno() == Some(Errno::ROFS)
    }

    /// Says whether a symbolic link stood in the way.
    pub fn is_symlink(&self) -> bool {
        self.errno() == Some(Errno::LOOP)
    }

    /// Says whether a file stood where the path needs a directory.
    pub fn is_not_a_directory(&self) -> bool {
        self.errno() == Some(Errno::NOTDIR)
    }

    /// Says whether the path is a directory, a pipe or a device where a regular file is needed.
    pub fn is_not_regular(&self) -> bool {
        self.source.get_ref().is_some_and(|inner| inner.is::<NotRegular>())
            || matches!(self.errno(), Some(Errno::ISDIR | Errno::NXIO))
    }

    fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }
}

#[derive(Debug)]
struct NotRegular;

impl fmt::Display for NotRegular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a regular file")
    }
}

impl error::Error for NotRegular {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_volume_and_a_full_quota_are_no_space() {
        for (errno, full) in [(Errno::NOSPC, true), (Errno::DQUOT, true), (Errno::IO, false)] {
            assert_eq!(IoError::new("write", "x", errno).is_no_space(), full);
        }
        assert!(IoError::new("write", "x", Errno::ROFS).is_read_only());
    }

    #[test]
    fn names_the_action_and_the_path_and_leaves_the_cause_to_the_source() {
        let error = IoError::new("rename", "a/b", Errno::NOENT);
        assert_eq!(error.to_string(), "cannot rename a/b");
        assert!(error.is_not_found());
    }
}
