//! What comes to a node: by the policy or because somebody pulls it, in the order in which the daemon does it: decide, find room,
//! fetch from the best source, verify, place, record.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use avalon_protocol::{
    plan::{Decision, Stance, Wish, decide, rank_sources},
    record::{Held, Record},
    version_fold::Standing,
};

use super::{
    book::{FileBytes, GenIndex, NodeIndex, VersionIndex},
    event::{Message, Wake, piece},
    mutation::Mutation,
    node::{Cause, Entry, Then},
    script::{DAY, HOUR, MINUTE},
    world::World,
};
use crate::{event::Piece, invariant::Violation};

/// How long a source may take.
const SOURCE_MS: u64 = 30 * MINUTE;
/// When a version that nobody could send, or that has no room, is looked at again if nothing happens.
pub const RETRY_MS: u64 = 12 * HOUR;
/// What belongs at a site and not at this node is looked at this often for what time alone changes.
const LAZY_LOOK_MS: u64 = DAY;

/// A fetch that is under way.
#[derive(Debug, Clone)]
pub struct Job {
    number: u64,
    generation: GenIndex,
    is_pull: bool,
    /// Room that it was promised.
    reserved_bytes: u64,
    /// Sources that had nothing good.
    tried: BTreeSet<NodeIndex>,
    /// The files, when they have come.
    files: Option<BTreeMap<u8, FileBytes>>,
    is_recording: bool,
}

impl World {
    /// Looks at a version: does it have to come here?
    pub(super) fn consider(&mut self, n: NodeIndex, v: VersionIndex) {
        let (node, book) = (&self.nodes[n], &self.book);
        let Some(life) = node.life.as_ref() else { return };
        let has_job = life.jobs.contains_key(&v);
        if node.has_head(book, v) && !has_job {
            // Whatever the policy says, it is here.
            return self.is_here(n, v);
        }
        let now = node.clock(self.now_ms);
        let ruling = node.ruling(book, v, now);
        let stance = node.stance(ruling.as_ref());
        let wish = if life.wishes.contains(&v) { Wish::Pulled } else { Wish::None };
        let decision = decide(book.versions[v].id.slot, &node.folds[v], &node.id, &stance, wish);
        let next_ms = ruling.and_then(Result::ok).and_then(|ruling| ruling.next_change_ms);
        let due_ms = next_ms.filter(|_| !matches!(decision, Decision::Have(_))).map(|next| match stance {
            Stance::Keep | Stance::Later => next,
            _ => next.max(now.ms + LAZY_LOOK_MS),
        });
        self.set_due(n, v, due_ms);
        let target = match decision {
            Decision::Fetch(manifest) => self.book.generation(&manifest),
            Decision::Forbidden(_) if wish == Wish::Pulled => {
                self.did("pull_forbidden", n, v);
                None
            }
            _ => None,
        };
        let keeps_wish = target.is_some() || matches!(decision, Decision::Unknown | Decision::Conflict(_));
        let Some(life) = self.nodes[n].life() else { return };
        if !keeps_wish {
            life.wishes.remove(&v);
        }
        if target.is_none() {
            life.no_room.remove(&v);
        }
        let job = life.jobs.get(&v);
        if job.is_some_and(|job| job.is_recording || Some(job.generation) == target) {
            return;
        }
        if job.is_some() {
            self.end_job(n, v);
            self.did("fetch_cancelled", n, v);
        }
        if let Some(generation) = target {
            self.start_job(n, v, generation, wish == Wish::Pulled);
        }
    }

    fn is_here(&mut self, n: NodeIndex, v: VersionIndex) {
        if let Some(life) = self.nodes[n].life() {
            life.wishes.remove(&v);
            life.due_ms.remove(&v);
            life.no_room.remove(&v);
        }
    }

    fn set_due(&mut self, n: NodeIndex, v: VersionIndex, due_ms: Option<u64>) {
        let ahead_ms = self.nodes[n].ahead_ms;
        let now_ms = self.now_ms;
        let Some(life) = self.nodes[n].life() else { return };
        match due_ms {
            Some(due_ms) => drop(life.due_ms.insert(v, due_ms)),
            None => drop(life.due_ms.remove(&v)),
        }
        let Some(first_ms) = life.due_ms.values().min().copied() else { return };
        let first_ms = first_ms.saturating_sub(ahead_ms).max(now_ms + 1);
        if life.look_at_ms.is_none_or(|look_at_ms| first_ms < look_at_ms) {
            life.look_at_ms = Some(first_ms);
            self.wake(n, first_ms - now_ms, Wake::Look);
        }
    }

