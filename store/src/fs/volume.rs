//! The volume that a directory lies on: its kind, its room, and making all of it durable.

use std::{
    fs::{self, File},
    ops::Range,
    sync::OnceLock,
};

use rustix::{
    fs::{FallocateFlags, fallocate, fstatfs, fstatvfs, syncfs},
    io::Errno,
};

use super::{Dir, IoError};

/// Where a volume lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    /// On this machine, as far as the system says.
    Local,
    /// Behind a network or a user-space server: no catalog and no feeds there, and no notice of others' changes.
    Network(&'static str),
}

/// `f_type` of the systems that are not local, from the kernel's `magic.h` and the file systems' own sources.
const NETWORK_KINDS: [(u32, &str); 12] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x7375_7245, "Coda"),
];

impl Dir {
    /// Returns whether the volume is local.
    ///
    /// # Errors
    /// [`IoError`] when the system does not say.
    pub fn kind(&self) -> Result<FsKind, IoError> {
        let stat = fstatfs(self.fd()).map_err(|e| IoError::new("identify the volume of", self.path(), e))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a magic number of 32 bits in a field whose width depends on the architecture"
        )]
        let magic = stat.f_type as u32;
        let known = NETWORK_KINDS.iter().find(|(number, _)| *number == magic);
        Ok(known.map_or(FsKind::Local, |(_, name)| FsKind::Network(name)))
    }

    /// Returns how many bytes this user may still write on the volume.
    ///
    /// # Errors
    /// [`IoError`] when the system does not say.
    pub fn free_bytes(&self) -> Result<u64, IoError> {
        let stat = fstatvfs(self.fd()).map_err(|e| IoError::new("measure the volume of", self.path(), e))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Returns how large the volume is.
    ///
    /// # Errors
    /// [`IoError`] when the system does not say.
    pub fn volume_bytes(&self) -> Result<u64, IoError> {
        let stat = fstatvfs(self.fd()).map_err(|e| IoError::new("measure the volume of", self.path(), e))?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    /// Makes everything written to the volume so far durable, by whomever; cheaper than an fsync for each of many files.
    ///
    /// # Errors
    /// [`IoError`]; everything that was not durable before must be taken as lost.
    pub fn sync_filesystem(&self) -> Result<(), IoError> {
        syncfs(self.fd()).map_err(|e| IoError::new("sync the volume of", self.path(), e))
    }

    /// Says whether a success of [`Dir::sync_filesystem`] can be believed: kernels before 5.8 keep write errors to
    /// themselves there, and FUSE and network systems do not pass the call on.
    pub(crate) fn reports_sync_errors(&self) -> bool {
        static KERNEL: OnceLock<bool> = OnceLock::new();
        let kernel = KERNEL.get_or_init(|| {
            fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| is_at_least_5_8(&release))
        });
        *kernel && matches!(self.kind(), Ok(FsKind::Local))
    }
}

fn is_at_least_5_8(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (5, 8)
}

/// Gives a new file its full length and, where the volume can, its room, so that a full volume shows before any work.
pub(crate) fn preallocate(file: &File, size: u64) -> rustix::io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => rustix::fs::ftruncate(file, size),
        answer => answer,
    }
}

/// Gives back the room of a part of a file, which reads as zeros then; its length stays.
pub(crate) fn punch_hole(file: &File, bytes: Range<u64>) -> rustix::io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, bytes.start, bytes.end.saturating_sub(bytes.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_a_kind_and_room_and_syncs() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        assert_eq!(dir.kind().unwrap(), FsKind::Local);
        assert!(dir.free_bytes().unwrap() > 0);
        dir.sync_filesystem().unwrap();
    }

    #[test]
    fn only_kernels_from_5_8_are_believed() {
        for (release, believed) in [
            ("5.8.0-1", true),
            ("6.18.44\n", true),
            ("5.7.19", false),
            ("4.18.0-553.el8", false),
            ("", false),
        ] {
            assert_eq!(is_at_least_5_8(release), believed, "{release}");
        }
    }

    #[test]
    fn preallocation_gives_the_length_and_an_absurd_one_fails() {
        let file = tempfile::tempfile().unwrap();
        preallocate(&file, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        let error = preallocate(&file, 1 << 60).unwrap_err();
        assert!(matches!(error, Errno::NOSPC | Errno::FBIG), "{error}");
    }
}
