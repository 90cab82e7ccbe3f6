//! What simulated artists save: small files with made-up bytes, and how they make up a version.

use std::sync::Arc;

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList, block_value},
    hash::ObjectHash,
    id::VersionId,
    manifest::{Completeness, FileEntry, ManifestDraft, Representation},
    rel_path::RelPath,
};
use serde::Serialize;

/// The bytes of a file, shared by every place that holds them.
pub type Bytes = Arc<[u8]>;

/// A file that somebody is going to save.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SavedFile {
    /// Where, relative to the version directory.
    pub path: RelPath,
    /// Files with equal keys and lengths have equal bytes.
    pub key: u64,
    /// How long it is in bytes.
    pub len: usize,
}

impl SavedFile {
    /// Makes the bytes.
    pub fn bytes(&self) -> Bytes {
        let mut bytes = vec![self.key.to_le_bytes()[0]; self.len];
        let mut start = [0; 64];
        blake3::Hasher::new().update(&self.key.to_le_bytes()).finalize_xof().fill(&mut start);
        for (byte, random) in bytes.iter_mut().zip(start) {
            *byte = random;
        }
        bytes.into()
    }
}

/// Returns the block list of an object that is in memory.
pub fn block_list(bytes: &[u8]) -> BlockList {
    let blocks = bytes.chunks(usize::try_from(BLOCK_BYTES).expect("1 MiB fits"));
    if blocks.len() < 2 {
        let single = BlockList::single(ObjectHash::of(bytes), bytes.len() as u64);
        return single.expect("at most one block");
    }
    let values = blocks.zip(0..).map(|(block, index)| block_value(index, block)).collect();
    BlockList::of_values(bytes.len() as u64, values)
}

/// Returns the directory of a version, relative to its project.
pub fn version_dir(version: &VersionId) -> RelPath {
    let dir = format!("assets/{}/publish/{}/{}", version.asset, version.subset, version.slot);
    dir.parse().expect("names make a path")
}

/// What a publish says about itself beside its files.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Which version.
    pub version: VersionId,
    /// The generation before and its number, when the version grew.
    pub predecessor: Option<(avalon_protocol::hash::ManifestId, u32)>,
    /// Who publishes.
    pub author: String,
    /// When, by the clock of the node, in milliseconds.
    pub published_at_ms: u64,
}

/// Describes a version: what lies in `exr/` is a sequence, everything else belongs to the first representation, whose
/// entry is `main.abc`.
pub fn draft(publish: Publish, files: impl Iterator<Item = (RelPath, u64, ObjectHash)>) -> ManifestDraft {
    let (main, sequence) = (path("main.abc"), path("exr"));
    let mut files: Vec<FileEntry> = files
        .map(|(path, size, hash)| {
            let representation = u16::from(path.is_within(&sequence));
            FileEntry { path, size, hash, mtime_ns: 1_700_000_000_000_000_000, representation }
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let name = |name: &str| name.parse().expect("a fixed name");
    let mut representations = vec![Representation { name: name("abc"), entry: main }];
    if files.iter().any(|file| file.representation == 1) {
        representations.push(Representation { name: name("exr"), entry: sequence });
    }
    ManifestDraft {
        dir: version_dir(&publish.version),
        version: publish.version,
        silo: None,
        generation: publish.predecessor.map_or(1, |(_, generation)| generation + 1),
        predecessor: publish.predecessor.map(|(manifest, _)| manifest),
        representations,
        files,
        completeness: Completeness::Quiet,
        author: publish.author,
        comment: String::new(),
        published_at_ms: publish.published_at_ms,
        inputs: Vec::new(),
        metadata: std::collections::BTreeMap::new(),
    }
}

/// Reads a path that is known to be one.
pub fn path(text: &str) -> RelPath {
    text.parse().expect("a fixed path")
}
