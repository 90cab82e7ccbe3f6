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

/// How soon it is tried again to fetch what could not be fetched.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// How a repair is that the daemon asked itself for.
enum Repair {
    /// Its job goes on by itself, and says how it ends.
    Begun(Arc<Job>),
    /// It cannot be fetched now.
    NotNow,
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
        let mut repairs = BTreeMap::new();
        loop {
            let versions: Vec<VersionId> = tokio::select! {
                () = stop.cancelled() => return,
                version = self.0.core.damaged.asked() => vec![version],
                () = self.0.core.clock.sleep(TRY_AGAIN), if !repairs.is_empty() => repairs.keys().cloned().collect(),
            };
            for version in versions {
                let before = repairs.remove(&version);
                if let Some(repair) = self.go_on(&version, before).await {
                    repairs.insert(version, repair);
                }
            }
        }
    }

    /// Goes on with one that was asked for; returns how it is, unless it is done with.
    async fn go_on(&self, version: &VersionId, before: Option<Repair>) -> Option<Repair> {
        match before.as_ref() {
            Some(Repair::Begun(job)) => match job.status().state {
                // Somebody does not want it.
                JobState::Cancelled => return None,
                JobState::Done | JobState::Failed => {}
                _ => return before,
            },
            Some(Repair::NotNow) | None => {}
        }
        let (core, id) = (Arc::clone(&self.0.core), version.clone());
        let is_wanted = blocking(move || {
            let dir = core.project(&id.project)?.dir()?;
            core.damaged.is_still_to_repair(&id, &dir)
        });
        match is_wanted.await {
            Some(false) => return None,
            None => return Some(Repair::NotNow),
            Some(true) => {}
        }
        match self.fetch_again(version).await {
            Ok(job) => Some(Repair::Begun(job)),
            Err((state, why)) => {
                if before.is_none() {
                    tracing::warn!(%version, ?state, why, "what is damaged cannot be fetched again yet");
                }
                Some(Repair::NotNow)
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
