//! One project's publishing: the settler, and what becomes of the versions that it hands over.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use avalon_protocol::{
    check::CheckProblem,
    control::{EventKind, Health, PendingVersion, ProjectState, Severity},
    rel_path::RelPath,
    settle::SettleConfig,
    template::VersionDir,
};
use avalon_store::{catalog::CatalogError, fs::FileIdentity};
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::{
    author,
    lost::{self, LastLook},
    record::{self, News, RecordError, Recorded, Remedy, WholeVersion},
    settle::{
        ProjectHealth, ProjectSource, PublishDetails, PublishOutcome, PublishedAs, RecordedFiles, Settled,
        Settler, SettlerConfig, SettlerHandle, WatcherState,
    },
    watch::SystemWatcher,
};
use crate::{
    config::Config,
    core::{Core, blocking},
    log::ErrorChain,
    policy::Ranks,
    project::Project,
    tasks::Tasks,
};

/// How many whole versions wait to be hashed.
const SETTLED_QUEUE: usize = 16;
/// How long before a version that this machine could not record is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How many versions of a project are hashed and recorded at a time: a small one does not wait for a large one, and the
/// hashing threads are shared anyway.
const AT_ONCE: usize = 4;
/// How many files of a version are read from the catalog at a time; it gives no more.
const FILES_AT_ONCE: usize = 1000;
/// How often the catalog is asked the same: it may break again while it is asked, but not for ever.
const ASKED_AT_MOST: usize = 3;

/// Starts to watch, scan and publish one project.
pub fn start(core: &Arc<Core>, project: &Arc<Project>, config: &Config, tasks: &Tasks) -> SettlerHandle {
    let (settled, settled_receiver) = mpsc::channel(SETTLED_QUEUE);
    let source = ProjectSource {
        name: project.name().clone(),
        dir: project.path().clone(),
        templates: Arc::clone(project.templates()),
        known: known(core, project),
        recorded: recorded(core, project),
        grows: grows(core, project),
        network: config
            .projects
            .iter()
            .find(|one| one.name == *project.name())
            .map_or_else(Default::default, |one| one.network),
    };
    let system: Arc<dyn super::watch::Watcher> = Arc::new(SystemWatcher);
    let clock = Arc::clone(&core.clock);
    let (settler, handle) =
        Settler::new(source, settler_config(config), (clock, system), settled, tasks.token());
    let (core_there, stop) = (Arc::clone(core), tasks.token());
    tasks.spawn(format!("settle {}", project.name()), async move {
        // Without a catalog everything would look new, and be hashed.
        if core_there.until_catalog(&stop).await {
            settler.run().await;
        }
    });
    let publisher = Publisher {
        core: Arc::clone(core),
        project: Arc::clone(project),
        handle: handle.clone(),
        tasks: tasks.clone(),
        at_once: Arc::new(Semaphore::new(AT_ONCE)),
        last_look: Arc::default(),
    };
    tasks.spawn(format!("publish {}", project.name()), publisher.run(settled_receiver));
    handle
}

/// Returns how patient the settler of a project is.
pub fn settler_config(config: &Config) -> SettlerConfig {
    let quiet = config.settle_quiet;
    let settle = SettleConfig { quiet, ..SettleConfig::default() };
    let defaults = SettlerConfig::default();
    SettlerConfig {
        settle,
        rescan: config.scan_interval,
        rescan_unwatched: defaults.rescan_unwatched.min(config.scan_interval),
        rescan_network: config.network.interval,
        network_quiet: config.network.quiet,
        root_poll: defaults.root_poll.min(config.scan_interval.max(Duration::from_millis(100))),
    }
}

type KnownFile = dyn Fn(&RelPath, &FileIdentity) -> bool + Send + Sync;

fn known(core: &Arc<Core>, project: &Arc<Project>) -> Arc<KnownFile> {
    let (core, name) = (Arc::clone(core), project.name().clone());
    Arc::new(move |path, identity| {
        let file = asked(&core, || core.ledger.local_file(&name, path)).flatten();
        file.is_some_and(|file| file.identity() == *identity)
    })
}

fn grows(core: &Arc<Core>, project: &Arc<Project>) -> Arc<dyn Fn(&RelPath) -> bool + Send + Sync> {
    let (core, project) = (Arc::clone(core), Arc::clone(project));
    Arc::new(move |dir| {
        let Some(version) = project.templates().invert_dir(dir) else { return false };
        let version = version.fields.version_id(project.name());
        asked(&core, || core.ledger.version(&version))
            .flatten()
            .is_some_and(|fold| record::grows_here(&core, &version, &fold).is_some())
    })
}

