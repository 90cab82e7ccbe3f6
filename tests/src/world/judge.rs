//! Says at the end whether everything is where it belongs, from what artists did and not from what the planner says.

use std::collections::BTreeMap;

use avalon_protocol::{
    hash::ManifestId,
    id::{ProjectName, VersionId},
    mode::ProjectMode,
    version_fold::{Standing, VersionFold},
};

use super::{CONVERGENCE_LIMIT_MS, World};
use crate::{
    event::Event,
    invariant::{Checked, Violation},
    node::SimNode,
};

/// How often it is asked, in virtual milliseconds.
const JUDGE_EVERY_MS: u64 = 500;

impl World {
    /// Asks whether everything is where it belongs; at the limit it has to be.
    pub(super) fn judge(&mut self) -> Checked {
        let open = self.open();
        if open.is_empty() {
            self.converged = true;
            let mut nodes = 0..self.nodes.len();
            return nodes.try_for_each(|node| {
                self.nodes[node].touched.power = true;
                self.check(node)?;
                self.checker.check_acknowledged(&self.nodes[node])
            });
        }
        if self.env.now_ms > self.quiet_ms + CONVERGENCE_LIMIT_MS {
            return Err(Violation::new("everything_arrives", open.join("; ")));
        }
        self.env.after(JUDGE_EVERY_MS, Event::Judge);
        Ok(())
    }

    /// Says what is not yet where it belongs.
    fn open(&self) -> Vec<String> {
        let unfinished = |node: &SimNode| {
            node.unfinished(|version, manifest| self.is_out_of_reach(node, version, manifest))
        };
        let mut open: Vec<String> = self.nodes.iter().flat_map(unfinished).collect();
        if open.is_empty() {
            open.extend(self.differences());
            open.extend(self.other_policies());
            open.extend(self.undecided());
            open.extend(self.unrecorded());
            open.extend(self.needless_conflicts());
        }
        open
    }

    /// Says whether no holder of a generation has a line to a node: objects do not travel over nodes that do not want them.
    fn is_out_of_reach(&self, node: &SimNode, version: &VersionId, manifest: &ManifestId) -> bool {
        let fold = node.disk.ledger.folds().get(version);
        let holders = fold.map(|fold| fold.holders(manifest)).unwrap_or_default();
        let mut linked =
            self.nodes.iter().filter(|other| self.env.network.has_line(node.who.node, other.who.node));
        !linked.any(|other| holders.contains(&other.id))
    }

    /// Nodes that serve a project and do not agree with the first of them about it.
    fn differences(&self) -> Vec<String> {
        let mut open = Vec::new();
        let mut first: BTreeMap<&ProjectName, BTreeMap<&VersionId, &VersionFold>> = BTreeMap::new();
        for node in &self.nodes {
            for project in node.projects.keys() {
                let folds =
                    node.disk.ledger.folds().iter().filter(|(version, _)| version.project == *project);
                let folds: BTreeMap<_, _> = folds.collect();
                if *first.entry(project).or_insert_with(|| folds.clone()) != folds {
                    open.push(format!("{} sees {project} in another way", node.id));
                }
            }
        }
        open
    }

    /// Nodes that do not go by the same policy as the first of them, or do not know all that were applied.
    fn other_policies(&self) -> Vec<String> {
        let first = self.nodes.first().map(|node| node.disk.ledger.policy());
        let others = self.nodes.iter().filter(|node| Some(node.disk.ledger.policy()) != first);
        others.map(|node| format!("{} goes by another policy", node.id)).collect()
    }

    /// Versions that should be at a node and are not: heads at mirrors, what was pulled, growth of what is held. This does
    /// not ask the planner, which is what is being judged.
    fn undecided(&self) -> Vec<String> {
        let mut open = Vec::new();
        for node in &self.nodes {
            let pulls = self.pulls.get(&node.who.node);
            for (version, fold) in node.disk.ledger.folds() {
                let mirrors = node.projects.get(&version.project) == Some(&ProjectMode::Mirror);
                let pulled = pulls.is_some_and(|pulls| pulls.contains(version));
                let wanted = mirrors || pulled || fold.held_by(&node.id).next().is_some();
                let absent = match fold.standing(version.slot) {
                    Standing::Head(head) => {
                        wanted && !fold.holds(&node.id, &head) && !self.is_out_of_reach(node, version, &head)
                    }
                    Standing::Conflict(_) => false,
                    Standing::Unknown => true,
                };
                if absent {
                    open.push(format!("{} lacks {version}", node.id));
                }
            }
        }
        open
    }

    /// Versions that only one node's artists made and that stand in conflict all the same.
    fn needless_conflicts(&self) -> Vec<String> {
        let mut makers: BTreeMap<&VersionId, usize> = BTreeMap::new();
        for (_, version) in self.checker.saved().keys() {
            *makers.entry(version).or_default() += 1;
        }
        let mut open = Vec::new();
        for (version, fold) in self.nodes.iter().flat_map(|node| node.disk.ledger.folds()) {
            let conflict = matches!(fold.standing(version.slot), Standing::Conflict(_));
            if conflict && makers.get(version).is_some_and(|makers| *makers < 2) {
                open.push(format!("{version} is in conflict with itself"));
            }
        }
        open
    }

    /// Files that an artist saved and no version that the node holds names, unless people have to decide about it.
    fn unrecorded(&self) -> Vec<String> {
        let mut open = Vec::new();
        for ((node, version), files) in self.checker.saved() {
            let node = &self.nodes[*node];
            let fold = node.disk.ledger.folds().get(version);
            let held: Vec<_> = fold.into_iter().flat_map(|fold| fold.held_by(&node.id)).collect();
            let manifests: Vec<_> = held.iter().filter_map(|id| node.disk.manifests.get(id)).collect();
            let conflict =
                fold.is_some_and(|fold| matches!(fold.standing(version.slot), Standing::Conflict(_)));
            for (path, object) in files {
                let named = manifests.iter().any(|manifest| {
                    manifest.files().iter().any(|file| file.path == *path && file.hash == *object)
                });
                if !named && !conflict {
                    open.push(format!("{} saved {version} {path} and nobody recorded it", node.id));
                }
            }
        }
        open
    }
}
