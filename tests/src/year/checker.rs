//! What must hold in a year: after each drop, each round and each change of a disk, and when all has come to rest.
//!
//! # What is promised of copies
//!
//! Nodes may know different policies for a while, so "the minimum" is what those know that take part. When the record of a drop
//! is durable, as many sites hold the version as the dropper knew to be asked for when it decided, and as each node that it
//! counted knew when it answered; at least one. A site holds it when the records of one of its nodes say so, and its files
//! there are whole, or were when the drop began: what rots while a proof is on its way is nobody's drop. So a version that
//! has reached its minimum never goes below it by drops, and one that has not is not dropped at all.
//!
//! One case is left out, for the protocol does not promise it: a node that proved and then, by an older policy that asks for
//! fewer copies, begins a drop of its own and is through before the first. It then counts as there for the first drop, and its
//! own is judged by what was known to those that took part in it.

use std::collections::{BTreeMap, BTreeSet};

use avalon_protocol::{drop::Choice, hash::ManifestId, plan::Stance, policy::Keep, version_fold::Standing};

use super::{
    book::{Book, FileBytes, NodeIndex, VersionIndex},
    dropper::{EVICT_AFTER_MS, Purpose},
    node::{Entry, Node},
    room::WHILE_BLOCKED_MS,
    script::{DAY, HOUR},
    world::World,
};
use crate::invariant::{Checked, Violation};

/// How long after the last fault everything may take to be where the last policy wants it: a night until the next window
/// opens (24 hours) or the daily look at what time alone changes, twice the slowest retry (12 hours) because room is made
/// before something comes, and as much again for drops that wait for copies elsewhere and that people ask for again. What is
/// missing at the end counts when it was missing one retry before as well.
pub const LIMIT_MS: u64 = 4 * DAY;
/// What the policy says counts at the end if it said so all this time.
const STEADY_MS: u64 = 2 * DAY + 12 * HOUR;

/// What a drop was based on.
#[derive(Debug, Clone)]
pub struct Decided {
    /// When the attempt entered the state dropping.
    pub entered_ms: u64,
    /// How many copies the node knew to be asked for.
    pub min_copies: u32,
    /// The nodes that it counted.
    pub counted: Vec<NodeIndex>,
    /// Whether the policy that it knew, or its mode, lets the version go.
    pub is_free: bool,
}

/// A drop that happened.
#[derive(Debug, Clone)]
struct Gone {
    node: NodeIndex,
    manifest: ManifestId,
    entered_ms: u64,
    needed: u32,
}

/// Remembers what it saw, and judges.
#[derive(Debug, Default)]
pub struct Checker {
    /// What artists saved and nobody published.
    unpublished: BTreeMap<(NodeIndex, VersionIndex), BTreeMap<u8, FileBytes>>,
    /// Since when files are rotten or lost.
    damaged_ms: BTreeMap<(NodeIndex, VersionIndex), u64>,
    decided: BTreeMap<(NodeIndex, u64), Decided>,
    gone: BTreeMap<VersionIndex, Vec<Gone>>,
    /// What nodes that proved knew: asker and attempt, the node.
    vouched: BTreeMap<(NodeIndex, u64), BTreeMap<NodeIndex, u32>>,
    /// What was not where the policy keeps it, one retry before the end.
    pub(super) lacked: BTreeSet<(NodeIndex, VersionIndex)>,
    /// The drops that were possible when people asked for the last time.
    pub(super) could_go: BTreeSet<(NodeIndex, VersionIndex)>,
    violation: Option<Violation>,
}

impl Checker {
    /// Hears that an artist saved a file.
    pub fn saved(&mut self, n: NodeIndex, v: VersionIndex, place: u8, bytes: FileBytes) {
        self.unpublished.entry((n, v)).or_default().insert(place, bytes);
    }

    /// Hears that files are published.
    pub fn published(&mut self, n: NodeIndex, v: VersionIndex, files: &BTreeMap<u8, FileBytes>) {
        if let Some(saved) = self.unpublished.get_mut(&(n, v)) {
            saved.retain(|place, bytes| files.get(place) != Some(bytes));
        }
    }

    /// Says whether something of a version is not published.
    pub fn has_unpublished(&self, n: NodeIndex, v: VersionIndex) -> bool {
        self.unpublished.get(&(n, v)).is_some_and(|saved| !saved.is_empty())
    }

    /// Says whether this file is not published.
    pub fn is_unpublished(&self, n: NodeIndex, v: VersionIndex, place: u8) -> bool {
        self.unpublished.get(&(n, v)).is_some_and(|saved| saved.contains_key(&place))
    }