    /// Looks at everything whose time has come.
    pub(super) fn look(&mut self, n: NodeIndex) {
        let now_ms = self.now_ms;
        let clock_ms = self.nodes[n].clock(now_ms).ms;
        let Some(life) = self.nodes[n].life() else { return };
        if life.look_at_ms != Some(now_ms) {
            return;
        }
        life.look_at_ms = None;
        let due: Vec<VersionIndex> =
            life.due_ms.iter().filter(|(_, due)| **due <= clock_ms).map(|(v, _)| *v).collect();
        life.due_ms.retain(|v, _| !due.contains(v));
        for v in due {
            self.consider(n, v);
        }
        let Some(first_ms) = self.nodes[n].life().and_then(|life| life.due_ms.values().min().copied()) else {
            return;
        };
        let ahead_ms = self.nodes[n].ahead_ms;
        let first_ms = first_ms.saturating_sub(ahead_ms).max(now_ms + 1);
        if let Some(life) = self.nodes[n].life().filter(|life| life.look_at_ms.is_none_or(|at| first_ms < at))
        {
            life.look_at_ms = Some(first_ms);
            self.wake(n, first_ms - now_ms, Wake::Look);
        }
    }

    fn start_job(&mut self, n: NodeIndex, v: VersionIndex, generation: GenIndex, is_pull: bool) {
        let number = self.number();
        let bytes = self.book.generations[generation].bytes;
        // What would be removed again does not take the room that is being made for something else.
        let node = &self.nodes[n];
        if !is_pull && node.is_occupied(v, generation) && !self.is(Mutation::FetchesInVain) {
            // Nothing is fetched, and no room taken, for what cannot be placed.
            return self.retry_in(n, v, DAY);
        }
        let is_making_room = node.life.as_ref().is_some_and(|life| life.round.is_some());
        let gives_way = is_making_room && node.is_expendable(&self.book, v, self.now_ms);
        if !is_pull && (gives_way || !self.has_room(n, v, bytes)) {
            // What belongs here makes room for itself.
            self.nodes[n].life().map(|life| life.no_room.insert(v));
            self.wants_room(n);
            return self.retry_in(n, v, RETRY_MS);
        }
        let job = Job {
            number,
            generation,
            is_pull,
            reserved_bytes: if is_pull { 0 } else { bytes },
            tried: BTreeSet::new(),
            files: None,
            is_recording: false,
        };
        if let Some(life) = self.nodes[n].life() {
            life.no_room.remove(&v);
            life.jobs.insert(v, job);
        }
        self.ask_source(n, v);
    }

    /// Ends a job that brought nothing. Others wait for the room that it was promised.
    fn end_job(&mut self, n: NodeIndex, v: VersionIndex) {
        let job = self.nodes[n].life().and_then(|life| life.jobs.remove(&v));
        if job.is_some_and(|job| job.reserved_bytes > 0) {
            self.room_soon(n);
        }
    }

    /// Looks at a version again after a while, unless that is due before.
    fn retry_in(&mut self, n: NodeIndex, v: VersionIndex, delay_ms: u64) {
        if self.nodes[n].life().is_some_and(|life| life.retries.insert(v)) {
            self.wake(n, delay_ms, Wake::Retry(v));
        }
    }

    /// Looks at a version again that could not come.
    pub(super) fn retry(&mut self, n: NodeIndex, v: VersionIndex) {
        self.nodes[n].life().map(|life| life.retries.remove(&v));
        self.consider(n, v);
    }

    /// Says whether a version that comes by itself has room now, beside all that are on their way.
    pub(super) fn has_room(&self, n: NodeIndex, v: VersionIndex, bytes: u64) -> bool {
        let node = &self.nodes[n];
        let reserved: u64 =
            node.life.iter().flat_map(|life| life.jobs.values()).map(|job| job.reserved_bytes).sum();
        let mut pressure = node.pressure(&self.book);
        pressure.used_bytes += reserved;
        if node.is_expendable(&self.book, v, self.now_ms) {
            pressure.has_much_room_for(bytes)
        } else {
            pressure.has_room_for(bytes)
        }
    }

