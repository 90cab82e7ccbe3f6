//! The streams that bring one version, over all sources, as the schedule says.
//!
//! Each stream sends its next request about a round trip before the last one has come, so that the line never idles; a
//! stream whose source fails gives back what it had to bring, and others bring it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use avalon_protocol::{
    close_code::CloseCode,
    control::{ErrorCode, Health, Severity},
    hash::ObjectHash,
    id::NodeId,
    schedule::{Next, Schedule, StreamId},
    wire::{FetchEncoded, Want},
};
use avalon_store::object::incoming::Incoming;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::{
    bases::Bases,
    failed, incoming_failed,
    sink::{JobSink, SinkError},
};
use crate::{
    core::Core,
    log::ErrorChain,
    net::{Begun, BlockSink as _, FetchError, PeerLink, Room},
    replicate::jobs::{Job, Outcome},
};

/// How many streams bring one version, over all sources. Each has at most one block that is not written yet, so a cut
/// costs at most this many blocks.
const STREAMS: usize = 4;
/// The next request goes out this much earlier than a round trip before it is needed: the source has to open files.
const AHEAD: Duration = Duration::from_millis(20);

/// Streams over one connection with a longer round trip take over nothing from each other: what is on its way would come twice.
const SHORT_RTT: Duration = Duration::from_millis(5);

/// The streams' numbers, as the schedule has them.
fn ids() -> impl Iterator<Item = StreamId> {
    0..
}

/// One go at what is missing, which ends when everything is here or no source brings more.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) core: Arc<Core>,
    pub(super) job: Arc<Job>,
    pub(super) incoming: Arc<Incoming>,
    pub(super) bases: Arc<Bases>,
    schedule: Mutex<Schedule>,
    /// Something was given back or brought: who had nothing to do looks again.
    changed: Notify,
    /// Held by the stream that makes small files.
    pub(super) making_files: tokio::sync::Mutex<()>,
    /// For each stream: its next request should go out.
    nearly: [Notify; STREAMS],
    /// Ends all streams: this side cannot go on, or the job is cancelled.
    stop: CancellationToken,
    /// What ended badly.
    trouble: Mutex<Trouble>,
}

/// What ended badly in a round.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Nodes that sent what does not verify, or that lack objects: not asked again by this job.
    pub(super) unfit: BTreeSet<NodeId>,
    /// Nodes whose streams broke.
    pub(super) broke: BTreeSet<NodeId>,
    /// What this side could not do.
    pub(super) outcome: Option<Outcome>,
}

/// What one stream was asked for, and its answer so far.
struct Request {
    wants: Vec<Want>,
    begun: Begun,
    /// What it takes of the connection's window while nobody reads it.
    _unread: Option<OwnedSemaphorePermit>,
}

impl Round {
    pub(super) fn new(
        core: &Arc<Core>,
        job: &Arc<Job>,
        incoming: &Arc<Incoming>,
        bases: &Arc<Bases>,
        wants: Vec<Want>,
    ) -> Self {
        Self {
            core: Arc::clone(core),
            job: Arc::clone(job),
            incoming: Arc::clone(incoming),
            bases: Arc::clone(bases),
            schedule: Mutex::new(Schedule::new(wants)),
            changed: Notify::new(),
            making_files: tokio::sync::Mutex::default(),
            nearly: Default::default(),
            stop: job.stop().child_token(),
            trouble: Mutex::default(),
        }
    }

    /// Runs the streams over these sources, the best first, and returns what ended badly.
    pub(super) async fn run(self: &Arc<Self>, links: &[PeerLink]) -> Trouble {
        let lines = (0u32..).zip(links).cycle().take(STREAMS);
        let streams = ids().zip(lines).map(|(id, (line, link))| {
            // On a short line next to nothing is on its way, and what limits is checking and writing, which streams share.
            if link.rtt() > SHORT_RTT {
                self.schedule().runs_over(id, line);
            }
            self.stream(id, link)
        });
        futures_util::future::join_all(streams).await;
        std::mem::take(&mut *self.trouble())
    }

