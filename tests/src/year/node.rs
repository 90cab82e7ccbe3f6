//! One simulated node: what lies on its disk, what it derives from that, and what it has in memory while it runs.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use avalon_protocol::{
    drop::{Dropping, Guard, Pressure},
    id::{NodeId, VersionSlot},
    limit::Moment,
    mode::ProjectMode,
    plan::Stance,
    policy::{ManifestFacts, NotKnownYet, Now, Policy, Ruling, VersionFacts},
    record::Record,
    studio::PolicyFold,
    version_fold::{Standing, VersionFold},
};

use super::{
    book::{Book, FileBytes, GenIndex, Generation, NodeIndex, VersionIndex},
    dropper::Running,
    event::Heads,
    fetch::Job,
};

/// Where a record comes from, for the checker; nodes do not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Something came or was said.
    Usual,
    /// A drop, by its attempt.
    Drop(u64),
    /// Files were lost.
    Lost,
}

/// A record in a feed.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it states.
    pub record: Record,
    /// The version that it is about.
    pub version: Option<VersionIndex>,
    /// Where it comes from.
    pub cause: Cause,
    /// When it became durable.
    pub at_ms: u64,
}

impl Entry {
    /// A record about a version, not durable yet.
    pub fn about(version: VersionIndex, record: Record, cause: Cause) -> Self {
        Self { record, version: Some(version), cause, at_ms: 0 }
    }
}

/// What follows when a transaction is durable.
#[derive(Debug, Clone)]
pub enum Then {
    /// Nothing but what follows from the records.
    Nothing,
    /// A drop goes on: version and attempt.
    Dropped(VersionIndex, u64),
    /// A fetch is done.
    Placed(VersionIndex),
}

/// Records that are on their way to the disk.
#[derive(Debug)]
pub struct Transaction {
    pub(super) id: u64,
    pub(super) feed: usize,
    pub(super) entries: Vec<Entry>,
    pub(super) then: Then,
}

/// What is known of a peer while it is connected.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// What it has, by its own words; nothing before it greeted.
    pub(super) heads: Option<Heads>,
    /// Whether a push is due.
    pub(super) is_armed: bool,
}

/// What a node has in memory: gone with the power.
#[derive(Debug, Default)]
pub struct Life {
    pub(super) peers: Vec<Peer>,
    pub(super) passes_on: bool,
    pub(super) syncing: VecDeque<Transaction>,
    pub(super) synced_at_ms: u64,
    pub(super) dropping: Dropping,
    pub(super) drops: BTreeMap<VersionIndex, Running>,
    /// Version directories that are being changed.
    pub(super) locked: BTreeSet<VersionIndex>,
    /// For whom proofs are read.
    pub(super) proves_for: BTreeSet<NodeIndex>,
    pub(super) jobs: BTreeMap<VersionIndex, Job>,
    pub(super) wishes: BTreeSet<VersionIndex>,
    /// Versions that are looked at again after a while.
    pub(super) retries: BTreeSet<VersionIndex>,
    /// When versions are to be looked at again, by the node's clock.
    pub(super) due_ms: BTreeMap<VersionIndex, u64>,
    pub(super) look_at_ms: Option<u64>,
    /// Versions with files that are not published, as far as the watcher saw.
    pub(super) pending: BTreeSet<VersionIndex>,
    /// Versions that could not go, and since when.
    pub(super) refused: BTreeMap<VersionIndex, (Guard, u64)>,
    /// Versions that could not come because other files lie in their place: which generation, and the file.
    pub(super) occupied: BTreeMap<VersionIndex, (GenIndex, u8, FileBytes)>,
    /// Versions that belong here and wait for room.
    pub(super) no_room: BTreeSet<VersionIndex>,
    /// Victims of the round that is under way; the first is being dropped.
    pub(super) round: Option<VecDeque<VersionIndex>>,
    /// What has gone in the round that is under way was to let something come.
    pub(super) went_for_waiting: bool,
    /// Until then nothing goes to let something come: it was in vain.
    pub(super) in_vain_until_ms: u64,
    /// When it is looked for room next.
    pub(super) room_at_ms: Option<u64>,
    /// There is too little room, and nothing more may go.
    pub(super) is_blocked: bool,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    pub(super) me: NodeIndex,
    pub(super) id: NodeId,
    pub(super) mode: ProjectMode,
    pub(super) quota_bytes: Option<u64>,
    pub(super) ahead_ms: u64,
    /// Durable: how many records of each feed it has.
    pub(super) known: Heads,
    /// Durable: the files of each version, by their places.
    pub(super) dirs: BTreeMap<VersionIndex, BTreeMap<u8, FileBytes>>,
    /// Durable: when each version was last used, by the node's clock.
    pub(super) used_ms: BTreeMap<VersionIndex, u64>,
    /// Durable.
    pub(super) pins: BTreeSet<VersionIndex>,
    /// Durable.
    pub(super) manifests: BTreeSet<GenIndex>,
    /// Derived from the feeds.
    pub(super) folds: Vec<VersionFold>,
    /// Derived from those: what stands for each version, and the newest generation that this node says it holds.
    pub(super) standing: Vec<Standing>,
    pub(super) held: Vec<Option<GenIndex>>,
    pub(super) policy: PolicyFold,
    pub(super) in_effect: Option<Arc<Policy>>,
    /// How often it started.
    pub(super) boot: u32,
    pub(super) life: Option<Life>,
}

