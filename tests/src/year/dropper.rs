//! Dropping and proving, in the order in which the daemon does it: judge, enter, ask and read, judge again, record, leave, trash.

use std::collections::BTreeSet;

use avalon_protocol::{
    drop::{Attempt, Doubt, Guard, Nonce, NotCounted, Proof, Step},
    hash::ManifestId,
    id::NodeId,
    mode::ProjectMode,
    plan::{Stance, rank_sources},
    policy::Keep,
    record::{Held, Record},
    version_fold::Standing,
};

use super::{
    book::{GenIndex, NodeIndex, VersionIndex},
    checker::{Decided, is_free},
    event::{Deed, Event, Fault, Message, Wake},
    mutation::Mutation,
    node::{Cause, Entry, Then},
    script::{DAY, END, HOUR, MINUTE},
    vouch::nonce,
    world::World,
};

/// How often a drop is tried again when another node drops the same version, or is busy.
const TRIES: u32 = 6;
/// The longest wait before the first of these, doubled for each.
const BACKOFF_MS: u64 = 200;
/// How long a holder may take to answer.
const ANSWER_MS: u64 = 5 * MINUTE;
/// How long after its last use a version is left alone.
pub const EVICT_AFTER_MS: u64 = 12 * HOUR;

/// Why a version is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody said so.
    Command,
    /// Room is needed.
    Room,
}

/// Why a version stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stays {
    /// The kind of reason; nothing when it is not here.
    pub guard: Option<Guard>,
    /// Whether it can come out otherwise at once.
    pub is_race: bool,
}

/// A version that may go, if enough other sites prove that they have it.
#[derive(Debug, Clone)]
pub struct Droppable {
    generation: GenIndex,
    held: Vec<ManifestId>,
    min_copies: u32,
    holders: Vec<NodeId>,
}

/// A drop that is under way.
#[derive(Debug)]
pub struct Running {
    /// Distinguishes it from all others.
    pub(super) number: u64,
    purpose: Purpose,
    tried: u32,
    /// The try that is under way.
    open: Option<(Attempt, Droppable)>,
    /// When it entered the state.
    entered_ms: u64,
}

fn stays(guard: Guard) -> Stays {
    Stays { guard: Some(guard), is_race: false }
}

impl World {
    /// Says whether a version may go from a node, as far as the node alone can say.
    pub(super) fn judge(&self, n: NodeIndex, v: VersionIndex, purpose: Purpose) -> Result<Droppable, Stays> {
        let (node, book) = (&self.nodes[n], &self.book);
        let life = node.life.as_ref().ok_or(stays(Guard::Coming))?;
        let fold = &node.folds[v];
        let generation = node.held[v].ok_or(Stays { guard: None, is_race: false })?;
        let newest = book.generations[generation].manifest;
        match &node.standing[v] {
            Standing::Head(head) if fold.same_as(head, &newest) => {}
            Standing::Conflict(_) => return Err(stays(Guard::Conflict)),
            Standing::Head(_) | Standing::Unknown => return Err(stays(Guard::Coming)),
        }
        if node.pins.contains(&v) && !self.is(Mutation::IgnoresPins) {
            return Err(stays(Guard::Pinned));
        }
        let min_copies = self.judge_policy(n, v, purpose)?;
        if life.jobs.contains_key(&v) {
            return Err(stays(Guard::Coming));
        }
        if !node.manifests.contains(&generation) {
            return Err(stays(Guard::NotKnown));
        }
        if life.pending.contains(&v) {
            return Err(stays(Guard::Coming));
        }
        let dir = node.dirs.get(&v);
        let is_there = |(place, bytes): (&u8, &super::book::FileBytes)| {
            dir.and_then(|dir| dir.get(place)).is_some_and(|file| file.len() == bytes.len())
        };
        if !book.generations[generation].files.iter().all(is_there) {
            return Err(stays(Guard::Changed));
        }
        let now_ms = node.clock(self.now_ms).ms;
        let used_ms = node.used_ms.get(&v).copied().unwrap_or(0);
        if purpose == Purpose::Room && used_ms + EVICT_AFTER_MS > now_ms {
            return Err(stays(Guard::Recent));
        }
        let held: Vec<ManifestId> = fold.held_by(&node.id).collect();
        let holders: BTreeSet<NodeId> = fold.holders(&newest);
        Ok(Droppable { generation, held, min_copies, holders: rank_sources(&node.id, &holders) })
    }

