//! [`Settler`], the task: receives, lets [`Versions`] decide, acts.

use std::{
    collections::BTreeSet,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use avalon_protocol::{
    control::ProjectState,
    rel_path::RelPath,
    settle::{Exclusion, classify, hero_backup},
    template::VersionDir,
};
use tokio::sync::{
    mpsc::{self, OwnedPermit},
    watch,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        area,
        scan::{self, ScanError, ScanProblem, ScanReport},
        watch::{RawChange, RescanReason, Watcher},
        writers::Writers,
    },
    look::look,
    pace::{Mount, ScanTimes},
    root::{self, OpenRoot, RootError},
    versions::{Looked, Versions},
    words::{
        PendingVersion, ProjectHealth, ProjectSource, PublishOutcome, Request, ScanSummary, Settled,
        SettlerConfig, SettlerHandle, WatcherState,
    },
};
use crate::{
    clock::{Clock, monotonic_ms},
    log::ErrorChain,
    tasks::{Background, blocking},
};

/// How many requests wait; an artist publishes one at a time, a farm some dozens.
const REQUESTS: usize = 64;
/// How many settled versions wait for the next stage before no further version is looked at.
const MAX_OUTBOX: usize = 4;

/// Decides for one project which versions are whole, until its token is cancelled.
pub struct Settler {
    source: ProjectSource,
    config: SettlerConfig,
    clock: Arc<dyn Clock>,
    system: Arc<dyn Watcher>,
    token: CancellationToken,
    requests: mpsc::Receiver<Request>,
    settled: mpsc::Sender<Settled>,
    pending: watch::Sender<Arc<Vec<PendingVersion>>>,
    health: watch::Sender<ProjectHealth>,

    versions: Versions,
    root: Option<OpenRoot>,
    look: Background<Looked>,
    writers: Arc<Writers>,
    scan: Background<Result<ScanReport, ScanError>>,
    /// Stops the scan that runs.
    scan_token: CancellationToken,
    outbox: Vec<Settled>,
    /// When the next scan begins; `None` while one runs that nobody has called too old.
    rescan_at_ms: Option<u64>,
    root_poll_at_ms: u64,
    /// When the scan that runs, or the last one, began.
    scan_began_ms: u64,
    scan_times: ScanTimes,
}

/// Everything that can happen to a settler.
enum Event {
    Stop,
    Request(Request),
    Change(RawChange),
    Looked(Looked),
    Scanned(Result<ScanReport, ScanError>),
    Room(OwnedPermit<Settled>),
    Timer,
}

impl Settler {
    /// Makes a settler that sends to `settled`; nothing happens before [`Settler::run`].
    pub fn new(
        source: ProjectSource,
        config: SettlerConfig,
        (clock, system): (Arc<dyn Clock>, Arc<dyn Watcher>),
        settled: mpsc::Sender<Settled>,
        token: CancellationToken,
    ) -> (Self, SettlerHandle) {
        let (request_sender, requests) = mpsc::channel(REQUESTS);
        let (pending, pending_receiver) = watch::channel(Arc::default());
        let (health, health_receiver) = watch::channel(ProjectHealth {
            state: ProjectState::Scanning,
            detail: None,
            watcher: WatcherState::Off { why: "not started yet".to_owned() },
            mount: Mount::default(),
            found_within: Duration::ZERO,
            last_scan: None,
            root_opened: 0,
        });
        let handle =
            SettlerHandle { requests: request_sender, pending: pending_receiver, health: health_receiver };
        let settler = Self {
            versions: Versions::new(config.settle),
            scan_token: token.child_token(),
            source,
            config,
            clock,
            system,
            token,
            requests,
            settled,
            pending,
            health,
            root: None,
            look: Background::idle(),
            writers: Arc::default(),
            scan: Background::idle(),
            outbox: Vec::new(),
            rescan_at_ms: None,
            scan_began_ms: 0,
            scan_times: ScanTimes::default(),
            root_poll_at_ms: 0,
        };
        (settler, handle)
    }