pub(super) fn recorded(core: &Arc<Core>, project: &Arc<Project>) -> Arc<RecordedFiles> {
    let (core, name) = (Arc::clone(core), project.name().clone());
    Arc::new(move |dir, limit| {
        let (mut files, mut after) = (Vec::new(), None);
        loop {
            let left = limit.saturating_sub(files.len()).min(FILES_AT_ONCE);
            if left == 0 {
                return files;
            }
            let page = asked(&core, || core.ledger.local_files_under(&name, Some(dir), after.as_ref(), left));
            let page = page.unwrap_or_default();
            let Some((last, _)) = page.last() else { return files };
            after = Some(last.clone());
            files.extend(
                page.into_iter().filter_map(|(path, file)| Some((path.strip_prefix(dir)?, file.identity()))),
            );
        }
    })
}

/// Asks the catalog; while it is built anew, waits for it: what it does not answer is not unknown. Blocks. `None` when the
/// daemon stops, or the catalog fails again at once.
fn asked<T>(core: &Core, ask: impl Fn() -> Result<T, CatalogError>) -> Option<T> {
    for _ in 0..ASKED_AT_MOST {
        match ask() {
            Ok(answer) => return Some(answer),
            Err(_) if core.ledger.wait_ready() => {}
            Err(_) => return None,
        }
    }
    None
}

struct Publisher {
    core: Arc<Core>,
    project: Arc<Project>,
    handle: SettlerHandle,
    tasks: Tasks,
    at_once: Arc<Semaphore>,
    /// What the last look for files that are gone found; whoever looks holds it.
    last_look: Arc<Mutex<LastLook>>,
}

impl Publisher {
    async fn run(self, mut settled: mpsc::Receiver<Settled>) {
        let stop = self.tasks.token();
        let mut pending = self.handle.pending();
        let mut health = self.handle.health();
        let (mut scanned, mut root_opened) = (None, 0);
        loop {
            tokio::select! {
                // A version of another directory in the place of the project is recorded after that was opened.
                biased;
                () = stop.cancelled() => return,
                Ok(()) = health.changed() => {
                    let now = health.borrow_and_update().clone();
                    self.health_changed(&now, &mut root_opened);
                    let scan = now.last_scan.as_ref().map(|scan| scan.at);
                    if scan.is_some() && scan != scanned && now.state == ProjectState::Watching {
                        scanned = scan;
                        self.look_for_lost();
                    }
                }
                Ok(()) = pending.changed() => {
                    let now = Arc::clone(&pending.borrow_and_update());
                    self.pending_changed(&now);
                }
                version = settled.recv() => match version {
                    Some(version) => self.take(version).await,
                    None => return,
                },
            }
        }
    }

    /// Looks for files that are gone, in a task of its own: in a large project that takes a while. When the last one is
    /// not done, the next scan makes good for it.
    fn look_for_lost(&self) {
        let Ok(mut last_look) = Arc::clone(&self.last_look).try_lock_owned() else { return };
        let (core, project, stop) = (Arc::clone(&self.core), Arc::clone(&self.project), self.tasks.token());
        let handle = self.handle.clone();
        self.tasks.spawn(format!("lost files {}", self.project.name()), async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = lost::look(&core, (&project, &handle), &mut last_look, &stop) => {}
            }
        });
    }

    /// Hashes and records a version in a task of its own.
    async fn take(&self, settled: Settled) {
        let Ok(permit) = Arc::clone(&self.at_once).acquire_owned().await else { return };
        let (core, project, handle) =
            (Arc::clone(&self.core), Arc::clone(&self.project), self.handle.clone());
        let tasks = self.tasks.clone();
        self.tasks.spawn("record", async move {
            publish(&core, &project, &handle, &tasks, settled).await;
            drop(permit);
        });
    }

    fn pending_changed(&self, pending: &[super::settle::PendingVersion]) {
        let known = self.project.pending();
        let known: HashSet<(&str, &[String])> =
            known.iter().map(|version| (version.dir.as_str(), version.why.as_slice())).collect();
        let now: Vec<PendingVersion> = pending
            .iter()
            .map(|version| PendingVersion { dir: version.dir.to_string(), why: version.why.clone() })
            .collect();
        let news: Vec<PendingVersion> = now
            .iter()
            .filter(|version| !known.contains(&(version.dir.as_str(), version.why.as_slice())))
            .cloned()
            .collect();
        self.project.set_pending(now);
        for PendingVersion { dir, why } in news {
            let project = self.project.name().to_string();
            self.core.events.emit(EventKind::Pending { project, dir, why });
        }
        let board = self.core.health.about(self.project.name().as_str());
        match publish_failed(&self.project, pending) {
            Some(item) => board.raise(item),
            None => board.clear(PUBLISH_FAILED),
        }
    }

    fn health_changed(&self, health: &ProjectHealth, root_opened: &mut u64) {
        let board = self.core.health.about(self.project.name().as_str());
        let detail = health.detail.clone().unwrap_or_default();
        match health.state {
            ProjectState::Paused => {
                self.project.pause(&detail);
                board.raise(root_missing(&self.project, &detail));
            }
            state => {
                if (self.project.dir().is_none() || *root_opened != health.root_opened)
                    && let Err(error) = self.project.reopen()
                {
                    self.project.pause(&ErrorChain(&error).to_string());
                    return;
                }
                *root_opened = health.root_opened;
                self.project.set_state(state);
                board.clear(ROOT_MISSING);
            }
        }
        match watcher_health(&self.project, &health.watcher) {
            Some(item) => board.raise(item),
            None => board.clear(WATCHES),
        }
        match health.last_scan.as_ref().filter(|scan| scan.problems_total > 0) {
            Some(scan) => board.raise(Health {
                code: SCAN_PROBLEMS.into(),
                severity: Severity::Warning,
                message: format!(
                    "{} problems were found in the directories of project {}; the first: {}",
                    scan.problems_total,
                    self.project.name(),
                    scan.problems.first().map_or("", String::as_str)
                ),
                hint: Some(scan.hints.join("; ")),
            }),
            None => board.clear(SCAN_PROBLEMS),
        }
    }
}