    fn judge_policy(&self, n: NodeIndex, v: VersionIndex, purpose: Purpose) -> Result<u32, Stays> {
        let (node, book) = (&self.nodes[n], &self.book);
        let Some(policy) = node.in_effect.as_ref() else {
            return match node.mode {
                ProjectMode::Mirror => Err(stays(Guard::Kept)),
                ProjectMode::OnDemand => Ok(1),
            };
        };
        let now = node.clock(self.now_ms);
        let judged = node.with_facts(book, v, |facts| {
            let ruling = policy.decide(&node.id, facts, now)?;
            let is_last = ruling.keep_last.is_some_and(|last| facts.is_hero() || facts.rank < last);
            Ok::<_, avalon_protocol::policy::NotKnownYet>((ruling, is_last))
        });
        let (ruling, is_last) = match judged {
            None | Some(Err(_)) => return Err(stays(Guard::NotKnown)),
            Some(Ok(judged)) => judged,
        };
        let (copies, keep, keep_last) = (ruling.min_copies.max(1), ruling.keep, ruling.keep_last);
        let belongs = matches!(node.stance(Some(&Ok(ruling))), Stance::Keep | Stance::Later);
        match purpose {
            _ if self.is(Mutation::IgnoresPolicy) => Ok(copies),
            Purpose::Command if belongs => Err(stays(Guard::Kept)),
            Purpose::Room if belongs && keep_last.is_none() => Err(stays(Guard::Kept)),
            Purpose::Room if is_last && keep != Keep::Never => Err(stays(Guard::Kept)),
            Purpose::Command | Purpose::Room => Ok(copies),
        }
    }

    /// Begins to drop a version at a node; says why not at once, or later.
    pub(super) fn begin_drop(&mut self, n: NodeIndex, v: VersionIndex, purpose: Purpose) {
        let number = self.number();
        let Some(life) = self.nodes[n].life() else { return };
        if life.drops.contains_key(&v) {
            return self.ended(n, v, purpose, Some(stays(Guard::Coming)));
        }
        life.drops.insert(v, Running { number, purpose, tried: 0, open: None, entered_ms: 0 });
        self.try_once(n, v);
    }

    fn running(&mut self, n: NodeIndex, v: VersionIndex) -> Option<&mut Running> {
        self.nodes[n].life.as_mut()?.drops.get_mut(&v)
    }

    /// Tries again after a race.
    pub(super) fn try_again(&mut self, n: NodeIndex, v: VersionIndex, number: u64) {
        if self.running(n, v).is_some_and(|running| running.number == number) {
            self.try_once(n, v);
        }
    }

    fn try_once(&mut self, n: NodeIndex, v: VersionIndex) {
        let Some(purpose) = self.running(n, v).map(|running| running.purpose) else { return };
        let droppable = match self.judge(n, v, purpose) {
            Ok(droppable) => droppable,
            Err(why) => return self.failed(n, v, why),
        };
        let id = self.book.versions[v].id.clone();
        let (now_ms, enters) = (self.now_ms, !self.is(Mutation::EntersAfterAsking));
        let Some(life) = self.nodes[n].life() else { return };
        if enters && life.dropping.enter(&id).is_err() {
            return self.failed(n, v, stays(Guard::Coming));
        }
        let holders: Vec<(NodeId, Nonce)> =
            droppable.holders.iter().map(|id| (id.clone(), nonce(0))).collect();
        let holders = holders.into_iter().map(|(id, _)| {
            let number = if self.is(Mutation::TrustsOldProofs) { 0 } else { self.number() };
            (self.called(&id), nonce(number), number)
        });
        let holders: Vec<(NodeId, Nonce, u64)> = holders.collect();
        for (id, _, number) in &holders {
            self.nonces.insert((n, v, id.clone()), *number);
        }
        let attempt =
            Attempt::begin(droppable.min_copies, holders.into_iter().map(|(id, nonce, _)| (id, nonce)));
        let number = self.number();
        if let Some(running) = self.running(n, v) {
            running.number = number;
            running.entered_ms = now_ms;
            running.open = Some((attempt, droppable));
        }
        self.did("asked", n, v);
        self.go_on(n, v);
    }

