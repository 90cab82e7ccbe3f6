//! Reading all that a state directory holds, and saying what is damaged and what mends it. Nothing is changed.
//!
//! Of the catalog only that it opens and has all its rows is checked, and only while no daemon holds it: it is derived, and the
//! daemon proves it against the feeds at each start.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use avalon_protocol::{
    block::block_count,
    feed::FeedId,
    hash::{ManifestId, ObjectHash},
    id::NodeId,
    manifest::Manifest,
    signing::RecordTrust,
};
use rayon::prelude::*;

use crate::{
    catalog::{Cause, Generations},
    error_chain::ErrorChain,
    feed::{self, FeedFileError, ForkFiles},
    fs::{Dir, FileKind, IoError, path_of},
    manifest_file::{ManifestFileError, ManifestFiles},
    object::serve::BlockCache,
    time::Monotonic,
};

/// What was read, and what is wrong.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How many feeds.
    pub feeds: u64,
    /// How many records those have that are good.
    pub records: u64,
    /// How many manifests.
    pub manifests: u64,
    /// How many block lists of objects that a manifest names.
    pub block_lists: u64,
    /// Whether the catalog was read.
    pub catalog: bool,
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
}

/// Something that is not as it was written, or that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong with it.
    pub detail: String,
}

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// A feed of this node.
    OwnFeed,
    /// The copy of another node's feed.
    PeerFeed,
    /// The end of a feed that a crash tore; it was not acknowledged.
    TornEnd,
    /// A feed that was put aside before.
    PutAside,
    /// A manifest.
    Manifest,
    /// The block list of an object.
    BlockList,
    /// A proof that a feed has two histories; what it proves is no damage of this disk.
    Fork,
    /// The catalog.
    Catalog,
    /// It was written by a newer version, and this one cannot say.
    Newer,
    /// The system refuses to read it.
    Unreadable,
}

impl FindingKind {
    /// Says whether something is lost here that has to come from elsewhere, be made again, or be looked at by somebody.
    pub fn is_damage(self) -> bool {
        !matches!(self, Self::TornEnd | Self::PutAside | Self::Fork)
    }

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnFeed => "own-feed",
            Self::PeerFeed => "peer-feed",
            Self::TornEnd => "torn-end",
            Self::PutAside => "put-aside",
            Self::Manifest => "manifest",
            Self::BlockList => "block-list",
            Self::Fork => "fork",
            Self::Catalog => "catalog",
            Self::Newer => "newer",
            Self::Unreadable => "unreadable",
        }
    }

    /// Says what mends it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::OwnFeed => {
                "start avalond: it puts the feed aside and writes nothing there before a peer gave it back; where no other \
                 node is known, put a backup of this directory in its place"
            }
            Self::PeerFeed => "start avalond: it puts the feed aside and takes it from a peer again",
            Self::TornEnd => "nothing is lost: avalond cuts it off at its start",
            Self::PutAside => "nothing: it is kept for whoever wants to know why; it may be deleted",
            Self::Manifest => "let avalond run: it fetches the manifest from a peer that has it",
            Self::BlockList => "delete the file: it is made again when somebody asks for the object",
            Self::Fork => "see avalonctl feed show: a person decides",
            Self::Catalog => "start avalond: it makes the catalog anew from the feeds",
            Self::Newer => "upgrade avalond here",
            Self::Unreadable => "look at the disk, and at the rights of this file",
        }
    }
}

/// Reads all of a state directory. `is_alone` says that no daemon writes there: only then the catalog is opened. Manifests are read on the
/// rayon pool that the caller runs on. Blocks for as long as that takes.
///
/// # Errors
/// [`IoError`] when the directory itself cannot be listed; what lies in it is a finding.
pub fn check(root: &Path, me: &NodeId, trust: &dyn RecordTrust, is_alone: bool) -> Result<Checked, IoError> {
    let root = Dir::open(root)?;
    let mut checked = Checked::default();
    if let Some(feeds) = part(&root, "feeds")? {
        check_feeds(&feeds, (me, trust), &mut checked)?;
    }
    let sizes = match part(&root, "manifests")? {
        Some(dir) => check_manifests(&dir, &mut checked)?,
        None => BTreeMap::new(),
    };
    if part(&root, "blocks")?.is_some() {
        check_block_lists(&root, &sizes, &mut checked)?;
    }
    if let Some(forks) = part(&root, "forks")? {
        let all = ForkFiles::new(forks.clone()).all()?;
        checked.findings.extend(all.iter().map(|fork| Finding {
            kind: FindingKind::Fork,
            path: forks.path().join(format!("{}.json", fork.feed)),
            detail: match &fork.proof {
                Some(_) => format!("feed {} has two histories", fork.feed),
                None => format!("the proof that feed {} has two histories is damaged", fork.feed),
            },
        }));
    }
    if let Some(catalog) = part(&root, "catalog")?.filter(|_| is_alone) {
        check_catalog(&catalog, &mut checked)?;
    }
    Ok(checked)
}

fn part(root: &Dir, name: &str) -> Result<Option<Dir>, IoError> {
    match root.open_dir(&path_of(name)) {
        Err(error) if error.is_not_found() => Ok(None),
        opened => opened.map(Some),
    }
}

