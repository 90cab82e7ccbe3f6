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

use super::{Dir, IoError, error::SYNC_VOLUME};

/// Where a volume lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    /// On this machine, as far as the system says.
    Local,
    /// Where other machines write as well: no catalog and no feeds there, and no notice of others' changes.
    Network(&'static str),
    /// Behind a program of which the system does not say whether others write there: to be taken for a network.
    Unknown(&'static str),
}

impl FsKind {
    /// Returns what it is called, unless it is local.
    pub fn not_local(self) -> Option<&'static str> {
        match self {
            Self::Local => None,
            Self::Network(kind) | Self::Unknown(kind) => Some(kind),
        }
    }

    fn of_magic(magic: u32) -> Self {
        if magic == FUSE {
            return Self::Unknown("FUSE");
        }
        let known = NETWORK_KINDS.iter().find(|(number, _)| *number == magic);
        known.map_or(Self::Local, |(_, name)| Self::Network(name))
    }
}

/// sshfs and GlusterFS, but also NTFS on a disk of this machine, mergerfs, and what a virtual machine gets from its host.
const FUSE: u32 = 0x6573_5546;

/// `f_type` of the systems that are not local, from the kernel's `magic.h` and the file systems' own sources. Those of clusters
/// lie on disks, but other machines write there too, and their changes are told nobody else.
const NETWORK_KINDS: [(u32, &str); 23] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x7375_7245, "Coda"),
    (0xaad7_aaea, "PanFS"),
    (0xbeef_dead, "StorNext"),
    (0x564c, "NCP"),
    (0x0131_11a8, "IBRIX"),
    (0x6163_6673, "ACFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x786f_4256, "VirtualBox"),
    (0xbacb_acbc, "VMware"),
    (0x7c7c_6673, "Parallels"),
    (0x1803_1977, "WekaFS"),
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
        Ok(FsKind::of_magic(magic))
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
        syncfs(self.fd()).map_err(|e| IoError::new(SYNC_VOLUME, self.path(), e))
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
    fn what_others_write_to_is_told_from_disks_and_user_space_is_not_known() {
        for (magic, kind) in [
            (0x6969, FsKind::Network("NFS")),
            (0x517b, FsKind::Network("SMB")),
            (0xff53_4d42, FsKind::Network("CIFS")),
            (0xfe53_4d42, FsKind::Network("SMB2")),
            (0x0102_1997, FsKind::Network("9P")),
            (0x00c3_6400, FsKind::Network("Ceph")),
            (0x7461_636f, FsKind::Network("OCFS2")),
            (0x6573_5546, FsKind::Unknown("FUSE")),
            // ext4, XFS, btrfs, tmpfs, overlayfs, ZFS
            (0xef53, FsKind::Local),
            (0x5846_5342, FsKind::Local),
            (0x9123_683e, FsKind::Local),
            (0x0102_1994, FsKind::Local),
            (0x794c_7630, FsKind::Local),
            (0x2fc1_2fc1, FsKind::Local),
        ] {
            assert_eq!(FsKind::of_magic(magic), kind, "{magic:#x}");
        }
        let mut numbers: Vec<u32> = NETWORK_KINDS.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), NETWORK_KINDS.len(), "no number stands twice");
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
