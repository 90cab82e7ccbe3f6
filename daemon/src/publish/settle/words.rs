//! What the settler is told and what it says.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use avalon_protocol::{
    check::CheckProblem,
    control::{ErrorCode, ProjectState},
    hash::ManifestId,
    id::{ProjectName, RepresentationName, VersionId},
    manifest::Completeness,
    rel_path::RelPath,
    settle::{SeenFile, SettleConfig, Warning},
    template::{FileRole, TemplateSet, VersionFields},
};
use avalon_store::fs::FileIdentity;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    super::{record::Purpose, scan::Known},
    pace::Mount,
};
use crate::config::NetworkMode;

/// Returns what the catalog knows beneath a directory: paths inside it, at most so many, and how the files were. Blocks.
pub type RecordedFiles = dyn Fn(&RelPath, usize) -> Vec<(RelPath, FileIdentity)> + Send + Sync;

/// The project that a settler is for.
#[derive(Clone)]
pub struct ProjectSource {
    /// Its name.
    pub name: ProjectName,
    /// Its directory, which may be missing now.
    pub dir: PathBuf,
    /// Where its versions lie.
    pub templates: Arc<TemplateSet>,
    /// Says which files the catalog knows just as they are.
    pub known: Arc<Known>,
    /// Says whether this node published the version while somebody was at work in it, and not yet without that.
    pub grows: Arc<dyn Fn(&RelPath) -> bool + Send + Sync>,
    /// Says what the catalog knows beneath a directory.
    pub recorded: Arc<RecordedFiles>,
    /// Whether other machines write there.
    pub network: NetworkMode,
}

impl fmt::Debug for ProjectSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectSource")
            .field("name", &self.name)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// How patient a settler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettlerConfig {
    /// With one version.
    pub settle: SettleConfig,
    /// How long after a scan the next one begins while the watcher sees everything.
    pub rescan: Duration,
    /// The same where it does not, for want of watches.
    pub rescan_unwatched: Duration,
    /// The same where other machines write, too.
    pub rescan_network: Duration,
    /// How long a version must be quiet there in which a file has no end mark that says that it is closed.
    pub network_quiet: Duration,
    /// How often the project directory itself is looked at.
    pub root_poll: Duration,
}

impl Default for SettlerConfig {
    fn default() -> Self {
        Self {
            settle: SettleConfig::default(),
            rescan: Duration::from_secs(600),
            rescan_unwatched: Duration::from_secs(60),
            rescan_network: Duration::from_secs(60),
            network_quiet: Duration::from_secs(40),
            root_poll: Duration::from_secs(3),
        }
    }
}

/// A version that is whole: what the next stage hashes and records.
///
/// The files are as the last look saw them. Whoever hashes them compares again afterwards, and when something changed
/// meanwhile, calls [`SettlerHandle::reconsider`].
#[derive(Debug)]
pub struct Settled {
    /// The version directory, relative to the project.
    pub dir: RelPath,
    /// What its path says.
    pub fields: VersionFields,
    /// The signal that says that it is whole.
    pub completeness: Completeness,
    /// What to do with it.
    pub purpose: Purpose,
    /// Its files, in the order of their paths; at least one.
    pub files: Vec<SettledFile>,
    /// What a person should hear about it.
    pub warnings: Vec<Warning>,
    /// What somebody said who published it explicitly.
    pub details: Option<PublishDetails>,
    /// Who wait to hear what becomes of it; empty when nobody asked.
    pub replies: Vec<oneshot::Sender<PublishOutcome>>,
}

/// A file of a settled version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledFile {
    /// The file as it was seen; its path is inside the version directory.
    pub file: SeenFile,
    /// The representation that it belongs to.
    pub representation: RepresentationName,
    /// Its place in there.
    pub role: FileRole,
}

/// What somebody says about a version when publishing it explicitly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishDetails {
    /// Who publishes; empty for the owner of the files.
    pub author: String,
    /// What there is to say.
    pub comment: String,
    /// What it was made from.
    pub inputs: Vec<String>,
    /// What else to keep.
    pub metadata: BTreeMap<String, String>,
    /// What to do with published files that were changed in place.
    pub rewrites: Rewrites,
}

/// What to do with published files that were changed in place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rewrites {
    /// They are held, and somebody hears of it.
    #[default]
    Hold,
    /// Somebody decided that they are the next generation.
    Accept,
}

/// What became of an explicit publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It is recorded and durable.
    Published(PublishedAs),
    /// It was known already, just so.
    Unchanged(PublishedAs),
    /// It is being written. It is published, with what was said, as soon as that ends.
    NotWhole {
        /// The version directory.
        dir: RelPath,
        /// What it waits for.
        why: Vec<String>,
    },
    /// It cannot be published.
    Refused {
        /// The version directory.
        dir: RelPath,
        /// Why.
        messages: Vec<String>,
        /// What kind of error.
        code: ErrorCode,
    },
    /// There is no file in it, or it is not there.
    Empty {
        /// The version directory.
        dir: RelPath,
    },
    /// The path is neither a version directory nor in one.
    NotAVersion,
    /// The project directory is missing.
    Paused {
        /// What is the matter with it.
        why: String,
    },
}

