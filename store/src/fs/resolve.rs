//! Opening a path strictly beneath a directory handle: no symbolic link, no `..`, no magic link, at any level.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use avalon_protocol::rel_path::RelPath;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat},
    io::{Errno, Result},
};

/// How often an `openat2` is repeated that lost a race with a rename.
const RACE_RETRIES: usize = 16;

/// Set once a kernel (before 5.6) or a container's filter has refused `openat2`.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens `path` beneath `dir`. A symbolic link anywhere gives `ELOOP`; with `CREATE | EXCL` a link in the last place
/// gives `EEXIST`.
pub(super) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &RelPath,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    if !NO_OPENAT2.load(Ordering::Relaxed) {
        match by_openat2(dir, path, flags, mode) {
            Err(Errno::NOSYS | Errno::PERM) => NO_OPENAT2.store(true, Ordering::Relaxed),
            answer => return answer,
        }
    }
    by_walk(dir, path, flags, mode)
}

fn by_openat2(dir: BorrowedFd<'_>, path: &RelPath, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut answer = Err(Errno::AGAIN);
    for _ in 0..RACE_RETRIES {
        answer = openat2(dir, path.as_str(), flags, mode, resolve);
        if !matches!(answer, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    answer
}

fn by_walk(dir: BorrowedFd<'_>, path: &RelPath, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW;
    let Some(parent) = path.parent() else {
        return open_part(dir, path.as_str(), flags, mode);
    };
    let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut below: Option<OwnedFd> = None;
    for part in parent.parts() {
        let above = below.as_ref().map_or(dir, OwnedFd::as_fd);
        below = Some(open_part(above, part, through, Mode::empty())?);
    }
    open_part(below.as_ref().map_or(dir, OwnedFd::as_fd), path.file_name(), flags, mode)
}

fn open_part(dir: BorrowedFd<'_>, part: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    match openat(dir, part, flags, mode) {
        Err(Errno::NOTDIR) if is_symlink(dir, part) => Err(Errno::LOOP),
        answer => answer,
    }
}

fn is_symlink(dir: BorrowedFd<'_>, part: &str) -> bool {
    statat(dir, part, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    type Opener = fn(BorrowedFd<'_>, &RelPath, OFlags, Mode) -> Result<OwnedFd>;

    /// Both ways must give the same guarantee.
    fn check_both(test: impl Fn(Opener)) {
        test(by_openat2);
        test(by_walk);
    }

    fn path(text: &str) -> RelPath {
        text.parse().unwrap()
    }

    #[test]
    fn a_symlink_at_any_level_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(outside.path().join("b")).unwrap();
        fs::File::create(outside.path().join("b/canary")).unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        symlink(outside.path(), root.path().join("first")).unwrap();
        symlink(outside.path().join("b"), root.path().join("a/second")).unwrap();
        symlink(outside.path().join("b/canary"), root.path().join("a/b/last")).unwrap();
        let dir = fs::File::open(root.path()).unwrap();
        check_both(|open| {
            for through in ["first", "first/b/canary", "a/second", "a/second/canary", "a/b/last"] {
                let opened = open(dir.as_fd(), &path(through), OFlags::RDONLY, Mode::empty());
                assert_eq!(opened.unwrap_err(), Errno::LOOP, "{through}");
            }
            let create = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
            let created = open(dir.as_fd(), &path("a/second/new"), create, Mode::RUSR);
            assert_eq!(created.unwrap_err(), Errno::LOOP);
            assert!(open(dir.as_fd(), &path("a/b/last"), create, Mode::RUSR).is_err());
            assert!(!outside.path().join("b/new").exists());
        });
    }

    #[test]
    fn plain_paths_open_and_missing_ones_are_not_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::File::create(root.path().join("a/b/file")).unwrap();
        let dir = fs::File::open(root.path()).unwrap();
        check_both(|open| {
            assert!(open(dir.as_fd(), &path("a/b/file"), OFlags::RDONLY, Mode::empty()).is_ok());
            for (absent, errno) in [("a/x/file", Errno::NOENT), ("a/b/file/x", Errno::NOTDIR)] {
                let opened = open(dir.as_fd(), &path(absent), OFlags::RDONLY, Mode::empty());
                assert_eq!(opened.unwrap_err(), errno, "{absent}");
            }
        });
    }
}
