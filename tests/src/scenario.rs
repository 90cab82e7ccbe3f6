//! What one seed means: the studio, what its people do and what breaks, all chosen before the first step.

mod pieces;
mod words;

use std::collections::BTreeMap;

use avalon_protocol::{
    id::{NodeId, ProjectName, VersionId, VersionSlot},
    mode::ProjectMode,
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    content::{SavedFile, path},
    event::{Deed, Event, Fault, NodeIndex},
    link::Quality,
};

/// Sites of the simulated studio.
const SITES: [&str; 4] = ["london", "montreal", "home-anna", "archive"];
/// Its projects.
const PROJECTS: [&str; 2] = ["lantern", "harbour"];
/// One seed in this many has a file of several blocks.
const LARGE_FILE_SEEDS: u32 = 8;
/// How wrong a clock may be: ten years.
const WORST_CLOCK_MS: i64 = 10 * 365 * 24 * 3600 * 1000;

/// One node as it was installed.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// Its name.
    pub id: NodeId,
    /// What it serves and how.
    pub projects: BTreeMap<ProjectName, ProjectMode>,
    /// Whom it dials.
    pub dials: Vec<NodeIndex>,
    /// Whether it serves wrong bytes now and then.
    pub liar: bool,
    /// How far its clock is ahead of the true time, in milliseconds; behind, where it is negative.
    pub ahead_ms: i64,
}

/// A studio and its story.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// How good the line between each two nodes is; the lower index first.
    pub lines: BTreeMap<(NodeIndex, NodeIndex), Quality>,
    /// Deeds and faults with their times.
    pub agenda: Vec<(u64, Event)>,
    /// When the last fault is over.
    pub faults_end_ms: u64,
    /// Whether nodes also fail in ways that are drawn while they run: answers break off, syncs take long, the power goes in the
    /// middle of placing, and the liar lies.
    pub by_chance: bool,
}

struct Writer<'a> {
    dice: &'a mut ChaCha8Rng,
    scenario: Scenario,
    next_key: u64,
    large_left: u32,
    partitions: usize,
}

impl Scenario {
    /// Draws a studio and its story.
    pub fn draw(dice: &mut ChaCha8Rng) -> Self {
        let mut nodes = draw_nodes(dice);
        let lines = draw_lines(dice, &mut nodes);
        let faults_end_ms = dice.random_range(15_000..40_000);
        let large_left = u32::from(dice.random_ratio(1, LARGE_FILE_SEEDS));
        let scenario = Self { nodes, lines, agenda: Vec::new(), faults_end_ms, by_chance: true };
        let mut writer = Writer { dice, scenario, next_key: 1000, large_left, partitions: 0 };
        writer.versions();
        writer.policies();
        writer.faults();
        writer.disks();
        writer.clocks();
        let mut scenario = writer.scenario;
        scenario.agenda.sort_by_key(|(at_ms, _)| *at_ms);
        scenario.agenda.push((scenario.faults_end_ms, Event::Fault(Fault::End)));
        scenario
    }
}

fn draw_nodes(dice: &mut ChaCha8Rng) -> Vec<NodePlan> {
    let count = dice.random_range(3..=7);
    let sites = dice.random_range(2..=4);
    let projects = dice.random_range(1..=2);
    let liar = dice.random_bool(0.4).then(|| dice.random_range(0..count));
    let mut nodes = Vec::new();
    for index in 0..count {
        let site = if index < sites { index } else { dice.random_range(0..sites) };
        let mut serves = BTreeMap::new();
        for (number, project) in PROJECTS.iter().take(projects).enumerate() {
            // The first two nodes serve everything, so that every project has two.
            if index < 2 || dice.random_bool(0.75) || (serves.is_empty() && number + 1 == projects) {
                let mode = if dice.random_bool(0.5) { ProjectMode::Mirror } else { ProjectMode::OnDemand };
                serves.insert(project.parse().expect("a fixed name"), mode);
            }
        }
        // Every node has the studio's own feeds.
        serves.insert(ProjectName::studio(), ProjectMode::OnDemand);
        nodes.push(NodePlan {
            id: format!("ws{index}@{}", SITES[site]).parse().expect("a made-up name"),
            projects: serves,
            dials: Vec::new(),
            liar: liar == Some(index),
            ahead_ms: draw_clock(dice),
        });
    }
    nodes
}

/// Connects every two nodes, or in some studios only some: then those that serve a project still form a chain.
fn draw_lines(dice: &mut ChaCha8Rng, nodes: &mut [NodePlan]) -> BTreeMap<(NodeIndex, NodeIndex), Quality> {
    let sparse = dice.random_bool(0.35);
    let mut lines = BTreeMap::new();
    for one in 0..nodes.len() {
        for other in one + 1..nodes.len() {
            if sparse && !are_neighbours(nodes, one, other) && dice.random_bool(0.6) {
                continue;
            }
            // One of them dials, or both.
            let who = dice.random_range(0..4);
            if who != 1 {
                nodes[one].dials.push(other);
            }
            if who == 1 || who == 2 {
                nodes[other].dials.push(one);
            }
            let near = nodes[one].id.site == nodes[other].id.site;
            lines.insert((one, other), draw_quality(dice, near));
        }
    }
    lines
}

