//! What nodes hold that meet damage later: versions of every shape, published at both, the same at both.

use std::path::Path;

use avalon_protocol::control::{HoldingState, ListReply, WhereItem, route};

use super::verifier::Acknowledged;
use crate::daemons::{api::Api, daemon::Daemon, tree};

const MODEL: &str = "assets/robot/publish/modelDefault";
const HERO: &str = "assets/robot/publish/rigMain/hero";
const HERO_REFERENCE: &str = "lantern:robot/rigMain@hero";

/// The versions.
#[derive(Debug, Default)]
pub struct Stock {
    /// All of them, by their references.
    pub references: Vec<String>,
    /// What was acknowledged.
    pub acknowledged: Vec<Acknowledged>,
    seed: u64,
}

impl Stock {
    /// Publishes at two nodes: single files, files of several blocks, a sequence of so many frames at each, a hero. Both nodes must get
    /// everything by themselves.
    pub fn fill(one: &Daemon, other: &Daemon, frames: usize, seed: u64) -> Self {
        let mut stock = Self { seed: seed << 16, ..Self::default() };
        for version in 1..=3 {
            stock.model(one, version, &[60_000, 3_000]);
        }
        stock.model(one, 4, &[3_300_000, 10]);
        stock.model(one, 5, &vec![9_000; frames]);
        for version in 101..=102 {
            stock.model(other, version, &[50_000, 70]);
        }
        stock.model(other, 103, &[2_500_000, 1_200_000]);
        stock.model(other, 104, &vec![7_000; frames]);
        stock.publish(one, HERO, HERO_REFERENCE, &[40_000]);
        stock.until_whole_at(one);
        stock.until_whole_at(other);
        stock
    }

    /// Publishes a model with files of these sizes.
    pub fn model(&mut self, at: &Daemon, version: u32, sizes: &[usize]) {
        self.publish(at, &format!("{MODEL}/v{version:03}"), &reference(version), sizes);
    }

    fn publish(&mut self, at: &Daemon, dir: &str, reference: &str, sizes: &[usize]) {
        for (number, bytes) in (1..).zip(sizes) {
            self.seed += 1;
            let content = tree::noise(self.seed, *bytes);
            let path = format!("{dir}/modelDefault.{number:04}.abc");
            tree::write(&at.path(&path), &content);
            self.acknowledged.push(Acknowledged {
                node: at.config.node.clone(),
                path: path.into(),
                hash: blake3::hash(&content),
            });
        }
        let item = at.api().publish(&at.path(dir));
        assert_eq!(item.error, None, "{item:?}");
        self.references.push(reference.to_owned());
    }

    /// Waits until a node has every version whole.
    pub fn until_whole_at(&self, node: &Daemon) {
        node.until("every version is here", |api| {
            let list = list(api)?;
            let whole = |reference: &String| {
                use avalon_protocol::control::Presence::Complete;
                list.versions.iter().any(|v| v.reference == *reference && v.here == Complete && !v.conflict)
            };
            (list.versions.len() == self.references.len() && self.references.iter().all(whole)).then_some(())
        });
    }

    /// Says what is wrong with the files at a place, of all that was published.
    pub fn check_files(&self, project: &Path) -> Result<(), String> {
        let is_bad = |file: &&Acknowledged| {
            let there = std::fs::read(project.join(&file.path));
            !there.is_ok_and(|bytes| blake3::hash(&bytes) == file.hash)
        };
        let bad: Vec<_> = self.acknowledged.iter().filter(is_bad).map(|file| &file.path).collect();
        if bad.is_empty() { Ok(()) } else { Err(format!("wrong at {}: {bad:?}", project.display())) }
    }
}

/// Returns all versions; none while the daemon cannot say.
pub fn list(api: &Api) -> Option<ListReply> {
    api.get(route::VERSIONS).ok()
}

/// Returns who holds all of a version.
pub fn complete_at(item: &WhereItem) -> Vec<String> {
    let complete = item.nodes.iter().filter(|node| node.state == HoldingState::Complete);
    let mut names: Vec<String> = complete.map(|node| format!("{}@{}", node.node, node.site)).collect();
    names.sort();
    names
}

fn reference(version: u32) -> String {
    format!("lantern:robot/modelDefault@v{version:03}")
}
