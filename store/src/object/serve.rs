//! Serving objects from the artists' tree, and the cache of their block lists.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use avalon_protocol::{
    block::{BlockList, block_count},
    hash::ObjectHash,
    rel_path::RelPath,
};
use thiserror::Error;

use super::name::{Spread, block_bytes, block_offset, name_file};
use crate::fs::{Dir, FileIdentity, FileStat, IoError, path_of};

/// Why an object cannot be served from a file.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The file holds something else now: somebody changed it, or it is damaged.
    #[error("the file {path} does not hold {} any more", object.short())]
    Changed {
        /// The file.
        path: RelPath,
        /// What it held.
        object: ObjectHash,
    },
    /// The object has no such block.
    #[error("{} has no block {index}", object.short())]
    NoSuchBlock {
        /// The object.
        object: ObjectHash,
        /// The block that was asked for.
        index: u64,
    },
    /// The system refuses to open or read it, or it is not a regular file any more.
    #[error("the file {path} cannot be served")]
    Io {
        /// The file.
        path: RelPath,
        /// What and why.
        #[source]
        source: IoError,
    },
}

impl ServeError {
    /// Says whether the file is gone.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.is_not_found())
    }
}

/// An open file that holds an object; usable from many threads.
///
/// It keeps the file that it opened, even when another takes its name. A file that is written in place meanwhile gives
/// blocks that the receiver refuses.
#[derive(Debug)]
pub struct ObjectReader {
    file: File,
    dir: Dir,
    path: RelPath,
    object: ObjectHash,
    stat: FileStat,
}

impl ObjectReader {
    /// Opens the file that holds `object`, as the catalog knows it. When it does not look as `known` any more, it is
    /// hashed first.
    ///
    /// # Errors
    /// [`ServeError::Changed`] when it holds something else; [`ServeError::Io`].
    pub fn open(
        dir: &Dir,
        path: &RelPath,
        object: &ObjectHash,
        known: &FileIdentity,
    ) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Io { path: path.clone(), source };
        let file = dir.open_file(path).map_err(failed)?;
        let reader = Self {
            stat: stat_of(&file, dir, path)?,
            file,
            dir: dir.clone(),
            path: path.clone(),
            object: *object,
        };
        if reader.stat.identity() == *known {
            return Ok(reader);
        }
        if reader.stat.size == known.size && reader.compute()?.object() == *object {
            let after = stat_of(&reader.file, dir, path)?;
            if after.identity() == reader.stat.identity() {
                return Ok(reader);
            }
        }
        Err(reader.changed())
    }

    /// Returns the object.
    pub fn object(&self) -> ObjectHash {
        self.object
    }

    /// Returns its size in bytes.
    pub fn size(&self) -> u64 {
        self.stat.size
    }

    /// Returns what the file system said when it was opened. When its identity is not what the catalog knew, the catalog
    /// should learn it: the content is the same.
    pub fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// Reads block `index`; the last one is shorter.
    ///
    /// # Errors
    /// [`ServeError::NoSuchBlock`]; [`ServeError::Changed`] when the file has become shorter; [`ServeError::Io`].
    pub fn read_block(&self, index: u64) -> Result<Vec<u8>, ServeError> {
        if index >= block_count(self.stat.size) {
            return Err(ServeError::NoSuchBlock { object: self.object, index });
        }
        let length = usize::try_from(block_bytes(self.stat.size, index)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, block_offset(index));
        read.map_err(|e| self.read_failed(e))?;
        Ok(bytes)
    }

    /// Reads the bytes from `offset` on, whatever the blocks are; the caller bounds `length`.
    ///
    /// # Errors
    /// [`ServeError::Changed`] when the file ends before; [`ServeError::Io`].
    pub fn read_range(&self, offset: u64, length: usize) -> Result<Vec<u8>, ServeError> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| self.read_failed(e))?;
        Ok(bytes)
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`ServeError::Changed`] when the file ends before; [`ServeError::Io`].
    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ServeError> {
        self.file.read_exact_at(buffer, offset).map_err(|e| self.read_failed(e))
    }

    /// Hashes the file by the rayon pool that the caller runs on.
    fn compute(&self) -> Result<BlockList, ServeError> {
        name_file(&self.file, self.stat.size, Spread::Pool, &|_, _| Ok(())).map_err(|e| self.read_failed(e))
    }

    fn changed(&self) -> ServeError {
        ServeError::Changed { path: self.path.clone(), object: self.object }
    }

    fn read_failed(&self, error: io::Error) -> ServeError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return self.changed();
        }
        let source = IoError::new("read", self.dir.path().join(self.path.as_str()), error);
        ServeError::Io { path: self.path.clone(), source }
    }
}

