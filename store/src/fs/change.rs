//! Changing a directory: creating, renaming, removing, times and permissions.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::{ffi::OsStrExt as _, fs::PermissionsExt},
    },
    path::Path,
};

use avalon_protocol::rel_path::RelPath;
use rustix::{
    fs::{
        Access, AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, Timespec, Timestamps, UTIME_OMIT,
        accessat, linkat, mkdirat, openat, renameat, renameat_with, statat, unlinkat, utimensat,
    },
    io::Errno,
};

use super::{Dir, IoError, durable::Durably};

/// What a rename does when the new name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// It fails, and both stay as they are.
    Refuse,
    /// It takes the place of what was there, at once.
    Replace,
}

impl Dir {
    /// Creates the directory `path` and those above it where they are missing, and opens it. Each creation is durable
    /// when this returns.
    ///
    /// # Errors
    /// [`IoError`], with `is_symlink` when a link stands in the way.
    pub fn create_dirs(&self, path: &RelPath) -> Result<Self, IoError> {
        self.make_dirs(path, Durably::Yes)
    }

    /// As [`Dir::create_dirs`], for a tree that is synced as a whole later.
    pub(crate) fn create_dirs_unsynced(&self, path: &RelPath) -> Result<Self, IoError> {
        self.make_dirs(path, Durably::Later)
    }

    fn make_dirs(&self, path: &RelPath, durably: Durably) -> Result<Self, IoError> {
        match self.open_dir(path) {
            Err(error) if error.is_not_found() => {}
            answer => return answer,
        }
        let above = match path.parent() {
            Some(parent) => self.make_dirs(&parent, durably)?,
            None => self.clone(),
        };
        match mkdirat(above.fd(), path.file_name(), Mode::from_raw_mode(0o777)) {
            Ok(()) if durably == Durably::Yes => above.sync()?,
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.error("create directory", path, errno)),
        }
        self.open_dir(path)
    }

    /// Renames `from` to `to` in `to_dir`, on the same volume. Durable only after [`Dir::sync`] of both directories.
    ///
    /// # Errors
    /// [`IoError`], with `is_already_there` when the name is taken and must not be.
    pub fn rename(
        &self,
        from: &RelPath,
        to_dir: &Self,
        to: &RelPath,
        overwrite: Overwrite,
    ) -> Result<(), IoError> {
        let source = self.parent_fd("rename", from)?;
        let target = to_dir.parent_fd("rename to", to)?;
        let from_at = (source.fd(self), from.file_name());
        let to_at = (target.fd(to_dir), to.file_name());
        let renamed = match overwrite {
            Overwrite::Replace => renameat(from_at.0, from_at.1, to_at.0, to_at.1),
            Overwrite::Refuse => rename_no_replace(from_at, to_at),
        };
        renamed.map_err(|e| match e {
            Errno::NOENT => self.error("rename", from, e),
            _ => to_dir.error("rename to", to, e),
        })
    }

    /// Gives the file `from` a second name in `to_dir`, which must be free.
    pub(crate) fn link(&self, from: &RelPath, to_dir: &Self, to: &RelPath) -> Result<(), IoError> {
        let source = self.parent_fd("link", from)?;
        let target = to_dir.parent_fd("link to", to)?;
        let (from_fd, to_fd) = (source.fd(self), target.fd(to_dir));
        linkat(from_fd, from.file_name(), to_fd, to.file_name(), AtFlags::empty())
            .map_err(|e| to_dir.error("link to", to, e))
    }

    /// Removes a file or a symbolic link, never what it points to.
    ///
    /// # Errors
    /// [`IoError`] when there is none.
    pub fn remove_file(&self, path: &RelPath) -> Result<(), IoError> {
        let parent = self.parent_fd("remove", path)?;
        unlinkat(parent.fd(self), path.file_name(), AtFlags::empty())
            .map_err(|e| self.error("remove", path, e))
    }

    /// Removes a directory that has nothing in it; one that has something, or is none, stays.
    ///
    /// # Errors
    /// [`IoError`] when the system refuses for another reason.
    pub fn remove_empty_dir(&self, path: &RelPath) -> Result<(), IoError> {
        let parent = match self.parent_fd("remove", path) {
            Err(error) if error.is_not_found() => return Ok(()),
            parent => parent?,
        };
        match unlinkat(parent.fd(self), path.file_name(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(self.error("remove", path, errno)),
        }
    }

    /// Makes sure that this user may create, rename and remove names in the directory `path`.
    ///
    /// # Errors
    /// [`IoError`] when not.
    pub fn check_writable(&self, path: &RelPath) -> Result<(), IoError> {
        let dir = self.open_dir(path)?;
        accessat(dir.fd(), ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|e| self.error("change", path, e))
    }

    /// Removes whatever lies at `path` with everything in it; links are removed, not followed. Nothing there is fine.
    ///
    /// # Errors
    /// [`IoError`] at the first name that cannot be removed; what was removed before stays removed.
    pub fn remove_tree(&self, path: &RelPath) -> Result<(), IoError> {
        let parent = match self.parent_fd("remove", path) {
            Err(error) if error.is_not_found() => return Ok(()),
            parent => parent?,
        };
        remove_at(parent.fd(self), OsStr::new(path.file_name()), &self.path().join(path.as_str()))
    }

    /// Sets when the content of a file was last modified, in nanoseconds since 1970.
    ///
    /// # Errors
    /// [`IoError`] when there is no such file or it belongs to somebody else.
    pub fn set_mtime(&self, path: &RelPath, mtime_ns: i64) -> Result<(), IoError> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec {
                tv_sec: mtime_ns.div_euclid(1_000_000_000),
                tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
            },
        };
        let parent = self.parent_fd("set the time of", path)?;
        utimensat(parent.fd(self), path.file_name(), &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.error("set the time of", path, e))
    }

    /// Takes the permission to write a file away from everybody.
    ///
    /// # Errors
    /// [`IoError`] when there is no such file or it belongs to somebody else.
    pub fn set_read_only(&self, path: &RelPath) -> Result<(), IoError> {
        let file = self.open_file(path)?;
        let set = || {
            let mode = file.metadata()?.permissions().mode();
            file.set_permissions(PermissionsExt::from_mode(mode & !0o222))
        };
        set().map_err(|e| IoError::new("make read-only", self.path().join(path.as_str()), e))
    }
}

