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
    control::{ErrorCode, Health, JobKind, JobState, Severity},
    hash::ManifestId,
    id::{AssetName, ProjectName, SubsetName, VersionId},
    plan::{Decision, Priority, Wish},
    policy::Urgency,
};
use avalon_store::catalog::CatalogError;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Job, JobBoard, Outcome, RetryWhen,
    changes::{Changes, Due},
    handle::{Event, Pulled, ReplicatorHandle},
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    policy::{PolicyView, Ranks, Verdict},
    replicate::place::forget_area,
    tasks::Tasks,
};

/// How many jobs run at once. A few keep the link busy while one of them hashes or places; more only make every version
/// late.
const RUNNING_LIMIT: usize = 4;
/// How many jobs that somebody waits for may run besides.
const WAITING_LIMIT: usize = 8;
/// How many messages may wait for the task; senders wait then.
const QUEUE: usize = 1024;
/// How long before a job that waits for a source looks again without having heard of one.
const RETRY_ANYWAY: Duration = Duration::from_secs(60);

/// The health code of a version that sites disagree about.
const CONFLICT: &str = "conflict";
/// The health code of a version that a mirror cannot get.
const FETCH_FAILED: &str = "fetch-failed";
/// How many versions are read from the catalog at a time.
const PAGE: usize = 500;
/// The longest wait for a time at which the policy says something else: the wall clock may be set.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

/// Does the work of one job; the daemon's is `transfer::run`.
pub type Run = Arc<dyn Fn(Arc<Job>) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// The task's state.
pub struct Replicator {
    core: Arc<Core>,
    run: Run,
    tasks: Tasks,
    stop: CancellationToken,
    inbox: mpsc::Receiver<Event>,
    outbox: mpsc::Sender<Event>,
    board: JobBoard,
    jobs: BTreeMap<u64, Arc<Job>>,
    running: BTreeSet<u64>,
    /// Versions that somebody pulled: they stay wanted until they are here.
    wanted: BTreeSet<VersionId>,
    policy: watch::Receiver<PolicyView>,
    /// When the policy says something else.
    changes: Changes,
    /// A version of each subset of which there is news, where the policy asks for the latest: others of it are not any more.
    ranks_changed: BTreeMap<(ProjectName, AssetName, SubsetName), VersionId>,
    /// Counts what may have brought a source; a job that ends up waiting for one looks whether it missed any.
    wakes: u64,
    next: u64,
    prefix: String,
}

