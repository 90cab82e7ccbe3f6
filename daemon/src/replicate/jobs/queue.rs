//! [`Queue`]: the jobs that have not ended, and which of them runs next.
//!
//! A mirror that begins has a job for each version that it lacks, hundreds of thousands: nothing here looks at all of them
//! for one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use avalon_protocol::{
    control::{ErrorCode, JobState},
    id::VersionId,
    plan::Priority,
};

use super::{Job, job::Turn};

/// How many jobs run at once. A few keep the link busy while one of them hashes or places; more only make every version
/// late.
const RUNNING_LIMIT: usize = 4;
/// How many jobs that somebody waits for may run besides.
const WAITING_LIMIT: usize = 8;

/// The jobs that have not ended, by their numbers, which count up.
#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: BTreeMap<u64, Arc<Job>>,
    /// Most have one job. One that was cancelled may still run when the next is there.
    of_version: BTreeMap<VersionId, BTreeSet<u64>>,
    running: BTreeSet<u64>,
    waiting: BTreeSet<u64>,
    paused: BTreeSet<u64>,
    /// Those whose turn comes, the next one first.
    queued: BTreeSet<(Reverse<Turn>, u64)>,
    /// Where each of them stands there.
    turns: BTreeMap<u64, Turn>,
}

impl Queue {
    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Adds a job whose turn comes.
    pub(super) fn add(&mut self, number: u64, job: Arc<Job>) {
        self.of_version.entry(job.version.clone()).or_default().insert(number);
        self.jobs.insert(number, job);
        self.set_queued(number);
    }

    /// Returns a job.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Job>> {
        self.jobs.get(&number).cloned()
    }

    /// Returns a job by its id, as people know it.
    pub(super) fn find(&self, id: &str) -> Option<(u64, Arc<Job>)> {
        let found = self.jobs.iter().find(|(_, job)| job.id == id);
        found.map(|(number, job)| (*number, Arc::clone(job)))
    }

    /// Returns all.
    pub(super) fn jobs(&self) -> impl Iterator<Item = (u64, &Arc<Job>)> {
        self.jobs.iter().map(|(number, job)| (*number, job))
    }

    /// Returns the job that brings a version; one that was cancelled and still runs does not count.
    pub(super) fn current(&self, version: &VersionId) -> Option<(u64, Arc<Job>)> {
        let mut of_version = self.of_version.get(version)?.iter().filter_map(|number| {
            let job = self.jobs.get(number)?;
            Some((*number, Arc::clone(job)))
        });
        of_version.find(|(_, job)| !job.cancel.is_cancelled())
    }

    /// Says whether the work of a job is under way.
    pub(super) fn is_running(&self, number: u64) -> bool {
        self.running.contains(&number)
    }

    /// Returns the jobs whose work is under way.
    pub(super) fn running(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.running.iter().filter_map(|number| self.jobs.get(number))
    }

    /// Notes that the work of a job is not under way any more.
    pub(super) fn stopped(&mut self, number: u64) -> Option<Arc<Job>> {
        self.running.remove(&number);
        self.get(number)
    }

    /// Forgets a job that has ended.
    pub(super) fn remove(&mut self, number: u64) {
        self.leave(number);
        self.running.remove(&number);
        let Some(job) = self.jobs.remove(&number) else { return };
        if let Some(of_version) = self.of_version.get_mut(&job.version) {
            of_version.remove(&number);
            if of_version.is_empty() {
                self.of_version.remove(&job.version);
            }
        }
    }

    /// Lets a job wait for its turn, if it does not run.
    pub(super) fn set_queued(&mut self, number: u64) {
        let Some(job) = self.get(number).filter(|_| !self.running.contains(&number)) else { return };
        self.leave(number);
        self.queued.insert((Reverse(job.turn()), number));
        self.turns.insert(number, job.turn());
        job.set_state(JobState::Queued, None, None);
    }

    /// Lets a job wait for something outside, if it does not run.
    pub(super) fn set_waiting(&mut self, number: u64, reason: String, code: ErrorCode) {
        let Some(job) = self.get(number).filter(|_| !self.running.contains(&number)) else { return };
        self.leave(number);
        self.waiting.insert(number);
        job.set_state(JobState::Waiting, Some(reason), Some(code));
    }

    /// Pauses a job; one that runs is interrupted, and is to be paused again when it has stopped.
    pub(super) fn set_paused(&mut self, number: u64, reason: &str) {
        let Some(job) = self.get(number) else { return };
        if self.running.contains(&number) {
            return job.interrupt();
        }
        self.leave(number);
        self.paused.insert(number);
        job.set_state(JobState::Paused, Some(reason.to_owned()), None);
    }

    /// Lets a job that waits for something try again.
    pub(super) fn retry(&mut self, number: u64) {
        if self.waiting.contains(&number) {
            self.set_queued(number);
        }
    }

    /// Lets every job that waits for something try again.
    pub(super) fn retry_all(&mut self) {
        for number in std::mem::take(&mut self.waiting) {
            self.set_queued(number);
        }
    }

    /// Says whether a job is paused and does not run any more.
    pub(super) fn is_paused(&self, number: u64) -> bool {
        self.paused.contains(&number)
    }

    /// Finds the place of a job anew: its turn may come sooner or later than before.
    pub(super) fn reorder(&mut self, number: u64) {
        let Some(job) = self.jobs.get(&number) else { return };
        let turn = job.turn();
        if let Some(known) = self.turns.get_mut(&number)
            && *known != turn
        {
            self.queued.remove(&(Reverse(*known), number));
            self.queued.insert((Reverse(turn), number));
            *known = turn;
        }
    }

    /// Takes the next job that may run now: the most urgent one, the oldest among equals. Its work is under way then.
    pub(super) fn start(&mut self) -> Option<(u64, Arc<Job>)> {
        // Two jobs of one version never run at once: they would share files.
        let is_busy = |job: &Job| {
            let of_version = self.of_version.get(&job.version);
            of_version.is_some_and(|of_version| of_version.iter().any(|number| self.running.contains(number)))
        };
        let (number, job) = self.queued.iter().find_map(|(_, number)| {
            let job = self.jobs.get(number).filter(|job| !is_busy(job))?;
            Some((*number, Arc::clone(job)))
        })?;
        let limit = match job.priority() {
            Priority::Waiting => RUNNING_LIMIT + WAITING_LIMIT,
            Priority::Publish | Priority::Backfill => RUNNING_LIMIT,
        };
        if self.running.len() >= limit {
            return None;
        }
        self.leave(number);
        self.running.insert(number);
        job.begin();
        Some((number, job))
    }

    fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
        self.paused.remove(&number);
        if let Some(turn) = self.turns.remove(&number) {
            self.queued.remove(&(Reverse(turn), number));
        }
    }
}