    /// Returns under which name the attempt knows a node.
    fn called(&self, id: &NodeId) -> NodeId {
        if self.is(Mutation::CountsNodes) {
            format!("{}@{}-{}", id.node, id.site, id.node).parse().expect("a made-up name")
        } else {
            id.clone()
        }
    }

    fn go_on(&mut self, n: NodeIndex, v: VersionIndex) {
        loop {
            let Some(running) = self.running(n, v) else { return };
            let (number, purpose) = (running.number, running.purpose);
            let Some((attempt, droppable)) = running.open.as_mut() else { return };
            match attempt.step() {
                Step::Wait => return,
                Step::Ask(asks) => {
                    let generation = droppable.generation;
                    let asks: Vec<NodeId> = asks.into_iter().map(|ask| ask.node).collect();
                    self.ask(n, v, number, generation, &asks);
                }
                Step::GiveUp(why) => {
                    let guard = if why.own.is_some() { Guard::Changed } else { Guard::TooFewCopies };
                    if why.is_race() {
                        self.did("race", n, v);
                    }
                    return self.failed(n, v, Stays { guard: Some(guard), is_race: why.is_race() });
                }
                Step::Drop(counted) => {
                    let before = (droppable.generation, counted.min_copies);
                    let counted = counted.nodes;
                    return self.permitted(n, v, purpose, before, &counted);
                }
            }
        }
    }

    fn ask(&mut self, n: NodeIndex, v: VersionIndex, attempt: u64, generation: GenIndex, asks: &[NodeId]) {
        let mut own = Vec::new();
        for id in asks {
            let nonce = self.nonces.get(&(n, v, id.clone())).copied().unwrap_or(0);
            let holder = (0..self.nodes.len()).find(|m| self.called(&self.nodes[*m].id) == *id);
            let Some(holder) = holder else { continue };
            own.push((holder, nonce));
            if self.is_linked(n, holder) {
                self.send(n, holder, Message::Question { version: v, generation, attempt, nonce });
                self.wake(n, ANSWER_MS, Wake::AskTimeout(v, attempt, holder));
            } else if let Some((attempt, _)) = self.running(n, v).and_then(|running| running.open.as_mut()) {
                attempt.doubted(id, Doubt::NoAnswer("it is not connected".to_owned()));
            }
        }
        let delay_ms = self.reading_ms();
        self.wake(n, delay_ms, Wake::OwnRead(v, attempt, own));
        self.something_happens(n, v, 500);
    }

    /// The own files are read, with a check of their names.
    pub(super) fn own_read(&mut self, n: NodeIndex, v: VersionIndex, number: u64, asks: &[(NodeIndex, u64)]) {
        let Some(running) = self.running(n, v).filter(|running| running.number == number) else { return };
        let Some(generation) = running.open.as_ref().map(|(_, droppable)| droppable.generation) else {
            return;
        };
        let is_whole = self.nodes[n].has_whole(&self.book.generations[generation]);
        let mut proofs = Vec::new();
        for (holder, number) in asks {
            let called = self.called(&self.nodes[*holder].id);
            let real = self.nodes[*holder].id.clone();
            // The own side reads its disk, whatever is wrong with others.
            if let Some(proof) = self.prove(usize::MAX, generation, &real, *number, n) {
                proofs.push((called, proof));
            }
        }
        let Some((attempt, _)) = self.running(n, v).and_then(|running| running.open.as_mut()) else { return };
        if is_whole {
            proofs.into_iter().for_each(|(node, proof)| attempt.own(&node, proof));
        } else {
            attempt.own_doubted("not what was published".to_owned());
        }
        self.go_on(n, v);
    }

