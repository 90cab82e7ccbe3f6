//! Manifests on disk: `manifests/<first two digits>/<hash>`, written once, never changed.
//!
//! The name is the BLAKE3 of the content, so reading one proves it.

use std::{
    collections::{BTreeMap, HashSet},
    io::Read as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use avalon_protocol::{
    hash::ManifestId,
    limits::MAX_MANIFEST_BYTES,
    manifest::{DecodeError, Manifest},
    rel_path::RelPath,
};
use thiserror::Error;

use crate::fs::{Dir, FILES_SYNCED_ONE_BY_ONE, IoError, WriteMode, path_of};

/// The manifests of this node.
#[derive(Debug, Clone)]
pub struct ManifestFiles {
    dir: Dir,
    /// Held while a directory is created: whoever finds it may rely on it.
    creating: Arc<Mutex<()>>,
}

/// A manifest that is on disk and will be there after a power cut. Only [`ManifestFiles::put`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredManifest {
    id: ManifestId,
}

impl StoredManifest {
    /// Returns its name.
    pub fn id(&self) -> ManifestId {
        self.id
    }
}

/// Why a manifest cannot be read or stored.
#[derive(Debug, Error)]
pub enum ManifestFileError {
    /// The file does not have the content that its name says.
    #[error("the manifest {} is damaged; it is fetched again from a peer that has it", path.display())]
    Damaged {
        /// Which manifest.
        id: ManifestId,
        /// The file.
        path: PathBuf,
    },
    /// The content is right, and this version cannot use it.
    #[error("the manifest {id} cannot be used")]
    Refused {
        /// Which manifest.
        id: ManifestId,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// No room is left.
    #[error("no room is left for manifest {id}")]
    NoSpace {
        /// Which manifest.
        id: ManifestId,
        /// What failed.
        #[source]
        source: IoError,
    },
    /// The system refuses.
    #[error("the file of manifest {id} cannot be read or written")]
    Io {
        /// Which manifest.
        id: ManifestId,
        /// What failed.
        #[source]
        source: IoError,
    },
}

impl ManifestFileError {
    /// Says whether room on the volume would help.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Says, of reading, whether there is no hope in this file: what lies there is not the manifest, or a sector is bad. What the system
    /// refuses otherwise, as too many open files, may pass.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => source.is_of_disk(),
            Self::Refused { .. } | Self::NoSpace { .. } => false,
        }
    }

    fn new(id: ManifestId, source: IoError) -> Self {
        if source.is_no_space() { Self::NoSpace { id, source } } else { Self::Io { id, source } }
    }
}

impl ManifestFiles {
    /// Uses `dir`, which is the state directory's `manifests`.
    pub fn new(dir: Dir) -> Self {
        Self { dir, creating: Arc::default() }
    }

    /// Makes a manifest durable. Storing it again changes nothing; a damaged file is replaced.
    ///
    /// # Errors
    /// [`ManifestFileError`]; it is not stored then.
    pub fn put(&self, manifest: &Manifest) -> Result<StoredManifest, ManifestFileError> {
        self.put_bytes(manifest.id(), &manifest.encode())
    }

    /// As [`ManifestFiles::put`], with the canonical bytes at hand.
    pub(crate) fn put_bytes(
        &self,
        id: ManifestId,
        bytes: &[u8],
    ) -> Result<StoredManifest, ManifestFileError> {
        let failed = |source| ManifestFileError::new(id, source);
        let path = file_path(id);
        let parent = {
            let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
            self.dir.create_dirs(&directory_of(id)).map_err(failed)?
        };
        if matches!(self.bytes(id), Ok(Some(_))) {
            parent.sync().map_err(failed)?;
        } else {
            self.dir.write_atomic(&path, bytes, WriteMode::Replace).map_err(failed)?;
        }
        Ok(StoredManifest { id })
    }

    /// As [`ManifestFiles::put`] for many, with their canonical bytes at hand, which costs less than one after the other.
    ///
    /// # Errors
    /// [`ManifestFileError`]; some of them may be stored then.
    pub(crate) fn put_all(&self, manifests: &[(ManifestId, &[u8])]) -> Result<(), ManifestFileError> {
        if manifests.len() < FILES_SYNCED_ONE_BY_ONE {
            return manifests.iter().try_for_each(|(id, bytes)| self.put_bytes(*id, bytes).map(|_| ()));
        }
        let (mut new, mut there) = (Vec::new(), BTreeMap::new());
        for (id, bytes) in manifests {
            let failed = |source| ManifestFileError::new(*id, source);
            let parent = {
                let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
                self.dir.create_dirs(&directory_of(*id)).map_err(failed)?
            };
            match self.bytes(*id) {
                Ok(Some(_)) => drop(there.insert(directory_of(*id), (*id, parent))),
                _ => new.push((file_path(*id), *bytes)),
            }
        }
        let Some((first, _)) = manifests.first() else { return Ok(()) };
        self.dir.write_many_atomic(&new).map_err(|source| ManifestFileError::new(*first, source))?;
        // What has its name is on disk; the name itself may not be.
        there
            .values()
            .try_for_each(|(id, dir)| dir.sync().map_err(|source| ManifestFileError::new(*id, source)))
    }

    /// Reads a manifest, if it is here.
    ///
    /// # Errors
    /// [`ManifestFileError::Damaged`] names a file that is not what it should be.
    pub fn get(&self, id: ManifestId) -> Result<Option<Manifest>, ManifestFileError> {
        let Some(bytes) = self.bytes(id)? else { return Ok(None) };
        let manifest = Manifest::decode(&bytes);
        manifest.map(Some).map_err(|source| ManifestFileError::Refused { id, source })
    }

