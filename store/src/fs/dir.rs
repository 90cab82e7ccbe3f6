//! [`Dir`]: a directory as a capability; looking and opening.

use std::{
    borrow::Cow,
    ffi::OsString,
    fs::File,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use avalon_protocol::rel_path::{InvalidPath, PathRule, RelPath};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, fstat, openat, statat, statx},
    io::Errno,
};

use super::{FileKind, FileStat, IoError, resolve::open_beneath};

/// What writes past the page cache have to be aligned to: a page, and a sector of any disk.
pub const DIRECT_ALIGN_BYTES: usize = 4096;

/// An open directory. Every path given to it stays beneath it; no symbolic link is followed, not even the last part.
///
/// Clones share the handle. It keeps naming the same directory when that is renamed; [`Dir::path`] does not follow.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name as the system has it.
    pub name: OsString,
    /// What it is.
    pub kind: FileKind,
}

impl DirEntry {
    /// Returns the name for people, with a replacement for what is not UTF-8.
    pub fn display_name(&self) -> Cow<'_, str> {
        self.name.to_string_lossy()
    }

    /// Returns the name as a path of one part.
    ///
    /// # Errors
    /// [`InvalidPath`] when it is not UTF-8 or breaks another rule of [`RelPath`].
    pub fn rel_path(&self) -> Result<RelPath, InvalidPath> {
        match self.name.to_str() {
            Some(name) => name.parse(),
            None => Err(InvalidPath { path: self.display_name().into_owned(), rule: PathRule::NotUtf8 }),
        }
    }
}