type At<'a> = (BorrowedFd<'a>, &'a str);

/// NFS, SMB and some FUSE systems do not know the flag: there a hard link gives the same promise for files; for
/// directories, a look before: a rename never replaces a directory that has something in it.
fn rename_no_replace(from: At<'_>, to: At<'_>) -> rustix::io::Result<()> {
    match renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_by_link(from, to),
        answer => answer,
    }
}

fn rename_by_link(from: At<'_>, to: At<'_>) -> rustix::io::Result<()> {
    let stat = statat(from.0, from.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        match linkat(from.0, from.1, to.0, to.1, AtFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            linked => return linked.and_then(|()| unlinkat(from.0, from.1, AtFlags::empty())),
        }
    }
    match statat(to.0, to.1, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => renameat(from.0, from.1, to.0, to.1),
        Err(errno) => Err(errno),
        Ok(_) => Err(Errno::EXIST),
    }
}

fn remove_at(dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), IoError> {
    let failed = |errno: Errno| IoError::new("remove", path, errno);
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(failed(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = openat(dir, name, flags, Mode::empty()).map_err(failed)?;
    let mut buffer = Vec::with_capacity(8192);
    // Names are taken in batches and removed before the next is read: some systems skip entries otherwise.
    loop {
        let mut names = Vec::new();
        rustix::fs::seek(&inner, rustix::fs::SeekFrom::Start(0)).map_err(failed)?;
        let mut entries = RawDir::new(&inner, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
            }
        }
        if names.is_empty() {
            break;
        }
        for name in names {
            remove_at(inner.as_fd(), &name, &path.join(&name))?;
        }
    }
    unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::fs::path_of;

    fn place() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        (temp, dir)
    }

    fn write(dir: &Dir, name: &str, text: &str) {
        dir.write_atomic(&path_of(name), text.as_bytes(), crate::fs::WriteMode::CreateNew).unwrap();
    }

    #[test]
    fn create_dirs_makes_what_is_missing_and_opens_what_is_there() {
        let (temp, dir) = place();
        dir.create_dirs(&path_of("a/b/c")).unwrap();
        dir.create_dirs(&path_of("a/b")).unwrap();
        assert!(temp.path().join("a/b/c").is_dir());
    }

    #[test]
    fn nothing_is_made_renamed_or_removed_through_a_symlink() {
        let (outside, _) = place();
        fs::create_dir(outside.path().join("sub")).unwrap();
        fs::File::create(outside.path().join("canary")).unwrap();
        let (temp, dir) = place();
        symlink(outside.path(), temp.path().join("link")).unwrap();
        write(&dir, "file", "x");
        assert!(dir.create_dirs(&path_of("link/new")).unwrap_err().is_symlink());
        let to = path_of("link/file");
        for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
            assert!(dir.rename(&path_of("file"), &dir, &to, overwrite).unwrap_err().is_symlink());
        }
        assert!(dir.remove_file(&path_of("link/canary")).unwrap_err().is_symlink());
        assert!(dir.remove_tree(&path_of("link/sub")).unwrap_err().is_symlink());
        dir.remove_tree(&path_of("link")).unwrap();
        assert!(!temp.path().join("link").exists(), "the link itself goes");
        let mut left: Vec<_> =
            fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["canary", "sub"]);
    }

    #[test]
    fn rename_refuses_or_replaces_as_told() {
        let (temp, dir) = place();
        write(&dir, "one", "1");
        write(&dir, "two", "2");
        let (one, two) = (path_of("one"), path_of("two"));
        assert!(dir.rename(&one, &dir, &two, Overwrite::Refuse).unwrap_err().is_already_there());
        assert_eq!(fs::read_to_string(temp.path().join("two")).unwrap(), "2");
        dir.rename(&one, &dir, &two, Overwrite::Replace).unwrap();
        assert_eq!(fs::read_to_string(temp.path().join("two")).unwrap(), "1");
        assert!(dir.rename(&one, &dir, &two, Overwrite::Replace).unwrap_err().is_not_found());
    }

    #[test]
    fn rename_without_the_kernels_help_keeps_the_same_promise() {
        let (temp, dir) = place();
        write(&dir, "one", "1");
        write(&dir, "two", "2");
        dir.create_dirs(&path_of("full/x")).unwrap();
        dir.create_dirs(&path_of("tree/y")).unwrap();
        let at = |name| (dir.fd(), name);
        assert_eq!(rename_by_link(at("one"), at("two")), Err(Errno::EXIST));
        assert_eq!(rename_by_link(at("tree"), at("full")), Err(Errno::EXIST));
        rename_by_link(at("one"), at("three")).unwrap();
        rename_by_link(at("tree"), at("moved")).unwrap();
        assert!(temp.path().join("moved/y").is_dir() && !temp.path().join("one").exists());
        assert_eq!(fs::read_to_string(temp.path().join("two")).unwrap(), "2");
    }

    #[test]
    fn remove_tree_removes_many_names_and_is_content_with_nothing() {
        let (temp, dir) = place();
        dir.create_dirs(&path_of("tree/deep/er")).unwrap();
        for index in 0..1000 {
            drop(dir.create_file(&path_of(&format!("tree/deep/a-rather-long-name-{index}"))).unwrap());
        }
        dir.remove_tree(&path_of("tree")).unwrap();
        dir.remove_tree(&path_of("tree")).unwrap();
        dir.remove_tree(&path_of("none/tree")).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn times_are_kept_to_the_nanosecond_also_before_1970() {
        let (_temp, dir) = place();
        write(&dir, "file", "x");
        for mtime_ns in [1_700_000_000_123_456_789, 0, -1] {
            dir.set_mtime(&path_of("file"), mtime_ns).unwrap();
            assert_eq!(dir.stat(&path_of("file")).unwrap().unwrap().mtime_ns, mtime_ns);
        }
        dir.set_read_only(&path_of("file")).unwrap();
        assert!(!dir.stat(&path_of("file")).unwrap().unwrap().is_writable());
    }
}