fn stat_of(file: &File, dir: &Dir, path: &RelPath) -> Result<FileStat, ServeError> {
    file.metadata().map(|metadata| FileStat::from(&metadata)).map_err(|error| ServeError::Io {
        path: path.clone(),
        source: IoError::new("stat", dir.path().join(path.as_str()), error),
    })
}

/// The block lists of objects of several blocks, at `blocks/<aa>/<hash>` in the state directory: 32 bytes for each block.
///
/// It is derived and may be deleted at any time. What is read from it is verified against the object's name, so damage
/// only costs a second hashing.
#[derive(Debug, Clone)]
pub struct BlockCache {
    dir: Dir,
}

impl BlockCache {
    /// Opens the cache in a state directory.
    ///
    /// # Errors
    /// [`IoError`] when its directory can neither be opened nor created.
    pub fn open(state_dir: &Dir) -> Result<Self, IoError> {
        Ok(Self { dir: state_dir.create_dirs(&path_of("blocks"))? })
    }

    /// Returns the block list of an object, or `None` when it is not kept or what is kept does not verify.
    pub fn get(&self, object: &ObjectHash, size: u64) -> Option<BlockList> {
        if block_count(size) == 1 {
            return BlockList::single(*object, size).ok();
        }
        read_list(&self.dir, &cache_path(object), *object, size)
    }

    /// Keeps a block list. One of a single block needs no keeping.
    ///
    /// # Errors
    /// [`IoError`]; the cache is as it was.
    pub fn put(&self, list: &BlockList) -> Result<(), IoError> {
        if list.values().is_empty() {
            return Ok(());
        }
        let path = cache_path(&list.object());
        if let Some(parent) = path.parent() {
            self.dir.create_dirs_unsynced(&parent)?;
        }
        self.dir.write_derived(&path, list.values().as_flattened())
    }

    /// Returns the block list of an open object; hashes the file when the list is missing or damaged, and keeps it then.
    ///
    /// # Errors
    /// [`ServeError`] when the file cannot be read or holds something else. That the list cannot be kept is no error.
    pub fn get_or_compute(&self, reader: &ObjectReader) -> Result<BlockList, ServeError> {
        if let Some(list) = self.get(&reader.object, reader.size()) {
            return Ok(list);
        }
        let list = reader.compute()?;
        if list.object() != reader.object {
            return Err(reader.changed());
        }
        if let Err(error) = self.put(&list) {
            tracing::debug!(object = %list.object(), %error, "a block list is not kept");
        }
        Ok(list)
    }
}

fn cache_path(object: &ObjectHash) -> RelPath {
    let hex = object.to_string();
    path_of(&format!("{}/{hex}", hex.get(..2).unwrap_or("00")))
}

