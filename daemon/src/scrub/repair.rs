//! What is damaged is fetched again from whoever has it, and put in its place; what lay there goes to the trash.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use avalon_protocol::{
    control::{JobState, RepairState},
    id::VersionId,
    plan::Decision,
};
use tokio_util::sync::CancellationToken;

use super::{Scrubber, damage::others};
use crate::{core::blocking, replicate::jobs::Job};

/// How soon it is noticed that a job has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How soon it is looked again what became of a job, and tried again to fetch what could not be fetched.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// How long at most after a job failed. It may have fetched all there is and not placed it, for what lies in its way.
const MOST_REST: Duration = Duration::from_hours(24);

/// A repair that the daemon asked itself for.
struct Repair {
    /// Goes on by itself, and says how it ends.
    job: Option<Arc<Job>>,
    /// How long nothing is done when that fails.
    rest: Duration,
    /// When it is looked at next, on the clock that only goes forward.
    due: Duration,
}

impl Repair {
    /// Says whether somebody cancelled it.
    fn is_unwanted(&self) -> bool {
        let job = self.job.as_ref();
        job.is_some_and(|job| job.status().state == JobState::Cancelled && job.is_discarded())
    }
}

/// What became of it, and why not more.
pub(super) type Repaired = (RepairState, Option<String>);

impl Scrubber {
    /// Has fetched again what is found damaged by itself, now or before the last restart, until the daemon stops. What cannot be fetched now,
    /// because its project is not mounted or nobody has it, is tried again as long as it lies there as it was found.
    pub(super) async fn repair_asked(&self) {
        let stop = self.0.tasks.token();
        if !self.0.core.until_catalog(&stop).await {
            return;
        }
        let clock = Arc::clone(&self.0.core.clock);
        let mut repairs: BTreeMap<VersionId, Repair> = BTreeMap::new();
        loop {
            let next = repairs.iter().min_by_key(|(_, repair)| repair.due);
            let next = next.map(|(version, repair)| (version.clone(), repair.due));
            let wait = next.as_ref().map_or(Duration::ZERO, |(_, due)| due.saturating_sub(clock.monotonic()));
            let version = tokio::select! {
                () = stop.cancelled() => return,
                version = self.0.core.damaged.asked() => match repairs.get(&version) {
                    // Finding it again brings it no sooner.
                    Some(repair) if !repair.is_unwanted() => continue,
                    _ => version,
                },
                () = clock.sleep(wait), if next.is_some() => match next {
                    Some((version, _)) => version,
                    None => continue,
                },
            };
            let before = repairs.remove(&version);
            if let Some(repair) = self.go_on(&version, before).await {
                repairs.insert(version, repair);
            }
        }
    }

    /// Goes on with one that was asked for; returns how it is, unless it is done with.
    async fn go_on(&self, version: &VersionId, before: Option<Repair>) -> Option<Repair> {
        if before.as_ref().is_some_and(Repair::is_unwanted) {
            return None;
        }
        let (is_first, now) = (before.is_none(), self.0.core.clock.monotonic());
        let Repair { job, rest, .. } = before.unwrap_or(Repair { job: None, rest: TRY_AGAIN, due: now });
        let after = |wait: Duration, job, rest| Some(Repair { job, rest, due: now.saturating_add(wait) });
        match job.as_ref().map(|job| job.status().state) {
            Some(JobState::Failed) => return after(rest, None, (rest * 2).min(MOST_REST)),
            None | Some(JobState::Done | JobState::Cancelled) => {}
            Some(_) => return after(TRY_AGAIN, job, rest),
        }
        let (core, id) = (Arc::clone(&self.0.core), version.clone());
        let is_wanted = blocking(move || {
            let dir = core.project(&id.project)?.dir()?;
            core.damaged.is_still_to_repair(&id, &dir)
        });
        match is_wanted.await {
            Some(false) => return None,
            None => return after(TRY_AGAIN, None, rest),
            Some(true) => {}
        }
        match self.fetch_again(version).await {
            Ok(job) => after(TRY_AGAIN, Some(job), rest),
            Err((state, why)) => {
                if is_first {
                    tracing::warn!(%version, ?state, why, "what is damaged cannot be fetched again yet");
                }
                after(TRY_AGAIN, None, rest)
            }
        }
    }

    /// Has a version fetched again and waits for that, until it is here, waits for something outside, or is not waited for any more.
    pub(super) async fn repair(&self, version: &VersionId, cancelled: &CancellationToken) -> Repaired {
        let job = match self.fetch_again(version).await {
            Ok(job) => job,
            Err(repaired) => return repaired,
        };
        loop {
            let status = job.status();
            match status.state {
                JobState::Done => return (RepairState::Repaired, None),
                JobState::Failed | JobState::Cancelled => return (RepairState::Failed, status.reason),
                JobState::Waiting | JobState::Paused => return (RepairState::Waiting, status.reason),
                JobState::Queued | JobState::Running | JobState::Placing if cancelled.is_cancelled() => {
                    return (RepairState::Fetching, None);
                }
                JobState::Queued | JobState::Running | JobState::Placing => {
                    tokio::select! {
                        () = self.0.tasks.token().cancelled_owned() => return (RepairState::Fetching, None),
                        () = self.0.core.clock.sleep(LOOK_AGAIN) => {}
                    }
                }
            }
        }
    }

    /// Asks for a version that is damaged here, and returns its job.
    ///
    /// # Errors
    /// It cannot come.
    pub(super) async fn fetch_again(&self, version: &VersionId) -> Result<Arc<Job>, Repaired> {
        let (core, id) = (Arc::clone(&self.0.core), version.clone());
        let holders = blocking(move || {
            let fold = core.ledger.version(&id).ok().flatten().unwrap_or_default();
            others(&core, &id, &fold)
        })
        .await;
        if holders.is_empty() {
            let why = "no other node is known to have it; the file stays as it is".to_owned();
            return Err((RepairState::NoCopy, Some(why)));
        }
        let failed = |why: String| (RepairState::Failed, Some(why));
        let pulled = self.0.replicator.pull(vec![version.clone()]).await;
        let pulled = pulled.map_err(|_| failed("the daemon is stopping".into()))?.into_iter().next();
        let Some(pulled) = pulled else { return Err(failed("nothing is known of it".into())) };
        match (pulled.decision, pulled.job) {
            (_, Some(job)) => Ok(job),
            (Decision::Have(_), None) => {
                Err(failed("it still counts as held here; try again in a moment".into()))
            }
            (_, None) => Err(failed(format!("it may not come here: avalonctl why {version}"))),
        }
    }
}
