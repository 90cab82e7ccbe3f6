//! The manifest: what one generation of a version consists of, immutable, named by the BLAKE3 of its canonical bytes.
//!
//! [`Manifest`] can only be had through the checks of `ManifestDraft::finish` or [`Manifest::decode`], so whatever
//! accepts one need not check again.

mod check;
pub(crate) mod encode;
mod relate;
mod renumber;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    check::InvalidManifest,
    encode::{DecodeError, FORMAT, MAGIC},
    relate::{Relation, relate},
    renumber::{RenumberError, Renumbered, renumber},
};
use crate::{
    hash::{ContentId, ManifestId, ObjectHash},
    id::{ProjectName, RepresentationName, SiloName, VersionId},
    rel_path::RelPath,
};

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Where it lies, relative to the version directory.
    pub path: RelPath,
    /// Its length in bytes.
    pub size: u64,
    /// The BLAKE3 of its content.
    pub hash: ObjectHash,
    /// When it was last modified, in nanoseconds since 1970; kept at every site, because studios' texture reuse
    /// compares times.
    pub mtime_ns: i64,
    /// Which of the manifest's representations it belongs to.
    pub representation: u16,
}

/// One representation of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Representation {
    /// Its Avalon name, such as `abc`.
    pub name: RepresentationName,
    /// The path that Avalon's loader resolves, relative to the version directory: a file, or the directory of a
    /// sequence. It is placed last.
    pub entry: RelPath,
}

/// Which signal proved that the version was whole when it was hashed, strongest first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Completeness {
    /// Somebody, or the pipeline, said so: `avalonctl publish`.
    Explicit,
    /// Nothing changed for the quiet period, no lock was there, frames were contiguous, and every file of a format that
    /// marks its end was closed.
    EndMarks,
    /// Nothing changed for the quiet period, no lock was there and frames were contiguous.
    Quiet,
}

/// The key of a manifest's metadata that names the representations, between commas, which still grow: somebody was at work in
/// the version when this generation was published. The last generation of a version that grew has no such key.
pub const GROWING: &str = "generation.growing";

/// The content of a manifest before it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestDraft {
    /// Which version it describes.
    pub version: VersionId,
    /// The silo that the template found, if it has one.
    pub silo: Option<SiloName>,
    /// 1 for the first, then one more than the predecessor's.
    pub generation: u32,
    /// The manifest of the generation before; none for the first.
    pub predecessor: Option<ManifestId>,
    /// The version directory, relative to the project directory.
    pub dir: RelPath,
    /// The representations, in the order of their names.
    pub representations: Vec<Representation>,
    /// The files, in the order of their paths.
    pub files: Vec<FileEntry>,
    /// How the version was known to be whole.
    pub completeness: Completeness,
    /// Who published it, as the pipeline or the file system names people.
    pub author: String,
    /// What they said about it.
    pub comment: String,
    /// When it was published, in milliseconds since 1970; for display only.
    pub published_at_ms: u64,
    /// References or paths of what it was made from.
    pub inputs: Vec<String>,
    /// Whatever else the pipeline wants kept: family, task, fps, frame range.
    pub metadata: BTreeMap<String, String>,
}

/// A checked manifest with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    draft: ManifestDraft,
    id: ManifestId,
    content: ContentId,
}

impl Manifest {
    /// Returns the name: BLAKE3 of the canonical bytes.
    pub fn id(&self) -> ManifestId {
        self.id
    }

    /// Returns the hash over paths and objects alone.
    pub fn content(&self) -> ContentId {
        self.content
    }

    /// Returns which version it describes.
    pub fn version(&self) -> &VersionId {
        &self.draft.version
    }

    /// Returns the project of the version.
    pub fn project(&self) -> &ProjectName {
        &self.draft.version.project
    }

    /// Returns the version directory, relative to the project directory.
    pub fn dir(&self) -> &RelPath {
        &self.draft.dir
    }

    /// Returns the files in the order of their paths.
    pub fn files(&self) -> &[FileEntry] {
        &self.draft.files
    }

    /// Returns the representations in the order of their names.
    pub fn representations(&self) -> &[Representation] {
        &self.draft.representations
    }

    /// Returns the sum of the sizes of all files in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.draft.files.iter().map(|file| file.size).sum()
    }

    /// Returns the names of the representations that still grow.
    pub fn growing(&self) -> impl Iterator<Item = &str> {
        let named = self.draft.metadata.get(GROWING).map_or("", String::as_str);
        named.split(',').filter(|name| !name.is_empty())
    }

    /// Returns everything else.
    pub fn draft(&self) -> &ManifestDraft {
        &self.draft
    }

    /// Returns the files whose path is the entry of a representation, or lies within it.
    pub fn is_entry(&self, file: &FileEntry) -> bool {
        let representation = self.draft.representations.get(usize::from(file.representation));
        representation.is_some_and(|r| file.path.is_within(&r.entry))
    }
}

impl ManifestDraft {
    /// Sorts, checks and names the manifest.
    ///
    /// # Errors
    /// [`InvalidManifest`] says which file or field breaks which rule.
    pub fn finish(mut self) -> Result<Manifest, InvalidManifest> {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        check::check(&self)?;
        let bytes = encode::encode(&self);
        if bytes.len() > crate::limits::MAX_MANIFEST_BYTES {
            return Err(InvalidManifest::TooManyBytes { bytes: bytes.len() });
        }
        Ok(Manifest {
            id: ManifestId::from_bytes(*blake3::hash(&bytes).as_bytes()),
            content: content_id(&self.files),
            draft: self,
        })
    }
}

/// Hashes what a version consists of: each path with its object, in order, under a domain of its own.
pub fn content_id(files: &[FileEntry]) -> ContentId {
    let mut hasher = blake3::Hasher::new_derive_key("avalon 2026 version content v1");
    for file in files {
        let path = file.path.as_str().as_bytes();
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path).update(file.hash.as_bytes());
    }
    ContentId::from_bytes(*hasher.finalize().as_bytes())
}
