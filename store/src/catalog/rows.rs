//! The keys and values of the tables.
//!
//! Keys are names in UTF-8 that end with a zero byte, so that a scan finds whole names only and goes in their order.
//! In paths a byte 1 stands for `/`: no name contains it, and the order is then that of `RelPath`.

use avalon_protocol::{
    feed::{FeedHead, FeedId},
    hash::{ManifestId, ObjectHash},
    id::{AssetName, ProjectName, VersionId, VersionSlot},
    rel_path::RelPath,
    version_fold::VersionFold,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{CatalogError, CatalogStore, Cause, Table};
use crate::fs::{FileIdentity, FileStat};

/// What is known about a file of a project tree.
///
/// It is good as long as size and times of the file are these; whoever serves the file compares them and hashes it
/// again when they differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalFile {
    /// The BLAKE3 of its content.
    pub hash: ObjectHash,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last modified, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When its inode was last changed, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Its inode.
    pub inode: u64,
    /// The manifest that it belongs to.
    pub manifest: ManifestId,
}

impl LocalFile {
    /// Takes note of a file that holds `hash` and belongs to `manifest`, as the file system describes it.
    pub fn new(hash: ObjectHash, stat: &FileStat, manifest: ManifestId) -> Self {
        let FileIdentity { size, mtime_ns, ctime_ns, inode } = stat.identity();
        Self { hash, size, mtime_ns, ctime_ns, inode, manifest }
    }

    /// Returns what must still be true of the file for the note to hold.
    pub fn identity(&self) -> FileIdentity {
        let Self { size, mtime_ns, ctime_ns, inode, .. } = *self;
        FileIdentity { size, mtime_ns, ctime_ns, inode }
    }
}

const END: u8 = 0;
const PART: u8 = 1;
const NUMBER: u8 = 0;
const HERO: u8 = 1;

fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut key = Vec::new();
    for name in names {
        key.extend_from_slice(name.as_bytes());
        key.push(END);
    }
    key
}

fn take_name(key: &[u8]) -> Option<(&str, &[u8])> {
    let end = key.iter().position(|byte| *byte == END)?;
    let (name, rest) = key.split_at_checked(end)?;
    Some((std::str::from_utf8(name).ok()?, rest.get(1..)?))
}

pub(crate) fn versions_prefix(project: &ProjectName, asset: Option<&AssetName>) -> Vec<u8> {
    joined([Some(project.as_str()), asset.map(AssetName::as_str)].into_iter().flatten())
}

/// The versions of one subset.
pub(crate) fn subset_prefix(version: &VersionId) -> Vec<u8> {
    joined([version.project.as_str(), version.asset.as_str(), version.subset.as_str()])
}

pub(crate) fn version_key(version: &VersionId) -> Vec<u8> {
    let mut key = subset_prefix(version);
    match version.slot {
        VersionSlot::Number(number) => {
            key.push(NUMBER);
            key.extend_from_slice(&number.to_be_bytes());
        }
        VersionSlot::Hero => key.push(HERO),
    }
    key
}

pub(crate) fn version_of_key(key: &[u8]) -> Option<VersionId> {
    let (project, rest) = take_name(key)?;
    let (asset, rest) = take_name(rest)?;
    let (subset, rest) = take_name(rest)?;
    let slot = match rest {
        [HERO] => VersionSlot::Hero,
        [NUMBER, number @ ..] => VersionSlot::Number(u32::from_be_bytes(number.try_into().ok()?)),
        _ => return None,
    };
    Some(VersionId {
        project: project.parse().ok()?,
        asset: asset.parse().ok()?,
        subset: subset.parse().ok()?,
        slot,
    })
}

pub(crate) fn manifest_of_key(key: &[u8]) -> Option<ManifestId> {
    key.try_into().ok().map(ManifestId::from_bytes)
}

fn path_bytes(path: &RelPath) -> impl Iterator<Item = u8> {
    path.as_str().bytes().map(|byte| if byte == b'/' { PART } else { byte })
}

pub(crate) fn file_key(project: &ProjectName, path: &RelPath) -> Vec<u8> {
    let mut key = joined([project.as_str()]);
    key.extend(path_bytes(path));
    key
}

/// The prefix of everything beneath a directory, or of everything in the project.
pub(crate) fn files_prefix(project: &ProjectName, directory: Option<&RelPath>) -> Vec<u8> {
    let mut key = joined([project.as_str()]);
    if let Some(directory) = directory {
        key.extend(path_bytes(directory));
        key.push(PART);
    }
    key
}

pub(crate) fn file_path(key: &[u8]) -> Option<(ProjectName, RelPath)> {
    let (project, path) = take_name(key)?;
    let text = path.iter().map(|byte| if *byte == PART { b'/' } else { *byte }).collect();
    Some((project.parse().ok()?, String::from_utf8(text).ok()?.parse().ok()?))
}