/// Reads a file of block values; one that is missing, torn or false is as none.
pub(super) fn read_list(dir: &Dir, path: &RelPath, object: ObjectHash, size: u64) -> Option<BlockList> {
    let file = dir.open_file(path).ok()?;
    let expected = BlockList::value_count(size) * 32;
    if file.metadata().ok()?.len() != expected {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(expected).ok()?);
    io::Read::read_to_end(&mut io::Read::take(file, expected), &mut bytes).ok()?;
    let (values, _) = bytes.as_chunks::<32>();
    BlockList::verified(object, size, values.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        fs::WriteMode,
        object::fixture::{BLOCK, block_of, bytes, list_of},
    };

    struct Shelf {
        temp: tempfile::TempDir,
        dir: Dir,
        data: Vec<u8>,
    }

    impl Shelf {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let dir = Dir::open(temp.path()).unwrap();
            let data = bytes(2 * BLOCK + 9, 1);
            dir.write_atomic(&path_of("file"), &data, WriteMode::CreateNew).unwrap();
            Self { temp, dir, data }
        }

        fn known(&self) -> FileIdentity {
            self.dir.stat(&path_of("file")).unwrap().unwrap().identity()
        }

        fn open(&self, known: &FileIdentity) -> Result<ObjectReader, ServeError> {
            ObjectReader::open(&self.dir, &path_of("file"), &ObjectHash::of(&self.data), known)
        }
    }

    #[test]
    fn serves_each_block_of_a_file_that_is_as_known() {
        let shelf = Shelf::new();
        let reader = shelf.open(&shelf.known()).unwrap();
        for index in 0..3 {
            assert_eq!(reader.read_block(index).unwrap(), block_of(&shelf.data, index));
        }
        assert!(matches!(reader.read_block(3), Err(ServeError::NoSuchBlock { index: 3, .. })));
    }

    #[test]
    fn a_file_that_was_only_touched_is_hashed_and_served() {
        let shelf = Shelf::new();
        let known = shelf.known();
        shelf.dir.set_mtime(&path_of("file"), 5).unwrap();
        let reader = shelf.open(&known).unwrap();
        assert_eq!(reader.stat().mtime_ns, 5, "the catalog can learn it");
    }

    #[test]
    fn a_file_of_other_content_is_not_served() {
        let mut shelf = Shelf::new();
        let known = shelf.known();
        shelf.data[BLOCK] ^= 1;
        shelf.dir.write_atomic(&path_of("file"), &shelf.data, WriteMode::Replace).unwrap();
        shelf.data[BLOCK] ^= 1;
        assert!(matches!(shelf.open(&known), Err(ServeError::Changed { .. })));
        shelf.dir.write_atomic(&path_of("file"), b"short", WriteMode::Replace).unwrap();
        assert!(matches!(shelf.open(&known), Err(ServeError::Changed { .. })));
        shelf.dir.remove_file(&path_of("file")).unwrap();
        assert!(shelf.open(&known).unwrap_err().is_not_found());
    }

    #[test]
    fn a_file_that_becomes_shorter_while_it_is_served_has_changed() {
        let shelf = Shelf::new();
        let reader = shelf.open(&shelf.known()).unwrap();
        fs::OpenOptions::new().write(true).open(shelf.temp.path().join("file")).unwrap().set_len(5).unwrap();
        assert!(matches!(reader.read_block(2), Err(ServeError::Changed { .. })));
    }

    #[test]
    fn block_lists_are_computed_once_and_again_when_damaged() {
        let shelf = Shelf::new();
        let state = tempfile::tempdir().unwrap();
        let cache = BlockCache::open(&Dir::open(state.path()).unwrap()).unwrap();
        let (object, size) = (ObjectHash::of(&shelf.data), shelf.data.len() as u64);
        assert_eq!(cache.get(&object, size), None);
        let reader = shelf.open(&shelf.known()).unwrap();
        assert_eq!(cache.get_or_compute(&reader).unwrap(), list_of(&shelf.data));
        assert_eq!(cache.get(&object, size), Some(list_of(&shelf.data)));
        let kept = state.path().join("blocks").join(&object.to_string()[..2]).join(object.to_string());
        let mut values = fs::read(&kept).unwrap();
        values[3] ^= 1;
        File::options().write(true).open(&kept).unwrap().write_all_at(&values, 0).unwrap();
        assert_eq!(cache.get(&object, size), None, "a damaged list is no list");
        assert_eq!(cache.get_or_compute(&reader).unwrap(), list_of(&shelf.data));
        assert_eq!(cache.get(&object, size), Some(list_of(&shelf.data)));
        let small = ObjectHash::of(b"small");
        assert!(cache.get(&small, 5).is_some(), "a single block verifies by the name");
    }

    #[test]
    fn a_list_is_not_computed_from_a_file_that_changed_since_it_was_opened() {
        let shelf = Shelf::new();
        let state = tempfile::tempdir().unwrap();
        let cache = BlockCache::open(&Dir::open(state.path()).unwrap()).unwrap();
        let reader = shelf.open(&shelf.known()).unwrap();
        let file = File::options().write(true).open(shelf.temp.path().join("file")).unwrap();
        file.write_all_at(b"other", 0).unwrap();
        assert!(matches!(cache.get_or_compute(&reader), Err(ServeError::Changed { .. })));
    }
}
