//! What a year is about: nodes, versions and their generations, policies. Nodes know them by their places in these lists.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    hash::{ContentId, ManifestId},
    id::{NodeId, VersionId},
    mode::ProjectMode,
    policy::Policy,
};

/// A node, by its place in the list.
pub type NodeIndex = usize;
/// A version, by its place in the list.
pub type VersionIndex = usize;
/// A generation, by its place in the list.
pub type GenIndex = usize;
/// A feed: twice the node for what it says of the project, and one more for what it says of the studio.
pub type FeedIndex = usize;
/// The bytes of a file.
pub type FileBytes = Arc<[u8]>;

/// One node as it was installed.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// Its name.
    pub id: NodeId,
    /// The number of its site.
    pub site: usize,
    /// How it keeps the project.
    pub mode: ProjectMode,
    /// How many bytes of versions it may hold.
    pub quota_bytes: Option<u64>,
    /// How far its clock is ahead of the slowest, in milliseconds.
    pub ahead_ms: u64,
}

/// A version that somebody makes in the year.
#[derive(Debug, Clone)]
pub struct VersionPlan {
    /// Its name.
    pub id: VersionId,
    /// The number of its subset.
    pub subset: usize,
    /// What the pipeline keeps with it.
    pub metadata: BTreeMap<String, String>,
    /// Who publishes it.
    pub author: &'static str,
}

/// A generation that was published.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Of which version.
    pub version: VersionIndex,
    /// Its manifest's name.
    pub manifest: ManifestId,
    /// What its content is called.
    pub content: ContentId,
    /// Its files by their places.
    pub files: BTreeMap<u8, FileBytes>,
    /// Their size together.
    pub bytes: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Book {
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// How many sites there are.
    pub sites: usize,
    /// The versions.
    pub versions: Vec<VersionPlan>,
    /// The policies that are applied, with their text.
    pub policies: Vec<(String, Arc<Policy>)>,
    /// The generations that were published so far.
    pub generations: Vec<Generation>,
    /// Where each manifest is in that list.
    pub by_manifest: BTreeMap<ManifestId, GenIndex>,
}

impl Book {
    /// Adds a generation that a node publishes, and returns its place.
    pub fn publish(
        &mut self,
        version: VersionIndex,
        node: NodeIndex,
        files: BTreeMap<u8, FileBytes>,
    ) -> GenIndex {
        let mut hasher = blake3::Hasher::new();
        for (place, bytes) in &files {
            hasher.update(&[*place]).update(bytes);
        }
        let content = *hasher.finalize().as_bytes();
        hasher.update(&version.to_le_bytes()).update(&node.to_le_bytes());
        let manifest = ManifestId::from_bytes(*hasher.finalize().as_bytes());
        // Published before, and lost with the power.
        if let Some(known) = self.generation(&manifest) {
            return known;
        }
        let bytes = files.values().map(|file| file.len() as u64).sum();
        let content = ContentId::from_bytes(content);
        self.generations.push(Generation { version, manifest, content, files, bytes });
        self.by_manifest.insert(manifest, self.generations.len() - 1);
        self.generations.len() - 1
    }

    /// Returns the generation of a manifest.
    pub fn generation(&self, manifest: &ManifestId) -> Option<GenIndex> {
        self.by_manifest.get(manifest).copied()
    }

    /// Returns the node of a name.
    pub fn node(&self, id: &NodeId) -> NodeIndex {
        self.nodes.iter().position(|node| node.id == *id).expect("nobody else is named")
    }
}
