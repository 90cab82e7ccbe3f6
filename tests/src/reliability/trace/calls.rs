//! Which system calls are steps, and what they are about.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::{Path, PathBuf},
};

use nix::libc;
use serde::{Deserialize, Serialize};

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Makes a file or directory, or a link.
    Create,
    /// Writes into a file, or gives it room.
    Write,
    /// Cuts a file to a length.
    Truncate,
    /// Makes something durable.
    Sync,
    /// Renames.
    Rename,
    /// Removes.
    Remove,
    /// Sets times or modes.
    Attribute,
    /// Reads from a file or lists a directory.
    Read,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Write,
        Self::Truncate,
        Self::Sync,
        Self::Rename,
        Self::Remove,
        Self::Attribute,
        Self::Read,
    ];
}

/// Where a call says which file it is about; the numbers are those of its arguments.
#[derive(Debug, Clone, Copy)]
enum About {
    Fd(usize),
    Path(usize),
    At(usize, usize),
    /// As `At`, if the flags in this argument make a file.
    Open(usize, usize, usize),
    /// As `Open`, with the flags at the beginning of what the argument points to.
    Open2(usize, usize, usize),
    /// A descriptor, if argument 1 asks to share another file's blocks.
    Clone(usize),
}

/// `FICLONE` of `linux/fs.h`.
const FICLONE: u64 = 0x4004_9409;

const CHANGES: &[(libc::c_long, Kind, About)] = &[
    (libc::SYS_open, Kind::Create, About::Open(libc::AT_FDCWD as usize, 0, 1)),
    (libc::SYS_openat, Kind::Create, About::Open(0, 1, 2)),
    (libc::SYS_openat2, Kind::Create, About::Open2(0, 1, 2)),
    (libc::SYS_mkdir, Kind::Create, About::Path(0)),
    (libc::SYS_mkdirat, Kind::Create, About::At(0, 1)),
    (libc::SYS_link, Kind::Create, About::Path(1)),
    (libc::SYS_linkat, Kind::Create, About::At(2, 3)),
    (libc::SYS_symlinkat, Kind::Create, About::At(1, 2)),
    (libc::SYS_write, Kind::Write, About::Fd(0)),
    (libc::SYS_pwrite64, Kind::Write, About::Fd(0)),
    (libc::SYS_writev, Kind::Write, About::Fd(0)),
    (libc::SYS_pwritev, Kind::Write, About::Fd(0)),
    (libc::SYS_pwritev2, Kind::Write, About::Fd(0)),
    (libc::SYS_copy_file_range, Kind::Write, About::Fd(2)),
    (libc::SYS_fallocate, Kind::Write, About::Fd(0)),
    (libc::SYS_ioctl, Kind::Write, About::Clone(0)),
    (libc::SYS_ftruncate, Kind::Truncate, About::Fd(0)),
    (libc::SYS_fsync, Kind::Sync, About::Fd(0)),
    (libc::SYS_fdatasync, Kind::Sync, About::Fd(0)),
    (libc::SYS_sync_file_range, Kind::Sync, About::Fd(0)),
    (libc::SYS_syncfs, Kind::Sync, About::Fd(0)),
    (libc::SYS_rename, Kind::Rename, About::Path(1)),
    (libc::SYS_renameat, Kind::Rename, About::At(2, 3)),
    (libc::SYS_renameat2, Kind::Rename, About::At(2, 3)),
    (libc::SYS_unlink, Kind::Remove, About::Path(0)),
    (libc::SYS_rmdir, Kind::Remove, About::Path(0)),
    (libc::SYS_unlinkat, Kind::Remove, About::At(0, 1)),
    (libc::SYS_utimensat, Kind::Attribute, About::At(0, 1)),
    (libc::SYS_fchmod, Kind::Attribute, About::Fd(0)),
    (libc::SYS_fchmodat, Kind::Attribute, About::At(0, 1)),
];