fn check_feeds(
    feeds: &Dir,
    (me, trust): (&NodeId, &dyn RecordTrust),
    checked: &mut Checked,
) -> Result<(), IoError> {
    for feed in feed::find(feeds)? {
        let path = feeds.path().join(feed.to_string());
        checked.feeds += 1;
        match feed::check(feeds, &feed, trust) {
            Ok((head, torn)) => {
                checked.records += head.next_seq;
                checked.findings.extend(torn.map(|torn| Finding {
                    kind: FindingKind::TornEnd,
                    path,
                    detail: format!(
                        "{} bytes at the end of segment {}, from byte {} on, are no whole group",
                        torn.bytes, torn.segment, torn.offset
                    ),
                }));
            }
            Err(error) => {
                let kind = kind_of(&feed, me, &error);
                checked.findings.push(Finding { kind, path, detail: ErrorChain(&error).to_string() });
            }
        }
    }
    for project in feeds.list(None)?.into_iter().filter(|entry| entry.kind == FileKind::Dir) {
        let Ok(path) = project.rel_path() else { continue };
        let aside =
            feeds.list(Some(&path))?.into_iter().filter(|entry| entry.display_name().starts_with("bad-"));
        checked.findings.extend(aside.map(|entry| Finding {
            kind: FindingKind::PutAside,
            path: feeds.path().join(path.as_str()).join(entry.name),
            detail: "a feed that was found damaged before".into(),
        }));
    }
    Ok(())
}

fn kind_of(feed: &FeedId, me: &NodeId, error: &FeedFileError) -> FindingKind {
    match error {
        FeedFileError::Io { .. } => FindingKind::Unreadable,
        error if !error.is_damage() => FindingKind::Newer,
        _ if feed.node == *me => FindingKind::OwnFeed,
        _ => FindingKind::PeerFeed,
    }
}

/// Returns the sizes of all objects that good manifests name.
fn check_manifests(dir: &Dir, checked: &mut Checked) -> Result<BTreeMap<ObjectHash, u64>, IoError> {
    let files = ManifestFiles::new(dir.clone());
    let mut ids: Vec<_> = files.ids()?.into_iter().collect();
    ids.sort();
    checked.manifests = ids.len() as u64;
    let read = |id: &ManifestId| (*id, files.get(*id));
    let mut sizes = BTreeMap::new();
    for (id, manifest) in ids.par_iter().map(read).collect::<Vec<_>>() {
        let text = id.to_string();
        let path = dir.path().join(text.get(..2).unwrap_or_default()).join(&text);
        match manifest {
            Ok(Some(manifest)) => sizes.extend(large(&manifest)),
            Ok(None) => {}
            Err(error) => {
                let kind = match &error {
                    ManifestFileError::Damaged { .. } => FindingKind::Manifest,
                    ManifestFileError::Refused { .. } => FindingKind::Newer,
                    ManifestFileError::Io { .. } | ManifestFileError::NoSpace { .. } => {
                        FindingKind::Unreadable
                    }
                };
                checked.findings.push(Finding { kind, path, detail: ErrorChain(&error).to_string() });
            }
        }
    }
    Ok(sizes)
}

/// Only objects of more than a block have a list.
fn large(manifest: &Manifest) -> impl Iterator<Item = (ObjectHash, u64)> {
    manifest.files().iter().filter(|file| block_count(file.size) > 1).map(|file| (file.hash, file.size))
}

fn check_block_lists(
    root: &Dir,
    sizes: &BTreeMap<ObjectHash, u64>,
    checked: &mut Checked,
) -> Result<(), IoError> {
    let (blocks, cache) = (root.open_dir(&path_of("blocks"))?, BlockCache::open(root)?);
    for directory in blocks.list(None)?.into_iter().filter(|entry| entry.kind == FileKind::Dir) {
        let Ok(path) = directory.rel_path() else { continue };
        for file in blocks.list(Some(&path))? {
            let object = file.name.to_str().and_then(|name| name.parse::<ObjectHash>().ok());
            // Of one that no manifest names, nobody knows how long it has to be.
            let Some((object, size)) = object.and_then(|object| sizes.get_key_value(&object)) else {
                continue;
            };
            checked.block_lists += 1;
            if cache.get(object, *size).is_none() {
                checked.findings.push(Finding {
                    kind: FindingKind::BlockList,
                    path: blocks.path().join(path.as_str()).join(file.name),
                    detail: format!("it is not the block list of {}", object.short()),
                });
            }
        }
    }
    Ok(())
}

fn check_catalog(dir: &Dir, checked: &mut Checked) -> Result<(), IoError> {
    // Time is for telling how long it takes to open, which nobody asks here.
    let now: Monotonic = Arc::new(std::time::Duration::default);
    let found = |detail: String| Finding { kind: FindingKind::Catalog, path: dir.path().to_owned(), detail };
    match Generations::new(dir.clone(), now, u64::MAX).open_current() {
        Ok(Ok(opened)) => {
            checked.catalog = true;
            if let Err(error) = opened.store.verify() {
                checked.findings.push(found(ErrorChain(&error).to_string()));
            }
        }
        // The first start makes it; and whoever deleted it wanted that.
        Ok(Err(Cause::Absent)) if dir.stat(&path_of("CURRENT"))?.is_none() => {}
        Ok(Err(Cause::Absent)) => {
            checked.findings.push(found("CURRENT names no catalog that is there".into()))
        }
        Ok(Err(cause)) => checked.findings.push(found(ErrorChain(&cause).to_string())),
        Err(error) if error.source.kind() == io::ErrorKind::InvalidData => {
            checked.findings.push(found(ErrorChain(&error).to_string()));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
