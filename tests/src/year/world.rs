//! Runs one seed of the year: takes the next event, lets the node that it is about handle it, and has the checker look.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use avalon_protocol::{
    drop::Guard,
    id::NodeId,
    record::{Published, Record},
    studio::AppliedPolicy,
    version_fold::Standing,
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    book::{Book, FileBytes, NodeIndex, VersionIndex},
    checker::Checker,
    dropper::Purpose,
    event::{Deed, Event, Guard2, Message, Note, Wake},
    mutation::Mutation,
    node::{Cause, Entry, Node, Then},
    script::{END, Script},
};
use crate::{
    agenda::Agenda,
    event_log::{EventLog, Recording},
    invariant::Violation,
    world::{Failure, Report},
};

/// More steps than any honest year needs: beyond it, nodes keep each other busy for nothing.
const STEP_LIMIT: u64 = 200_000;

/// The simulated studio in its year.
#[derive(Debug)]
pub struct World {
    pub(super) now_ms: u64,
    dice: ChaCha8Rng,
    pub(super) book: Book,
    pub(super) nodes: Vec<Node>,
    /// What every feed holds, durably.
    pub(super) feeds: Vec<Vec<Entry>>,
    pub(super) sites_off: BTreeMap<usize, u32>,
    pub(super) halves: Option<u32>,
    /// Which pairs of nodes reach each other, and at which of their starts.
    pub(super) links: BTreeMap<(NodeIndex, NodeIndex), (u32, u32)>,
    pub(super) checker: Checker,
    /// Which drops people asked for that have not happened.
    pub(super) asked: BTreeSet<(NodeIndex, VersionIndex)>,
    /// The nonces of the attempts that are under way.
    pub(super) nonces: BTreeMap<(NodeIndex, VersionIndex, NodeId), u64>,
    mutation: Option<Mutation>,
    pub(super) has_faults: bool,
    log: EventLog,
    agenda: Agenda<Event>,
    numbers: u64,
    last_change_ms: u64,
    violation: Option<Violation>,
    is_over: bool,
}

/// Runs a seed to its end, rightly or in one wrong way.
///
/// # Errors
/// [`Failure`] at the first broken promise.
pub fn run(seed: u64, recording: Recording, mutation: Option<Mutation>) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, recording, mutation);
    loop {
        world.step();
        if let Some(violation) = world.violation {
            let (step, at_ms) = (world.log.steps(), world.now_ms);
            return Err(Box::new(Failure { seed, step, at_ms, violation, log: world.log }));
        }
        if world.is_over {
            let log = &world.log;
            return Ok(Report {
                seed,
                steps: log.steps(),
                converged_after_ms: world.last_change_ms.saturating_sub(END),
                trace: log.trace(),
                counts: log.counts().clone(),
            });
        }
    }
}