const READS: &[(libc::c_long, Kind, About)] = &[
    (libc::SYS_read, Kind::Read, About::Fd(0)),
    (libc::SYS_pread64, Kind::Read, About::Fd(0)),
    (libc::SYS_readv, Kind::Read, About::Fd(0)),
    (libc::SYS_preadv, Kind::Read, About::Fd(0)),
    (libc::SYS_getdents64, Kind::Read, About::Fd(0)),
];

/// The numbers of the calls at which the daemon is stopped.
pub(super) fn stopped_at(reads: bool) -> Vec<i64> {
    let reads: &[_] = if reads { READS } else { &[] };
    CHANGES.iter().chain(reads).map(|(number, ..)| *number).collect()
}

/// A call at which a thread stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) thread: i32,
    pub(super) number: u64,
    pub(super) arguments: [u64; 6],
}

impl Call {
    /// Returns what it does to which file; nothing when it changes no file, or none that has a path.
    pub(super) fn step(&self) -> Option<(Kind, PathBuf)> {
        let found =
            CHANGES.iter().chain(READS).find(|(number, ..)| u64::try_from(*number) == Ok(self.number));
        let (_, kind, about) = *found?;
        let path = match about {
            About::Fd(fd) => self.descriptor(self.arguments[fd]),
            About::Path(path) => self.path(None, path),
            About::At(dir, path) => self.path(Some(dir), path),
            About::Open(dir, path, flags) => {
                let dir = (dir < self.arguments.len()).then_some(dir);
                makes(self.arguments[flags]).then(|| self.path(dir, path)).flatten()
            }
            About::Open2(dir, path, how) => {
                let flags = self.word(self.arguments[how]).ok()?;
                makes(flags).then(|| self.path(Some(dir), path)).flatten()
            }
            About::Clone(fd) => {
                (self.arguments[1] == FICLONE).then(|| self.descriptor(self.arguments[fd])).flatten()
            }
        };
        Some((kind, path?))
    }

    /// Returns the file behind a descriptor, if it is a file that has a path.
    fn descriptor(&self, fd: u64) -> Option<PathBuf> {
        // Only the lower half of the register counts.
        let fd = fd as i32;
        let link = match fd {
            libc::AT_FDCWD => format!("/proc/{}/cwd", self.thread),
            _ => format!("/proc/{}/fd/{fd}", self.thread),
        };
        fs::read_link(link).ok().filter(|path| path.is_absolute())
    }

    fn path(&self, dir: Option<usize>, path: usize) -> Option<PathBuf> {
        let address = self.arguments[path];
        let dir = || match dir {
            Some(dir) => self.descriptor(self.arguments[dir]),
            None => self.descriptor(libc::AT_FDCWD as u64),
        };
        // utimensat without a path is about the descriptor.
        if address == 0 {
            return dir();
        }
        let text = self.text(address).ok()?;
        let path = Path::new(&text);
        if path.is_absolute() { Some(path.to_owned()) } else { Some(dir()?.join(path)) }
    }

    fn memory(&self) -> io::Result<File> {
        File::open(format!("/proc/{}/mem", self.thread))
    }

    fn word(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.memory()?.read_exact_at(&mut bytes, address)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Reads a text up to its zero byte.
    fn text(&self, address: u64) -> io::Result<OsString> {
        let (memory, mut text, mut piece) = (self.memory()?, Vec::new(), [0; 256]);
        loop {
            // The page behind the text may not be there, so it is read up to the end of its page.
            let at = address + text.len() as u64;
            let length = piece.len().min(4096 - (at % 4096) as usize);
            let read = memory.read_at(&mut piece[..length], at)?;
            let end = piece[..read].iter().position(|byte| *byte == 0);
            text.extend_from_slice(&piece[..end.unwrap_or(read)]);
            if end.is_some() || read == 0 || text.len() > libc::PATH_MAX as usize {
                return Ok(OsStr::from_bytes(&text).to_owned());
            }
        }
    }
}

fn makes(flags: u64) -> bool {
    let flags = flags as i32;
    flags & (libc::O_CREAT | libc::O_TRUNC) != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE
}
