//! How everybody else talks to the [`Replicator`](super::Replicator).

use std::sync::Arc;

use avalon_protocol::{
    id::{ProjectName, VersionId},
    plan::Decision,
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::super::renumber;
use super::{Job, JobBoard, Outcome};

/// The replicator is gone: the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the daemon is stopping")]
pub struct Stopped;

/// What the task hears.
#[derive(Debug)]
pub(super) enum Event {
    /// Records about these versions arrived, or local ones were made.
    Touched(Vec<VersionId>),
    /// Look at every version of a project: at the start, when it is back, when its mode changed.
    Project(ProjectName),
    /// A peer is there: what waits may have a source now.
    PeerCame,
    /// Somebody wants versions.
    Pull(Vec<VersionId>, oneshot::Sender<Vec<Pulled>>),
    /// Somebody wants back what stands, over files that were changed in place.
    Restore(VersionId, oneshot::Sender<Pulled>),
    /// Somebody wants the frames of versions that are written down in the orders.
    PullFrames(Vec<VersionId>, oneshot::Sender<Vec<Pulled>>),
    /// Somebody cancels a job.
    Cancel(String, oneshot::Sender<Option<Arc<Job>>>),
    /// Something was said about the queue: about these versions, or about all of it.
    Ordered(Option<Vec<VersionId>>),
    /// A job ended or pauses; `wakes` is what was counted when it started.
    Ended { number: u64, outcome: Outcome, wakes: u64 },
    /// It is time to try again.
    Retry(u64),
    /// What was held of a version got its new number, or could not get it now.
    Moved(VersionId, renumber::Ended),
}

/// What became of one version that somebody wants.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The version.
    pub version: VersionId,
    /// What the daemon does about it.
    pub decision: Decision,
    /// The job that brings it, if one is needed.
    pub job: Option<Arc<Job>>,
}

/// Talks to the [`Replicator`](super::Replicator).
#[derive(Debug, Clone)]
pub struct ReplicatorHandle {
    pub(super) events: mpsc::Sender<Event>,
    /// All jobs, to read.
    pub board: JobBoard,
}

impl ReplicatorHandle {
    /// Says that records about these versions arrived.
    pub async fn touched(&self, versions: Vec<VersionId>) {
        self.events.send(Event::Touched(versions)).await.ok();
    }

    /// Asks to look at every version of a project.
    pub async fn look_at(&self, project: ProjectName) {
        self.events.send(Event::Project(project)).await.ok();
    }

    /// Says that a peer is there.
    pub async fn peer_came(&self) {
        self.events.send(Event::PeerCame).await.ok();
    }

    /// Wants versions here; answers when their jobs exist.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn pull(&self, versions: Vec<VersionId>) -> Result<Vec<Pulled>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Pull(versions, reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Wants the frames of versions that stand in the [`Orders`](super::Orders); answers when their jobs exist.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn pull_frames(&self, versions: Vec<VersionId>) -> Result<Vec<Pulled>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::PullFrames(versions, reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Says that people said something else about the queue: about these versions, or about all of it.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn ordered(&self, versions: Option<Vec<VersionId>>) -> Result<(), Stopped> {
        self.events.send(Event::Ordered(versions)).await.map_err(|_| Stopped)
    }

    /// Wants what stands of a version put back over files that were changed in place here; answers when its job exists.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn restore(&self, version: VersionId) -> Result<Pulled, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Restore(version, reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Cancels a job and returns it; none when there is none under way with that id.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn cancel(&self, id: &str) -> Result<Option<Arc<Job>>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Cancel(id.to_owned(), reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

#[cfg(test)]
impl ReplicatorHandle {
    /// Returns a handle without a replicator, and what lists the versions that it was told of or asked for since the last time.
    pub fn recorded() -> (Self, impl FnMut() -> Vec<VersionId>) {
        let (events, mut told) = mpsc::channel(100);
        let versions = move || {
            let events = std::iter::from_fn(|| told.try_recv().ok());
            let versions = |event| match event {
                Event::Touched(versions) | Event::Pull(versions, _) => versions,
                _ => Vec::new(),
            };
            events.flat_map(versions).collect()
        };
        (Self { events, board: JobBoard::default() }, versions)
    }
}