    /// Reads the canonical bytes of a manifest, if it is here.
    ///
    /// # Errors
    /// [`ManifestFileError::Damaged`] names a file that is not what it should be.
    pub fn bytes(&self, id: ManifestId) -> Result<Option<Vec<u8>>, ManifestFileError> {
        let path = file_path(id);
        let file = match self.dir.open_file(&path) {
            Err(error) if error.is_not_found() => return Ok(None),
            file => file.map_err(|source| ManifestFileError::new(id, source))?,
        };
        let mut bytes = Vec::new();
        let on_disk = self.dir.path().join(path.as_str());
        file.take(MAX_MANIFEST_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| ManifestFileError::Io { id, source: IoError::new("read", &on_disk, error) })?;
        if blake3::hash(&bytes).as_bytes() == id.as_bytes() {
            Ok(Some(bytes))
        } else {
            Err(ManifestFileError::Damaged { id, path: on_disk })
        }
    }

    /// Says whether there is a file of that name; it is not read.
    ///
    /// # Errors
    /// [`ManifestFileError::Io`] when the system refuses.
    pub fn has(&self, id: ManifestId) -> Result<bool, ManifestFileError> {
        let stat = self.dir.stat(&file_path(id));
        stat.map(|stat| stat.is_some()).map_err(|source| ManifestFileError::new(id, source))
    }

    /// Returns the names of all manifests that are here.
    ///
    /// # Errors
    /// [`IoError`] when a directory cannot be listed.
    pub fn ids(&self) -> Result<HashSet<ManifestId>, IoError> {
        let mut ids = HashSet::new();
        for byte in 0..=u8::MAX {
            ids.extend(self.ids_beginning(byte)?);
        }
        Ok(ids)
    }

    /// Returns the names of the manifests that are here and begin with this byte: a part of about 256 that are alike, since all of
    /// a large studio's are many.
    ///
    /// # Errors
    /// [`IoError`] when a directory cannot be listed.
    pub fn ids_beginning(&self, byte: u8) -> Result<HashSet<ManifestId>, IoError> {
        let files = match self.dir.list(Some(&path_of(&format!("{byte:02x}")))) {
            Err(error) if error.is_not_found() => return Ok(HashSet::new()),
            files => files?,
        };
        Ok(files.iter().filter_map(|file| file.name.to_str()?.parse::<ManifestId>().ok()).collect())
    }
}

fn directory_of(id: ManifestId) -> RelPath {
    path_of(&id.to_string().chars().take(2).collect::<String>())
}

fn file_path(id: ManifestId) -> RelPath {
    path_of(&format!("{}/{id}", directory_of(id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::manifest;

    fn files() -> (tempfile::TempDir, ManifestFiles) {
        let temp = tempfile::tempdir().unwrap();
        let files = ManifestFiles::new(Dir::open(temp.path()).unwrap());
        (temp, files)
    }

    #[test]
    fn what_is_put_is_there_and_putting_it_again_is_fine() {
        let (_temp, files) = files();
        let manifest = manifest(1, &[("a.abc", b"abc")]);
        assert!(!files.has(manifest.id()).unwrap());
        assert_eq!(files.get(manifest.id()).unwrap(), None);
        for _ in 0..2 {
            assert_eq!(files.put(&manifest).unwrap().id(), manifest.id());
        }
        assert_eq!(files.get(manifest.id()).unwrap(), Some(manifest.clone()));
        for byte in 0..=u8::MAX {
            let is_its_own = manifest.id().as_bytes().first() == Some(&byte);
            let expected = is_its_own.then(|| manifest.id()).into_iter().collect();
            assert_eq!(files.ids_beginning(byte).unwrap(), expected);
        }
    }

    #[test]
    fn many_are_put_together_whether_new_known_or_damaged() {
        let (temp, files) = files();
        let all: Vec<Manifest> = (1..40).map(|number| manifest(number, &[("a.abc", b"abc")])).collect();
        files.put(&all[3]).unwrap();
        files.put(&all[7]).unwrap();
        let damaged = temp.path().join(file_path(all[7].id()).as_str());
        std::fs::File::options().write(true).open(damaged).and_then(|file| file.set_len(10)).unwrap();
        let bytes: Vec<Vec<u8>> = all.iter().map(Manifest::encode).collect();
        let given: Vec<(ManifestId, &[u8])> =
            all.iter().map(Manifest::id).zip(bytes.iter().map(Vec::as_slice)).collect();
        files.put_all(&given).unwrap();
        for manifest in &all {
            assert_eq!(files.get(manifest.id()).unwrap().as_ref(), Some(manifest));
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_healed_by_the_next_put() {
        let (temp, files) = files();
        let manifest = manifest(1, &[("a.abc", b"abc")]);
        let id = files.put(&manifest).unwrap().id();
        let path = temp.path().join(file_path(id).as_str());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::File::create(&path).and_then(|mut f| std::io::Write::write_all(&mut f, &bytes)).unwrap();
        let error = files.get(id).unwrap_err();
        assert!(matches!(&error, ManifestFileError::Damaged { path: named, .. } if *named == path));
        files.put(&manifest).unwrap();
        assert_eq!(files.get(id).unwrap(), Some(manifest));
    }
}
