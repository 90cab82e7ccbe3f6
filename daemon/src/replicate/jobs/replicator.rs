//! The task that makes, starts and ends jobs. It owns the truth about them; everybody else sends it a message.
//!
//! Phases of each turn: receive one event, decide (pure: [`crate::core::Core::decide`]), act by starting or ending jobs.
//! A job runs as a task of its own and reports its [`Outcome`] back here.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use avalon_protocol::{
    control::{ErrorCode, EventKind, Health, JobKind, JobState, Severity},
    hash::ManifestId,
    id::{AssetName, ProjectName, SubsetName, VersionId},
    plan::{Decision, Priority, Wish},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Job, JobBoard, Outcome, RetryWhen,
    changes::Changes,
    handle::{Event, Pulled, ReplicatorHandle},
    look::unreadable,
    queue::Queue,
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    policy::{PolicyView, Ranks, Verdict},
    replicate::{
        place::{OCCUPIED, forget_area},
        renumber::{self, Ended},
        transfer::forget_passes,
    },
    tasks::Tasks,
};

/// How many messages may wait for the task; senders wait then.
const QUEUE: usize = 1024;
/// How soon a place that was taken is looked at again when what lies there is to be replaced.
const PUT_BACK_AFTER: Duration = Duration::from_millis(200);
/// How long before a job that waits for a source looks again without having heard of one.
const RETRY_ANYWAY: Duration = Duration::from_secs(60);

/// The health code of a version that sites disagree about.
const CONFLICT: &str = "conflict";
/// The health code of a version that a mirror cannot get.
const FETCH_FAILED: &str = "fetch-failed";

/// Does the work of one job; the daemon's is `transfer::run`.
pub type Run = Arc<dyn Fn(Arc<Job>) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// The task's state.
pub struct Replicator {
    pub(super) core: Arc<Core>,
    run: Run,
    tasks: Tasks,
    stop: CancellationToken,
    inbox: mpsc::Receiver<Event>,
    outbox: mpsc::Sender<Event>,
    board: JobBoard,
    pub(super) queue: Queue,
    /// Versions that somebody pulled: they stay wanted until they are here.
    pub(super) wanted: BTreeSet<VersionId>,
    /// Versions of which what is held gets another number now.
    moving: BTreeSet<VersionId>,
    policy: watch::Receiver<PolicyView>,
    /// When the policy says something else.
    pub(super) changes: Changes,
    /// A version of each subset of which there is news, where the policy asks for the latest: others of it are not any more.
    pub(super) ranks_changed: BTreeMap<(ProjectName, AssetName, SubsetName), VersionId>,
    /// Counts what may have brought a source; a job that ends up waiting for one looks whether it missed any.
    wakes: u64,
    next: u64,
    prefix: String,
}

