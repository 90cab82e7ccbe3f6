//! `queue`, `pause`, `resume`, `prio`: the jobs that have not ended, and what people say about them.

use std::{collections::BTreeSet, sync::Arc};

use avalon_protocol::{
    control::{
        ApiError, ErrorCode, JobState, JobStatus, PausedItem, Prio, QueueChange, QueueReply, QueueRequest,
    },
    id::VersionId,
};

use super::{DaemonApi, pull::recent_rate, stopping};
use crate::{
    api::Caller,
    clock::time_of_ms,
    core::blocking,
    log::ErrorChain,
    publish::author,
    replicate::jobs::{Book, Paused},
    state_file::StateFileError,
};

impl DaemonApi {
    pub(super) fn queue_reply(&self) -> QueueReply {
        let mut jobs = self.replicator.board.queue();
        estimate(&mut jobs, recent_rate(&self.replicator.board.all()));
        self.queue_of(jobs)
    }

    fn queue_of(&self, jobs: Vec<JobStatus>) -> QueueReply {
        let paused = self.core.orders.book().paused;
        QueueReply {
            schema: "avalonctl.queue/1".into(),
            paused: paused.map(|paused| PausedItem { by: paused.by, since: time_of_ms(paused.at_ms) }),
            jobs,
        }
    }

    pub(super) async fn queue_changed(
        &self,
        request: QueueRequest,
        caller: Caller,
    ) -> Result<QueueReply, ApiError> {
        let versions = match request.jobs.is_empty() {
            true => None,
            false => Some(self.versions_of_jobs(&request).await?),
        };
        if versions.is_none() && matches!(request.change, QueueChange::Prio { .. }) {
            return Err(ApiError::new(ErrorCode::BadRequest, "which jobs? there are none named")
                .with_hint("list them: avalonctl queue"));
        }
        let (core, change, meant) = (Arc::clone(&self.core), request.change, versions.clone());
        let changed = blocking(move || {
            let paused = Paused { by: author::name_of(caller.uid), at_ms: core.now_ms() };
            core.orders.change(|book| apply(book, change, meant.as_deref(), &paused))
        });
        changed.await.map_err(|error| not_kept(&error))?;
        self.replicator.ordered(versions.clone()).await.map_err(|_| stopping())?;
        // A question that is answered after the change was heard.
        self.replicator.pull(Vec::new()).await.map_err(|_| stopping())?;
        let mut reply = self.queue_reply();
        if let Some(versions) = versions {
            let names: BTreeSet<String> = versions.iter().map(ToString::to_string).collect();
            reply.jobs.retain(|job| names.contains(&job.reference));
        }
        Ok(reply)
    }

    /// Returns the versions that the named jobs bring.
    async fn versions_of_jobs(&self, request: &QueueRequest) -> Result<Vec<VersionId>, ApiError> {
        let mut versions = Vec::new();
        for name in &request.jobs {
            if let Some(job) = self.replicator.board.get(name).filter(|job| !job.state().is_final()) {
                versions.push(job.version.clone());
                continue;
            }
            let no_job = || {
                ApiError::new(ErrorCode::NotFound, format!("no job brings {name}"))
                    .with_hint("list the jobs: avalonctl queue")
            };
            let Ok(reference) = self.parse(name) else { return Err(no_job()) };
            let found = self.find(&reference, request.project.as_deref()).await?;
            let before = versions.len();
            let with_job = found.into_iter().map(|(version, _)| version);
            versions.extend(with_job.filter(|version| self.replicator.board.of_version(version).is_some()));
            if versions.len() == before {
                return Err(no_job());
            }
        }
        Ok(versions)
    }
}

/// Writes down what somebody says: about these versions, or about all.
fn apply(book: &mut Book, change: QueueChange, versions: Option<&[VersionId]>, paused: &Paused) {
    let Some(versions) = versions else {
        match change {
            QueueChange::Pause => book.paused = Some(book.paused.take().unwrap_or_else(|| paused.clone())),
            QueueChange::Resume => {
                book.paused = None;
                book.versions.values_mut().for_each(|order| order.paused = None);
            }
            QueueChange::Prio { .. } => {}
        }
        return;
    };
    for version in versions {
        let order = book.versions.entry(version.clone()).or_default();
        match change {
            QueueChange::Pause => order.paused = Some(paused.clone()),
            QueueChange::Resume => order.paused = None,
            QueueChange::Prio { prio } => order.prio = (prio != Prio::Normal).then_some(prio),
        }
    }
}

/// Says of jobs whose turn has not come how long they will take: after all that is before them, at the rate of now or lately.
fn estimate(jobs: &mut [JobStatus], rate: Option<f64>) {
    let Some(rate) = rate.filter(|rate| *rate > 0.0) else { return };
    let mut before = 0;
    for job in jobs {
        before += job.bytes_total.saturating_sub(job.bytes_present);
        if job.state == JobState::Queued {
            #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
            let seconds = before as f64 / rate;
            job.eta_seconds = Some(seconds);
        }
    }
}

pub(super) fn not_kept(error: &StateFileError) -> ApiError {
    let code = if error.is_no_space() { ErrorCode::DiskFull } else { ErrorCode::Internal };
    ApiError::new(code, format!("that cannot be kept, nothing has changed: {}", ErrorChain(error)))
        .with_hint("check the disk of the state directory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::version;

    fn paused(by: &str) -> Paused {
        Paused { by: by.into(), at_ms: 7 }
    }

    #[test]
    fn all_that_was_paused_goes_on_with_one_word_and_what_was_said_of_the_order_stays() {
        let mut book = Book::default();
        let one = [version(1)];
        apply(&mut book, QueueChange::Pause, Some(&one), &paused("anna"));
        apply(&mut book, QueueChange::Prio { prio: Prio::Low }, Some(&one), &paused("anna"));
        apply(&mut book, QueueChange::Pause, None, &paused("ben"));
        apply(&mut book, QueueChange::Pause, None, &paused("carl"));
        assert_eq!(book.paused, Some(paused("ben")), "who was first");
        assert_eq!(book.paused(&version(9)), Some(&paused("ben")));
        apply(&mut book, QueueChange::Resume, None, &paused("anna"));
        assert_eq!((book.paused(&version(1)), book.versions[&version(1)].prio), (None, Some(Prio::Low)));
        apply(&mut book, QueueChange::Prio { prio: Prio::Normal }, Some(&one), &paused("anna"));
        assert_eq!(book.versions[&version(1)].prio, None);
    }

    #[test]
    fn one_version_goes_on_only_when_not_all_is_paused() {
        let mut book = Book::default();
        apply(&mut book, QueueChange::Pause, None, &paused("anna"));
        apply(&mut book, QueueChange::Resume, Some(&[version(1)]), &paused("anna"));
        assert!(book.paused(&version(1)).is_some());
    }
}