    /// Hears that a file rotted or was lost.
    pub fn damaged(&mut self, n: NodeIndex, v: VersionIndex, now_ms: u64) {
        self.damaged_ms.insert((n, v), now_ms);
    }

    /// Hears that a node said it is good for a copy.
    pub fn vouched(&mut self, n: NodeIndex, asker: NodeIndex, attempt: u64, min_copies: u32) {
        self.vouched.entry((asker, attempt)).or_default().insert(n, min_copies);
    }

    /// Hears that a node decided to drop.
    pub fn decided(&mut self, n: NodeIndex, attempt: u64, decided: Decided) {
        self.decided.insert((n, attempt), decided);
    }

    /// Returns what was found in between.
    pub fn take_violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    fn found(&mut self, invariant: &'static str, detail: String) {
        self.violation.get_or_insert(Violation::new(invariant, detail));
    }

    /// Judges a drop whose record has just become durable.
    pub fn dropped(
        &mut self,
        (n, attempt): (NodeIndex, u64),
        v: VersionIndex,
        manifest: &ManifestId,
        nodes: &[Node],
        book: &Book,
    ) {
        let name = &book.versions[v].id;
        let Some(decided) = self.decided.get(&(n, attempt)).cloned() else {
            return self
                .found("drops are decided", format!("{} dropped {name} and did not decide to", nodes[n].id));
        };
        if nodes[n].pins.contains(&v) {
            self.found(
                "nothing pinned is dropped",
                format!("{} dropped {name}, which is pinned there", nodes[n].id),
            );
        }
        if !decided.is_free {
            self.found("nothing that the policy keeps is dropped", format!("{} dropped {name}", nodes[n].id));
        }
        let knew = self.vouched.get(&(n, attempt));
        let others = decided.counted.iter().filter_map(|m| knew.and_then(|knew| knew.get(m)));
        let needed = others.fold(decided.min_copies.max(1), |most, min| most.max(*min));
        let generation = &book.generations[book.generation(manifest).expect("it was published")];
        let stands = |node: &&Node| {
            let damaged_ms = self.damaged_ms.get(&(node.me, v));
            node.me != n
                && node.folds_own(v, manifest)
                && (node.has_whole(generation)
                    || damaged_ms.is_some_and(|at_ms| *at_ms >= decided.entered_ms))
        };
        // An older generation that is dropped along with the newest needs no copy of its own.
        if nodes[n].held[v].and_then(|g| Some(book.generations.get(g)?.manifest)) != Some(*manifest) {
            return;
        }
        let standing = nodes.iter().filter(stands).map(|node| node.me);
        let gone = self.gone.entry(v).or_default();
        // Those that went since, because they know of fewer copies that are asked for, answer for that themselves.
        let gone_since = gone.iter().filter(|other| {
            other.manifest == *manifest && other.entered_ms >= decided.entered_ms && other.needed < needed
        });
        let there = standing.chain(gone_since.map(|other| other.node));
        let sites: BTreeSet<usize> = there.map(|m| book.nodes[m].site).collect();
        gone.push(Gone { node: n, manifest: *manifest, entered_ms: decided.entered_ms, needed });
        if sites.len() < usize::try_from(needed).expect("few copies") {
            self.found(
                "no drop takes a version below its minimum",
                format!(
                    "{} dropped {name}; {needed} other sites have to hold it, these do: {sites:?}",
                    nodes[n].id
                ),
            );
        }
    }

    /// Judges a look for room: when nothing may go although there is too little, it is known of everything why.
    pub fn round(&self, n: NodeIndex, over: u64, choice: &Choice<VersionIndex>) -> Checked {
        if over > 0 && choice.victims.is_empty() && choice.blocked.is_empty() {
            let detail = format!("node {n} is {over} bytes over its quota, and nothing goes or is blocked");
            return Err(Violation::new("quotas are met, or it is said why not", detail));
        }
        Ok(())
    }

    /// Judges a disk: what was not published is there.
    pub fn unpublished(&self, node: &Node) -> Checked {
        for ((n, v), saved) in &self.unpublished {
            let dir = node.dirs.get(v);
            if *n == node.me
                && saved.iter().any(|(place, bytes)| dir.and_then(|dir| dir.get(place)) != Some(bytes))
            {
                let detail = format!("{} lost files of version {v} that nobody has published", node.id);
                return Err(Violation::new("nothing unpublished is removed", detail));
            }
        }
        Ok(())
    }