impl World {
    /// Builds the studio of a seed, with all its nodes running.
    pub fn new(seed: u64, recording: Recording, mutation: Option<Mutation>) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let script = Script::draw(&mut dice);
        let count = script.book.nodes.len();
        let mut world = Self {
            now_ms: 0,
            dice,
            nodes: (0..count).map(|n| Node::new(n, &script.book)).collect(),
            book: script.book,
            feeds: vec![Vec::new(); 2 * count],
            sites_off: BTreeMap::new(),
            halves: None,
            links: BTreeMap::new(),
            checker: Checker::default(),
            asked: BTreeSet::new(),
            nonces: BTreeMap::new(),
            mutation,
            has_faults: true,
            log: EventLog::new(recording),
            agenda: Agenda::new(),
            numbers: 0,
            last_change_ms: 0,
            violation: None,
            is_over: false,
        };
        (0..count).for_each(|n| world.start(n));
        script.agenda.into_iter().for_each(|(at_ms, event)| world.after(at_ms, event));
        world
    }

    /// Says whether it is done in this wrong way.
    pub(super) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Returns a number that was never returned before.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Draws a number.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        self.dice.random_range(from..=to)
    }

    /// Says yes in so many of a hundred cases while there are faults.
    pub(super) fn fault(&mut self, percent: u32) -> bool {
        self.has_faults && self.dice.random_ratio(percent, 100)
    }

    /// Lets an event happen after a while.
    pub(super) fn after(&mut self, delay_ms: u64, event: Event) {
        let number = self.number();
        self.agenda.add(self.now_ms + delay_ms, number, event);
    }

    /// Sets a timer of a node.
    pub(super) fn wake(&mut self, n: NodeIndex, delay_ms: u64, wake: Wake) {
        let boot = self.nodes[n].boot;
        self.after(delay_ms, Event::Wake(n, boot, wake));
    }

    /// Counts something that a node did.
    pub(super) fn did(&mut self, what: &'static str, n: NodeIndex, v: VersionIndex) {
        if matches!(what, "placed" | "pulled" | "dropped" | "evicted") {
            self.last_change_ms = self.now_ms;
        }
        self.log.note(self.now_ms, what, &Note::Did(what, n, v));
    }

    /// Counts a version that stays although it was to be dropped.
    pub(super) fn stays(&mut self, n: NodeIndex, v: VersionIndex, guard: Option<Guard>) {
        let name = match guard {
            None => "not_here",
            Some(Guard::TooFewCopies) => "refused_too_few_copies",
            Some(Guard::Pinned) => "refused_pinned",
            Some(Guard::Kept) => "refused_kept",
            Some(_) => "refused_otherwise",
        };
        self.log.note(self.now_ms, name, &Note::Stays(n, v, guard.map(Guard2)));
    }

    /// Notes a broken promise; the first counts.
    pub(super) fn broken(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    fn step(&mut self) {
        let Some((at_ms, event)) = self.agenda.take() else {
            return self.broken(Violation::new("the year ends", "nothing happens any more"));
        };
        self.now_ms = at_ms;
        self.log.step(self.now_ms, &event);
        if self.log.steps() > STEP_LIMIT {
            return self.broken(Violation::new("the studio comes to rest", "too many steps"));
        }
        match event {
            Event::Deed(n, deed) => self.deed(n, &deed),
            Event::DropEverywhere(v) => {
                let holders = self.nodes.iter().filter(|node| node.held[v].is_some());
                let holders: Vec<NodeIndex> = holders.map(|node| node.me).collect();
                if holders.len() > 1 {
                    self.did("all_holders_at_once", 0, v);
                }
                holders.into_iter().for_each(|n| self.deed(n, &Deed::Drop(v)));
            }
            Event::Fault(fault) => self.break_something(&fault),
            Event::Deliver(from, to, message) => self.deliver(from, to, message),
            Event::Wake(n, boot, wake) => {
                if self.nodes[n].life.is_some() && self.nodes[n].boot == boot {
                    self.woke(n, wake);
                }
            }
            Event::Synced(n, boot, id) => {
                if self.nodes[n].life.is_some() && self.nodes[n].boot == boot {
                    self.synced(n, id);
                }
            }
            Event::AskAgain => {
                self.checker.could_go = self.checker.drops_that_are_possible(self);
                for (n, v) in self.asked.clone() {
                    self.deed(n, &Deed::Drop(v));
                }
            }
            Event::LookAround => {
                let lacking = self.checker.lacking(self);
                self.checker.lacked = lacking;
            }
            Event::Judge => {
                let judged = self.checker.judge(self);
                judged.unwrap_or_else(|violation| self.broken(violation));
                self.is_over = true;
            }
        }
        if self.violation.is_none()
            && let Some(violation) = self.checker.take_violation()
        {
            self.broken(violation);
        }
    }

    fn woke(&mut self, n: NodeIndex, wake: Wake) {
        match wake {
            Wake::Push(peer) => self.push(n, peer),
            Wake::PassOn => self.pass_on(n),
            Wake::Manifest(generation) => self.manifest_came(n, generation),
            Wake::Look => self.look(n),
            Wake::Retry(v) => self.retry(n, v),
            Wake::FetchTimeout(v, number) => self.fetch_timeout(n, v, number),
            Wake::Place(v, number) => self.place(n, v, number),
            Wake::AskTimeout(v, number, holder) => self.ask_timeout(n, v, number, holder),
            Wake::OwnRead(v, number, asks) => self.own_read(n, v, number, &asks),
            Wake::Prove(from, v, g, attempt, nonce) => self.read_for(n, from, v, g, attempt, nonce),
            Wake::TryAgain(v, number) => self.try_again(n, v, number),
            Wake::Discard(v, _) => {
                self.discard(n, v);
                let checked = self.checker.unpublished(&self.nodes[n]);
                checked.unwrap_or_else(|violation| self.broken(violation));
            }
            Wake::Room => self.relieve(n),
            Wake::Scan(v) => self.scan(n, v),
        }
    }

    fn deliver(&mut self, from: NodeIndex, to: NodeIndex, message: Message) {
        if self.nodes[to].life.is_none() {
            return;
        }
        match message {
            Message::Hello(heads) => self.greeted(to, from, heads),
            Message::Ack(heads) => self.acknowledged(to, from, heads),
            Message::Records(ranges) => self.records_came(to, from, &ranges),
            Message::Question { version, generation, attempt, nonce } => {
                self.question(to, from, version, generation, attempt, nonce);
            }
            Message::Answer { version, attempt, answer } => self.answered(to, from, version, attempt, answer),
            Message::Fetch { version, generation, job } => self.serve(to, from, version, generation, job),
            Message::Files { version, job, files } => self.files_came(to, version, job, files),
        }
    }

    fn deed(&mut self, n: NodeIndex, deed: &Deed) {
        let is_up = self.nodes[n].life.is_some();
        match deed {
            Deed::Save(v) => self.save(n, *v),
            Deed::Settle(v) if is_up => self.settle(n, *v),
            Deed::Pull(v) if is_up => {
                self.asked.remove(&(n, *v));
                let clock_ms = self.nodes[n].clock(self.now_ms).ms;
                self.nodes[n].used_ms.insert(*v, clock_ms);
                self.nodes[n].life().map(|life| life.wishes.insert(*v));
                self.consider(n, *v);
            }
            Deed::Pin(v) if is_up => {
                // It waits for a drop that has decided already.
                let is_locked = self.nodes[n].life().is_some_and(|life| life.locked.contains(v));
                if is_locked && !self.is(Mutation::PinsAmidDrop) {
                    self.did("pin_waits", n, *v);
                    return self.after(100, Event::Deed(n, deed.clone()));
                }
                self.nodes[n].pins.insert(*v);
                self.did("pinned", n, *v);
            }
            Deed::Unpin(v) if is_up => {
                self.nodes[n].pins.remove(v);
                self.room_again(n);
            }
            Deed::Drop(v) if is_up && self.nodes[n].held[*v].is_some() => {
                self.asked.insert((n, *v));
                self.did("drop_asked", n, *v);
                self.begin_drop(n, *v, Purpose::Command);
            }
            Deed::Apply(policy) if is_up => self.apply(n, *policy),
            Deed::Settle(_)
            | Deed::Pull(_)
            | Deed::Pin(_)
            | Deed::Unpin(_)
            | Deed::Drop(_)
            | Deed::Apply(_) => {}
        }
    }

    fn apply(&mut self, n: NodeIndex, policy: usize) {
        let serial = self.nodes[n].policy.serial() + 1;
        let (text, at_ms) = (self.book.policies[policy].0.clone(), self.nodes[n].clock(self.now_ms).ms);
        let applied =
            AppliedPolicy::new(serial, text, String::new(), String::new(), at_ms).expect("it is short");
        let record = Record::Policy(applied);
        self.did("policy_applied", n, 0);
        let entry = Entry { record, version: None, cause: Cause::Usual, at_ms: 0 };
        self.commit(n, 2 * n + 1, vec![entry], Then::Nothing);
    }

    /// Somebody saves a file; mostly the watcher sees that at once.
    fn save(&mut self, n: NodeIndex, v: VersionIndex) {
        let bytes: FileBytes =
            (0..self.between(20, 150)).map(|_| self.dice.random()).collect::<Vec<u8>>().into();
        let is_seen = !self.fault(10);
        let node = &mut self.nodes[n];
        let dir = node.dirs.entry(v).or_default();
        let place = dir.keys().max().map_or(0, |place| place + 1);
        dir.insert(place, Arc::clone(&bytes));
        self.checker.saved(n, v, place, bytes);
        if let Some(life) = node.life().filter(|_| is_seen) {
            life.pending.insert(v);
        }
        self.did("saved", n, v);
    }

    /// What was saved is whole: a first generation, or one more of a version that is whole here.
    fn settle(&mut self, n: NodeIndex, v: VersionIndex) {
        let node = &self.nodes[n];
        if node.life.as_ref().is_some_and(|life| life.locked.contains(&v)) {
            return self.after(100, Event::Deed(n, Deed::Settle(v)));
        }
        let Some(files) = node.dirs.get(&v).filter(|files| !files.is_empty()).cloned() else { return };
        let (generation, predecessor) = match (node.held[v], &node.standing[v]) {
            (None, _) => (1, None),
            // It grew, and all of what was there is there still.
            (Some(held), Standing::Head(head)) if self.book.generations[held].manifest == *head => {
                let before = &self.book.generations[held];
                if before.files == files || !node.has_whole(before) {
                    return;
                }
                let number = node.folds[v].generation(head).map_or(1, |generation| generation.generation);
                (number + 1, Some(*head))
            }
            _ => return,
        };
        let number_of_files = files.len() as u64;
        let g = self.book.publish(v, n, files);
        let published_at_ms = self.nodes[n].clock(self.now_ms).ms;
        let of = &self.book.generations[g];
        let record = Record::Published(Published {
            version: self.book.versions[v].id.clone(),
            manifest: of.manifest,
            content: of.content,
            generation,
            predecessor,
            files: number_of_files,
            bytes: of.bytes,
            representations: Vec::new(),
            author: self.book.versions[v].author.to_owned(),
            published_at_ms,
        });
        self.nodes[n].manifests.insert(g);
        self.nodes[n].used_ms.insert(v, published_at_ms);
        self.did(if generation == 1 { "published" } else { "grew" }, n, v);
        let entry = Entry::about(v, record, Cause::Usual);
        self.nodes[n].life().map(|life| life.locked.insert(v));
        self.commit(n, 2 * n, vec![entry], Then::Placed(v));
    }

    /// Writes down that a policy is in effect.
    pub(super) fn in_effect(&mut self, n: NodeIndex, serial: u64) {
        self.log.note(self.now_ms, "policy_in_effect", &Note::InEffect(n, serial));
    }

    /// Draws an index below a count.
    pub(super) fn index(&mut self, count: usize) -> usize {
        self.dice.random_range(0..count)
    }
}
