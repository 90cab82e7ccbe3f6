//! What must hold after every step, whatever broke.
//!
//! [`Checker`] keeps its own picture of every node, made only from what lies on the node's disk, and compares. To be
//! quick it looks at what a step touched; now and then, and after every crash and start, at everything.

mod disk;
mod speech;

use std::collections::{BTreeMap, BTreeSet};

use avalon_protocol::{
    feed::FeedId,
    hash::{ChainHash, ContentId, ObjectHash},
    id::{ProjectName, VersionId},
    rel_path::RelPath,
    version_fold::VersionFold,
};

use crate::{
    env::Said,
    event::NodeIndex,
    node::{SimNode, Touched},
};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the invariant.
    pub invariant: &'static str,
    /// What was found instead.
    pub detail: String,
}

impl Violation {
    /// Says which invariant is broken, and how.
    pub fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

/// The result of a check.
pub type Checked = Result<(), Violation>;

/// Remembers what it saw, and judges what it sees.
#[derive(Debug, Default)]
pub struct Checker {
    seen: BTreeMap<NodeIndex, Seen>,
    /// The one history of each feed: which group stands at which record.
    history: BTreeMap<FeedId, BTreeMap<u64, ChainHash>>,
    saved: Saved,
    /// What somebody asked for where.
    pulled: BTreeSet<(NodeIndex, VersionId)>,
    /// Publishes that were acknowledged, and their contents.
    acknowledged: BTreeMap<NodeIndex, BTreeSet<(VersionId, ContentId)>>,
}

/// What artists saved: where, in which version, at which path.
pub(crate) type Saved = BTreeMap<(NodeIndex, VersionId), BTreeMap<RelPath, ObjectHash>>;

/// What was seen of one node.
#[derive(Debug, Default)]
struct Seen {
    /// How many groups of each feed were durable.
    groups: BTreeMap<FeedId, usize>,
    /// What those add up to.
    folds: BTreeMap<VersionId, VersionFold>,
    /// Blocks of incoming objects that were durable.
    blocks: BTreeSet<(ProjectName, ObjectHash, u64)>,
    /// The visible files and whether they were durable.
    visible: BTreeMap<VersionId, BTreeMap<RelPath, (ObjectHash, bool)>>,
    /// Versions that were being placed.
    placing: BTreeSet<VersionId>,
    /// Whether its state was put back: what it knew may come back from others only.
    restored: bool,
}

/// How much a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What the step touched.
    Touched,
    /// The whole node.
    Everything,
}

impl Checker {
    /// Checks the node that the last step was about, and what was said in it.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn check(
        &mut self,
        node: &SimNode,
        touched: Touched,
        said: &[Said],
        nodes: &[SimNode],
        scope: Scope,
    ) -> Checked {
        for said in said {
            match said {
                Said::Saved { node, version, path, object } => {
                    let saved = self.saved.entry((*node, version.clone())).or_default();
                    saved.insert(path.clone(), *object);
                }
                Said::Lost { node, version, path, torn } => {
                    let saved = self.saved.entry((*node, version.clone())).or_default();
                    match torn {
                        Some(object) => drop(saved.insert(path.clone(), *object)),
                        None => drop(saved.remove(path)),
                    }
                }
                Said::Acknowledged { node, version, content } => {
                    disk::invariant_acknowledged_is_durable(&nodes[*node], version, *content)?;
                    self.acknowledged.entry(*node).or_default().insert((version.clone(), *content));
                }
                Said::Forgot { node, project, object } => {
                    let seen = self.seen.entry(*node).or_default();
                    seen.blocks.retain(|(of, which, _)| (of, which) != (project, object));
                }
                Said::Restored { node } => {
                    let seen = self.seen.entry(*node).or_default();
                    (seen.groups, seen.folds, seen.restored) = (BTreeMap::new(), BTreeMap::new(), true);
                }
                Said::Pulled { node, version } => {
                    self.pulled.insert((*node, version.clone()));
                }
                _ => {}
            }
            let from = self.seen.entry(node.who.node).or_default();
            speech::check(said, nodes, &from.blocks)?;
        }
        let all = scope == Scope::Everything || touched.power;
        let feeds = if all { node.disk.ledger.feeds().keys().cloned().collect() } else { touched.feeds };
        let versions: BTreeSet<VersionId> = if all { self.versions(node) } else { touched.versions };
        let seen = self.seen.entry(node.who.node).or_default();
        for (project, object) in touched.objects {
            let durable = node.disk.incoming.durable(&project, object);
            seen.blocks.extend(durable.map(|block| (project.clone(), object, block)));
        }
        for feed in &feeds {
            speech::invariant_nobody_overrates_a_peer(node, feed)?;
            disk::invariant_nobody_knows_other_projects(node, &feed.project)?;
            disk::invariant_durable_records_stay(node, feed, seen)?;
            disk::invariant_every_feed_has_one_history(node, feed, seen, &mut self.history)?;
            disk::learn(node, feed, seen);
        }
        if all {
            disk::invariant_catalog_is_the_fold_of_the_feeds(node)?;
            disk::invariant_nobody_knows_any_other_project(node)?;
            if !seen.restored {
                keeps_acknowledged(node, &self.acknowledged)?;
            }
        }
        for version in &versions {
            let here = (node.who.node, version.clone());
            let saved = self.saved.get(&here);
            disk::invariant_nothing_comes_unasked(node, version, saved, self.pulled.contains(&here))?;
            disk::invariant_catalog_knows_every_durable_record(node, version, seen)?;
            disk::invariant_visible_bytes_are_what_they_should_be(node, version, seen)?;
            disk::invariant_nothing_visible_changes(node, version, seen, (saved, touched.power))?;
            if !seen.restored {
                // Of a node that was put back to a backup, the manifests of what it shows may come back later.
                disk::invariant_versions_appear_whole(node, version, saved)?;
                disk::invariant_entries_come_last(node, version, saved)?;
            }
            disk::invariant_claims_are_true(node, version, seen)?;
            disk::invariant_no_second_candidate_is_placed(node, version, seen, saved)?;
            disk::remember(node, version, seen);
        }
        Ok(())
    }

    /// Checks at the end that all that was ever acknowledged at a node is known there, also where it came back from others.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub(crate) fn check_acknowledged(&self, node: &SimNode) -> Checked {
        keeps_acknowledged(node, &self.acknowledged)
    }

    fn versions(&self, node: &SimNode) -> BTreeSet<VersionId> {
        let seen = self.seen.get(&node.who.node);
        let before = seen.into_iter().flat_map(|seen| seen.visible.keys().chain(seen.folds.keys()));
        let now = node.disk.ledger.folds().keys().chain(node.disk.tree.dirs().keys());
        before.chain(now).cloned().collect()
    }

    /// Returns everything that artists saved.
    pub(crate) fn saved(&self) -> &Saved {
        &self.saved
    }
}

fn keeps_acknowledged(
    node: &SimNode,
    acknowledged: &BTreeMap<NodeIndex, BTreeSet<(VersionId, ContentId)>>,
) -> Checked {
    let mut all = acknowledged.get(&node.who.node).into_iter().flatten();
    all.try_for_each(|(version, content)| disk::invariant_acknowledged_is_durable(node, version, *content))
}