impl Dir {
    /// Opens a directory that the configuration names; only here links are followed.
    ///
    /// # Errors
    /// [`IoError`] when there is no such directory, or it may not be read.
    pub fn open(path: &Path) -> Result<Self, IoError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|e| IoError::new("open", path, e))?;
        Ok(Self { fd: Arc::new(fd), path: path.to_owned() })
    }

    /// Returns where it was when it was opened: for messages and for the watcher, not for opening.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says whether both are one directory, wherever it is now.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (fstat(self.fd()), fstat(other.fd())) {
            (Ok(this), Ok(other)) => (this.st_dev, this.st_ino) == (other.st_dev, other.st_ino),
            _ => false,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn error(&self, action: &'static str, path: &RelPath, errno: Errno) -> IoError {
        IoError::new(action, self.path.join(path.as_str()), errno)
    }

    /// Opens a directory beneath it.
    ///
    /// # Errors
    /// [`IoError`] when there is none, or a symbolic link stands in the way.
    pub fn open_dir(&self, path: &RelPath) -> Result<Self, IoError> {
        let fd = self.open_fd("open directory", path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { fd: Arc::new(fd), path: self.path.join(path.as_str()) })
    }

    /// Opens a regular file for reading. A pipe or device that stands there cannot make it wait.
    ///
    /// # Errors
    /// [`IoError`], with `is_symlink` or `is_not_regular` for what is not a file of its own.
    pub fn open_file(&self, path: &RelPath) -> Result<File, IoError> {
        self.open_regular(path, OFlags::RDONLY)
    }

    /// Opens a regular file that exists for reading and writing; nothing of it is cut.
    ///
    /// # Errors
    /// [`IoError`], with `is_symlink` or `is_not_regular` for what is not a file of its own.
    pub fn open_rw(&self, path: &RelPath) -> Result<File, IoError> {
        self.open_regular(path, OFlags::RDWR)
    }

    /// As [`Dir::open_rw`], for writes that go past the page cache: [`DIRECT_ALIGN_BYTES`] of alignment for all of memory,
    /// offset and length.
    ///
    /// # Errors
    /// [`IoError`], also where the file system knows no such writes.
    pub(crate) fn open_direct(&self, path: &RelPath) -> Result<File, IoError> {
        self.open_regular(path, OFlags::RDWR | OFlags::DIRECT)
    }

    fn open_regular(&self, path: &RelPath, access: OFlags) -> Result<File, IoError> {
        let fd = self.open_fd("open", path, access | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|e| IoError::new("stat", self.path.join(path.as_str()), e))?;
        if metadata.is_file() { Ok(file) } else { Err(IoError::not_regular(self.path.join(path.as_str()))) }
    }

    /// Creates a file that is not there yet, for reading and writing; permissions are 0666 less the umask.
    ///
    /// # Errors
    /// [`IoError`], with `is_already_there` when anything has that name.
    pub fn create_file(&self, path: &RelPath) -> Result<File, IoError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        self.open_fd("create", path, flags, Mode::from_raw_mode(0o666)).map(File::from)
    }

    fn open_fd(
        &self,
        action: &'static str,
        path: &RelPath,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, IoError> {
        open_beneath(self.fd(), path, flags, mode).map_err(|e| self.error(action, path, e))
    }

    /// Returns what lies at `path`, or `None`; of a symbolic link in the last place, what the link itself is.
    ///
    /// # Errors
    /// [`IoError`] when a part on the way is a symbolic link or a file, or the system refuses.
    pub fn stat(&self, path: &RelPath) -> Result<Option<FileStat>, IoError> {
        let parent = match self.parent_fd("stat", path) {
            Err(error) if error.is_not_found() => return Ok(None),
            parent => parent?,
        };
        match statat(parent.fd(self), path.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileStat::from(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("stat", path, errno)),
        }
    }

    /// As [`Dir::stat`], and asks the server where the system would answer from what it remembers: network file systems keep
    /// sizes and times for a while, NFS for a minute.
    ///
    /// # Errors
    /// [`IoError`] when the system refuses.
    pub fn stat_at_server(&self, path: &RelPath) -> Result<Option<FileStat>, IoError> {
        let parent = match self.parent_fd("stat", path) {
            Err(error) if error.is_not_found() => return Ok(None),
            parent => parent?,
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
        match statx(parent.fd(self), path.file_name(), flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => Ok(Some(FileStat::from(&stat))),
            Err(Errno::NOENT) => Ok(None),
            // Kernels before 4.11 cannot be told; some containers forbid the call.
            Err(Errno::NOSYS | Errno::PERM) => self.stat(path),
            Err(errno) => Err(self.error("stat", path, errno)),
        }
    }

    /// Returns when a file was last read, written or put there, whichever was last, in milliseconds since 1970; `None` when it
    /// is gone. Volumes that are mounted without times of access do not know when it was read.
    ///
    /// # Errors
    /// [`IoError`] when the system refuses.
    #[expect(clippy::useless_conversion, reason = "the widths differ between architectures")]
    pub fn last_used_ms(&self, path: &RelPath) -> Result<Option<u64>, IoError> {
        let parent = match self.parent_fd("stat", path) {
            Err(error) if error.is_not_found() => return Ok(None),
            parent => parent?,
        };
        let stat = match statat(parent.fd(self), path.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            stat => stat.map_err(|errno| self.error("stat", path, errno))?,
        };
        let times = [
            (stat.st_atime, stat.st_atime_nsec),
            (stat.st_mtime, stat.st_mtime_nsec),
            (stat.st_ctime, stat.st_ctime_nsec),
        ];
        let ms = |(seconds, nanoseconds)| {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            seconds.saturating_mul(1000) + u64::try_from(nanoseconds).unwrap_or(0) / 1_000_000
        };
        Ok(times.into_iter().map(ms).max())
    }

    /// As [`Dir::open_file`]; that it is read leaves no trace in the time of access, where the system allows that.
    ///
    /// # Errors
    /// [`IoError`], with `is_symlink` or `is_not_regular` for what is not a file of its own.
    pub fn open_unnoticed(&self, path: &RelPath) -> Result<File, IoError> {
        match self.open_regular(path, OFlags::RDONLY | OFlags::NOATIME) {
            // Only the owner may.
            Err(error) if error.is_not_allowed() => self.open_file(path),
            opened => opened,
        }
    }

    /// Lists this directory, or one beneath it, in the order of the names' bytes, without `.` and `..`.
    ///
    /// # Errors
    /// [`IoError`] when it cannot be read.
    pub fn list(&self, path: Option<&RelPath>) -> Result<Vec<DirEntry>, IoError> {
        let dir = match path {
            Some(path) => self.open_dir(path)?,
            None => self.clone(),
        };
        let mut entries = dir.read().map_err(|e| IoError::new("list", &dir.path, e))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn read(&self) -> rustix::io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.fd())? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match statat(self.fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno),
                },
                kind => kind,
            };
            entries.push(DirEntry { name: OsString::from_vec(name.to_bytes().to_vec()), kind: kind.into() });
        }
        Ok(entries)
    }

    /// Opens the directory that `path` lies in, only to go through it.
    pub(super) fn parent_fd(&self, action: &'static str, path: &RelPath) -> Result<Parent, IoError> {
        match path.parent() {
            None => Ok(Parent(None)),
            Some(parent) => {
                let through = OFlags::PATH | OFlags::DIRECTORY;
                let fd = open_beneath(self.fd(), &parent, through, Mode::empty());
                fd.map(|fd| Parent(Some(fd))).map_err(|e| self.error(action, path, e))
            }
        }
    }
}

