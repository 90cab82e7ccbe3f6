//! A directory of this machine behind the file system: to be read only.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _},
    },
    path::PathBuf,
};

use super::{IN_HEADER, framed, greeting, statistics};

/// How long the kernel may answer for itself: longer than any test takes.
const REMEMBERED_SECONDS: u64 = 3600;

type Body = io::Result<Vec<u8>>;

/// What the kernel knows by numbers: the first is the directory itself.
pub(super) struct Shown(Vec<PathBuf>);

impl Shown {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(vec![dir])
    }

    /// Returns the answer to a request; some have none.
    pub(super) fn answer(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let opcode = number(request, 4, 4);
        // INIT is about none of them.
        let path = self.0[(number(request, 16, 8) as usize).saturating_sub(1)].clone();
        let asked = &request[IN_HEADER..];
        let body = match opcode {
            // FORGET, INTERRUPT, BATCH_FORGET
            2 | 36 | 42 => return None,
            // LOOKUP
            1 => self.look_up(path.join(name(asked))),
            // GETATTR
            3 => path.symlink_metadata().map(|found| {
                let mut body = REMEMBERED_SECONDS.to_le_bytes().to_vec();
                body.extend([0; 8]);
                body.extend(attributes(&found));
                body
            }),
            // OPEN, OPENDIR: the path is enough to read by.
            14 | 27 => path.symlink_metadata().map(|_| vec![0; 16]),
            // READ
            15 => read(&path, asked),
            // READDIR
            28 => list(&path, asked),
            // STATFS
            17 => Ok(statistics()),
            // RELEASE, FSYNC, FLUSH, RELEASEDIR, FSYNCDIR
            18 | 20 | 25 | 29 | 30 => Ok(Vec::new()),
            // INIT
            26 => Ok(greeting(&asked[8..12])),
            // Nothing else: ENOSYS.
            _ => Err(io::Error::from_raw_os_error(38)),
        };
        Some(match body {
            Ok(body) => framed(request, 0, &body),
            Err(error) => framed(request, -error.raw_os_error().unwrap_or(5), &[]),
        })
    }

    /// `struct fuse_entry_out`
    fn look_up(&mut self, path: PathBuf) -> Body {
        let found = path.symlink_metadata()?;
        let known = self.0.iter().position(|known| *known == path).unwrap_or_else(|| {
            self.0.push(path);
            self.0.len() - 1
        });
        let mut body =
            [known as u64 + 1, 0, REMEMBERED_SECONDS, REMEMBERED_SECONDS].map(u64::to_le_bytes).concat();
        body.extend([0; 8]);
        body.extend(attributes(&found));
        Ok(body)
    }
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A name ends with a zero.
fn name(bytes: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(bytes.split(|byte| *byte == 0).next().unwrap())
}

/// `struct fuse_attr`
fn attributes(found: &Metadata) -> Vec<u8> {
    let mut body = [
        found.ino(),
        found.size(),
        found.blocks(),
        found.atime() as u64,
        found.mtime() as u64,
        found.ctime() as u64,
    ]
    .map(u64::to_le_bytes)
    .concat();
    let words = [
        found.atime_nsec() as u32,
        found.mtime_nsec() as u32,
        found.ctime_nsec() as u32,
        found.mode(),
        found.nlink() as u32,
        found.uid(),
        found.gid(),
        0,
        4096,
        0,
    ];
    body.extend(words.map(u32::to_le_bytes).concat());
    body
}

/// `struct fuse_read_in`: after the handle, where and how much.
fn read(path: &PathBuf, asked: &[u8]) -> Body {
    let mut bytes = vec![0; number(asked, 16, 4) as usize];
    let mut length = 0;
    let file = File::open(path)?;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], number(asked, 8, 8) + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// `struct fuse_dirent`, each with the number of the one after it.
fn list(path: &PathBuf, asked: &[u8]) -> Body {
    let (skip, room) = (number(asked, 8, 8) as usize, number(asked, 16, 4) as usize);
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut body = Vec::new();
    for (index, entry) in entries.iter().enumerate().skip(skip) {
        let (name, kind) = (entry.file_name(), if entry.file_type()?.is_dir() { 4u32 } else { 8 });
        let mut one = [entry.metadata()?.ino(), index as u64 + 1].map(u64::to_le_bytes).concat();
        one.extend([name.len() as u32, kind].map(u32::to_le_bytes).concat());
        one.extend(name.as_bytes());
        one.resize(one.len().next_multiple_of(8), 0);
        if body.len() + one.len() > room {
            break;
        }
        body.extend(one);
    }
    Ok(body)
}