    /// Runs until the token is cancelled or nobody receives what is settled. What was not handed over by then is found
    /// by the first scan of the next run.
    pub async fn run(mut self) {
        self.check_root().await;
        loop {
            self.start_work();
            self.publish_pending();
            match self.next_event().await {
                Event::Stop => break,
                Event::Request(request) => self.request(request),
                Event::Change(change) => self.change(change).await,
                Event::Looked(looked) => self.looked(looked),
                Event::Scanned(result) => self.scanned(result).await,
                Event::Room(permit) => {
                    permit.send(self.outbox.remove(0));
                }
                Event::Timer => {
                    if self.now_ms() >= self.root_poll_at_ms {
                        self.check_root().await;
                    }
                }
            }
        }
        self.scan_token.cancel();
    }

    /// Waits for the next thing to happen. Dropping it loses nothing.
    async fn next_event(&mut self) -> Event {
        let timer =
            self.clock.sleep(Duration::from_millis(self.next_timer_ms().saturating_sub(self.now_ms())));
        let has_settled = !self.outbox.is_empty();
        let room = self.settled.clone();
        tokio::select! {
            () = self.token.cancelled() => Event::Stop,
            Some(request) = self.requests.recv() => Event::Request(request),
            change = next_change(&mut self.root) => Event::Change(change),
            looked = self.look.finished() => Event::Looked(looked),
            scanned = self.scan.finished() => Event::Scanned(scanned),
            permit = room.reserve_owned(), if has_settled => permit.map_or(Event::Stop, Event::Room),
            () = timer => Event::Timer,
        }
    }

    fn now_ms(&self) -> u64 {
        monotonic_ms(self.clock.as_ref())
    }

    fn next_timer_ms(&self) -> u64 {
        let mut next = self.root_poll_at_ms;
        if self.root.is_some() {
            if let Some(rescan) = self.rescan_at_ms.filter(|_| self.scan.is_idle()) {
                next = next.min(rescan);
            }
            if let Some(look) = self.versions.next_look_ms().filter(|_| self.may_look()) {
                next = next.min(look);
            }
        }
        next
    }

    /// One look at a time, and none that would only fill the outbox.
    fn may_look(&self) -> bool {
        self.look.is_idle() && self.outbox.len() < MAX_OUTBOX
    }

    /// Starts the look and the scan that are due.
    fn start_work(&mut self) {
        let now_ms = self.now_ms();
        let Some(root) = &self.root else { return };
        if self.scan.is_idle() && self.rescan_at_ms.is_some_and(|rescan| now_ms >= rescan) {
            self.rescan_at_ms = None;
            self.scan_began_ms = now_ms;
            let (dir, source, stop) = (root.dir.clone(), self.source.clone(), self.scan_token.clone());
            self.scan
                .start(move || scan::scan_project(&dir, &source.templates, source.known.as_ref(), &stop));
        }
        if !self.may_look() {
            return;
        }
        if let Some(order) = self.versions.take_look(now_ms) {
            let (at, source) = ((root.dir.clone(), root.mount), self.source.clone());
            let (writers, now) = (Arc::clone(&self.writers), self.clock.now());
            self.look.start(move || look((&at.0, at.1), &source, &writers, order, (now_ms, now)));
        }
    }

    fn publish_pending(&self) {
        if !self.look.is_idle() {
            return;
        }
        self.pending.send_if_modified(|published| {
            let pending = self.versions.pending();
            let is_new = **published != pending;
            if is_new {
                *published = Arc::new(pending);
            }
            is_new
        });
    }

    fn request(&mut self, request: Request) {
        let (now_ms, now) = (self.now_ms(), self.clock.now());
        match request {
            Request::Publish { path, details, reply } => {
                let version = area::version_dir_of(&self.source.templates, &path);
                let (Some(version), Some(_)) = (version, &self.root) else {
                    reply.send(self.no_publish(&path)).ok();
                    return;
                };
                self.versions.asked(version, details, reply, (now_ms, now));
            }
            Request::Reconsider { dir } => {
                if let Some(version) = self.source.templates.invert_dir(&dir) {
                    self.versions.reconsider(version, now_ms, now);
                }
            }
            Request::Attempted { dir, failed } => {
                if let Some(version) = self.source.templates.invert_dir(&dir) {
                    self.versions.attempted(version, failed, now);
                }
            }
            Request::Rescan => self.rescan_at_ms = Some(now_ms),
            Request::Configure { config } => {
                self.config = config;
                self.versions.configure(config.settle_on(self.health.borrow().mount));
                // The time of the next scan follows from the new interval once this one ends.
                self.rescan_at_ms = Some(now_ms);
            }
        }
    }

