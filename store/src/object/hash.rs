//! Naming files: hash and block values in one pass, and proof that the file did not change meanwhile.

use std::{fs::File, io, num::NonZeroUsize, path::PathBuf};

use avalon_protocol::{block::BlockList, hash::ObjectHash, rel_path::RelPath};
use rayon::prelude::*;
use thiserror::Error;

use super::name::{Spread, name_file};
use crate::fs::{Dir, FileKind, FileStat, IoError};

/// A file whose content is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedFile {
    /// The path, as it was asked for.
    pub path: RelPath,
    /// The object's name, size and block values.
    pub blocks: BlockList,
    /// What the file system said before the first byte was read and after the last.
    pub stat: FileStat,
}

impl HashedFile {
    /// Returns the object's name.
    pub fn object(&self) -> ObjectHash {
        self.blocks.object()
    }
}

/// Why a file has no name.
#[derive(Debug, Error)]
pub enum HashError {
    /// It was written, replaced or removed while it was read; somebody still works on it.
    #[error("the file {path} changed while it was read")]
    Changed {
        /// The file.
        path: RelPath,
    },
    /// It is a symbolic link, or lies behind one; links are not published.
    #[error("{path} is or lies behind a symbolic link; publish the file itself")]
    Symlink {
        /// The file.
        path: RelPath,
    },
    /// It is a directory, a pipe or a device.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// What it is not.
        path: RelPath,
    },
    /// The system refuses to open or read it.
    #[error("the file {path} cannot be read")]
    Io {
        /// The file.
        path: RelPath,
        /// Why.
        #[source]
        source: IoError,
    },
}

impl HashError {
    /// Says whether the file is not there (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.is_not_found())
    }

    /// Says whether the volume is full; reading does not fill it, so never.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.is_no_space())
    }

    fn of(path: &RelPath, source: IoError) -> Self {
        let path = path.clone();
        if source.is_symlink() {
            Self::Symlink { path }
        } else if source.is_not_regular() {
            Self::NotRegular { path }
        } else {
            Self::Io { path, source }
        }
    }
}

/// The threads could not be started.
#[derive(Debug, Error)]
#[error("cannot start {threads} threads for hashing")]
pub struct StartError {
    threads: NonZeroUsize,
    #[source]
    source: rayon::ThreadPoolBuildError,
}

/// The threads that hash: over many files at once, and within a large one.
#[derive(Debug)]
pub struct Hasher {
    pool: rayon::ThreadPool,
}

impl Hasher {
    /// Starts the threads. Each holds a buffer of 1 MiB once it has worked.
    ///
    /// # Errors
    /// [`StartError`] when the system gives no threads.
    pub fn new(threads: NonZeroUsize) -> Result<Self, StartError> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|index| format!("hash-{index}"))
            .build()
            .map(|pool| Self { pool })
            .map_err(|source| StartError { threads, source })
    }

    /// Hashes files and answers in their order. One that fails does not stop the others.
    ///
    /// `progress` is told how many bytes were hashed since it was last told, from any of the threads.
    pub fn hash_files(
        &self,
        dir: &Dir,
        paths: &[RelPath],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Vec<Result<HashedFile, HashError>> {
        let hash = |path: &RelPath| hash_watched(dir, path, Spread::Pool, progress, || ());
        self.pool.install(|| paths.par_iter().with_max_len(1).map(hash).collect())
    }

    /// Hashes one file with all threads.
    ///
    /// # Errors
    /// [`HashError`].
    pub fn hash_file(&self, dir: &Dir, path: &RelPath) -> Result<HashedFile, HashError> {
        self.pool.install(|| hash_watched(dir, path, Spread::Pool, &|_| (), || ()))
    }

    /// Runs other work of this crate, such as opening an incoming area, on these threads instead of the process's
    /// common ones.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }
}

/// Hashes one file on the calling thread.
///
/// # Errors
/// [`HashError`].
pub fn hash_file(dir: &Dir, path: &RelPath) -> Result<HashedFile, HashError> {
    hash_watched(dir, path, Spread::Here, &|_| (), || ())
}

/// As [`hash_file`], by the pool that the caller runs on.
pub(crate) fn hash_file_by_pool(dir: &Dir, path: &RelPath) -> Result<HashedFile, HashError> {
    hash_watched(dir, path, Spread::Pool, &|_| (), || ())
}

