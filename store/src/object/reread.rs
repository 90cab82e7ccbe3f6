//! Reading a file of the artists' tree again, piece by piece, to see whether it still holds what it did.

use std::{
    fs::File,
    io::{self, Read as _},
};

use avalon_protocol::{hash::ObjectHash, rel_path::RelPath};
use rustix::{
    fs::{Advice, fadvise},
    io::Errno,
};
use thiserror::Error;

use crate::fs::{Dir, FileKind, FileStat, IoError};

/// How much is read at a time: as long as a disk likes it, and soon over for whoever else wants the disk.
pub const PIECE_BYTES: usize = 1 << 20;

/// Why a file could not be read to its end.
#[derive(Debug, Error)]
pub enum RereadError {
    /// It was written, replaced or removed meanwhile: it says nothing.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file, relative to the project.
        path: RelPath,
    },
    /// It is gone, or the system refuses.
    #[error("{path} cannot be read")]
    Io {
        /// The file, relative to the project.
        path: RelPath,
        /// What and why.
        #[source]
        source: IoError,
    },
}

impl RereadError {
    /// Says whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.is_not_found())
    }

    /// Says whether the disk, or the file system on it, cannot give the bytes back: it is damaged, and no right is missing.
    pub fn is_damage(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        let errno = Errno::from_io_error(&source.source);
        matches!(errno, Some(Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::NODATA | Errno::ILSEQ))
    }
}

/// A file that is being read again. Dropping it ends that.
///
/// The bytes come from the disk: what the system kept of it in memory is let go before, unless somebody is writing it. That it
/// was read does not count as use.
#[derive(Debug)]
pub struct Reread {
    file: File,
    path: RelPath,
    stat: FileStat,
    name: blake3::Hasher,
    buffer: Vec<u8>,
    offset: u64,
}

impl Reread {
    /// Opens a file and lets go of what the system keeps of it. Memory: one piece.
    ///
    /// # Errors
    /// [`RereadError::Io`].
    pub fn open(dir: &Dir, path: &RelPath) -> Result<Self, RereadError> {
        let failed = |source| RereadError::Io { path: path.clone(), source };
        let file = dir.open_unnoticed(path).map_err(failed)?;
        let at = || dir.path().join(path.as_str());
        let metadata = file.metadata().map_err(|error| failed(IoError::new("stat", at(), error)))?;
        // Only advice: where it is not heard, the answer is about memory and not about the disk.
        fadvise(&file, 0, None, Advice::DontNeed).ok();
        let (stat, path) = (FileStat::from(&metadata), path.clone());
        Ok(Self { file, path, stat, name: blake3::Hasher::new(), buffer: vec![0; PIECE_BYTES], offset: 0 })
    }

    /// Returns what the system said of the file when it was opened.
    pub fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// Reads the next piece and returns its length; 0 at the end.
    ///
    /// # Errors
    /// [`RereadError`].
    pub fn step(&mut self, dir: &Dir) -> Result<usize, RereadError> {
        let read = loop {
            match self.file.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let bytes = read.map_err(|error| RereadError::Io {
            path: self.path.clone(),
            source: IoError::new("read", dir.path().join(self.path.as_str()), error),
        })?;
        self.name.update(self.buffer.get(..bytes).unwrap_or_default());
        let length = std::num::NonZeroU64::new(bytes as u64);
        if length.is_some() {
            // Nobody else is pushed out of memory by it.
            fadvise(&self.file, self.offset, length, Advice::DontNeed).ok();
        }
        self.offset += bytes as u64;
        Ok(bytes)
    }

    /// Returns what the file holds, all of which was read.
    ///
    /// # Errors
    /// [`RereadError::Changed`] when it did meanwhile, or another file lies there now; [`RereadError::Io`].
    pub fn finish(self, dir: &Dir) -> Result<ObjectHash, RereadError> {
        let by_path = dir.stat(&self.path);
        let by_path = by_path.map_err(|source| RereadError::Io { path: self.path.clone(), source })?;
        let at = || dir.path().join(self.path.as_str());
        let after = self.file.metadata().map(|metadata| FileStat::from(&metadata)).map_err(|error| {
            RereadError::Io { path: self.path.clone(), source: IoError::new("stat", at(), error) }
        })?;
        let same = |other: &FileStat| {
            other.identity() == self.stat.identity()
                && other.device == self.stat.device
                && other.kind == FileKind::File
        };
        if self.offset != self.stat.size || !same(&after) || !by_path.as_ref().is_some_and(same) {
            return Err(RereadError::Changed { path: self.path });
        }
        Ok(ObjectHash::from_bytes(*self.name.finalize().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;
    use crate::fs::{WriteMode, path_of};

    fn read(dir: &Dir, meanwhile: impl FnOnce()) -> Result<ObjectHash, RereadError> {
        let mut file = Reread::open(dir, &path_of("file"))?;
        let mut meanwhile = Some(meanwhile);
        while file.step(dir)? > 0 {
            if let Some(meanwhile) = meanwhile.take() {
                meanwhile();
            }
        }
        file.finish(dir)
    }

    #[test]
    fn all_bytes_are_read_and_a_file_that_changes_meanwhile_says_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let path = temp.path().join("file");
        let data: Vec<u8> = (0..3 * PIECE_BYTES + 17).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let write = |data: &[u8]| dir.write_atomic(&path_of("file"), data, WriteMode::Replace).unwrap();
        write(&data);
        assert_eq!(read(&dir, || ()).unwrap(), ObjectHash::of(&data));
        let grow = || fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
        assert!(matches!(read(&dir, grow), Err(RereadError::Changed { .. })));
        write(&data);
        assert!(matches!(read(&dir, || write(&data)), Err(RereadError::Changed { .. })), "another file");
        let gone = read(&dir, || fs::remove_file(&path).unwrap());
        assert!(matches!(gone, Err(RereadError::Changed { .. })), "{gone:?}");
        let none = read(&dir, || ()).unwrap_err();
        assert!(none.is_not_found() && !none.is_damage());
        write(b"");
        assert_eq!(read(&dir, || ()).unwrap(), ObjectHash::of(b""));
    }

    #[test]
    fn only_what_the_disk_cannot_give_back_is_damage() {
        let error = |errno: Errno| RereadError::Io {
            path: path_of("file"),
            source: IoError::new("read", "file", io::Error::from(errno)),
        };
        assert!([Errno::IO, Errno::UCLEAN, Errno::BADMSG].into_iter().all(|errno| error(errno).is_damage()));
        let others = [Errno::ACCESS, Errno::NOENT, Errno::STALE, Errno::MFILE];
        assert!(!others.into_iter().any(|errno| error(errno).is_damage()));
    }
}