    /// Takes note of content that arrived on a stream.
    /// `ahead` is how long before its end the stream's next request should go out.
    pub(super) fn arrived(
        &self,
        (id, ahead): (StreamId, Duration),
        object: &ObjectHash,
        blocks: (u64, u64),
        bytes: u64,
    ) -> Next {
        let now = self.core.clock.monotonic();
        let mut schedule = self.schedule();
        let next = schedule.arrived(id, object, blocks, bytes, now);
        if schedule.is_nearly_done(id, ahead)
            && let Some(nearly) = self.nearly.get(id as usize)
        {
            nearly.notify_one();
        }
        if schedule.is_done() {
            self.changed.notify_waiters();
        }
        next
    }

    /// Takes note that a stream brings no blocks of an object.
    pub(super) fn passed_over(&self, id: StreamId, object: &ObjectHash) {
        self.schedule().passed_over(id, object);
    }

    async fn stream(self: &Arc<Self>, id: StreamId, link: &PeerLink) {
        let ended = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            // Its source trickles: others have brought all of it.
            () = self.released(id) => Ok(()),
            ended = self.requests(id, link) => ended,
        };
        if let Err(error) = ended {
            if error.is_peers_fault() {
                link.close(CloseCode::Protocol, "an answer broke the protocol");
            }
            tracing::info!(peer = %link.node(), version = %self.job.version, error = %ErrorChain(&error), "a stream broke, its blocks are asked for again");
            self.trouble().broke.insert(link.node().clone());
        }
        self.schedule().fail(id);
        self.changed.notify_waiters();
    }

    /// Ends when what a stream still brings is of no use.
    async fn released(&self, id: StreamId) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.schedule().is_released(id) {
                return;
            }
            changed.await;
        }
    }

    /// Asks and takes until there is nothing left to ask for.
    async fn requests(self: &Arc<Self>, id: StreamId, link: &PeerLink) -> Result<(), FetchError> {
        let mut ahead: Option<Request> = None;
        loop {
            let request = match ahead.take() {
                Some(request) => request,
                None => match self.next_request(id, link).await? {
                    Some(request) => request,
                    None => return Ok(()),
                },
            };
            let mut sink = JobSink::new(Arc::clone(self), id, link.rtt() + AHEAD);
            self.job.add_source(link.node());
            let Request { wants, begun, .. } = request;
            let taken = {
                let taking = link.take(begun, &mut sink);
                let mut taking = std::pin::pin!(taking);
                tokio::select! {
                    biased;
                    taken = &mut taking => taken,
                    next = self.ask_ahead(id, link) => {
                        ahead = next?;
                        taking.await
                    }
                }
            };
            if taken.is_err() && !sink.robbed && sink.error.is_none() {
                // What came before the cut is kept. An error shows below.
                sink.flush().await.ok();
            }
            if sink.robbed {
                // All that it was asked for is here or somebody else's, also what was asked for ahead.
                ahead = None;
                continue;
            }
            match sink.error.take() {
                Some(SinkError::Base(object)) => {
                    self.spoil(link, object);
                    self.schedule().fail(id);
                    ahead = None;
                    continue;
                }
                Some(error) => {
                    self.blame(link, &error);
                    return Ok(());
                }
                None => {}
            }
            taken?;
            // Wants of no blocks, for the block list alone, are answered as well.
            let mut schedule = self.schedule();
            wants
                .iter()
                .filter(|want| want.blocks == 0)
                .for_each(|want| schedule.passed_over(id, &want.object));
            if ahead.is_none() {
                // The answer came to its end while the next request was on its way out, and that was given up.
                schedule.give_back(id);
            }
            drop(schedule);
            if !sink.not_found.is_empty() {
                tracing::warn!(peer = %link.node(), version = %self.job.version, objects = sink.not_found.len(), "the peer does not have all that it said");
                self.trouble().unfit.insert(link.node().clone());
                return Ok(());
            }
        }
    }

    /// Asks for the next part; waits while there is none and other streams may give theirs up. None when all is here.
    async fn next_request(&self, id: StreamId, link: &PeerLink) -> Result<Option<Request>, FetchError> {
        loop {
            let room = link.room(self.job.priority()).await;
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let wants = {
                let mut schedule = self.schedule();
                if schedule.is_done() {
                    return Ok(None);
                }
                schedule.ask(id, self.core.clock.monotonic())
            };
            if !wants.is_empty() {
                return self.begin(link, wants, (room, None)).await.map(Some);
            }
            drop(room);
            // Another stream may become slow without anybody saying so.
            tokio::select! {
                () = changed => {}
                () = self.core.clock.sleep(Duration::from_millis(200)) => {}
            }
        }
    }

    /// Sends the next request when the one under way is nearly answered; never ends when there is no more to ask for.
    async fn ask_ahead(&self, id: StreamId, link: &PeerLink) -> Result<Option<Request>, FetchError> {
        let Some(nearly) = self.nearly.get(id as usize) else { return std::future::pending().await };
        loop {
            nearly.notified().await;
            // Answers that wait must leave room for those that are read, on whose end they wait.
            let Some(unread) = link.may_ask_ahead(self.schedule().next_bytes(id)) else { continue };
            let room = link.room(self.job.priority()).await;
            let wants = {
                let mut schedule = self.schedule();
                // It may have been told of an earlier request.
                if !schedule.is_nearly_done(id, link.rtt() + AHEAD) {
                    continue;
                }
                schedule.ask(id, self.core.clock.monotonic())
            };
            if !wants.is_empty() {
                return self.begin(link, wants, (room, Some(unread))).await.map(Some);
            }
        }
    }

    async fn begin(
        &self,
        link: &PeerLink,
        wants: Vec<Want>,
        (room, unread): (Room, Option<OwnedSemaphorePermit>),
    ) -> Result<Request, FetchError> {
        let fetch = FetchEncoded {
            project: self.job.version.project.clone(),
            priority: self.job.priority(),
            // Within a site the line is faster than the compressor.
            compress: link.node().site != self.core.me.site,
            bases: self.bases.of(&wants),
            wants: wants.clone(),
        };
        Ok(Request { wants, begun: link.begin(fetch, room).await?, _unread: unread })
    }

    /// A peer whose bytes do not verify is not asked again by this job and somebody hears of it; an error of our own disk
    /// ends the job for now.
    fn blame(&self, link: &PeerLink, error: &SinkError) {
        let reason = ErrorChain(error).to_string();
        let (job, node) = (&self.job, link.node());
        if error.is_senders_fault() {
            tracing::warn!(peer = %node, version = %job.version, error = reason, "the peer sent bytes that do not verify");
            self.core.health.about(&node.to_string()).raise(Health {
                code: "bad-content".into(),
                severity: Severity::Warning,
                message: format!(
                    "{node} sent content of {} that does not verify; it was refused",
                    job.version
                ),
                hint: Some(format!("check the disk of {node}")),
            });
            self.trouble().unfit.insert(node.clone());
            link.close(CloseCode::Content, "content does not match its hash");
            return;
        }
        let outcome = match error {
            SinkError::Block(error) => incoming_failed(&self.core, job, error),
            SinkError::List(_) | SinkError::Piece(_) | SinkError::Base(_) => {
                failed(ErrorCode::Internal, reason)
            }
        };
        self.trouble().outcome = Some(outcome);
        self.stop.cancel();
    }

    /// A delta against a base that one side has damaged: nobody is to blame, and the object comes as it is.
    fn spoil(&self, link: &PeerLink, object: ObjectHash) {
        tracing::warn!(peer = %link.node(), version = %self.job.version, object = %object.short(), "a delta gave something else, the object is fetched as it is");
        self.bases.spoil(object);
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a stream what it asks for first; returns how many wants that are.
    #[cfg(test)]
    pub(super) fn ask_all(&self, id: StreamId) -> usize {
        self.schedule().ask(id, self.core.clock.monotonic()).len()
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
