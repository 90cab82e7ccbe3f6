//! The directory in which a daemon keeps its own state, held by one daemon at a time.
//!
//! The lock is the system's on an open file and ends with the process, however that ends. Network file systems do not
//! keep such promises, nor those of fsync, and are refused.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::fs::{Dir, FsKind, IoError, path_of};

/// Where a daemon keeps feeds, manifests and what is derived from them. While this lives, no other daemon opens it.
#[derive(Debug)]
pub struct StateDir {
    /// The directory itself.
    pub root: Dir,
    /// Truth: the feeds, by project and node.
    pub feeds: Dir,
    /// Proofs that feeds have two histories, by project and node.
    pub forks: Dir,
    /// Truth: the manifests, by hash.
    pub manifests: Dir,
    /// Derived: the generations of the catalog.
    pub catalog: Dir,
    /// Derived: block lists of large objects.
    pub blocks: Dir,
    /// Who did what, for people.
    pub audit: Dir,
    /// Locked for as long as it is open.
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// Another daemon holds it.
    #[error("the state directory {} is in use by another avalond{}; stop it or use another directory",
        path.display(), pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, where it says so.
        pid: Option<u32>,
    },
    /// It lies on a volume that does not keep what it has acknowledged, nor locks.
    #[error("the state directory {} lies on {kind}; set state_dir to a directory on a local disk", path.display())]
    Network {
        /// The directory.
        path: PathBuf,
        /// Which file system it is.
        kind: &'static str,
    },
    /// The volume is mounted read-only.
    #[error("the state directory {} is on a read-only volume; mount it writable or set state_dir to another",
        path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
        /// What failed.
        #[source]
        source: IoError,
    },
    /// No room is left.
    #[error("the volume of the state directory {} is full; free some room and start again", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// What failed.
        #[source]
        source: IoError,
    },
    /// Something else has that name.
    #[error("the state directory {} is not a directory; set state_dir to one", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
        /// What failed.
        #[source]
        source: IoError,
    },
    /// This user may not write there.
    #[error("the state directory {} may not be written by this user; change its owner or set state_dir to another",
        path.display())]
    Forbidden {
        /// The directory.
        path: PathBuf,
        /// What failed.
        #[source]
        source: IoError,
    },
    /// The system refuses for another reason.
    #[error("the state directory {} cannot be used", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What failed.
        #[source]
        source: IoError,
    },
}

impl StateDirError {
    fn new(path: &Path, source: IoError) -> Self {
        let path = path.to_owned();
        match source.source.kind() {
            io::ErrorKind::NotADirectory => Self::NotADirectory { path, source },
            io::ErrorKind::PermissionDenied => Self::Forbidden { path, source },
            _ if source.is_read_only() => Self::ReadOnly { path, source },
            _ if source.is_no_space() => Self::Full { path, source },
            _ => Self::Io { path, source },
        }
    }
}

impl StateDir {
    /// Opens a state directory for this process alone, creating what is missing of it.
    ///
    /// # Errors
    /// [`StateDirError`] says what to do; nothing of an existing state has been changed then.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let failed = |source| StateDirError::new(path, source);
        create(path).map_err(failed)?;
        let root = Dir::open(path).map_err(failed)?;
        if let Some(kind) = root.kind().map(FsKind::not_local).map_err(failed)? {
            return Err(StateDirError::Network { path: path.to_owned(), kind });
        }
        let lock = lock(&root)?;
        let sub = |name| root.create_dirs(&path_of(name)).map_err(failed);
        Ok(Self {
            feeds: sub("feeds")?,
            forks: sub("forks")?,
            manifests: sub("manifests")?,
            catalog: sub("catalog")?,
            blocks: sub("blocks")?,
            audit: sub("audit")?,
            root,
            _lock: lock,
        })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        self.root.path()
    }
}

/// Others have no business in it: it holds the node's key.
fn create(path: &Path) -> Result<(), IoError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(IoError::new("create directory", path, io::Error::from(io::ErrorKind::NotADirectory)))
        }
        created => created.map_err(|error| IoError::new("create directory", path, error)),
    }
}

fn lock(root: &Dir) -> Result<File, StateDirError> {
    let name = path_of("lock");
    let failed = |source| StateDirError::new(root.path(), source);
    let mut file = match root.create_file(&name) {
        Err(error) if error.is_already_there() => root.open_rw(&name).map_err(failed)?,
        created => created.map_err(failed)?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim_end().parse().ok());
            return Err(StateDirError::InUse { path: root.path().to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => {
            return Err(failed(IoError::new("lock", root.path().join("lock"), error)));
        }
    }
    write_pid(&mut file).map_err(|error| failed(IoError::new("write", root.path().join("lock"), error)))?;
    Ok(file)
}

/// For people and for the message of a second daemon; the lock does not depend on it.
fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_open_names_the_process_that_holds_it_and_the_end_of_the_first_frees_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("var/avalond");
        let first = StateDir::open(&path).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        let expected = format!("in use by another avalond (process {})", std::process::id());
        assert!(error.to_string().contains(&expected), "{error}");
        drop(first);
        assert_eq!(StateDir::open(&path).unwrap().path(), path);
    }

    #[test]
    fn what_is_missing_is_created_and_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("state");
        let state = StateDir::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        for dir in [&state.feeds, &state.manifests, &state.catalog, &state.blocks, &state.audit] {
            assert!(dir.path().is_dir());
        }
    }

    #[test]
    fn a_file_in_its_place_is_named_as_such() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("state");
        drop(File::create(&path).unwrap());
        let error = StateDir::open(&path).unwrap_err();
        assert!(matches!(error, StateDirError::NotADirectory { .. }), "{error:?}");
        let error = StateDir::open(&path.join("below")).unwrap_err();
        assert!(matches!(error, StateDirError::NotADirectory { .. }), "{error:?}");
    }

    #[test]
    fn each_refusal_of_the_system_has_its_own_message() {
        let message = |kind: io::ErrorKind, errno: i32| {
            let mut error = io::Error::from(kind);
            if errno != 0 {
                error = io::Error::from_raw_os_error(errno);
            }
            StateDirError::new(Path::new("state"), IoError::new("open", "state", error)).to_string()
        };
        assert!(message(io::ErrorKind::Other, 30).contains("read-only volume"));
        assert!(message(io::ErrorKind::Other, 28).contains("is full"));
        assert!(message(io::ErrorKind::PermissionDenied, 0).contains("may not be written"));
    }
}
