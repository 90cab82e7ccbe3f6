//! Reading all that a state directory holds, and saying what is damaged and what mends it. Nothing is changed.
//!
//! Of the catalog only that it opens and has all its rows is checked, and only while no daemon holds it: it is derived, and the
//! daemon proves it against the feeds at each start. What it and the witness know of the feeds says whether their ends are gone.

mod ends;
mod named;

use std::{
    collections::{BTreeMap, BTreeSet},
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

use self::ends::KnownEnds;
use crate::{
    catalog::{Cause, Generations},
    error_chain::ErrorChain,
    feed::{self, FeedFileError, FeedIndex, ForkFiles},
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
    /// The end of a feed that a crash tore; it was not acknowledged, as far as anything here knows.
    TornEnd,
    /// A feed has fewer records than it had, or is gone: what is lost was acknowledged.
    LostEnd,
    /// A feed that was put aside before.
    PutAside,
    /// A manifest.
    Manifest,
    /// A manifest that this node had, and that is not there.
    ManifestGone,
    /// What this node noted of its own feeds.
    Witness,
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
            Self::LostEnd => "lost-end",
            Self::PutAside => "put-aside",
            Self::Manifest => "manifest",
            Self::ManifestGone => "manifest-gone",
            Self::Witness => "witness",
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
            Self::LostEnd => {
                "start avalond: a peer gives back what is missing, and of this node's own feed nothing is written before; where no \
                 peer has it, avalonctl feed release goes on without"
            }
            Self::PutAside => "nothing: it is kept for whoever wants to know why; it may be deleted",
            Self::Manifest => "let avalond run: it fetches the manifest from a peer that has it",
            Self::ManifestGone => {
                "let avalond run: it fetches the manifest from a peer that has it; where nobody has it, avalonctl accept publishes \
                 what lies there"
            }
            Self::Witness => {
                "start avalond: it asks its peers about its own feeds before it writes there, and notes them anew"
            }
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
    let (mut checked, mut known) = (Checked::default(), KnownEnds::default());
    checked.findings.extend(known.take_witness(&root, me));
    let of_catalog = match part(&root, "catalog")?.filter(|_| is_alone) {
        Some(catalog) => check_catalog(&catalog, &mut known, &mut checked)?,
        None => None,
    };
    let feeds = check_feeds(&root, (me, trust), &known, &mut checked)?;
    let manifests = check_manifests(&root, &mut checked)?;
    let dir = root.path().join("manifests");
    match named::gone(&feeds, me, &manifests.ids, &dir) {
        Ok(gone) => checked.findings.extend(gone),
        // All of it was read a moment ago: a daemon that runs puts it aside, or the disk is bad.
        Err(error) => checked.findings.push(Finding {
            kind: FindingKind::Unreadable,
            path: root.path().join("feeds"),
            detail: ErrorChain(&error).to_string(),
        }),
    }
    if part(&root, "blocks")?.is_some() {
        check_block_lists(&root, &manifests.sizes, &mut checked)?;
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
    checked.findings.extend(of_catalog);
    Ok(checked)
}

fn part(root: &Dir, name: &str) -> Result<Option<Dir>, IoError> {
    match root.open_dir(&path_of(name)) {
        Err(error) if error.is_not_found() => Ok(None),
        opened => opened.map(Some),
    }
}

/// Returns the feeds that are good, as far as they go.
fn check_feeds(
    root: &Dir,
    (me, trust): (&NodeId, &dyn RecordTrust),
    known: &KnownEnds,
    checked: &mut Checked,
) -> Result<Vec<Arc<FeedIndex>>, IoError> {
    let (feeds, path) = (part(root, "feeds")?, root.path().join("feeds"));
    let found = feeds.as_ref().map_or(Ok(Vec::new()), feed::find)?;
    checked.feeds = found.len() as u64;
    let there: BTreeSet<&FeedId> = found.iter().collect();
    for feed in known.feeds().filter(|feed| !there.contains(feed)) {
        let lost = known.judge(feed, 0, None);
        checked.findings.extend(lost.map(|(kind, detail)| {
            let path = path.join(feed.to_string());
            Finding { kind, path, detail }
        }));
    }
    let Some(feeds) = feeds else { return Ok(Vec::new()) };
    let mut good = Vec::new();
    for feed in found {
        let path = path.join(feed.to_string());
        match feed::check(&feeds, &feed, trust) {
            Ok((index, torn)) => {
                let records = index.head().next_seq;
                checked.records += records;
                let end = known.judge(&feed, records, torn.as_ref());
                checked.findings.extend(end.map(|(kind, detail)| Finding { kind, path, detail }));
                good.push(index);
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
    Ok(good)
}

fn kind_of(feed: &FeedId, me: &NodeId, error: &FeedFileError) -> FindingKind {
    match error {
        FeedFileError::Io { .. } => FindingKind::Unreadable,
        error if !error.is_damage() => FindingKind::Newer,
        _ if feed.node == *me => FindingKind::OwnFeed,
        _ => FindingKind::PeerFeed,
    }
}

/// What is known of the manifests that are here.
#[derive(Default)]
struct Manifests {
    /// In order, also of damaged ones.
    ids: Vec<ManifestId>,
    /// The sizes of all objects that good ones name.
    sizes: BTreeMap<ObjectHash, u64>,
}

fn check_manifests(root: &Dir, checked: &mut Checked) -> Result<Manifests, IoError> {
    let Some(dir) = part(root, "manifests")? else { return Ok(Manifests::default()) };
    let files = ManifestFiles::new(dir.clone());
    let mut ids: Vec<_> = files.ids()?.into_iter().collect();
    ids.sort();
    checked.manifests = ids.len() as u64;
    let read = |id: &ManifestId| (*id, files.get(*id));
    let mut sizes = BTreeMap::new();
    for (id, manifest) in ids.par_iter().map(read).collect::<Vec<_>>() {
        let path = manifest_path(dir.path(), &id);
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
    Ok(Manifests { ids, sizes })
}

fn manifest_path(dir: &Path, id: &ManifestId) -> PathBuf {
    let text = id.to_string();
    dir.join(text.get(..2).unwrap_or_default()).join(&text)
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

/// Returns what is wrong with the catalog. One that is good says how much there was.
fn check_catalog(
    dir: &Dir,
    known: &mut KnownEnds,
    checked: &mut Checked,
) -> Result<Option<Finding>, IoError> {
    // Time is for telling how long it takes to open, which nobody asks here.
    let now: Monotonic = Arc::new(std::time::Duration::default);
    let found = |detail: String| {
        Ok(Some(Finding { kind: FindingKind::Catalog, path: dir.path().to_owned(), detail }))
    };
    match Generations::new(dir.clone(), now, u64::MAX).open_current() {
        Ok(Ok(opened)) => {
            checked.catalog = true;
            match opened.store.verify().and_then(|_| known.take_cursors(&*opened.store)) {
                Ok(()) => Ok(None),
                Err(error) => found(ErrorChain(&error).to_string()),
            }
        }
        // The first start makes it; and whoever deleted it wanted that.
        Ok(Err(Cause::Absent)) if dir.stat(&path_of("CURRENT"))?.is_none() => Ok(None),
        Ok(Err(Cause::Absent)) => found("CURRENT names no catalog that is there".into()),
        Ok(Err(cause)) => found(ErrorChain(&cause).to_string()),
        Err(error) if error.source.kind() == io::ErrorKind::InvalidData => {
            found(ErrorChain(&error).to_string())
        }
        Err(error) => Err(error),
    }
}