const PUBLISH_FAILED: &str = "publish-failed";
const ROOT_MISSING: &str = "root-missing";
const WATCHES: &str = "watch-limit";
const SCAN_PROBLEMS: &str = "scan-problems";

fn publish_failed(project: &Project, pending: &[super::settle::PendingVersion]) -> Option<Health> {
    let mut failed = pending.iter().filter_map(|version| Some((&version.dir, version.failed.as_ref()?)));
    let (first, why) = failed.next()?;
    let others = match failed.count() {
        0 => String::new(),
        others => format!(", nor can {others} more"),
    };
    Some(Health {
        code: PUBLISH_FAILED.into(),
        severity: Severity::Error,
        message: format!("{first} in project {} cannot be recorded{others}: {why}", project.name()),
        hint: Some(format!(
            "make room, or check the disks of the state directory and the project; it is tried again every {} s",
            TRY_AGAIN_AFTER.as_secs()
        )),
    })
}

fn root_missing(project: &Project, detail: &str) -> Health {
    Health {
        code: ROOT_MISSING.into(),
        severity: Severity::Error,
        message: format!("project {} is paused: {detail}", project.name()),
        hint: Some(format!(
            "mount or create {} (and restart the service if it was created), or give the daemon's user the right to read \
             it; nothing is deleted meanwhile",
            project.path().display()
        )),
    }
}

fn watcher_health(project: &Project, watcher: &WatcherState) -> Option<Health> {
    match watcher {
        WatcherState::Partial { watched, needed } => Some(Health {
            code: WATCHES.into(),
            severity: Severity::Warning,
            message: format!(
                "{watched} of {needed} directories of project {} are watched; the others are only scanned",
                project.name()
            ),
            hint: Some(
                "raise fs.inotify.max_user_watches, for example to 1048576; the next scan notices".into(),
            ),
        }),
        _ => None,
    }
}

pub(super) async fn publish(
    core: &Arc<Core>,
    project: &Arc<Project>,
    handle: &SettlerHandle,
    tasks: &Tasks,
    settled: Settled,
) {
    // Without a catalog everything would look new, and be hashed in vain. Who asked hears that the daemon stops. Until there
    // is room may take for ever: whoever asked is told.
    if !core.ledger.is_ready() && !core.ledger.lacks_room() && !core.until_catalog(&tasks.token()).await {
        return;
    }
    let about = about(project.path(), &settled);
    let dir = settled.dir.clone();
    let whole = WholeVersion {
        version: VersionDir { dir: settled.dir, fields: settled.fields },
        files: settled.files.into_iter().map(|file| file.file).collect(),
        completeness: settled.completeness,
        purpose: settled.purpose,
        about,
    };
    let reference = whole.version.fields.version_id(project.name()).to_string();
    let recorded = record::record(core, project, whole).await;
    let failed = recorded.as_ref().err().filter(|error| error.is_failure());
    tell_attempted(handle, &dir, failed.map(|error| ErrorChain(error).to_string())).await;
    let outcome = match recorded {
        Ok(recorded) => {
            let problems = problems(core, &recorded).await;
            outcome(recorded, problems)
        }
        Err(error) => {
            match error.remedy() {
                Remedy::Settle => {
                    tracing::info!(version = reference, error = %ErrorChain(&error), "looking again when it is quiet");
                    handle.reconsider(dir.clone()).await.ok();
                }
                Remedy::TryLater => {
                    record::tell_refused(core, &reference, &error);
                    reconsider_later(core, project, handle, &dir, tasks);
                }
                Remedy::Person => record::tell_refused(core, &reference, &error),
                Remedy::Nothing => tracing::debug!(version = reference, "compared, and as it was recorded"),
            }
            refused(dir, &error)
        }
    };
    for reply in settled.replies {
        reply.send(outcome.clone()).ok();
    }
}