impl Node {
    /// A node as it was installed, not running.
    pub fn new(me: NodeIndex, book: &Book) -> Self {
        let plan = &book.nodes[me];
        Self {
            me,
            id: plan.id.clone(),
            mode: plan.mode,
            quota_bytes: plan.quota_bytes,
            ahead_ms: plan.ahead_ms,
            known: vec![0; 2 * book.nodes.len()],
            dirs: BTreeMap::new(),
            used_ms: BTreeMap::new(),
            pins: BTreeSet::new(),
            manifests: BTreeSet::new(),
            folds: vec![VersionFold::default(); book.versions.len()],
            standing: vec![Standing::Unknown; book.versions.len()],
            held: vec![None; book.versions.len()],
            policy: PolicyFold::default(),
            in_effect: None,
            boot: 0,
            life: None,
        }
    }

    /// Returns its memory, if it runs.
    pub fn life(&mut self) -> Option<&mut Life> {
        self.life.as_mut()
    }

    /// Reads a time of the world off this node's clock, which also shows the time of the week.
    pub fn clock(&self, now_ms: u64) -> Now {
        let ms = now_ms + self.ahead_ms;
        let minutes = ms / 60_000;
        let day = u8::try_from((minutes / 1440) % 7).expect("a day of the week");
        let minute = u16::try_from(minutes % 1440).expect("a minute of the day");
        Now { ms, moment: Moment { day, minute } }
    }

    /// Returns the generation that stands for a version, or the first of those in conflict.
    pub fn head(&self, book: &Book, version: VersionIndex) -> Option<GenIndex> {
        match &self.standing[version] {
            Standing::Unknown => None,
            Standing::Head(head) => book.generation(head),
            Standing::Conflict(heads) => book.generation(heads.first()?),
        }
    }