    /// Returns the versions that belong at a node and wait for room there: whether each may be removed again to make room, and
    /// its size. What may not comes first, and of that the smallest.
    pub(super) fn waiting(&self, n: NodeIndex) -> Vec<(bool, u64, VersionIndex)> {
        let (node, book) = (&self.nodes[n], &self.book);
        let Some(life) = node.life.as_ref() else { return Vec::new() };
        let now = node.clock(self.now_ms);
        let lacks = |v: &usize| !node.has_head(book, *v) && !life.jobs.contains_key(v);
        let waiting = life.no_room.iter().copied().filter(lacks).filter_map(|v| {
            let stance = node.stance(node.ruling(book, v, now).as_ref());
            if stance != Stance::Keep {
                return None;
            }
            let Decision::Fetch(manifest) =
                decide(book.versions[v].id.slot, &node.folds[v], &node.id, &stance, Wish::None)
            else {
                return None;
            };
            let bytes = book.generations[book.generation(&manifest)?].bytes;
            Some((node.is_expendable(book, v, self.now_ms), bytes, v))
        });
        let mut waiting: Vec<(bool, u64, VersionIndex)> = waiting.collect();
        waiting.sort_unstable();
        waiting
    }

    fn ask_source(&mut self, n: NodeIndex, v: VersionIndex) {
        let node = &self.nodes[n];
        let Some(job) = node.life.as_ref().and_then(|life| life.jobs.get(&v)) else { return };
        let manifest = self.book.generations[job.generation].manifest;
        let holders = node.folds[v].holders(&manifest);
        let sources = rank_sources(&node.id, &holders);
        let source = sources.iter().map(|id| self.book.node(id));
        let source = source.into_iter().find(|m| !job.tried.contains(m) && self.is_linked(n, *m));
        let (generation, number) = (job.generation, job.number);
        match source {
            Some(source) => {
                if let Some(job) = self.nodes[n].life().and_then(|life| life.jobs.get_mut(&v)) {
                    job.tried.insert(source);
                }
                self.send(n, source, Message::Fetch { version: v, generation, job: number });
                self.wake(n, SOURCE_MS, Wake::FetchTimeout(v, number));
            }
            None => {
                self.end_job(n, v);
                self.retry_in(n, v, RETRY_MS);
            }
        }
    }

    fn job(&mut self, n: NodeIndex, v: VersionIndex, number: u64) -> Option<&mut Job> {
        let job = self.nodes[n].life.as_mut()?.jobs.get_mut(&v)?;
        (job.number == number).then_some(job)
    }

    /// A source is silent for too long.
    pub(super) fn fetch_timeout(&mut self, n: NodeIndex, v: VersionIndex, number: u64) {
        if self.job(n, v, number).is_some_and(|job| job.files.is_none() && !job.is_recording) {
            let next = self.number();
            if let Some(job) = self.job(n, v, number) {
                job.number = next;
            }
            self.ask_source(n, v);
        }
    }

    /// A peer asks for files.
    pub(super) fn serve(&mut self, n: NodeIndex, to: NodeIndex, v: VersionIndex, g: GenIndex, job: u64) {
        let node = &mut self.nodes[n];
        let generation = &self.book.generations[g];
        let holds = node.folds[v].holds(&node.id, &generation.manifest);
        let dir = node.dirs.get(&v).filter(|_| holds);
        let files = generation.files.keys().map(|place| {
            let bytes = dir.and_then(|dir| dir.get(place))?;
            Some((*place, piece(bytes)))
        });
        let files: Option<Vec<(u8, Piece)>> = files.collect();
        if files.is_some() {
            let clock_ms = node.clock(self.now_ms).ms;
            node.used_ms.insert(v, clock_ms);
        }
        self.send(n, to, Message::Files { version: v, job, files });
    }

