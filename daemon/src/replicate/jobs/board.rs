//! All jobs of this run, for everybody to read.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{
    control::{JobState, JobStatus},
    id::{ProjectName, VersionId},
};

use super::{Job, job::Turn};

/// How many jobs that have ended are kept for `avalonctl` to look at.
const KEEP_ENDED: usize = 500;

/// The jobs of this run of the daemon.
#[derive(Debug, Clone, Default)]
pub struct JobBoard(Arc<Mutex<Jobs>>);

#[derive(Debug, Default)]
struct Jobs {
    all: BTreeMap<u64, Arc<Job>>,
    /// The newest of each version.
    newest: HashMap<VersionId, u64>,
    /// Those that have ended, in this order.
    ended: VecDeque<u64>,
}

impl JobBoard {
    /// Adds a job; `number` counts up.
    pub(super) fn add(&self, number: u64, job: Arc<Job>) {
        let mut jobs = self.lock();
        jobs.newest.insert(job.version.clone(), number);
        jobs.all.insert(number, job);
    }

    /// Notes that a job has ended; the first of many that did are forgotten.
    pub(super) fn ended(&self, number: u64) {
        let mut jobs = self.lock();
        jobs.ended.push_back(number);
        if jobs.ended.len() <= KEEP_ENDED {
            return;
        }
        let Some(oldest) = jobs.ended.pop_front() else { return };
        if let Some(job) = jobs.all.remove(&oldest)
            && jobs.newest.get(&job.version) == Some(&oldest)
        {
            jobs.newest.remove(&job.version);
        }
    }

    /// Returns every job, the oldest first.
    pub fn all(&self) -> Vec<JobStatus> {
        self.lock().all.values().map(|job| job.status()).collect()
    }

    /// Returns the jobs that have not ended.
    pub fn active(&self) -> Vec<JobStatus> {
        self.lock().all.values().filter(|job| !job.state().is_final()).map(|job| job.status()).collect()
    }

    /// Returns the jobs that have not ended: those that run, those whose turn comes, in this order and with their places,
    /// those that wait and those that are paused.
    pub fn queue(&self) -> Vec<JobStatus> {
        let mut active: Vec<(u8, Reverse<Turn>, u64, Arc<Job>)> = {
            let jobs = self.lock();
            let ranked = jobs.all.iter().filter_map(|(number, job)| {
                Some((rank(job.state())?, Reverse(job.turn()), *number, Arc::clone(job)))
            });
            ranked.collect()
        };
        active.sort_by_key(|(rank, turn, number, _)| (*rank, *turn, *number));
        let mut place = 0;
        let placed = active.into_iter().map(|(.., job)| {
            let mut status = job.status();
            if status.state == JobState::Queued {
                place += 1;
                status.position = Some(place);
            }
            status
        });
        placed.collect()
    }

    /// Returns one job.
    pub fn get(&self, id: &str) -> Option<Arc<Job>> {
        let number = id.rsplit_once('-').and_then(|(_, number)| u64::from_str_radix(number, 16).ok())?;
        self.lock().all.get(&number).filter(|job| job.id == id).cloned()
    }

    /// Returns the job that brings a version, if one is under way.
    pub fn of_version(&self, version: &VersionId) -> Option<Arc<Job>> {
        let jobs = self.lock();
        jobs.all.get(jobs.newest.get(version)?).filter(|job| !job.state().is_final()).cloned()
    }

    /// Returns the versions of a project that come by themselves and wait for room, with their bytes.
    pub fn waiting_for_room(&self, project: &ProjectName) -> Vec<(VersionId, u64)> {
        let jobs = self.lock();
        let of_project = jobs.all.values().filter(|job| job.version.project == *project);
        of_project.filter_map(|job| Some((job.version.clone(), job.waits_for_room()?))).collect()
    }

    /// Returns the place of a job among those that wait for their turn, from 1; nothing for one that does not.
    pub fn position(&self, job: &Job) -> Option<u64> {
        let jobs = self.lock();
        let queued = || jobs.all.iter().filter(|(_, job)| job.state() == JobState::Queued);
        let (number, _) = queued().find(|(_, other)| other.id == job.id)?;
        let turn = (job.turn(), Reverse(*number));
        let before = queued().filter(|(number, job)| (job.turn(), Reverse(**number)) > turn).count();
        u64::try_from(before).ok().map(|before| before + 1)
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns where jobs in a state stand in the queue; nothing for those that have ended.
fn rank(state: JobState) -> Option<u8> {
    match state {
        JobState::Running | JobState::Placing => Some(0),
        JobState::Queued => Some(1),
        JobState::Waiting => Some(2),
        JobState::Paused => Some(3),
        JobState::Done | JobState::Failed | JobState::Cancelled => None,
    }
}