/// Tells the settler that a version could not be recorded, or that it could after it was told that.
async fn tell_attempted(handle: &SettlerHandle, dir: &RelPath, failed: Option<String>) {
    let had_failed =
        handle.pending().borrow().iter().any(|version| version.dir == *dir && version.failed.is_some());
    if failed.is_some() || had_failed {
        handle.attempted(dir.clone(), failed).await.ok();
    }
}

fn about(project: &Path, settled: &Settled) -> PublishDetails {
    let mut details = settled.details.clone().unwrap_or_default();
    if details.author.is_empty() {
        details.author = author::owner_of(&project.join(settled.dir.as_str()));
    }
    details
}

/// Returns what checks find in what lies there, and tells of it when it is new.
async fn problems(core: &Arc<Core>, recorded: &Recorded) -> Vec<CheckProblem> {
    let (core_there, version, manifest) = (Arc::clone(core), recorded.version.clone(), recorded.manifest);
    let found = blocking(move || {
        let fold = core_there.ledger.version(&version).ok().flatten()?;
        let manifest = core_there.ledger.manifest(manifest).ok().flatten()?;
        core_there.problems(&version, &fold, &manifest, &mut Ranks::default()).ok()
    });
    let problems = found.await.unwrap_or_default();
    if recorded.news == News::Published && !problems.is_empty() {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(version = %recorded.version, problems = problems.len(), first, "published with problems");
        core.events.emit(EventKind::ProblemsFound {
            reference: recorded.version.to_string(),
            manifest: recorded.manifest.to_string(),
            problems: problems.clone(),
        });
    }
    problems
}

fn outcome(recorded: Recorded, problems: Vec<CheckProblem>) -> PublishOutcome {
    let news = recorded.news;
    let published = PublishedAs {
        version: recorded.version,
        generation: recorded.generation,
        manifest: recorded.manifest,
        files: recorded.files,
        bytes: recorded.bytes,
        messages: recorded.messages,
        problems,
    };
    match news {
        News::Published => PublishOutcome::Published(published),
        News::Held | News::Nothing => PublishOutcome::Unchanged(published),
    }
}

/// A full disk or a failing one may be well again by then.
fn reconsider_later(
    core: &Arc<Core>,
    project: &Arc<Project>,
    handle: &SettlerHandle,
    dir: &RelPath,
    tasks: &Tasks,
) {
    let (core, project, handle) = (Arc::clone(core), Arc::clone(project), handle.clone());
    let (dir, stop) = (dir.clone(), tasks.token());
    tasks.spawn("publish again", async move {
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.clock.sleep(TRY_AGAIN_AFTER) => {}
        }
        forget_number(&core, &project, &dir).await;
        handle.reconsider(dir).await.ok();
    });
}

/// Whoever has a number that is taken renames the directory, as they are told; then nothing is wrong any more.
async fn forget_number(core: &Arc<Core>, project: &Arc<Project>, dir: &RelPath) {
    let (core, project, dir) = (Arc::clone(core), Arc::clone(project), dir.clone());
    blocking(move || {
        let is_gone =
            project.dir().is_some_and(|root| root.open_dir(&dir).is_err_and(|error| error.is_not_found()));
        if let Some(found) = project.templates().invert_dir(&dir).filter(|_| is_gone) {
            let version = found.fields.version_id(project.name());
            core.health.about(&version.to_string()).clear(record::NUMBER_TAKEN);
        }
    })
    .await;
}

fn refused(dir: RelPath, error: &RecordError) -> PublishOutcome {
    let why = vec![ErrorChain(error).to_string()];
    match error {
        RecordError::Paused { .. } => PublishOutcome::Paused { why: why.concat() },
        _ if error.remedy() == Remedy::Settle => PublishOutcome::NotWhole { dir, why },
        _ => PublishOutcome::Refused { dir, messages: why, code: error.code() },
    }
}
