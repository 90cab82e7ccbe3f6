//! Copying files with proof: what was written is named by what was read, on disk before it counts.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use avalon_protocol::{
    control::{ApiError, ErrorCode},
    hash::ObjectHash,
};
use md5::{Digest as _, Md5};
use ring::digest::{Context as Sha, SHA256};
use rustix::fs::OFlags;

/// What is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// The names of a content, each as plain tools print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) bytes: u64,
    pub(crate) blake3: ObjectHash,
    pub(crate) sha256: String,
    pub(crate) md5: String,
}

/// Copies a regular file, with its time of modification; it is on disk when this returns. Blocks are shared where the file
/// system can do that. `to` must not exist, and its directory must.
///
/// The sums are those of what was written. A file that changes meanwhile is an error.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<Sums> {
    let mut source = open(from)?;
    let before = source.metadata()?;
    let mut copy = OpenOptions::new().read(true).write(true).create_new(true).open(to)?;
    let sums = match rustix::fs::ioctl_ficlone(&copy, &source) {
        Ok(()) => sums_of(&mut copy, None)?,
        Err(_) => sums_of(&mut source, Some(&mut copy))?,
    };
    let after = source.metadata()?;
    let state = |stat: &fs::Metadata| (stat.len(), stat.mtime(), stat.mtime_nsec());
    if state(&before) != state(&after) || sums.bytes != before.len() {
        return Err(io::Error::other("it changed while it was copied"));
    }
    copy.set_modified(before.modified()?)?;
    copy.sync_all()?;
    Ok(sums)
}

/// Names the content of a file.
pub(crate) fn read(path: &Path) -> io::Result<Sums> {
    sums_of(&mut open(path)?, None)
}

/// Opens a regular file; a link is not followed.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

fn sums_of(from: &mut File, mut to: Option<&mut File>) -> io::Result<Sums> {
    let (mut blake3, mut sha256, mut md5) = (blake3::Hasher::new(), Sha::new(&SHA256), Md5::new());
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let length = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let part = piece.get(..length).unwrap_or_default();
        blake3.update(part);
        sha256.update(part);
        md5.update(part);
        if let Some(to) = to.as_deref_mut() {
            to.write_all(part)?;
        }
        bytes += length as u64;
    }
    Ok(Sums {
        bytes,
        blake3: ObjectHash::from_bytes(*blake3.finalize().as_bytes()),
        sha256: hex::encode(sha256.finish()),
        md5: hex::encode(md5.finalize()),
    })
}

/// Writes a new small file; it is on disk when this returns.
pub(crate) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Makes the names in a directory, and in those beneath it, durable.
pub(crate) fn sync_dirs(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Gives a directory its name; nothing that has the name already is replaced.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems cannot do that. There a directory with something in it is still not replaced.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)?;
        }
        renamed => renamed?,
    }
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Says what could not be done with a file, with the code of a full disk where that is it.
pub(crate) fn failed(action: &str, path: &Path, error: &io::Error) -> ApiError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        io::ErrorKind::PermissionDenied => ErrorCode::Denied,
        _ => ErrorCode::BadPath,
    };
    let hint = match code {
        ErrorCode::DiskFull => "make room, and run it again",
        ErrorCode::Denied => "you may not do that there: ask for the right, or choose another place",
        _ => "see that it is there and does not change, and run it again",
    };
    ApiError::new(code, format!("cannot {action} {}: {error}", path.display())).with_hint(hint)
}

/// Returns the path beside another whose name has something more at its end.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files are made as anybody makes them")]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_content_time_and_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&from, b"abc").unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_891_234);
        File::options().write(true).open(&from).unwrap().set_modified(old).unwrap();
        let sums = copy(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"abc");
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), old);
        assert_eq!((sums.bytes, sums.md5.as_str()), (3, "900150983cd24fb0d6963f7d28e17f72"));
        assert_eq!(sums.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sums.blake3, ObjectHash::of(b"abc"));
        assert_eq!(read(&to).unwrap(), sums);
        assert!(copy(&from, &to).is_err(), "nothing is replaced");
        std::os::unix::fs::symlink(&from, dir.path().join("link")).unwrap();
        assert!(copy(&dir.path().join("link"), &dir.path().join("c")).is_err(), "a link is not followed");
        assert!(copy(dir.path(), &dir.path().join("c")).is_err());
    }
}
