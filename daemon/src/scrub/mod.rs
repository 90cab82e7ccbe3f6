//! Reading files again: whether what this node says it holds still is what was published, and what becomes of what is not.
//!
//! One reader at a time, and one budget of bytes a second, whoever wants it: `runs` are those that people ask for, `background`
//! is what happens by itself, the version first that was not read for longest. `check` reads a version, `damage` says and
//! records what was found, `repair` fetches it again, `verified` remembers when.

mod background;
mod check;
mod damage;
mod found;
mod pace;
mod repair;
mod runs;
#[cfg(test)]
mod tests;
mod verified;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use avalon_protocol::{
    control::{JobState, ScrubState, ScrubStatus},
    hash::ManifestId,
    id::{ProjectName, VersionId},
    manifest::Manifest,
    version_fold::VersionFold,
};
use avalon_store::fs::Dir;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use self::{
    damage::{DAMAGED, Rotten, note_rotten, tell_damaged},
    found::FoundDamaged,
    runs::Wanted,
    verified::Verified,
};
use self::{pace::Pace, runs::Runs};
use crate::{
    clock::time_of_ms, config::ScrubConfig, core::Core, project::Project, publish::settle::SettlerHandle,
    replicate::jobs::ReplicatorHandle, tasks::Tasks,
};

/// Reads files again. Clones are the same.
#[derive(Debug, Clone)]
pub struct Scrubber(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    replicator: ReplicatorHandle,
    settlers: Vec<(Arc<Project>, SettlerHandle)>,
    config: ScrubConfig,
    pace: Pace,
    /// One version is read at a time.
    turn: Semaphore,
    verified: Verified,
    runs: Mutex<Runs>,
    /// How many readings people wait for; what happens by itself lets them go first.
    people: AtomicUsize,
    totals: Mutex<Totals>,
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct Totals {
    state: Option<ScrubState>,
    versions: u64,
    bytes: u64,
    damaged: u64,
    due: u64,
    oldest_ms: Option<u64>,
}

/// What it works with.
#[derive(Debug)]
pub struct ScrubParts {
    /// The daemon.
    pub core: Arc<Core>,
    /// What fetches again.
    pub replicator: ReplicatorHandle,
    /// What looks at version directories that people changed.
    pub settlers: Vec<(Arc<Project>, SettlerHandle)>,
    /// How much and when.
    pub config: ScrubConfig,
    /// When versions were read last.
    pub verified: Verified,
    /// Where it runs.
    pub tasks: Tasks,
}

impl Scrubber {
    /// Makes it; nothing is read before [`Scrubber::start`], or before somebody asks.
    pub fn new(parts: ScrubParts) -> Self {
        let ScrubParts { core, replicator, settlers, config, verified, tasks } = parts;
        let pace = Pace::new(config.rate.bytes_per_second, Arc::clone(&core.clock));
        Self(Arc::new(Inner {
            core,
            replicator,
            settlers,
            config,
            pace,
            turn: Semaphore::new(1),
            verified,
            runs: Mutex::default(),
            people: AtomicUsize::new(0),
            totals: Mutex::default(),
            tasks,
        }))
    }

    /// Starts what happens by itself, if the configuration wants it.
    pub fn start(&self) {
        if self.0.config.repair {
            let scrubber = self.clone();
            self.0.tasks.spawn("repair", async move { scrubber.repair_asked().await });
        }
        if self.0.config.enabled {
            let scrubber = self.clone();
            self.0.tasks.spawn("scrub", async move { scrubber.background().await });
        } else {
            self.set_state(ScrubState::Off);
        }
    }

    /// Says when all bytes of a manifest were last found as published here, in milliseconds since 1970.
    pub fn verified_ms(&self, manifest: &ManifestId) -> Option<u64> {
        self.0.verified.of(manifest)
    }

    /// Says how it stands.
    pub fn status(&self) -> ScrubStatus {
        let totals = self.totals();
        ScrubStatus {
            state: totals.state.unwrap_or(ScrubState::Idle),
            versions_verified: totals.versions,
            bytes_verified: totals.bytes,
            files_damaged: totals.damaged,
            versions_due: totals.due,
            oldest: totals.oldest_ms.map(time_of_ms),
        }
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        // Every change under the lock is of plain numbers.
        self.0.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_state(&self, state: ScrubState) {
        self.totals().state = Some(state);
    }

    fn settler(&self, project: &ProjectName) -> Option<&SettlerHandle> {
        self.0.settlers.iter().find(|(known, _)| known.name() == project).map(|(_, settler)| settler)
    }

    /// Says whether people wait for a reading of their own.
    fn is_wanted_by_people(&self) -> bool {
        self.0.people.load(Ordering::Relaxed) > 0
    }

    /// Says whether something is being fetched or put in place.
    fn is_line_busy(&self) -> bool {
        let runs = |state| matches!(state, JobState::Running | JobState::Placing);
        self.0.replicator.board.active().iter().any(|job| runs(job.state))
    }
}

/// Who wants a version read.
#[derive(Debug, Clone, Copy)]
enum Reader<'a> {
    /// Somebody, until they do not want it any more.
    Person(&'a CancellationToken),
    /// Nobody.
    Itself,
}

/// One generation of a version whose files are to be read.
#[derive(Debug, Clone)]
struct Target {
    version: VersionId,
    manifest: Arc<Manifest>,
    project: Arc<Project>,
}

impl Target {
    /// Returns what there is to read of a version: what this node says that it holds, or else what it held last and did not
    /// drop, which it may have found damaged. Blocks.
    fn of(core: &Core, version: &VersionId, fold: &VersionFold) -> Option<Self> {
        let project = Arc::clone(core.project(&version.project)?);
        let number = |id: &ManifestId| fold.generation(id).map(|generation| generation.generation);
        let manifest_of = |id: ManifestId| core.ledger.manifest(id).ok().flatten().map(Arc::new);
        let of = |manifest, project| Self { version: version.clone(), manifest, project };
        if let Some(held) = fold.held_by(&core.me).max_by_key(number) {
            return Some(of(manifest_of(held)?, project));
        }
        let before = manifest_of(fold.ever_held_by(&core.me).max_by_key(number)?)?;
        let dir = project.dir()?;
        some_of_it_lies(&dir, &before).then(|| of(before, project))
    }
}

/// What was dropped is in the trash, all of it.
fn some_of_it_lies(dir: &Dir, manifest: &Manifest) -> bool {
    let mut paths = manifest.files().iter().filter_map(|file| manifest.dir().join(&file.path).ok());
    paths.any(|path| dir.stat(&path).is_ok_and(|stat| stat.is_some()))
}
