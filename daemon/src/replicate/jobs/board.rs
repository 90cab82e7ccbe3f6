//! All jobs of this run, for everybody to read.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{
    control::{JobState, JobStatus},
    id::VersionId,
};

use super::Job;

/// How many jobs that have ended are kept for `avalonctl` to look at.
const KEEP_ENDED: usize = 500;

/// The jobs of this run of the daemon.
#[derive(Debug, Clone, Default)]
pub struct JobBoard(Arc<Mutex<BTreeMap<u64, Arc<Job>>>>);

impl JobBoard {
    /// Adds a job; `number` counts up.
    pub(super) fn add(&self, number: u64, job: Arc<Job>) {
        let mut jobs = self.lock();
        jobs.insert(number, job);
        let ended = jobs.iter().filter(|(_, job)| job.state().is_final());
        let surplus = ended.clone().count().saturating_sub(KEEP_ENDED);
        let oldest: Vec<u64> = ended.map(|(number, _)| *number).take(surplus).collect();
        for number in oldest {
            jobs.remove(&number);
        }
    }

    /// Returns every job, the oldest first.
    pub fn all(&self) -> Vec<JobStatus> {
        self.lock().values().map(|job| job.status()).collect()
    }

    /// Returns the jobs that have not ended.
    pub fn active(&self) -> Vec<JobStatus> {
        self.lock().values().filter(|job| !job.state().is_final()).map(|job| job.status()).collect()
    }

    /// Returns one job.
    pub fn get(&self, id: &str) -> Option<Arc<Job>> {
        self.lock().values().find(|job| job.id == id).cloned()
    }

    /// Returns the job that brings a version, if one is under way.
    pub fn of_version(&self, version: &VersionId) -> Option<Arc<Job>> {
        self.lock().values().rev().find(|job| job.version == *version && !job.state().is_final()).cloned()
    }

    /// Returns the place of a job among those that wait for their turn, from 1; nothing for one that does not.
    pub fn position(&self, job: &Job) -> Option<u64> {
        let jobs = self.lock();
        let queued = || jobs.iter().filter(|(_, job)| job.state() == JobState::Queued);
        let (number, _) = queued().find(|(_, other)| other.id == job.id)?;
        let turn = (job.turn(), Reverse(*number));
        let before = queued().filter(|(number, job)| (job.turn(), Reverse(**number)) > turn).count();
        u64::try_from(before).ok().map(|before| before + 1)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