/// `when_read` runs between the last read and the second look at the file: where tests change it.
fn hash_watched(
    dir: &Dir,
    path: &RelPath,
    spread: Spread,
    progress: &(dyn Fn(u64) + Sync),
    when_read: impl FnOnce(),
) -> Result<HashedFile, HashError> {
    let failed = |source| HashError::of(path, source);
    let read_failed = |source: io::Error| failed(IoError::new("read", on_disk(dir, path), source));
    let file = dir.open_file(path).map_err(failed)?;
    let before = stat_of(&file).map_err(read_failed)?;
    let named = name_file(&file, before.size, spread, &|_, bytes: &[u8]| {
        progress(bytes.len() as u64);
        Ok(())
    });
    when_read();
    let blocks = match named {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(HashError::Changed { path: path.clone() });
        }
        named => named.map_err(read_failed)?,
    };
    let after = stat_of(&file).map_err(read_failed)?;
    let by_path = dir.stat(path).map_err(failed)?;
    if is_unchanged(&before, &after) && by_path.is_some_and(|by_path| is_unchanged(&before, &by_path)) {
        Ok(HashedFile { path: path.clone(), blocks, stat: before })
    } else {
        Err(HashError::Changed { path: path.clone() })
    }
}

fn stat_of(file: &File) -> io::Result<FileStat> {
    file.metadata().map(|metadata| FileStat::from(&metadata))
}

fn on_disk(dir: &Dir, path: &RelPath) -> PathBuf {
    dir.path().join(path.as_str())
}

fn is_unchanged(before: &FileStat, after: &FileStat) -> bool {
    before.identity() == after.identity() && before.device == after.device && after.kind == FileKind::File
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write as _,
        os::unix::fs::symlink,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::{
        fs::{Overwrite, WriteMode, path_of},
        object::fixture::{BLOCK, bytes},
    };

    fn place() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        (temp, dir)
    }

    fn write(dir: &Dir, name: &str, bytes: &[u8]) {
        dir.write_atomic(&path_of(name), bytes, WriteMode::Replace).unwrap();
    }

    #[test]
    fn many_files_are_named_in_their_order_and_one_failure_stops_none() {
        let (_temp, dir) = place();
        let large = bytes(2 * BLOCK + 1, 1);
        write(&dir, "a", b"a");
        write(&dir, "b", &large);
        write(&dir, "c", b"");
        let paths = ["a", "missing", "b", "c"].map(path_of);
        let bytes = AtomicU64::new(0);
        let hasher = Hasher::new(NonZeroUsize::new(2).unwrap()).unwrap();
        let progress = |delta| {
            bytes.fetch_add(delta, Ordering::Relaxed);
        };
        let answers = hasher.hash_files(&dir, &paths, &progress);
        let names: Vec<_> = answers.iter().map(|a| a.as_ref().ok().map(HashedFile::object)).collect();
        let expected = [b"a".as_slice(), &large, b""].map(|bytes| Some(ObjectHash::of(bytes)));
        assert_eq!(names, [expected[0], None, expected[1], expected[2]]);
        assert!(answers[1].as_ref().unwrap_err().is_not_found());
        assert_eq!(bytes.into_inner(), 1 + large.len() as u64);
        assert_eq!(hasher.hash_file(&dir, &paths[2]).unwrap(), hash_file(&dir, &paths[2]).unwrap());
    }

    #[test]
    fn a_file_that_changes_in_any_way_while_it_is_read_has_no_name() {
        let (temp, dir) = place();
        let path = temp.path().join("file");
        let changes: [(&str, &dyn Fn()); 4] = [
            ("grown", &|| {
                OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
            }),
            ("same length, time set back", &|| {
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                let time = file.metadata().unwrap().modified().unwrap();
                (&file).write_all(b"OTHER").unwrap();
                file.set_modified(time + std::time::Duration::from_nanos(1)).unwrap();
            }),
            ("replaced", &|| write(&dir, "file", b"12345")),
            ("removed", &|| fs::remove_file(&path).unwrap()),
        ];
        for (what, change) in changes {
            write(&dir, "file", b"12345");
            let answer = hash_watched(&dir, &path_of("file"), Spread::Here, &|_| (), change);
            assert!(matches!(answer, Err(HashError::Changed { .. })), "{what}: {answer:?}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_by_a_link_to_itself_has_no_name() {
        let (temp, dir) = place();
        write(&dir, "file", b"12345");
        let answer = hash_watched(&dir, &path_of("file"), Spread::Here, &|_| (), || {
            dir.rename(&path_of("file"), &dir, &path_of("moved"), Overwrite::Refuse).unwrap();
            symlink("moved", temp.path().join("file")).unwrap();
        });
        assert!(matches!(answer, Err(HashError::Changed { .. })), "{answer:?}");
    }

    #[test]
    fn links_and_directories_are_told_apart() {
        let (temp, dir) = place();
        write(&dir, "file", b"x");
        symlink("file", temp.path().join("link")).unwrap();
        symlink(temp.path(), temp.path().join("dirlink")).unwrap();
        fs::create_dir(temp.path().join("sub")).unwrap();
        for link in ["link", "dirlink/file"] {
            assert!(matches!(hash_file(&dir, &path_of(link)), Err(HashError::Symlink { .. })), "{link}");
        }
        assert!(matches!(hash_file(&dir, &path_of("sub")), Err(HashError::NotRegular { .. })));
        let error = hash_file(&dir, &path_of("none")).unwrap_err();
        assert_eq!(error.to_string(), "the file none cannot be read");
    }
}