impl std::fmt::Debug for Replicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicator").field("jobs", &self.jobs.len()).finish_non_exhaustive()
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
            jobs: BTreeMap::new(),
            running: BTreeSet::new(),
            wanted: BTreeSet::new(),
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
        for job in self.jobs.values() {
            job.cancel.cancel();
        }
        self.clear_up_cancelled().await;
    }

    /// Waits for the jobs that somebody cancelled just before the daemon stops: what they leave would be taken for a pull
    /// that goes on at the next start.
    async fn clear_up_cancelled(&mut self) {
        while self.running.iter().any(|number| self.jobs.get(number).is_some_and(|job| job.is_discarded())) {
            let Some(event) = self.inbox.recv().await else { return };
            if let Event::Ended { number, .. } = event
                && self.running.remove(&number)
                && let Some(job) = self.jobs.remove(&number)
            {
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
                self.requeue(|_| true);
            }
            Event::Retry(number) => self.requeue(|other| other == number),
            Event::Cancel(id, reply) => {
                let found =
                    self.jobs.iter().find(|(_, job)| job.id == id).map(|(n, job)| (*n, Arc::clone(job)));
                if let Some((number, job)) = &found {
                    self.wanted.remove(&job.version);
                    job.discard();
                    self.cancel(*number, job).await;
                }
                reply.send(found.map(|(_, job)| job)).ok();
            }
            Event::Ended { number, outcome, wakes } => self.ended(number, outcome, wakes).await,
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

    async fn look_at_all(&mut self, versions: Vec<VersionId>, priority: Priority) {
        for version in versions {
            self.consider(version, priority).await;
        }
    }

    async fn look_at_project(&mut self, project: &ProjectName) {
        let mut after: Option<VersionId> = None;
        loop {
            let (core, name, wanted) = (Arc::clone(&self.core), project.clone(), self.wanted.clone());
            let from = after.clone();
            let page = blocking(move || page_of(&core, &name, from.as_ref(), &wanted)).await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%project, error = %ErrorChain(&error), "cannot read the catalog; versions are looked at later");
                    return;
                }
            };
            after = page.last().map(|(version, ..)| version.clone());
            for (version, verdict) in page {
                if let Some(at_ms) = verdict.next_change_ms {
                    self.changes.note(at_ms, version.clone());
                }
                let news = matches!(verdict.decision, Decision::Fetch(_) | Decision::Conflict(_));
                if news || self.current(&version).is_some() {
                    self.consider(version, Priority::Backfill).await;
                }
            }
            if after.is_none() {
                return;
            }
        }
    }

    /// Looks at every version: another policy holds.
    async fn look_at_everything(&mut self) {
        self.changes.clear();
        let projects: Vec<ProjectName> = self.core.projects.keys().cloned().collect();
        for project in projects {
            self.look_at_project(&project).await;
        }
    }

    /// Looks at all versions of one subset of which there is news.
    async fn look_at_older(&mut self) {
        let Some((_, version)) = self.ranks_changed.pop_first() else { return };
        let ledger = self.core.ledger.clone();
        match blocking(move || ledger.subset_versions(&version)).await {
            Ok(versions) => {
                let versions = versions.into_iter().map(|(version, _)| version).collect();
                self.look_at_all(versions, Priority::Backfill).await;
            }
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "cannot read the catalog; versions are looked at later");
            }
        }
    }

    /// Returns how long to wait until time changes what the policy says.
    fn next_change(&self) -> Option<Duration> {
        let at_ms = self.changes.next_ms()?;
        Some(Duration::from_millis(at_ms.saturating_sub(self.core.now_ms())).min(LOOK_AT_CLOCK))
    }

    async fn look_at_due(&mut self) {
        match self.changes.take(self.core.now_ms()) {
            Due::Versions(versions) => self.look_at_all(versions, Priority::Backfill).await,
            Due::Everything => self.look_at_everything().await,
        }
    }

    fn wish(&self, version: &VersionId) -> Wish {
        if self.wanted.contains(version) { Wish::Pulled } else { Wish::None }
    }

    /// Decides about one version and makes or replaces its job.
    async fn consider(&mut self, version: VersionId, priority: Priority) -> Pulled {
        let (core, id, wish) = (Arc::clone(&self.core), version.clone(), self.wish(&version));
        let verdict = blocking(move || {
            let fold = core.ledger.version(&id)?.unwrap_or_default();
            core.decide(&id, &fold, wish, &mut Ranks::default())
        });
        let Verdict { decision, urgency, next_change_ms, .. } = match verdict.await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::warn!(%version, error = %ErrorChain(&error), "cannot read the catalog");
                return Pulled { version, decision: Decision::Unknown, job: None };
            }
        };
        if let Some(at_ms) = next_change_ms {
            self.changes.note(at_ms, version.clone());
        }
        self.tell_conflict(&version, &decision);
        let job = match &decision {
            Decision::Fetch(manifest) => Some(self.job_for(&version, *manifest, (priority, urgency)).await),
            Decision::Have(_) => {
                self.wanted.remove(&version);
                // A job that has just placed it ends by itself; one that waits has nothing to do any more.
                if let Some((number, job)) = self.current(&version).filter(|(n, _)| !self.running.contains(n))
                {
                    self.cancel(number, &job).await;
                }
                None
            }
            Decision::Leave | Decision::Conflict(_) | Decision::Unknown | Decision::Forbidden(_) => {
                if matches!(decision, Decision::Forbidden(_)) {
                    self.wanted.remove(&version);
                }
                if let Some((number, job)) = self.current(&version) {
                    self.cancel(number, &job).await;
                }
                None
            }
        };
        Pulled { version, decision, job }
    }

    fn tell_conflict(&self, version: &VersionId, decision: &Decision) {
        let board = self.core.health.about(&version.to_string());
        match decision {
            Decision::Conflict(manifests) => board.raise(Health {
                code: CONFLICT.into(),
                severity: Severity::Error,
                message: format!(
                    "{} sites published different content as {version}; nobody fetches it until one is moved aside",
                    manifests.len()
                ),
                hint: Some(format!("see who has what: avalonctl where {version}; publish one of them under another number")),
            }),
            _ => board.clear(CONFLICT),
        }
    }

    /// Returns the job that brings a version; one that was cancelled and still runs does not count.
    fn current(&self, version: &VersionId) -> Option<(u64, Arc<Job>)> {
        let mut of_version = self.jobs.iter().filter(|(_, job)| job.version == *version);
        of_version.find(|(_, job)| !job.cancel.is_cancelled()).map(|(number, job)| (*number, Arc::clone(job)))
    }

    async fn job_for(
        &mut self,
        version: &VersionId,
        manifest: ManifestId,
        (priority, urgency): (Priority, Urgency),
    ) -> Arc<Job> {
        let kind = if self.wanted.contains(version) { JobKind::Pull } else { JobKind::Mirror };
        if let Some((number, job)) = self.current(version) {
            if job.manifest == manifest {
                job.raise(kind, priority);
                job.set_urgency(urgency);
                self.requeue(|other| other == number);
                return job;
            }
            // The version grew meanwhile; the new job starts when this one has ended, and takes over what it verified.
            self.cancel(number, &job).await;
        }
        let number = self.next;
        self.next += 1;
        let core = &self.core;
        let id = format!("{}-{number:x}", self.prefix);
        let clock = Arc::clone(&core.clock);
        let job =
            Arc::new(Job::new(id, version.clone(), manifest, (kind, priority), clock, core.events.clone()));
        job.set_urgency(urgency);
        self.jobs.insert(number, Arc::clone(&job));
        self.board.add(number, Arc::clone(&job));
        job.set_state(JobState::Queued, None, None);
        job
    }

    /// Cancels a job; one that runs ends by itself.
    async fn cancel(&mut self, number: u64, job: &Job) {
        job.cancel.cancel();
        if !self.running.contains(&number) {
            self.finish(number, job, JobState::Cancelled, None, None);
            self.clear_up(job).await;
        }
    }

    /// Removes what was fetched for a job that somebody cancelled; any other may go on later.
    async fn clear_up(&self, job: &Job) {
        if job.is_discarded()
            && let Some(project) = self.core.project(&job.version.project)
        {
            forget_area(project, job.manifest).await;
        }
    }

    /// Lets jobs that wait try again.
    fn requeue(&self, which: impl Fn(u64) -> bool) {
        for (number, job) in &self.jobs {
            if which(*number) && job.state() == JobState::Waiting && !self.running.contains(number) {
                job.set_state(JobState::Queued, None, None);
            }
        }
    }

    /// Starts the most urgent jobs, the oldest first among equals.
    fn start_next(&mut self) {
        loop {
            // Two jobs of one version never run at once: they would share files.
            let busy: BTreeSet<&VersionId> = self
                .running
                .iter()
                .filter_map(|number| self.jobs.get(number))
                .map(|job| &job.version)
                .collect();
            let queued = self
                .jobs
                .iter()
                .filter(|(_, job)| job.state() == JobState::Queued && !busy.contains(&job.version));
            let best = queued.max_by_key(|(number, job)| (job.turn(), std::cmp::Reverse(**number)));
            let Some((number, job)) = best.map(|(number, job)| (*number, Arc::clone(job))) else { return };
            let limit = if job.priority() == Priority::Waiting {
                RUNNING_LIMIT + WAITING_LIMIT
            } else {
                RUNNING_LIMIT
            };
            if self.running.len() >= limit {
                return;
            }
            self.running.insert(number);
            job.set_state(JobState::Running, None, None);
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
        self.running.remove(&number);
        let Some(job) = self.jobs.get(&number).cloned() else { return };
        match outcome {
            Outcome::Waiting { reason, code, when } if !job.cancel.is_cancelled() => {
                job.set_state(JobState::Waiting, Some(reason), Some(code));
                match when {
                    // A source came while the job was still looking for one.
                    RetryWhen::PeerCame if self.wakes != wakes => self.requeue(|other| other == number),
                    RetryWhen::PeerCame => self.retry_after(number, RETRY_ANYWAY),
                    RetryWhen::After(wait) => self.retry_after(number, wait),
                }
                return;
            }
            Outcome::Placed => {
                self.core.health.about(&job.version.to_string()).clear(FETCH_FAILED);
                self.finish(number, &job, JobState::Done, None, None);
            }
            Outcome::Failed { reason, code } => self.failed(number, &job, reason, code),
            Outcome::Waiting { .. } | Outcome::Cancelled => {
                self.finish(number, &job, JobState::Cancelled, None, None);
                self.clear_up(&job).await;
            }
        }
        if job.state() != JobState::Failed && !job.is_discarded() {
            // It may have grown while it was placed, or be wanted in another generation.
            self.consider(job.version.clone(), Priority::Publish).await;
        }
    }

    fn failed(&mut self, number: u64, job: &Job, reason: String, code: ErrorCode) {
        if self.current(&job.version).is_none_or(|(current, _)| current == number) {
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
        self.finish(number, job, JobState::Failed, Some(reason), Some(code));
    }

    fn finish(
        &mut self,
        number: u64,
        job: &Job,
        state: JobState,
        reason: Option<String>,
        code: Option<ErrorCode>,
    ) {
        self.jobs.remove(&number);
        job.set_state(state, reason, code);
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

/// Reads a page of a project's versions and decides about each. Blocks.
fn page_of(
    core: &Core,
    project: &ProjectName,
    after: Option<&VersionId>,
    wanted: &BTreeSet<VersionId>,
) -> Result<Vec<(VersionId, Verdict)>, CatalogError> {
    let mut ranks = Ranks::default();
    let page = core.ledger.versions(project, None, after, PAGE)?;
    let decided = page.into_iter().map(|(version, fold)| {
        let wish = if wanted.contains(&version) { Wish::Pulled } else { Wish::None };
        let verdict = core.decide(&version, &fold, wish, &mut ranks)?;
        Ok((version, verdict))
    });
    decided.collect()
}