    /// Hands the facts of a version to `judge`; nothing for one that nobody has published.
    pub fn with_facts<T>(
        &self,
        book: &Book,
        version: VersionIndex,
        judge: impl FnOnce(&VersionFacts<'_>) -> T,
    ) -> Option<T> {
        let head = self.head(book, version)?;
        let plan = &book.versions[version];
        let generation = self.folds[version].generation(&book.generations[head].manifest)?;
        let newer = |other: &usize| {
            let other_plan = &book.versions[*other];
            other_plan.subset == plan.subset
                && number(other_plan.id.slot) > number(plan.id.slot)
                && self.standing[*other] != Standing::Unknown
        };
        let rank = (0..book.versions.len()).filter(newer).count();
        let manifest = ManifestFacts { silo: None, metadata: &plan.metadata };
        Some(judge(&VersionFacts {
            version: &plan.id,
            rank: u32::try_from(rank).expect("few versions"),
            representations: &generation.representations,
            author: &generation.author,
            published_at_ms: generation.published_at_ms,
            manifest: self.manifests.contains(&head).then_some(manifest),
        }))
    }

    /// Returns what the policy in effect says about a version; nothing without one, or for a version that nobody has published.
    pub fn ruling(
        &self,
        book: &Book,
        version: VersionIndex,
        now: Now,
    ) -> Option<Result<Ruling, NotKnownYet>> {
        let policy = self.in_effect.as_ref()?;
        self.with_facts(book, version, |facts| policy.decide(&self.id, facts, now))
    }

    /// Returns what the node is to do about a version.
    pub fn stance(&self, ruling: Option<&Result<Ruling, NotKnownYet>>) -> Stance {
        Stance::of(self.mode, ruling)
    }

    /// Says at how many sites a version has to be, as far as this node knows; `None` while it does not.
    pub fn min_copies(&self, book: &Book, version: VersionIndex, now_ms: u64) -> Option<u32> {
        if self.in_effect.is_none() {
            return Some(1);
        }
        self.ruling(book, version, self.clock(now_ms))?.ok().map(|ruling| ruling.min_copies.max(1))
    }

    /// Looks at the fold of a version again.
    pub fn derive(&mut self, book: &Book, version: VersionIndex) {
        let fold = &self.folds[version];
        let number = |id: &_| fold.generation(id).map(|generation| generation.generation);
        let held = fold.held_by(&self.id).max_by_key(number).and_then(|manifest| book.generation(&manifest));
        self.held[version] = held;
        self.standing[version] = fold.standing(book.versions[version].id.slot);
    }

    /// Says whether what stands for a version is held here.
    pub fn has_head(&self, book: &Book, version: VersionIndex) -> bool {
        let held = self.held[version].map(|held| book.generations[held].manifest);
        matches!(&self.standing[version], Standing::Head(head) if held == Some(*head))
    }

    /// Says whether all files of a generation lie here as they were published.
    pub fn has_whole(&self, generation: &Generation) -> bool {
        let dir = self.dirs.get(&generation.version);
        dir.is_some_and(|dir| generation.files.iter().all(|(place, bytes)| dir.get(place) == Some(bytes)))
    }

    /// Says whether a file that was in the way of a generation lies there still.
    pub fn is_occupied(&self, version: VersionIndex, generation: GenIndex) -> bool {
        let occupied = self.life.as_ref().and_then(|life| life.occupied.get(&version));
        occupied.is_some_and(|(of, place, bytes)| {
            *of == generation && self.dirs.get(&version).and_then(|dir| dir.get(place)) == Some(bytes)
        })
    }

    /// Returns how full it is.
    pub fn pressure(&self, book: &Book) -> Pressure {
        let used_bytes = self.held.iter().flatten().map(|held| book.generations[*held].bytes).sum();
        let quota_bytes = self.quota_bytes;
        Pressure { used_bytes, quota_bytes, free_bytes: u64::MAX, keep_free_bytes: None }
    }

    /// Says whether what comes by itself may be removed again to make room.
    pub fn is_expendable(&self, book: &Book, version: VersionIndex, now_ms: u64) -> bool {
        let Some(policy) = self.in_effect.as_ref() else { return false };
        let now = self.clock(now_ms);
        let may = self.with_facts(book, version, |facts| {
            policy.decide(&self.id, facts, now).is_ok_and(|ruling| ruling.may_be_removed(facts))
        });
        may == Some(true)
    }
}

fn number(slot: VersionSlot) -> u32 {
    match slot {
        VersionSlot::Number(number) => number,
        VersionSlot::Hero => 0,
    }
}
