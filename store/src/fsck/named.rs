//! Manifests that must be here: this node stored them before it recorded that it has their versions, and none is ever removed.
//!
//! Of versions that only others hold nothing is asked: their manifests come when a peer is there, and whether one came before nobody
//! noted. A generation that another one follows is passed over too: nothing that lies here is compared with it any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use avalon_protocol::{
    hash::ManifestId,
    id::{NodeId, VersionId},
    record::Record,
    version_fold::VersionFold,
};

use super::{Finding, FindingKind, manifest_path};
use crate::feed::{FeedFileError, FeedIndex, body_of};

/// How many bytes of a feed are read at a time.
const READ_BYTES: usize = 4 << 20;

/// Returns the manifests that are not among `here` and should be. `here` is sorted, and was listed after the feeds were read.
pub(super) fn gone(
    feeds: &[Arc<FeedIndex>],
    me: &NodeId,
    here: &[ManifestId],
    dir: &Path,
) -> Result<Vec<Finding>, FeedFileError> {
    let is_gone = |id: &ManifestId| here.binary_search(id).is_err();
    let mut versions: BTreeSet<VersionId> = BTreeSet::new();
    for index in feeds.iter().filter(|index| index.feed().node == *me) {
        each_record(index, |_, record| {
            if let (Some(version), true) =
                (record.version(), named_by(&record).is_some_and(|id| is_gone(&id)))
            {
                versions.insert(version.clone());
            }
        })?;
    }
    let mut folds: BTreeMap<VersionId, VersionFold> = BTreeMap::new();
    let is_concerned =
        |index: &&Arc<FeedIndex>| versions.iter().any(|version| version.project == index.feed().project);
    for index in feeds.iter().filter(is_concerned) {
        let node = &index.feed().node;
        each_record(index, |seq, record| {
            if let Some(version) = record.version().filter(|version| versions.contains(version)) {
                folds.entry(version.clone()).or_default().apply(node, seq, &record);
            }
        })?;
    }
    let mut findings = Vec::new();
    for (version, fold) in &folds {
        for id in fold.ever_held_by(me).filter(|id| is_gone(id) && is_needed(fold, me, id)) {
            findings.push(Finding {
                kind: FindingKind::ManifestGone,
                path: manifest_path(dir, &id),
                detail: format!(
                    "this node recorded that it has {version} as it describes it, and it is not there"
                ),
            });
        }
    }
    Ok(findings)
}

/// Of what is out of use only what still lies here counts.
fn is_needed(fold: &VersionFold, me: &NodeId, id: &ManifestId) -> bool {
    let is_followed = fold.generations().values().any(|generation| generation.predecessor == Some(*id));
    let is_held = fold.held_by(me).any(|held| held == *id);
    !is_followed && (is_held || fold.retired().is_none())
}

fn named_by(record: &Record) -> Option<ManifestId> {
    match record {
        Record::Published(published) => Some(published.manifest),
        Record::Placed(held) | Record::Dropped(held) => Some(held.manifest),
        _ => None,
    }
}

fn each_record(index: &FeedIndex, mut each: impl FnMut(u64, Record)) -> Result<(), FeedFileError> {
    let mut from = 0;
    loop {
        let groups = index.read(from, READ_BYTES)?;
        if groups.is_empty() {
            return Ok(());
        }
        for group in &groups {
            let Some((body, head)) = body_of(group) else {
                return Err(FeedFileError::NotABoundary { feed: index.feed().clone(), seq: from });
            };
            for (seq, raw) in (body.first_seq..).zip(&body.records) {
                if let Ok(record) = Record::in_feed(raw, &index.feed().project) {
                    each(seq, record);
                }
            }
            from = head.next_seq;
        }
    }
}