impl std::fmt::Debug for Replicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicator").field("jobs", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Replicator {
    /// Makes the task and its handle; `prefix` makes job ids of different runs differ. `run` may use the handle.
    pub fn new(core: Arc<Core>, tasks: Tasks, prefix: String, run: Run) -> (Self, ReplicatorHandle) {
        let (outbox, inbox) = mpsc::channel(QUEUE);
        let board = JobBoard::default();
        let handle = ReplicatorHandle { events: outbox.clone(), board: board.clone() };
        let stop = tasks.token();
        let policy = core.policy.watch();
        let replicator = Self {
            core,
            run,
            tasks,
            stop,
            inbox,
            outbox,
            board,
            queue: Queue::default(),
            wanted: BTreeSet::new(),
            moving: BTreeSet::new(),
            policy,
            changes: Changes::default(),
            ranks_changed: BTreeMap::new(),
            wakes: 0,
            next: 1,
            prefix,
        };
        (replicator, handle)
    }

    /// Runs until the daemon stops; jobs under way keep what they have verified.
    pub async fn run(mut self) {
        loop {
            let change = self.next_change();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                changed = self.policy.changed() => match changed {
                    Ok(()) => self.look_at_everything().await,
                    Err(_) => break,
                },
                event = self.inbox.recv() => match event {
                    Some(event) => self.handle(event).await,
                    None => break,
                },
                () = std::future::ready(()), if !self.ranks_changed.is_empty() => self.look_at_older().await,
                () = self.core.clock.sleep(change.unwrap_or_default()), if change.is_some() => self.look_at_due().await,
            }
            self.start_next();
        }
        for (_, job) in self.queue.jobs() {
            job.cancel.cancel();
        }
        self.clear_up_cancelled().await;
    }

    /// Waits for the jobs that somebody cancelled just before the daemon stops: what they leave would be taken for a pull
    /// that goes on at the next start.
    async fn clear_up_cancelled(&mut self) {
        while self.queue.running().any(|job| job.is_discarded()) {
            let Some(event) = self.inbox.recv().await else { return };
            if let Event::Ended { number, .. } = event
                && let Some(job) = self.queue.stopped(number)
            {
                self.queue.remove(number);
                self.clear_up(&job).await;
            }
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Touched(versions) => {
                if self.core.policy.in_effect().is_some_and(|policy| policy.asks_for_rank()) {
                    let subset = |id: &VersionId| (id.project.clone(), id.asset.clone(), id.subset.clone());
                    self.ranks_changed
                        .extend(versions.iter().map(|version| (subset(version), version.clone())));
                }
                self.look_at_all(versions, Priority::Publish).await;
            }
            Event::Project(project) => self.look_at_project(&project).await,
            Event::PeerCame => {
                self.wakes += 1;
                self.queue.retry_all();
            }
            Event::Retry(number) => self.queue.retry(number),
            Event::Moved(version, Ended::Done) => {
                self.moving.remove(&version);
                self.look_at_all(vec![version], Priority::Publish).await;
            }
            Event::Moved(version, Ended::Later) => {
                self.moving.remove(&version);
                self.look_later(version);
            }
            Event::Cancel(id, reply) => {
                let found = self.queue.find(&id);
                if let Some((number, job)) = &found {
                    self.wanted.remove(&job.version);
                    job.discard();
                    self.cancel(*number, job).await;
                }
                reply.send(found.map(|(_, job)| job)).ok();
            }
            Event::Ordered(versions) => self.heed_orders(versions),
            Event::Ended { number, outcome, wakes } => self.ended(number, outcome, wakes).await,
            Event::Restore(version, reply) => {
                self.wanted.insert(version.clone());
                // First of all: from being considered on it counts as pulled, and would fail where its place is taken.
                if let Some((_, job)) = self.queue.current(&version) {
                    job.put_back();
                }
                let pulled = self.consider(version, Priority::Waiting).await;
                if let Some(job) = &pulled.job {
                    job.put_back();
                }
                reply.send(pulled).ok();
            }
            Event::PullFrames(versions, reply) => {
                let mut answers = Vec::with_capacity(versions.len());
                for version in versions {
                    answers.push(self.consider(version, Priority::Waiting).await);
                }
                reply.send(answers).ok();
            }
            Event::Pull(versions, reply) => {
                let mut answers = Vec::with_capacity(versions.len());
                for version in versions {
                    self.wanted.insert(version.clone());
                    answers.push(self.consider(version, Priority::Waiting).await);
                }
                reply.send(answers).ok();
            }
        }
    }

    fn wish(&self, version: &VersionId) -> Wish {
        wish_of(&self.core, &self.wanted, version)
    }

    /// Decides about one version and makes or replaces its job.
    async fn consider(&mut self, version: VersionId, priority: Priority) -> Pulled {
        let (core, id, wish) = (Arc::clone(&self.core), version.clone(), self.wish(&version));
        let verdict = blocking(move || {
            let fold = core.ledger.version(&id)?.unwrap_or_default();
            core.decide(&id, &fold, wish, &mut Ranks::default())
        });
        match verdict.await {
            Ok(verdict) => self.act(version, verdict, priority).await,
            Err(error) => {
                unreadable(&error);
                Pulled { version, decision: Decision::Unknown, job: None }
            }
        }
    }

    /// Makes, replaces or ends the job of a version, as was decided.
    pub(super) async fn act(&mut self, version: VersionId, verdict: Verdict, priority: Priority) -> Pulled {
        if let Some(at_ms) = verdict.next_change_ms {
            self.changes.note(at_ms, version.clone());
        }
        self.tell_conflict(&version, &verdict.decision);
        if matches!(verdict.decision, Decision::Have(_) | Decision::Forbidden(_) | Decision::Retired) {
            // Nothing is to be placed any more: somebody accepted what lies there, or nobody is to have it.
            let board = self.core.health.about(&version.to_string());
            board.clear(OCCUPIED);
            board.clear(FETCH_FAILED);
        }
        if let Decision::Move(_) = &verdict.decision {
            self.renumber(&version);
        }
        let job = match &verdict.decision {
            Decision::Fetch(manifest) => Some(self.job_for(&version, *manifest, &verdict, priority)),
            Decision::Have(head) => {
                self.wanted.remove(&version);
                self.forget_order(&version).await;
                // A job that has just placed it ends by itself; one that waits has nothing to do any more, nor has one for
                // what was here before somebody accepted a change.
                if let Some((number, job)) = self.queue.current(&version)
                    && (!self.queue.is_running(number) || job.manifest != *head)
                {
                    job.discard();
                    self.cancel(number, &job).await;
                }
                None
            }
            Decision::Leave
            | Decision::Conflict(_)
            | Decision::Unknown
            | Decision::Forbidden(_)
            | Decision::Retired
            | Decision::Move(_) => {
                if let Some((number, job)) = self.queue.current(&version) {
                    self.cancel(number, &job).await;
                }
                if matches!(verdict.decision, Decision::Forbidden(_) | Decision::Retired) {
                    self.wanted.remove(&version);
                    self.forget_order(&version).await;
                }
                None
            }
        };
        Pulled { version, decision: verdict.decision, job }
    }

    /// Gives what is held of a version its new number, in a task of its own; one at a time for each version.
    fn renumber(&mut self, version: &VersionId) {
        if !self.moving.insert(version.clone()) {
            return;
        }
        let (core, outbox, version) = (Arc::clone(&self.core), self.outbox.clone(), version.clone());
        self.tasks.spawn("renumber", async move {
            let ended = renumber::run(&core, &version).await;
            outbox.send(Event::Moved(version, ended)).await.ok();
        });
    }

    /// Looks at a version again after a while.
    fn look_later(&self, version: VersionId) {
        let (clock, outbox, stop) = (Arc::clone(&self.core.clock), self.outbox.clone(), self.stop.clone());
        self.tasks.spawn("look-later", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(RETRY_ANYWAY) => drop(outbox.send(Event::Touched(vec![version])).await),
            }
        });
    }

    fn tell_conflict(&self, version: &VersionId, decision: &Decision) {
        let board = self.core.health.about(&version.to_string());
        match decision {
            Decision::Conflict(manifests) => {
                let is_news = board.raise_news(Health {
                    code: CONFLICT.into(),
                    severity: Severity::Error,
                    message: format!(
                        "{} different contents were published as {version}; nobody fetches it until somebody decides",
                        manifests.len()
                    ),
                    hint: Some(format!(
                        "see who has what: avalonctl conflicts; decide which keeps the number: avalonctl resolve {version} \
                         --keep SITE"
                    )),
                });
                if is_news {
                    self.core.events.emit(EventKind::Conflict {
                        reference: version.to_string(),
                        manifests: manifests.iter().map(ToString::to_string).collect(),
                    });
                }
            }
            _ => board.clear(CONFLICT),
        }
    }

    fn job_for(
        &mut self,
        version: &VersionId,
        manifest: ManifestId,
        verdict: &Verdict,
        priority: Priority,
    ) -> Arc<Job> {
        // Who wants all of it, or gets it anyway, gets these frames too.
        let is_whole = verdict.comes_by_itself || self.wanted.contains(version);
        let frames = self.core.orders.frames(version);
        let is_asked_for = self.wanted.contains(version) || frames.is_some();
        let frames = frames.filter(|_| !is_whole);
        let kind = if is_asked_for { JobKind::Pull } else { JobKind::Mirror };
        if let Some((number, job)) = self.queue.current(version) {
            if job.manifest == manifest && (job.frames().is_none() || job.frames() == frames.as_ref()) {
                job.raise(kind, priority);
                job.set_urgency(verdict.urgency);
                self.queue.reorder(number);
                self.queue.retry(number);
                return job;
            }
            // The version grew meanwhile, or more of it is wanted; the new job starts when this one has ended, and takes
            // over what it verified.
            self.replace(number, &job);
        }
        let number = self.next;
        self.next += 1;
        let core = &self.core;
        let id = format!("{}-{number:x}", self.prefix);
        let clock = Arc::clone(&core.clock);
        let job = Job::new(id, version.clone(), manifest, (kind, priority), clock, core.events.clone());
        let job = Arc::new(job.with_frames(frames));
        job.set_urgency(verdict.urgency);
        job.set_prio(core.orders.prio(version));
        job.set_size(verdict.files, verdict.bytes);
        self.board.add(number, Arc::clone(&job));
        self.queue.add(number, Arc::clone(&job));
        if let Some(paused) = core.orders.paused(version) {
            self.queue.set_paused(number, &paused.to_string());
        }
        job
    }

    /// Goes by what people have said anew about the queue: about all of it, or about these versions.
    fn heed_orders(&mut self, versions: Option<Vec<VersionId>>) {
        let numbers: Vec<u64> = match versions {
            None => self.queue.jobs().map(|(number, _)| number).collect(),
            Some(versions) => {
                versions.iter().filter_map(|version| Some(self.queue.current(version)?.0)).collect()
            }
        };
        let book = self.core.orders.book();
        for number in numbers {
            let Some(job) = self.queue.get(number).filter(|job| !job.cancel.is_cancelled()) else { continue };
            job.set_prio(book.versions.get(&job.version).and_then(|order| order.prio));
            self.queue.reorder(number);
            match book.paused(&job.version) {
                Some(paused) => self.queue.set_paused(number, &paused.to_string()),
                None if self.queue.is_paused(number) => self.queue.set_queued(number),
                None => {}
            }
        }
    }

    /// Cancels a job; one that runs ends by itself.
    async fn cancel(&mut self, number: u64, job: &Job) {
        let is_running = self.queue.is_running(number);
        self.replace(number, job);
        if !is_running {
            self.forget_order(&job.version).await;
            self.clear_up(job).await;
        }
    }

    /// Cancels a job of which another one takes the place: what was said about it holds for that.
    fn replace(&mut self, number: u64, job: &Job) {
        job.cancel.cancel();
        if !self.queue.is_running(number) {
            self.end(number, job, JobState::Cancelled, None, None);
        }
    }

    /// Removes what was fetched for a job that somebody cancelled; any other may go on later.
    async fn clear_up(&self, job: &Job) {
        if job.is_discarded()
            && let Some(project) = self.core.project(&job.version.project)
        {
            forget_area(project, job.manifest).await;
            forget_passes(&self.core, project, job).await;
        }
    }

    /// Starts the jobs whose turn it is.
    fn start_next(&mut self) {
        while let Some((number, job)) = self.queue.start() {
            let (run, outbox, wakes) = (Arc::clone(&self.run), self.outbox.clone(), self.wakes);
            self.tasks.spawn("job", async move {
                let ended = AssertUnwindSafe(run(job)).catch_unwind().await;
                let outcome = ended.unwrap_or_else(|_| Outcome::Failed {
                    reason: "a bug in avalond ended the job; the log has more".into(),
                    code: ErrorCode::Internal,
                });
                outbox.send(Event::Ended { number, outcome, wakes }).await.ok();
            });
        }
    }

    async fn ended(&mut self, number: u64, outcome: Outcome, wakes: u64) {
        let Some(job) = self.queue.stopped(number) else { return };
        match outcome {
            // Whatever it would have waited for: it was interrupted, or is not to go on.
            Outcome::Waiting { .. } | Outcome::Cancelled
                if !job.cancel.is_cancelled() && job.is_stopped() =>
            {
                match self.core.orders.paused(&job.version) {
                    Some(paused) => self.queue.set_paused(number, &paused.to_string()),
                    None => self.queue.set_queued(number),
                }
                return;
            }
            Outcome::Waiting { reason, code, when } if !job.cancel.is_cancelled() => {
                self.queue.set_waiting(number, reason, code);
                match when {
                    // Somebody asked for that when it had found its place taken.
                    RetryWhen::After(wait) if code == ErrorCode::Conflict && job.puts_back() => {
                        self.retry_after(number, wait.min(PUT_BACK_AFTER));
                    }
                    // A source came while the job was still looking for one.
                    RetryWhen::PeerCame if self.wakes != wakes => self.queue.retry(number),
                    RetryWhen::PeerCame => self.retry_after(number, RETRY_ANYWAY),
                    RetryWhen::After(wait) => self.retry_after(number, wait),
                }
                return;
            }
            Outcome::Placed => {
                self.core.health.about(&job.version.to_string()).clear(FETCH_FAILED);
                self.end(number, &job, JobState::Done, None, None);
                self.forget_order(&job.version).await;
            }
            Outcome::Failed { reason, code } => self.failed(number, &job, reason, code).await,
            Outcome::Waiting { .. } | Outcome::Cancelled => {
                self.end(number, &job, JobState::Cancelled, None, None);
                self.forget_order(&job.version).await;
                self.clear_up(&job).await;
            }
        }
        if job.state() != JobState::Failed && !job.is_discarded() {
            // It may have grown while it was placed, or be wanted in another generation.
            let next = self.consider(job.version.clone(), Priority::Publish).await;
            if matches!(next.decision, Decision::Have(_)) && job.state() == JobState::Cancelled {
                job.discard();
                self.clear_up(&job).await;
            }
        }
    }

    async fn failed(&mut self, number: u64, job: &Job, reason: String, code: ErrorCode) {
        if self.queue.current(&job.version).is_none_or(|(current, _)| current == number) {
            self.wanted.remove(&job.version);
        }
        if job.kind() == JobKind::Mirror {
            // Nobody waits for it at a prompt: somebody has to hear of it elsewhere.
            self.core.health.about(&job.version.to_string()).raise(Health {
                code: FETCH_FAILED.into(),
                severity: Severity::Warning,
                message: format!("{} does not come here: {reason}", job.version),
                hint: Some(format!("when that is mended: avalonctl pull {}", job.version)),
            });
        }
        self.end(number, job, JobState::Failed, Some(reason), Some(code));
        self.forget_order(&job.version).await;
    }

    fn end(
        &mut self,
        number: u64,
        job: &Job,
        state: JobState,
        reason: Option<String>,
        code: Option<ErrorCode>,
    ) {
        self.queue.remove(number);
        self.board.ended(number);
        job.set_state(state, reason, code);
    }

    /// What was said about a version holds for its job only; a version that grew has the next one already.
    async fn forget_order(&self, version: &VersionId) {
        if !self.core.orders.has(version) || self.queue.current(version).is_some() {
            return;
        }
        let (core, version) = (Arc::clone(&self.core), version.clone());
        let forgotten = blocking(move || core.orders.change(|book| drop(book.versions.remove(&version))));
        if let Err(error) = forgotten.await {
            tracing::warn!(error = %ErrorChain(&error), "what was said about a job that has ended is kept");
        }
    }

    fn retry_after(&self, number: u64, wait: Duration) {
        let (clock, outbox, stop) = (Arc::clone(&self.core.clock), self.outbox.clone(), self.stop.clone());
        self.tasks.spawn("job-retry", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(wait) => drop(outbox.send(Event::Retry(number)).await),
            }
        });
    }
}

/// Says whether somebody wants a version, or some frames of it.
pub(super) fn wish_of(core: &Core, wanted: &BTreeSet<VersionId>, version: &VersionId) -> Wish {
    match wanted.contains(version) || core.orders.frames(version).is_some() {
        true => Wish::Pulled,
        false => Wish::None,
    }
}