    /// Judges everything, when all has come to rest.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn judge(&self, world: &World) -> Checked {
        // What time alone has just changed may be on its way.
        let is_settled = |entry: &&Entry| entry.at_ms + HOUR <= world.now_ms;
        let heads = world.feeds.iter().map(|feed| feed.iter().filter(is_settled).count());
        let heads: Vec<usize> = heads.collect();
        for node in &world.nodes {
            let known: Vec<usize> = node.known.iter().map(|n| usize::try_from(*n).expect("few")).collect();
            if known.iter().zip(&heads).any(|(known, head)| known < head) {
                let detail = format!("{} has {known:?} of {heads:?}", node.id);
                return Err(Violation::new("every node has all records", detail));
            }
            self.unpublished(node)?;
            self.judge_claims(world, node)?;
            for v in 0..world.book.versions.len() {
                let judged = self.judge_presence(world, node, v);
                // Room that came up by itself, as when time makes something expendable, is found by the next retry.
                if self.lacked.contains(&(node.me, v)) {
                    judged?;
                }
            }
            self.judge_quota(world, node)?;
        }
        self.judge_drops(world)
    }

    /// Returns what is not where the policy keeps it, and could be.
    pub fn lacking(&self, world: &World) -> BTreeSet<(NodeIndex, VersionIndex)> {
        let all = world.nodes.iter().flat_map(|node| (0..world.book.versions.len()).map(move |v| (node, v)));
        let lacking = all.filter(|(node, v)| self.judge_presence(world, node, *v).is_err());
        lacking.map(|(node, v)| (node.me, v)).collect()
    }

    /// What a node says that it holds lies there, but for what rotted or was lost.
    fn judge_claims(&self, world: &World, node: &Node) -> Checked {
        for v in 0..world.book.versions.len() {
            let Some(held) = node.held[v] else { continue };
            let is_damaged = self.damaged_ms.contains_key(&(node.me, v));
            if !is_damaged && !node.has_whole(&world.book.generations[held]) {
                let detail = format!("{} says that it holds {}", node.id, world.book.versions[v].id);
                return Err(Violation::new("claims are true", detail));
            }
        }
        Ok(())
    }

    /// What the policy keeps at a node is there, unless it has no room for it by the rules of quotas.
    fn judge_presence(&self, world: &World, node: &Node, v: VersionIndex) -> Checked {
        let book = &world.book;
        let fold = &node.folds[v];
        let Standing::Head(head) = node.standing[v] else { return Ok(()) };
        let is_kept = |at_ms: u64| {
            let ruling = node.ruling(book, v, node.clock(at_ms));
            matches!(node.stance(ruling.as_ref()), Stance::Keep | Stance::Later)
        };
        let now_ms = world.now_ms;
        if !is_kept(now_ms) || !is_kept(now_ms - STEADY_MS) || fold.holds(&node.id, &head) {
            return Ok(());
        }
        let generation = &book.generations[book.generation(&head).expect("it was published")];
        let has_source = world.nodes.iter().any(|m| m.folds_own(v, &head) && m.has_whole(generation));
        let dir = node.dirs.get(&v);
        let foreign =
            |(place, bytes): (&u8, &FileBytes)| generation.files.get(place).is_some_and(|file| file != bytes);
        let is_blocked = dir.is_some_and(|dir| dir.iter().any(foreign));
        if !has_source || is_blocked {
            return Ok(());
        }
        let is_expendable = node.is_expendable(book, v, now_ms);
        let waits = !world.has_room(node.me, v, generation.bytes);
        // What may be removed again waits for room; anything else makes it, as long as something may go.
        let may_wait = waits && (is_expendable || !self.could_make_room(world, node, generation.bytes));
        if may_wait {
            return Ok(());
        }
        let detail = format!(
            "{} lacks {}: {:?} of {:?} bytes used, {} more, expendable: {is_expendable}, waits: {waits}, {:?}",
            node.id,
            book.versions[v].id,
            node.pressure(book).used_bytes,
            node.quota_bytes,
            generation.bytes,
            node.ruling(book, v, node.clock(now_ms))
        );
        Err(Violation::new("what the policy keeps at a node is there", detail))
    }

    fn could_make_room(&self, world: &World, node: &Node, bytes: u64) -> bool {
        let excess = node.pressure(&world.book).excess_bytes_for(bytes);
        let held = (0..world.book.versions.len()).filter(|v| self.may_go(world, node, *v, Purpose::Room));
        let free: u64 = held.filter_map(|v| node.held[v]).map(|g| world.book.generations[g].bytes).sum();
        free >= excess
    }

    /// A node over its quota holds nothing that may go.
    fn judge_quota(&self, world: &World, node: &Node) -> Checked {
        let over = node.pressure(&world.book).excess_bytes();
        if over == 0 {
            return Ok(());
        }
        let free = (0..world.book.versions.len()).find(|v| self.may_go(world, node, *v, Purpose::Room));
        let Some(v) = free else {
            let says_so = node.life.as_ref().is_some_and(|life| life.is_blocked);
            return match says_so {
                true => Ok(()),
                false => Err(Violation::new(
                    "quotas are met, or it is said why not",
                    format!("{} says nothing", node.id),
                )),
            };
        };
        let detail =
            format!("{} is {over} bytes over its quota, and {} may go", node.id, world.book.versions[v].id);
        Err(Violation::new("quotas are met, or it is said why not", detail))
    }

    /// Says whether a version was used so lately that it does not go to make room: within that time, and the time until it is
    /// looked again. A node that fetches it uses it, too.
    fn is_recent(&self, world: &World, node: &Node, v: VersionIndex) -> bool {
        let used_ms = node.used_ms.get(&v).copied().unwrap_or(0);
        used_ms + EVICT_AFTER_MS + WHILE_BLOCKED_MS > node.clock(world.now_ms).ms
    }

    /// Drops that people asked for have happened, or cannot.
    fn judge_drops(&self, world: &World) -> Checked {
        for (n, v) in &self.drops_that_are_possible(world) {
            // Nobody has asked since for what became possible after that.
            if self.could_go.contains(&(*n, *v)) {
                let (node, version) = (&world.nodes[*n].id, &world.book.versions[*v].id);
                let detail =
                    format!("{node} (node {n}) still holds {version} (version {v}), and could drop it");
                return Err(Violation::new("drops that are possible happen", detail));
            }
        }
        Ok(())
    }

    /// Returns the drops that people asked for, that have not happened, and that are possible.
    pub fn drops_that_are_possible(&self, world: &World) -> BTreeSet<(NodeIndex, VersionIndex)> {
        let may_go =
            |(n, v): &&(NodeIndex, VersionIndex)| self.may_go(world, &world.nodes[*n], *v, Purpose::Command);
        world.asked.iter().filter(may_go).copied().collect()
    }

    /// Says whether a version could go from a node, all that time: by the checker's own reading of the rules.
    fn may_go(&self, world: &World, node: &Node, v: VersionIndex, purpose: Purpose) -> bool {
        let book = &world.book;
        let Some(held) = node.held[v] else { return false };
        let generation = &book.generations[held];
        let is_head = node.has_head(book, v);
        let is_quiet = node.life.as_ref().is_some_and(|life| {
            !life.jobs.contains_key(&v) && !life.drops.contains_key(&v) && !life.locked.contains(&v)
        });
        if !is_head
            || !is_quiet
            || node.pins.contains(&v)
            || self.has_unpublished(node.me, v)
            || (purpose == Purpose::Room && self.is_recent(world, node, v))
            || !node.has_whole(generation)
        {
            return false;
        }
        let times = [world.now_ms, world.now_ms - STEADY_MS];
        let by_policy = times.iter().all(|at_ms| is_free(world, node, v, *at_ms, purpose));
        let minimums = times.iter().flat_map(|at_ms| {
            world.nodes.iter().map(|other| other.min_copies(book, v, *at_ms).unwrap_or(u32::MAX))
        });
        let needed = minimums.max().unwrap_or(1);
        let stands = |other: &&Node| {
            other.me != node.me && other.folds_own(v, &generation.manifest) && other.has_whole(generation)
        };
        let sites: BTreeSet<usize> =
            world.nodes.iter().filter(stands).map(|other| book.nodes[other.me].site).collect();
        by_policy && sites.len() >= usize::try_from(needed).unwrap_or(usize::MAX)
    }
}

/// Says whether the policy, or the node's mode, lets a version go.
pub fn is_free(world: &World, node: &Node, v: VersionIndex, at_ms: u64, purpose: Purpose) -> bool {
    let Some(policy) = node.in_effect.as_ref() else {
        return node.mode == avalon_protocol::mode::ProjectMode::OnDemand;
    };
    let now = node.clock(at_ms);
    let judged = node.with_facts(&world.book, v, |facts| {
        let ruling = policy.decide(&node.id, facts, now).ok()?;
        let keeps = matches!(node.stance(Some(&Ok(ruling.clone()))), Stance::Keep | Stance::Later);
        Some(match purpose {
            Purpose::Command => !keeps,
            Purpose::Room => {
                let is_last = ruling.keep_last.is_some_and(|last| facts.rank < last);
                match ruling.keep {
                    Keep::Never => true,
                    _ if is_last => false,
                    _ => !keeps || ruling.keep_last.is_some(),
                }
            }
        })
    });
    judged.flatten() == Some(true)
}

impl Node {
    /// Says whether its own records say that it holds a generation.
    fn folds_own(&self, v: VersionIndex, manifest: &ManifestId) -> bool {
        self.folds[v].holds(&self.id, manifest)
    }
}