    fn no_publish(&self, path: &RelPath) -> PublishOutcome {
        match area::version_dir_of(&self.source.templates, path) {
            None => PublishOutcome::NotAVersion,
            Some(_) => {
                PublishOutcome::Paused { why: self.health.borrow().detail.clone().unwrap_or_default() }
            }
        }
    }

    async fn change(&mut self, change: RawChange) {
        match change {
            RawChange::Touched(path) => self.touched(&path),
            RawChange::Rescan(reason) => {
                tracing::debug!(project = %self.source.name, ?reason, "everything is looked at");
                if reason != RescanReason::Backlog {
                    // All watches are new; where some are missing, that comes next.
                    self.watcher_is(WatcherState::On);
                }
                self.rescan_at_ms = Some(self.now_ms());
            }
            RawChange::LimitReached { watched, needed } => {
                if self.health.borrow().watcher == WatcherState::On {
                    tracing::warn!(
                        project = %self.source.name, watched, needed,
                        "not enough watches, the rest is found by scans; raise fs.inotify.max_user_watches"
                    );
                }
                self.watcher_is(WatcherState::Partial { watched, needed });
            }
            RawChange::RootGone => {
                // Even if one of that name is there: the watches stand for the other one.
                self.root = None;
                self.check_root().await;
            }
            RawChange::Stopped { why } => {
                tracing::warn!(project = %self.source.name, why, "the watcher stopped; changes are found by scans");
                self.watcher_is(WatcherState::Off { why });
                self.rescan_at_ms = Some(self.now_ms());
            }
        }
    }

    fn touched(&mut self, path: &RelPath) {
        let (now_ms, now) = (self.now_ms(), self.clock.now());
        if let Some(version) = self.version_concerned(path) {
            self.versions.touched(version, now_ms, now);
        }
    }

    /// The version that a path is or lies in; of the backup of a hero, the hero, which waits for it to go.
    fn version_concerned(&self, path: &RelPath) -> Option<VersionDir> {
        if hero_backup(path.file_name()) {
            let hero = match path.parent() {
                Some(parent) => parent.join_str("hero").ok()?,
                None => "hero".parse().ok()?,
            };
            return self.source.templates.invert_dir(&hero);
        }
        if classify(path) == Exclusion::Ignored {
            return None;
        }
        area::version_dir_of(&self.source.templates, path)
    }

    fn looked(&mut self, looked: Looked) {
        let now_ms = self.now_ms();
        let settled = self.versions.looked(looked, &self.source.templates, now_ms);
        if let Some(settled) = &settled {
            tracing::debug!(
                project = %self.source.name, dir = %settled.dir, files = settled.files.len(),
                completeness = ?settled.completeness, "a version is whole"
            );
        }
        self.outbox.extend(settled);
    }

    async fn scanned(&mut self, result: Result<ScanReport, ScanError>) {
        let (now_ms, now) = (self.now_ms(), self.clock.now());
        let Some(mount) = self.root.as_ref().map(|root| root.mount) else { return };
        let took = Duration::from_millis(now_ms.saturating_sub(self.scan_began_ms));
        let usual = if result.is_ok() { self.scan_times.usual(took) } else { Duration::ZERO };
        let pause = self.config.pause(mount, &self.health.borrow().watcher, usual);
        // One that was asked for while this one ran comes at once.
        self.rescan_at_ms.get_or_insert(now_ms.saturating_add(millis(pause)));
        match result {
            Ok(report) => {
                let (project, versions) = (&self.source.name, report.versions.len());
                tracing::debug!(%project, versions, took_ms = took.as_millis(), "the project was scanned");
                self.versions.scanned(&report, &self.source.templates, now_ms, now);
                if let Some(watching) = self.root.as_ref().and_then(|root| root.watching.as_ref()) {
                    watching.look_for_room();
                }
                let summary = summary_of(&report, now);
                self.health.send_modify(|health| {
                    health.state = ProjectState::Watching;
                    health.detail = None;
                    health.last_scan = Some(summary);
                    health.found_within = pause.saturating_add(took);
                });
            }
            Err(ScanError::RootMissing { .. }) => self.check_root().await,
            Err(ScanError::Stopped { .. }) => {}
            Err(error) => {
                let project = &self.source.name;
                tracing::warn!(%project, error = %ErrorChain(&error), "a scan failed");
                self.health.send_modify(|health| health.detail = Some(ErrorChain(&error).to_string()));
            }
        }
    }