    /// Files come: they are verified before anything else.
    pub(super) fn files_came(
        &mut self,
        n: NodeIndex,
        v: VersionIndex,
        number: u64,
        files: Option<Vec<(u8, Piece)>>,
    ) {
        let Some(generation) = self.job(n, v, number).map(|job| job.generation) else { return };
        let files: Option<BTreeMap<u8, FileBytes>> =
            files.map(|files| files.into_iter().map(|(place, Piece(bytes))| (place, bytes.into())).collect());
        let good = files.filter(|files| *files == self.book.generations[generation].files);
        if good.is_none() {
            self.did("refused_bytes", n, v);
            let next = self.number();
            if let Some(job) = self.job(n, v, number) {
                job.number = next;
            }
            return self.ask_source(n, v);
        }
        self.nodes[n].manifests.insert(generation);
        // The policy is asked again, now that the manifest is here.
        let ruling = self.nodes[n].ruling(&self.book, v, self.nodes[n].clock(self.now_ms));
        if matches!(self.nodes[n].stance(ruling.as_ref()), Stance::Never(_)) {
            self.end_job(n, v);
            return self.did("forbidden_by_manifest", n, v);
        }
        if let Some(job) = self.job(n, v, number) {
            job.files = good;
        }
        let delay_ms = self.between(1, 50);
        self.wake(n, delay_ms, Wake::Place(v, number));
    }

    /// Renames files in, if nobody else has the directory in their hands; nothing is ever written over.
    pub(super) fn place(&mut self, n: NodeIndex, v: VersionIndex, number: u64) {
        let Some(files) = self.job(n, v, number).and_then(|job| job.files.clone()) else { return };
        let node = &mut self.nodes[n];
        let clock_ms = node.clock(self.now_ms).ms;
        let Some(life) = node.life.as_mut() else { return };
        if life.locked.contains(&v) {
            return self.wake(n, 100, Wake::Place(v, number));
        }
        let dir = node.dirs.entry(v).or_default();
        let foreign = |(place, bytes): (&u8, &FileBytes)| {
            let there = dir.get(place).filter(|there| *there != bytes)?;
            Some((*place, Arc::clone(there)))
        };
        if let Some((place, there)) = files.iter().find_map(foreign) {
            return self.blocked(n, v, place, there);
        }
        dir.extend(files);
        node.used_ms.insert(v, clock_ms);
        life.locked.insert(v);
        let Some(job) = life.jobs.get_mut(&v) else { return };
        job.is_recording = true;
        let manifest = self.book.generations[job.generation].manifest;
        let held = Held { version: self.book.versions[v].id.clone(), manifest };
        let entry = Entry::about(v, Record::Placed(held), Cause::Usual);
        let what = if job.is_pull { "pulled" } else { "placed" };
        self.did(what, n, v);
        self.commit(n, 2 * n, vec![entry], Then::Placed(v));
    }

    /// Other files lie where a version belongs. What came is thrown away, and nothing is fetched again before they are gone.
    fn blocked(&mut self, n: NodeIndex, v: VersionIndex, place: u8, there: FileBytes) {
        let Some(life) = self.nodes[n].life() else { return };
        let Some((generation, is_pull)) = life.jobs.get(&v).map(|job| (job.generation, job.is_pull)) else {
            return;
        };
        let before = life.occupied.insert(v, (generation, place, Arc::clone(&there)));
        if is_pull {
            // Whoever pulls hears of it.
            life.wishes.remove(&v);
        } else if before == Some((generation, place, there)) {
            let detail = format!("node {n} fetched version {v} again");
            self.broken(Violation::new("what cannot be placed is fetched once", detail));
        }
        self.end_job(n, v);
        self.did("blocked", n, v);
        self.retry_in(n, v, DAY);
    }

    /// The record of a fetch is durable.
    pub(super) fn placed(&mut self, n: NodeIndex, v: VersionIndex) {
        if let Some(life) = self.nodes[n].life() {
            life.locked.remove(&v);
            life.jobs.remove(&v);
            life.wishes.remove(&v);
        }
        self.consider(n, v);
        self.room_soon(n);
    }

    /// Considers everything, as at the start and when a policy comes.
    pub(super) fn consider_all(&mut self, n: NodeIndex) {
        let node = &self.nodes[n];
        let known = (0..self.book.versions.len()).filter(|v| node.standing[*v] != Standing::Unknown);
        // What would be removed again comes last.
        let (last, first): (Vec<usize>, Vec<usize>) = known
            .partition(|v| !node.has_head(&self.book, *v) && node.is_expendable(&self.book, *v, self.now_ms));
        first.into_iter().chain(last).for_each(|v| self.consider(n, v));
    }

    /// A new policy is in effect.
    pub(super) fn policy_came(&mut self, n: NodeIndex) {
        if !self.is(Mutation::IgnoresNewPolicy) {
            self.consider_all(n);
        }
        self.room_again(n);
    }
}