pub(crate) fn object_prefix(hash: &ObjectHash) -> Vec<u8> {
    hash.as_bytes().to_vec()
}

pub(crate) fn object_key(hash: &ObjectHash, file_key: &[u8]) -> Vec<u8> {
    [hash.as_bytes(), file_key].concat()
}

/// Returns the key of the file in the key of an object's row.
pub(crate) fn object_key_file(key: &[u8]) -> Option<&[u8]> {
    key.split_first_chunk::<32>().map(|(_, file)| file)
}

pub(crate) fn cursor_key(feed: &FeedId) -> Vec<u8> {
    joined([feed.project.as_str(), feed.node.to_string().as_str()])
}

pub(crate) fn feed_of_key(key: &[u8]) -> Option<FeedId> {
    let (project, rest) = take_name(key)?;
    let (node, _) = take_name(rest)?;
    Some(FeedId { project: project.parse().ok()?, node: node.parse().ok()? })
}

/// A value that a table stores, in postcard.
pub(crate) trait Value: Serialize + DeserializeOwned {
    /// The table that stores it.
    const TABLE: Table;

    /// Returns its bytes.
    fn to_bytes(&self) -> Vec<u8> {
        #[expect(clippy::expect_used, reason = "plain data into a vector: postcard has nothing to fail on")]
        postcard::to_stdvec(self).expect("a row always serialises")
    }

    /// Reads its bytes.
    fn from_row(store: &dyn CatalogStore, bytes: &[u8]) -> Result<Self, CatalogError> {
        postcard::from_bytes(bytes)
            .map_err(|_| CatalogError::damaged(store.generation(), Cause::Row { table: Self::TABLE }))
    }

    /// Looks one up.
    fn load(store: &dyn CatalogStore, key: &[u8]) -> Result<Option<Self>, CatalogError> {
        store.get(Self::TABLE, key)?.map(|bytes| Self::from_row(store, &bytes)).transpose()
    }
}

impl Value for VersionFold {
    const TABLE: Table = Table::Versions;
}

impl Value for VersionId {
    const TABLE: Table = Table::Manifests;
}

impl Value for LocalFile {
    const TABLE: Table = Table::LocalFiles;
}

impl Value for FeedHead {
    const TABLE: Table = Table::Cursors;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(asset: &str, subset: &str, slot: &str) -> VersionId {
        VersionId {
            project: "lantern".parse().unwrap(),
            asset: asset.parse().unwrap(),
            subset: subset.parse().unwrap(),
            slot: slot.parse().unwrap(),
        }
    }

    #[test]
    fn version_keys_read_back_and_sort_as_versions_do() {
        let mut versions = vec![
            version("robot", "rig", "v010"),
            version("robot", "rig", "v9"),
            version("robot", "rig", "hero"),
            version("robot", "rig", "v300"),
            version("robot.a", "rig", "v001"),
            version("robot", "rig-x", "v001"),
            version("rob", "rig", "v001"),
        ];
        let mut by_key = versions.clone();
        by_key.sort_by_key(version_key);
        versions.sort();
        assert_eq!(by_key, versions);
        for version in versions {
            assert_eq!(version_of_key(&version_key(&version)), Some(version));
        }
    }

    #[test]
    fn file_keys_read_back_and_sort_as_paths_do() {
        let project: ProjectName = "lantern".parse().unwrap();
        let mut paths: Vec<RelPath> =
            ["a/b", "a", "a-b", "a b/c", "a.b", "a/b/c", "ä"].map(|path| path.parse().unwrap()).to_vec();
        let mut by_key = paths.clone();
        by_key.sort_by_key(|path| file_key(&project, path));
        paths.sort();
        assert_eq!(by_key, paths);
        for path in paths {
            assert_eq!(file_path(&file_key(&project, &path)), Some((project.clone(), path)));
        }
    }

    #[test]
    fn the_prefix_of_a_directory_does_not_reach_its_neighbours() {
        let project: ProjectName = "lantern".parse().unwrap();
        let prefix = files_prefix(&project, Some(&"a/b".parse().unwrap()));
        assert!(file_key(&project, &"a/b/c".parse().unwrap()).starts_with(&prefix));
        for other in ["a/b", "a/bc", "a/b-c", "a/b c/d"] {
            assert!(!file_key(&project, &other.parse().unwrap()).starts_with(&prefix), "{other}");
        }
    }

    #[test]
    fn feed_keys_read_back() {
        let feed = FeedId { project: "lantern".parse().unwrap(), node: "ws1@london".parse().unwrap() };
        assert_eq!(feed_of_key(&cursor_key(&feed)), Some(feed));
    }
}