    /// A holder answers.
    pub(super) fn answered(
        &mut self,
        n: NodeIndex,
        from: NodeIndex,
        v: VersionIndex,
        number: u64,
        answer: Result<(Proof, u32), NotCounted>,
    ) {
        let called = self.called(&self.nodes[from].id);
        let (any, deaf) = (self.is(Mutation::TrustsOldProofs), self.is(Mutation::IgnoresOthersMinimum));
        let Some(running) = self.running(n, v).filter(|running| any || running.number == number) else {
            return self.did("late_answer", n, v);
        };
        let Some((attempt, _)) = running.open.as_mut() else { return };
        match answer {
            Ok((proof, min_copies)) => attempt.answered(&called, proof, if deaf { 1 } else { min_copies }),
            Err(why) => attempt.doubted(&called, Doubt::Said(why)),
        }
        self.go_on(n, v);
    }

    /// A holder is silent for too long.
    pub(super) fn ask_timeout(&mut self, n: NodeIndex, v: VersionIndex, number: u64, holder: NodeIndex) {
        let called = self.called(&self.nodes[holder].id);
        let Some(running) = self.running(n, v).filter(|running| running.number == number) else { return };
        let Some((attempt, _)) = running.open.as_mut() else { return };
        attempt.doubted(&called, Doubt::NoAnswer("too slow".to_owned()));
        self.go_on(n, v);
    }

    /// Enough sites have proved: judge again, and record.
    fn permitted(
        &mut self,
        n: NodeIndex,
        v: VersionIndex,
        purpose: Purpose,
        before: (GenIndex, u32),
        counted: &[NodeId],
    ) {
        let now = match self.judge(n, v, purpose) {
            Ok(now) if now.generation == before.0 && now.min_copies <= before.1 => now,
            Ok(_) => {
                self.did("changed_meanwhile", n, v);
                return self.failed(n, v, stays(Guard::Coming));
            }
            Err(why) => {
                self.did("judged_otherwise", n, v);
                return self.failed(n, v, why);
            }
        };
        let nodes: Vec<NodeIndex> =
            (0..self.nodes.len()).filter(|m| counted.contains(&self.called(&self.nodes[*m].id))).collect();
        let id = self.book.versions[v].id.clone();
        let (enters, leaves) = (self.is(Mutation::EntersAfterAsking), self.is(Mutation::LeavesEarly));
        let min_copies = self.nodes[n].min_copies(&self.book, v, self.now_ms).unwrap_or(1);
        let Some(life) = self.nodes[n].life() else { return };
        // Another one may have the directory in its hands; then it waits there, and is judged only after. Here it gives up.
        if !life.locked.insert(v) {
            return self.failed(n, v, stays(Guard::Coming));
        }
        if enters {
            drop(life.dropping.enter(&id));
        }
        if leaves {
            life.dropping.leave(&id);
        }
        let Some(running) = life.drops.get_mut(&v) else { return };
        running.open = None;
        let (number, entered_ms) = (running.number, running.entered_ms);
        let is_free = is_free(self, &self.nodes[n], v, self.now_ms, purpose);
        self.checker.decided(n, number, Decided { entered_ms, min_copies, counted: nodes, is_free });
        let dropped = |manifest: &ManifestId| {
            let held = Held { version: id.clone(), manifest: *manifest };
            Entry::about(v, Record::Dropped(held), Cause::Drop(number))
        };
        let entries = now.held.iter().map(dropped).collect();
        self.commit(n, 2 * n, entries, Then::Dropped(v, number));
        self.something_happens(n, v, 60);
    }

