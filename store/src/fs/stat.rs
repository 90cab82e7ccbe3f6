//! What the file system says about a file, and what of it identifies unchanged content.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _};

use rustix::fs::{FileType, Stat, Statx, makedev};

/// What a name in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, never followed.
    Symlink,
    /// A pipe, socket or device.
    Other,
}

/// What the file system says about one file; of a symbolic link, about the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since 1970; programs can set it.
    pub mtime_ns: i64,
    /// Last change of content or attributes, in nanoseconds since 1970; programs cannot set it.
    pub ctime_ns: i64,
    /// The inode number.
    pub inode: u64,
    /// The device that it lies on.
    pub device: u64,
    /// What it is.
    pub kind: FileKind,
    /// How many names it has.
    pub links: u64,
    /// Its permission bits.
    pub mode: u32,
}

/// The part of a [`FileStat`] that the catalog keeps: while it is the same, the content is taken to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Length in bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of content or attributes, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// The inode number.
    pub inode: u64,
}

impl FileStat {
    /// Returns what identifies its content.
    pub fn identity(&self) -> FileIdentity {
        FileIdentity { size: self.size, mtime_ns: self.mtime_ns, ctime_ns: self.ctime_ns, inode: self.inode }
    }

    /// Says whether its owner may write it.
    pub fn is_writable(&self) -> bool {
        self.mode & 0o200 != 0
    }
}

impl From<&Metadata> for FileStat {
    fn from(metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        Self {
            size: metadata.len(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
            kind: match () {
                () if kind.is_file() => FileKind::File,
                () if kind.is_dir() => FileKind::Dir,
                () if kind.is_symlink() => FileKind::Symlink,
                () => FileKind::Other,
            },
            links: metadata.nlink(),
            mode: metadata.mode() & 0o7777,
        }
    }
}

impl From<&Stat> for FileStat {
    #[expect(clippy::useless_conversion, reason = "the widths differ between architectures")]
    fn from(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanoseconds(stat.st_mtime.into(), i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            ctime_ns: nanoseconds(stat.st_ctime.into(), i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
            inode: stat.st_ino.into(),
            device: stat.st_dev.into(),
            kind: FileType::from_raw_mode(stat.st_mode).into(),
            links: stat.st_nlink.into(),
            mode: stat.st_mode & 0o7777,
        }
    }
}

impl From<&Statx> for FileStat {
    fn from(stat: &Statx) -> Self {
        Self {
            size: stat.stx_size,
            mtime_ns: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec.into()),
            ctime_ns: nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec.into()),
            inode: stat.stx_ino,
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            kind: FileType::from_raw_mode(stat.stx_mode.into()).into(),
            links: stat.stx_nlink.into(),
            mode: u32::from(stat.stx_mode) & 0o7777,
        }
    }
}

impl From<FileType> for FileKind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// Times that do not fit (the years before 1678 and after 2262) become the nearest that does.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