/// The directory of a path's last part: one beneath, or the directory itself.
pub(super) struct Parent(Option<OwnedFd>);

impl Parent {
    pub(super) fn fd<'a>(&'a self, dir: &'a Dir) -> BorrowedFd<'a> {
        self.0.as_ref().map_or(dir.fd(), OwnedFd::as_fd)
    }
}

/// Makes a path of a text that this crate knows to be one.
pub(crate) fn path_of(text: &str) -> RelPath {
    #[expect(clippy::expect_used, reason = "only called with constants and hex digits")]
    text.parse().expect("a fixed name is a path")
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _, os::unix::fs::symlink};

    use rustix::fs::{FileType, mknodat};

    use super::*;

    #[test]
    fn stat_tells_kinds_apart_and_does_not_follow() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        drop(dir.create_file(&path_of("file")).unwrap());
        fs::create_dir(temp.path().join("sub")).unwrap();
        symlink("file", temp.path().join("link")).unwrap();
        let kind = |name| dir.stat(&path_of(name)).unwrap().map(|stat| stat.kind);
        assert_eq!(kind("file"), Some(FileKind::File));
        assert_eq!(kind("sub"), Some(FileKind::Dir));
        assert_eq!(kind("link"), Some(FileKind::Symlink));
        assert_eq!((kind("none"), kind("sub/none"), kind("none/none")), (None, None, None));
        let names: Vec<_> = dir.list(None).unwrap().iter().map(|e| e.display_name().into_owned()).collect();
        assert_eq!(names, ["file", "link", "sub"]);
        assert_eq!(
            dir.stat(&path_of("file")).unwrap().unwrap(),
            FileStat::from(&temp.path().join("file").metadata().unwrap()),
            "both ways of asking agree"
        );
    }

    #[test]
    fn a_pipe_or_directory_is_not_a_file_and_nothing_waits_for_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        mknodat(dir.fd(), "pipe", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::create_dir(temp.path().join("sub")).unwrap();
        for name in ["pipe", "sub"] {
            assert!(dir.open_file(&path_of(name)).unwrap_err().is_not_regular(), "{name}");
            assert!(dir.open_rw(&path_of(name)).unwrap_err().is_not_regular(), "{name}");
        }
    }

    #[test]
    fn creating_what_exists_is_refused_and_leaves_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.write_atomic(&path_of("file"), b"old", super::super::WriteMode::CreateNew).unwrap();
        assert!(dir.create_file(&path_of("file")).unwrap_err().is_already_there());
        let mut text = String::new();
        dir.open_file(&path_of("file")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "old");
    }

    #[test]
    fn a_name_that_is_not_utf8_is_listed_and_is_no_path() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join(OsString::from_vec(vec![b'a', 0xff]))).unwrap();
        let entries = Dir::open(temp.path()).unwrap().list(None).unwrap();
        assert_eq!(entries[0].rel_path().unwrap_err().rule, PathRule::NotUtf8);
    }
}