    /// Things that happen in the very moment in which a drop goes on.
    fn something_happens(&mut self, n: NodeIndex, v: VersionIndex, within_ms: u64) {
        if self.fault(5) {
            let (crash_ms, down_ms) = (self.between(0, within_ms), self.between(100, HOUR));
            self.after(crash_ms, Event::Fault(Fault::Crash(n)));
            self.after(crash_ms + down_ms, Event::Fault(Fault::Start(n)));
        }
        if self.fault(5) {
            let delay_ms = self.between(0, within_ms);
            self.after(delay_ms, Event::Deed(n, Deed::Pin(v)));
            let until_ms = self.between(HOUR, 60 * DAY).min(END - self.now_ms.min(END));
            self.after(until_ms, Event::Deed(n, Deed::Unpin(v)));
        }
        if self.fault(3) {
            let delay_ms = self.between(0, within_ms);
            self.after(delay_ms, Event::Deed(n, Deed::Save(v)));
        }
    }

    /// The record is durable: leaves the state, and takes the files away.
    pub(super) fn recorded(&mut self, n: NodeIndex, v: VersionIndex, number: u64) {
        let id = self.book.versions[v].id.clone();
        let Some(life) = self.nodes[n].life() else { return };
        life.dropping.leave(&id);
        let delay_ms = self.between(1, 50);
        self.wake(n, delay_ms, Wake::Discard(v, number));
    }

    /// Moves the files that were published to the trash, and nothing else.
    pub(super) fn discard(&mut self, n: NodeIndex, v: VersionIndex) {
        let everything = self.is(Mutation::DropsWholeDirectory);
        let node = &mut self.nodes[n];
        let is_published = |place: u8, bytes: &super::book::FileBytes| {
            let of = self.book.generations.iter().filter(|generation| generation.version == v);
            of.into_iter().any(|generation| generation.files.get(&place) == Some(bytes))
        };
        if let Some(dir) = node.dirs.get_mut(&v) {
            dir.retain(|place, bytes| !everything && !is_published(*place, bytes));
        }
        if let Some(life) = node.life() {
            life.locked.remove(&v);
        }
        let purpose = self.running(n, v).map_or(Purpose::Command, |running| running.purpose);
        self.nodes[n].life().map(|life| life.drops.remove(&v));
        self.did(if purpose == Purpose::Room { "evicted" } else { "dropped" }, n, v);
        self.ended(n, v, purpose, None);
    }

    /// A try has failed: leaves the state, and tries again after a race.
    fn failed(&mut self, n: NodeIndex, v: VersionIndex, why: Stays) {
        let id = self.book.versions[v].id.clone();
        let again = why.is_race && !self.is(Mutation::NeverTriesAgain);
        let Some(running) = self.running(n, v) else { return };
        let entered = running.open.take().is_some();
        running.tried += 1;
        let (tried, number, purpose) = (running.tried, running.number, running.purpose);
        let Some(life) = self.nodes[n].life() else { return };
        if entered {
            life.dropping.leave(&id);
        }
        if again && tried < TRIES {
            let delay_ms = self.between(0, BACKOFF_MS << tried);
            return self.wake(n, delay_ms, Wake::TryAgain(v, number));
        }
        life.drops.remove(&v);
        self.ended(n, v, purpose, Some(why));
    }

    fn ended(&mut self, n: NodeIndex, v: VersionIndex, purpose: Purpose, why: Option<Stays>) {
        if let Some(why) = why {
            self.stays(n, v, why.guard);
        }
        match (purpose, why) {
            (Purpose::Room, why) => self.victim_done(n, v, why),
            (Purpose::Command, Some(why)) if why.is_race && !self.is(Mutation::NeverTriesAgain) => {
                // Whoever asked for it does so again.
                let delay_ms = self.between(HOUR, 2 * HOUR);
                self.after(delay_ms, Event::Deed(n, Deed::Drop(v)));
            }
            (Purpose::Command, _) => {}
        }
    }
}