/// What a version was recorded as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAs {
    /// The version.
    pub version: VersionId,
    /// The generation that stands now.
    pub generation: u32,
    /// Its manifest.
    pub manifest: ManifestId,
    /// How many files it has.
    pub files: u64,
    /// Their size together.
    pub bytes: u64,
    /// What a person should hear about it.
    pub messages: Vec<String>,
    /// What checks found.
    pub problems: Vec<CheckProblem>,
}

/// A version directory that is not whole, or cannot be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingVersion {
    /// The directory, relative to the project.
    pub dir: RelPath,
    /// What it waits for, or what is wrong with it.
    pub why: Vec<String>,
    /// Since when it has been waited for.
    pub since: SystemTime,
    /// Why this machine could not record it, the last time that it was whole.
    pub failed: Option<String>,
}

/// How a project stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectHealth {
    /// Whether publishes are noticed.
    pub state: ProjectState,
    /// Why it is paused, or its last scan failed.
    pub detail: Option<String>,
    /// How much of it the watcher sees.
    pub watcher: WatcherState,
    /// Who writes to it besides this machine.
    pub mount: Mount,
    /// How long after it happened something is noticed at the latest of which nobody tells, as the last scan went; then it has
    /// to be quiet.
    pub found_within: Duration,
    /// What the last whole scan found; `None` before the first.
    pub last_scan: Option<ScanSummary>,
    /// How often the project directory was opened: whoever has it open opens it again when this changes, because another
    /// directory may lie at its path now.
    pub root_opened: u64,
}

/// How much of a project the watcher sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatcherState {
    /// Nothing: publishes are found by scans.
    Off {
        /// Why.
        why: String,
    },
    /// All that happens on this machine.
    On,
    /// Only some directories.
    Partial {
        /// How many.
        watched: usize,
        /// How many there are; raise `fs.inotify.max_user_watches` above that.
        needed: usize,
    },
}

/// What a scan found, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanSummary {
    /// When it ended.
    pub at: SystemTime,
    /// How many version directories there are.
    pub versions: usize,
    /// How many of them hold something that the catalog does not know.
    pub changed: usize,
    /// What stood in its way, for people; the first hundred.
    pub problems: Vec<String>,
    /// How many problems there were.
    pub problems_total: usize,
    /// What to do about those that are named, each kind once.
    pub hints: Vec<&'static str>,
}

/// The settler has ended; the daemon is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the daemon is stopping")]
pub struct SettlerStopped;

/// The way to a running settler. Clones lead to the same one.
#[derive(Debug, Clone)]
pub struct SettlerHandle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) pending: watch::Receiver<Arc<Vec<PendingVersion>>>,
    pub(super) health: watch::Receiver<ProjectHealth>,
}

#[derive(Debug)]
pub(super) enum Request {
    Publish { path: RelPath, details: PublishDetails, reply: oneshot::Sender<PublishOutcome> },
    Reconsider { dir: RelPath },
    Attempted { dir: RelPath, failed: Option<String> },
    Rescan,
    Configure { config: SettlerConfig },
}

impl SettlerHandle {
    /// Publishes the version that `path`, relative to the project, is or lies in; returns what became of it.
    ///
    /// Dropping the future does not take the request back.
    ///
    /// # Errors
    /// [`SettlerStopped`]; whether it was published is not known.
    pub async fn publish(
        &self,
        path: RelPath,
        details: PublishDetails,
    ) -> Result<PublishOutcome, SettlerStopped> {
        let (reply, outcome) = oneshot::channel();
        self.send(Request::Publish { path, details, reply }).await?;
        outcome.await.map_err(|_| SettlerStopped)
    }

    /// Looks at a version directory again that was handed over: it changed while it was hashed, or could not be recorded.
    ///
    /// # Errors
    /// [`SettlerStopped`].
    pub async fn reconsider(&self, dir: RelPath) -> Result<(), SettlerStopped> {
        self.send(Request::Reconsider { dir }).await
    }

    /// Tells that a version that was handed over could not be recorded and is tried again, or with `None`, that it was
    /// recorded after all. Until then it is pending.
    ///
    /// # Errors
    /// [`SettlerStopped`].
    pub async fn attempted(&self, dir: RelPath, failed: Option<String>) -> Result<(), SettlerStopped> {
        self.send(Request::Attempted { dir, failed }).await
    }

    /// Begins a scan now, or right after the one that runs.
    ///
    /// # Errors
    /// [`SettlerStopped`].
    pub async fn rescan(&self) -> Result<(), SettlerStopped> {
        self.send(Request::Rescan).await
    }

    /// Changes how patient the settler is, from the next look on.
    ///
    /// # Errors
    /// [`SettlerStopped`].
    pub async fn configure(&self, config: SettlerConfig) -> Result<(), SettlerStopped> {
        self.send(Request::Configure { config }).await
    }

    async fn send(&self, request: Request) -> Result<(), SettlerStopped> {
        self.requests.send(request).await.map_err(|_| SettlerStopped)
    }

    /// Returns the version directories that are waited for, in order; the receiver hears of changes.
    pub fn pending(&self) -> watch::Receiver<Arc<Vec<PendingVersion>>> {
        self.pending.clone()
    }

    /// Returns how the project stands; the receiver hears of changes.
    pub fn health(&self) -> watch::Receiver<ProjectHealth> {
        self.health.clone()
    }
}