/// Says whether no node between the two in order serves a project that both serve.
fn are_neighbours(nodes: &[NodePlan], one: NodeIndex, other: NodeIndex) -> bool {
    let serves = |index: NodeIndex, project| nodes[index].projects.contains_key(project);
    let mut shared = nodes[one].projects.keys().filter(|project| serves(other, project));
    shared.any(|project| !(one + 1..other).any(|between| serves(between, project)))
}

/// Most clocks are wrong by seconds, some by years.
fn draw_clock(dice: &mut ChaCha8Rng) -> i64 {
    let most_ms = if dice.random_bool(0.2) { WORST_CLOCK_MS } else { 100_000 };
    dice.random_range(-most_ms..=most_ms)
}

fn draw_quality(dice: &mut ChaCha8Rng, near: bool) -> Quality {
    match (near, dice.random_range(0..6)) {
        (true, _) => Quality { delay_ms: 1, jitter_ms: 4, bytes_per_ms: 100_000, loss_percent: 0 },
        (false, 0) => Quality { delay_ms: 150, jitter_ms: 350, bytes_per_ms: 100, loss_percent: 0 },
        (false, kind) => {
            let delay_ms = dice.random_range(5..120);
            let loss_percent = if kind == 1 { dice.random_range(1..=30) } else { 0 };
            Quality { delay_ms, jitter_ms: delay_ms, bytes_per_ms: 10_000, loss_percent }
        }
    }
}

