//! What is damaged is fetched again from whoever has it, and put in its place; what lay there goes to the trash.

use std::{sync::Arc, time::Duration};

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

/// What became of it, and why not more.
pub(super) type Repaired = (RepairState, Option<String>);

impl Scrubber {
    /// Has fetched again what is found damaged by itself, now or before the last restart, until the daemon stops.
    pub(super) async fn repair_asked(&self) {
        let stop = self.0.tasks.token();
        if !self.0.core.until_catalog(&stop).await {
            return;
        }
        loop {
            let version = tokio::select! {
                () = stop.cancelled() => return,
                version = self.0.core.damaged.asked() => version,
            };
            let (core, id) = (Arc::clone(&self.0.core), version.clone());
            let is_wanted = blocking(move || {
                let dir = core.project(&id.project).and_then(|project| project.dir());
                dir.is_some_and(|dir| core.damaged.is_still_to_repair(&id, &dir))
            });
            if is_wanted.await {
                self.begin_repair(&version).await;
            }
        }
    }

    /// Has a version fetched again. Its job goes on by itself, and says how it ends.
    async fn begin_repair(&self, version: &VersionId) {
        if let Err((state, why)) = self.fetch_again(version).await {
            tracing::warn!(%version, ?state, why, "what is damaged is not fetched again");
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