    /// Looks at the project directory itself: pauses when it is gone, and begins anew when another one is there.
    async fn check_root(&mut self) {
        self.root_poll_at_ms = self.now_ms().saturating_add(millis(self.config.root_poll));
        let path = self.source.dir.clone();
        let found = blocking(move || root::identify(&path)).await;
        match found {
            Ok(identity) if self.root.as_ref().is_some_and(|root| root.identity == identity) => {}
            Ok(_) => self.open_root().await,
            Err(error) => self.pause(&error),
        }
    }

    async fn open_root(&mut self) {
        self.close_root();
        let (source, system) = (self.source.clone(), self.system.clone());
        let root = match blocking(move || root::open(&source, system.as_ref())).await {
            Ok(root) => root,
            Err(error) => return self.pause(&error),
        };
        let now_ms = self.now_ms();
        tracing::info!(project = %self.source.name, dir = %self.source.dir.display(), "the project is watched");
        // The watcher asks for the first scan when all its watches are set: what changes from then on, it tells.
        let first_scan = match root.watcher {
            WatcherState::Off { .. } => Duration::ZERO,
            _ => self.config.rescan_unwatched,
        };
        self.versions.configure(self.config.settle_on(root.mount));
        self.rescan_at_ms = Some(now_ms.saturating_add(millis(first_scan)));
        self.watcher_is(root.watcher.clone());
        self.health.send_modify(|health| {
            health.state = ProjectState::Scanning;
            health.detail = None;
            health.root_opened += 1;
            health.mount = root.mount;
        });
        self.versions.touch_all(now_ms);
        self.root = Some(root);
    }

    fn pause(&mut self, error: &RootError) {
        self.close_root();
        let why = ErrorChain(error).to_string();
        let is_new = self.health.send_if_modified(|health| {
            let is_new = health.state != ProjectState::Paused || health.detail.as_ref() != Some(&why);
            health.state = ProjectState::Paused;
            health.detail = Some(why.clone());
            is_new
        });
        if is_new {
            tracing::warn!(project = %self.source.name, why, "the project is paused");
        }
        self.versions.answer_all(&PublishOutcome::Paused { why });
    }

    fn close_root(&mut self) {
        self.root = None;
        self.rescan_at_ms = None;
        self.scan_token.cancel();
        self.scan_token = self.token.child_token();
    }

    fn watcher_is(&self, watcher: WatcherState) {
        self.health.send_modify(|health| health.watcher = watcher);
    }
}

impl fmt::Debug for Settler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settler")
            .field("source", &self.source)
            .field("versions", &self.versions)
            .finish_non_exhaustive()
    }
}

/// Waits for a change; for ever while nobody watches.
async fn next_change(root: &mut Option<OpenRoot>) -> RawChange {
    let stopped = || RawChange::Stopped { why: "it ended without saying why".to_owned() };
    match root {
        Some(root) if root.is_watched => match root.changes.recv().await {
            Some(change) => change,
            None => {
                root.is_watched = false;
                stopped()
            }
        },
        _ => std::future::pending().await,
    }
}

fn summary_of(report: &ScanReport, at: SystemTime) -> ScanSummary {
    ScanSummary {
        at,
        versions: report.versions.len(),
        changed: report.versions.iter().filter(|version| version.files_changed > 0).count(),
        problems: report.problems.iter().map(ToString::to_string).collect(),
        problems_total: report.problems_total,
        hints: report.problems.iter().map(ScanProblem::hint).collect::<BTreeSet<_>>().into_iter().collect(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
