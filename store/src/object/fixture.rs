//! A small project on disk and versions for it, for the tests of this crate's objects and placing.

use std::{collections::HashMap, path::Path, sync::Arc};

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList, block_count, block_range, block_value},
    hash::ObjectHash,
    id::{VersionId, VersionSlot},
    manifest::{Completeness, FileEntry, Manifest, ManifestDraft, Representation},
};

use super::incoming::{BlockWritten, Incoming, VerifiedVersion};
use crate::fs::Dir;

pub(crate) const BLOCK: usize = 1 << 20;
pub(crate) const VERSION_DIR: &str = "assets/robot/publish/model/v001";
const MTIME_NS: i64 = 1_700_000_000_123_456_789;

/// A project directory, and every content that a version of it was made from.
pub(crate) struct Studio {
    temp: tempfile::TempDir,
    pub(crate) project: Dir,
    contents: HashMap<ObjectHash, Vec<u8>>,
}

/// Returns bytes that look random and are always the same.
pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn list_of(data: &[u8]) -> BlockList {
    let size = data.len() as u64;
    if block_count(size) == 1 {
        return BlockList::single(ObjectHash::of(data), size).unwrap();
    }
    let values = (0..).zip(data.chunks(BLOCK)).map(|(index, block)| block_value(index, block)).collect();
    BlockList::of_values(size, values)
}

pub(crate) fn block_of(data: &[u8], index: u64) -> &[u8] {
    assert_eq!(BLOCK as u64, BLOCK_BYTES);
    let range = block_range(data.len() as u64, index);
    &data[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
}

impl Studio {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let project = Dir::open(temp.path()).unwrap();
        Self { temp, project, contents: HashMap::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Makes the first generation of v001; the entry is the first file.
    pub(crate) fn version(&mut self, files: &[(&str, &[u8])]) -> Arc<Manifest> {
        self.manifest(VersionSlot::Number(1), VERSION_DIR, files, None)
    }

    pub(crate) fn manifest(
        &mut self,
        slot: VersionSlot,
        dir: &str,
        files: &[(&str, &[u8])],
        predecessor: Option<&Manifest>,
    ) -> Arc<Manifest> {
        let entry = |(path, data): &(&str, &[u8])| {
            self.contents.insert(ObjectHash::of(data), data.to_vec());
            FileEntry {
                path: path.parse().unwrap(),
                size: data.len() as u64,
                hash: ObjectHash::of(data),
                mtime_ns: MTIME_NS + i64::try_from(path.len()).unwrap(),
                representation: 0,
            }
        };
        let files: Vec<FileEntry> = files.iter().map(entry).collect();
        let draft = ManifestDraft {
            version: VersionId {
                project: "lantern".parse().unwrap(),
                asset: "robot".parse().unwrap(),
                subset: "model".parse().unwrap(),
                slot,
            },
            silo: None,
            generation: predecessor.map_or(1, |old| old.draft().generation + 1),
            predecessor: predecessor.map(Manifest::id),
            dir: dir.parse().unwrap(),
            representations: vec![Representation {
                name: "abc".parse().unwrap(),
                entry: files[0].path.clone(),
            }],
            files,
            completeness: Completeness::Explicit,
            author: "anna".into(),
            comment: String::new(),
            published_at_ms: 1,
            inputs: Vec::new(),
            metadata: Default::default(),
        };
        Arc::new(draft.finish().unwrap())
    }

    pub(crate) fn open(&self, manifest: &Arc<Manifest>) -> Incoming {
        Incoming::open(&self.project, manifest.clone()).unwrap()
    }

    /// Delivers everything that is missing.
    pub(crate) fn deliver(&self, incoming: &Incoming) {
        for need in incoming.needs() {
            let data = &self.contents[&need.object];
            if need.blocks.is_none() {
                incoming.set_blocks(list_of(data)).unwrap();
            }
            let mut last = BlockWritten::ObjectIncomplete;
            for index in need.missing.into_iter().flatten() {
                assert_eq!(last, BlockWritten::ObjectIncomplete);
                last = incoming.write_block(&need.object, index, block_of(data, index)).unwrap();
            }
            assert_eq!(last, BlockWritten::ObjectComplete);
        }
    }

    /// Receives a whole version.
    pub(crate) fn receive(&self, manifest: &Arc<Manifest>) -> VerifiedVersion {
        let incoming = self.open(manifest);
        self.deliver(&incoming);
        incoming.finish().unwrap()
    }

    pub(crate) fn area(&self, manifest: &Manifest) -> std::path::PathBuf {
        self.path().join(format!(".avalon/incoming/{}", manifest.id()))
    }

    pub(crate) fn part(&self, manifest: &Manifest, data: &[u8]) -> std::path::PathBuf {
        self.area(manifest).join(format!("parts/{}", ObjectHash::of(data)))
    }
}