impl Writer<'_> {
    fn at(&mut self, at_ms: u64, event: Event) {
        self.scenario.agenda.push((at_ms, event));
    }

    fn deed(&mut self, at_ms: u64, node: NodeIndex, deed: Deed) {
        self.at(at_ms, Event::Deed { node, deed });
    }

    fn versions(&mut self) {
        let projects: std::collections::BTreeSet<ProjectName> =
            self.scenario.nodes.iter().flat_map(|node| node.projects.keys().cloned()).collect();
        let projects: Vec<ProjectName> =
            projects.into_iter().filter(|project| !project.is_studio()).collect();
        for number in 1..=self.dice.random_range(3..9) {
            let project = projects[self.dice.random_range(0..projects.len())].clone();
            let asset = ["robot", "lamp"][self.dice.random_range(0..2)];
            self.version(VersionId {
                project,
                asset: asset.parse().expect("a fixed name"),
                subset: "modelDefault".parse().expect("a fixed name"),
                slot: VersionSlot::Number(number),
            });
        }
    }

    /// One version: who saves it, whether somebody else takes its number, who adds to it and who asks for it.
    fn version(&mut self, version: VersionId) {
        let serving: Vec<NodeIndex> = (0..self.scenario.nodes.len())
            .filter(|index| self.scenario.nodes[*index].projects.contains_key(&version.project))
            .collect();
        let at_ms = self.dice.random_range(0..self.scenario.faults_end_ms * 2 / 3);
        let one = serving[self.dice.random_range(0..serving.len())];
        let files = self.files();
        self.deed(at_ms, one, Deed::Publish { version: version.clone(), files: files.clone() });
        let other = serving[self.dice.random_range(0..serving.len())];
        let kind = self.dice.random_range(0..100);
        if kind < 30 && other != one {
            // Twins when the files are the same, a conflict when they are not.
            let same = if kind < 15 { files } else { self.files() };
            let later_ms = at_ms + self.dice.random_range(0..3000);
            self.deed(later_ms, other, Deed::Publish { version: version.clone(), files: same });
            if self.dice.random_bool(0.5) {
                self.partition(at_ms.saturating_sub(200), vec![one]);
            }
        }
        if self.dice.random_bool(0.4) {
            self.growth(at_ms, &version, one, other);
        }
        for node in serving {
            if self.dice.random_bool(0.25) {
                let later_ms = at_ms + self.dice.random_range(0..8000);
                self.deed(later_ms, node, Deed::Pull { version: version.clone() });
            }
        }
    }

    /// Some people apply policies, anywhere, now and then two at once while they do not reach each other.
    fn policies(&mut self) {
        let (end_ms, nodes) = (self.scenario.faults_end_ms, self.scenario.nodes.len());
        for number in 0..self.dice.random_range(0..5) {
            let (at_ms, one) = (self.dice.random_range(0..end_ms), self.dice.random_range(0..nodes));
            self.deed(at_ms, one, Deed::Apply { text: 2 * number });
            let other = self.dice.random_range(0..nodes);
            if other != one && self.dice.random_bool(0.4) {
                let later_ms = at_ms + self.dice.random_range(0..400);
                self.deed(later_ms, other, Deed::Apply { text: 2 * number + 1 });
                if self.dice.random_bool(0.5) {
                    self.partition(at_ms.saturating_sub(200), vec![one]);
                }
            }
        }
    }

    fn growth(&mut self, at_ms: u64, version: &VersionId, one: NodeIndex, other: NodeIndex) {
        for step in 0..self.dice.random_range(1..3) {
            let later_ms = at_ms + 3000 * (step + 1) + self.dice.random_range(0..4000);
            let who = if self.dice.random_bool(0.8) { one } else { other };
            for frame in 0..self.dice.random_range(1..4) {
                let file = self.file(&format!("exr/f.{:04}.exr", 10 * (step + 1) + frame));
                self.deed(later_ms, who, Deed::Grow { version: version.clone(), file });
            }
            if self.dice.random_bool(0.3) {
                let file = self.file("notes/readme.txt");
                self.deed(later_ms, who, Deed::Grow { version: version.clone(), file });
            }
        }
    }

    fn files(&mut self) -> Vec<SavedFile> {
        let mut files = vec![self.file("main.abc")];
        for frame in 0..self.dice.random_range(0..4) {
            files.push(self.file(&format!("exr/f.{frame:04}.exr")));
        }
        files
    }

    fn file(&mut self, at: &str) -> SavedFile {
        let path = path(at);
        if self.dice.random_bool(0.25) {
            // A few files stand in many versions.
            let key = self.dice.random_range(0..6);
            return SavedFile { path, key, len: usize::try_from(key * 61).expect("small") };
        }
        self.next_key += 1;
        let large = std::mem::take(&mut self.large_left) > 0;
        let len = if large { (1 << 20) + 12_345 } else { self.dice.random_range(0..400) };
        SavedFile { path, key: self.next_key, len }
    }

    fn faults(&mut self) {
        let (end_ms, nodes) = (self.scenario.faults_end_ms, self.scenario.nodes.len());
        for _ in 0..self.dice.random_range(0..8) {
            let at_ms = self.dice.random_range(0..end_ms);
            let random = self.dice.random();
            self.at(at_ms, Event::Fault(Fault::Cut { random }));
        }
        for _ in 0..self.dice.random_range(0..3) {
            let at_ms = self.dice.random_range(0..end_ms);
            let island = (0..nodes).filter(|_| self.dice.random_bool(0.5)).collect();
            self.partition(at_ms, island);
        }
        for _ in 0..self.dice.random_range(0..5) {
            let (at_ms, node) = (self.dice.random_range(0..end_ms), self.dice.random_range(0..nodes));
            let fault = if self.dice.random_bool(0.3) { Fault::Kill { node } } else { Fault::Crash { node } };
            self.at(at_ms, Event::Fault(fault));
            let back_ms = at_ms + self.dice.random_range(10..6000);
            self.at(back_ms, Event::Fault(Fault::Restart { node }));
        }
    }

    /// Disks that are full for a while, that lose what an fsync should have written, and that are put back to a backup.
    fn disks(&mut self) {
        let (end_ms, nodes) = (self.scenario.faults_end_ms, self.scenario.nodes.len());
        if self.dice.random_bool(0.3) {
            let (at_ms, node) = (self.dice.random_range(0..end_ms), self.dice.random_range(0..nodes));
            self.at(at_ms, Event::Fault(Fault::Full { node }));
            let room_ms = at_ms + self.dice.random_range(100..8000);
            self.at(room_ms, Event::Fault(Fault::Room { node }));
        }
        for _ in 0..self.dice.random_range(0..3) {
            let (at_ms, node) = (self.dice.random_range(0..end_ms), self.dice.random_range(0..nodes));
            self.at(at_ms, Event::Fault(Fault::BadSync { node }));
        }
        if self.dice.random_bool(0.15) {
            let (at_ms, node) = (self.dice.random_range(0..end_ms), self.dice.random_range(0..nodes));
            self.at(at_ms, Event::Fault(Fault::Backup { node }));
            let later_ms = at_ms + self.dice.random_range(1000..15_000);
            self.at(later_ms, Event::Fault(Fault::Restore { node }));
            let back_ms = later_ms + self.dice.random_range(10..4000);
            self.at(back_ms, Event::Fault(Fault::Restart { node }));
        }
    }

    /// Clocks that jump while the nodes run, mostly there and back.
    fn clocks(&mut self) {
        let (end_ms, nodes) = (self.scenario.faults_end_ms, self.scenario.nodes.len());
        for _ in 0..self.dice.random_range(0..3) {
            let (at_ms, node) = (self.dice.random_range(0..end_ms), self.dice.random_range(0..nodes));
            let ahead_ms = self.dice.random_range(-WORST_CLOCK_MS..=WORST_CLOCK_MS);
            self.at(at_ms, Event::Fault(Fault::Clock { node, ahead_ms }));
            if self.dice.random_bool(0.7) {
                let later_ms = at_ms + self.dice.random_range(100..10_000);
                self.at(later_ms, Event::Fault(Fault::Clock { node, ahead_ms: 0 }));
            }
        }
    }

    fn partition(&mut self, at_ms: u64, island: Vec<NodeIndex>) {
        let partition = self.partitions;
        self.partitions += 1;
        let healed_ms = at_ms + self.dice.random_range(500..15_000);
        self.at(at_ms, Event::Fault(Fault::Part { partition, island }));
        self.at(healed_ms, Event::Fault(Fault::Heal { partition }));
    }
}
