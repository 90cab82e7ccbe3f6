//! One job: a version's manifest, what is on this machine already, and the blocks that are not.
//!
//! Stage 8 and 9 of the way of the data. Previous: [`super::jobs`] decided. Next: [`super::place`] makes it visible.
//! Invariant: a block counts only after it has verified against the object's name and was written; whoever sends one
//! that does not verify is not asked again for this job.

mod bases;
mod claims;
mod frames;
mod local;
mod remote;
mod sink;
mod streams;

use std::{sync::Arc, time::Duration};

use avalon_protocol::{
    control::{ErrorCode, Health, JobKind, JobState, Severity},
    hash::ManifestId,
    id::VersionId,
    manifest::Manifest,
    plan::{Decision, Wish},
};
use avalon_store::{
    catalog::CatalogError,
    fs::Dir,
    object::incoming::{Incoming, IncomingError, VerifiedVersion},
};

use self::bases::Bases;
pub use self::frames::forget_passes;
use super::{
    jobs::{Job, Outcome, RetryWhen},
    place,
};
use crate::{
    clock::Clock,
    core::{Core, blocking},
    log::ErrorChain,
    net::Net,
    policy::Ranks,
    project::Project,
    space::{self, Reserved, Spare},
};

/// How long a job waits before it looks for room on the disk, or for the project's directory, again.
const RETRY_DISK: Duration = Duration::from_secs(10);
/// How long before a version that has no room within the quota looks again.
const RETRY_QUOTA: Duration = Duration::from_secs(30);
/// How long before sources that failed are asked again, if no other comes.
const RETRY_SOURCES: Duration = Duration::from_secs(5);

/// Does the work of one job, from its manifest to the version in its place.
///
/// Cancel-safe between blocks: what has verified stays in the incoming area, and the next run goes on from there.
pub async fn run(core: Arc<Core>, net: Net, job: Arc<Job>) -> Outcome {
    match fetch_and_place(&core, &net, &job).await {
        Ok(()) => Outcome::Placed,
        Err(outcome) => outcome,
    }
}

async fn fetch_and_place(core: &Arc<Core>, net: &Net, job: &Arc<Job>) -> Result<(), Outcome> {
    let Some(project) = core.project(&job.version.project).cloned() else {
        return Err(failed(ErrorCode::NotFound, "this node does not serve the project any more"));
    };
    let Some(dir) = project.dir() else {
        let reason = format!("the project is paused: {} is missing", project.path().display());
        return Err(waiting(ErrorCode::ProjectPaused, reason, RetryWhen::After(RETRY_DISK)));
    };
    if project.is_doubted() && job.kind() == JobKind::Mirror {
        let reason = format!("most of project {} is gone at once; is a volume not mounted?", project.name());
        return Err(waiting(ErrorCode::ProjectPaused, reason, RetryWhen::After(RETRY_DISK)));
    }
    let phases = Phases::begin(core);
    let manifest = Arc::new(remote::manifest(core, net, job).await?);
    check_place(&project, &manifest, job)?;
    check_record(core, &manifest, job).await?;
    check_policy(core, job).await?;
    place::still_occupied(core, &project, job).await?;
    let _room = room(core, &manifest, job).await?;
    job.set_path(project.path().join(manifest.dir().as_str()));
    if let Some(wish) = job.frames() {
        return frames::fetch_and_place(core, net, job, (&project, &dir, &manifest), wish).await;
    }
    let incoming = open(core, &dir, &manifest).await.map_err(|error| incoming_failed(core, job, &error))?;
    let placed = bring_and_place(core, net, job, (&project, &dir, &manifest), &incoming, phases).await;
    if matches!(&placed, Err(Outcome::Waiting { code: ErrorCode::DiskFull, .. })) {
        // Other versions may fit into what was taken for this one.
        blocking(move || incoming.release_room()).await;
    }
    placed
}

/// Does all that follows once the incoming area is open.
async fn bring_and_place(
    core: &Arc<Core>,
    net: &Net,
    job: &Arc<Job>,
    (project, dir, manifest): (&Arc<Project>, &Dir, &Arc<Manifest>),
    incoming: &Arc<Incoming>,
    mut phases: Phases,
) -> Result<(), Outcome> {
    tell_progress(job, incoming);
    phases.end("open");
    adopt_older(core, dir, job, incoming).await.map_err(|error| incoming_failed(core, job, &error))?;
    take_back(core, dir, job, incoming).await?;
    let verified = bring(core, net, job, manifest, incoming, &mut phases).await?;
    place::place(core, project, job, verified).await?;
    let (trashed, id) = (dir.clone(), job.manifest);
    blocking(move || space::took_back(&trashed, id)).await;
    phases.end("place");
    tracing::debug!(version = %job.version, phases = phases.text, "what took how long, in ms");
    Ok(())
}

/// Brings what the incoming area lacks, from this machine and from others, until all of it is verified.
async fn bring(
    core: &Arc<Core>,
    net: &Net,
    job: &Arc<Job>,
    manifest: &Arc<Manifest>,
    incoming: &Arc<Incoming>,
    phases: &mut Phases,
) -> Result<VerifiedVersion, Outcome> {
    local::take(core, job, incoming).await?;
    {
        let incoming = Arc::clone(incoming);
        blocking(move || incoming.reserve()).await.map_err(|error| incoming_failed(core, job, &error))?;
    }
    for mended in [DISK_FULL, ROOT_READ_ONLY] {
        core.health.about(job.version.project.as_str()).clear(mended);
    }
    phases.end("here");
    let bases = Arc::new(Bases::find(core, job, manifest, incoming).await);
    claims::kept_while(core, job, incoming, remote::fetch(core, net, job, incoming, &bases)).await?;
    tell_progress(job, incoming);
    phases.end("fetch");
    job.set_state(JobState::Placing, None, None);
    let verified = {
        let incoming = Arc::clone(incoming);
        blocking(move || incoming.finish()).await.map_err(|error| incoming_failed(core, job, &error))?
    };
    phases.end("finish");
    Ok(verified)
}

/// Where the time of a job went, for whoever wants to know why it took so long.
struct Phases {
    clock: Arc<dyn Clock>,
    since: Duration,
    text: String,
}

impl Phases {
    fn begin(core: &Core) -> Self {
        let clock = Arc::clone(&core.clock);
        Self { since: clock.monotonic(), clock, text: String::new() }
    }

    fn end(&mut self, name: &str) {
        let now = self.clock.monotonic();
        let took = now.saturating_sub(self.since).as_secs_f64() * 1e3;
        self.since = now;
        let comma = if self.text.is_empty() { "" } else { ", " };
        self.text.push_str(&format!("{comma}{name} {took:.1}"));
    }
}

/// A peer is not trusted to say where files go: the version directory must be the one that the project's own template gives
/// to this version.
fn check_place(project: &Project, manifest: &Manifest, job: &Job) -> Result<(), Outcome> {
    let read = project.templates().invert_dir(manifest.dir());
    let fits = read.is_some_and(|version| version.fields.version_id(project.name()) == job.version);
    if fits && *manifest.version() == job.version {
        return Ok(());
    }
    let reason = format!(
        "its manifest places it at {}, which the template of project {} here does not give to {}; sites must have the \
         same template",
        manifest.dir(),
        project.name(),
        job.version
    );
    Err(failed(ErrorCode::Damaged, reason))
}

/// The record that announced the generation must say of it what its manifest says; else a peer could let its files pass for
/// those of another.
async fn check_record(core: &Arc<Core>, manifest: &Manifest, job: &Job) -> Result<(), Outcome> {
    let (ledger, version) = (core.ledger.clone(), job.version.clone());
    let fold = blocking(move || ledger.version(&version)).await;
    let fold = fold.map_err(|error| catalog_failed(&error))?.unwrap_or_default();
    let said = fold.generation(&job.manifest);
    let draft = manifest.draft();
    let agrees = said.is_some_and(|said| {
        said.content == manifest.content()
            && said.generation == draft.generation
            && said.predecessor == draft.predecessor
    });
    if agrees {
        return Ok(());
    }
    let node = said.map(|said| said.node.to_string()).unwrap_or_default();
    Err(failed(
        ErrorCode::Damaged,
        format!("the record of {node} does not agree with the manifest that it names"),
    ))
}

/// Asks the policy again, now that the manifest is here: it may ask for what only that says.
async fn check_policy(core: &Arc<Core>, job: &Job) -> Result<(), Outcome> {
    let (core_there, version) = (Arc::clone(core), job.version.clone());
    let verdict = blocking(move || {
        let fold = core_there.ledger.version(&version)?.unwrap_or_default();
        core_there.decide(&version, &fold, Wish::Pulled, &mut Ranks::default())
    });
    match verdict.await.map_err(|error| catalog_failed(&error))?.decision {
        Decision::Forbidden(rule) => {
            Err(failed(ErrorCode::Denied, core.forbids(&job.version, rule.as_ref())))
        }
        Decision::Retired | Decision::Move(_) => Err(Outcome::Cancelled),
        _ => Ok(()),
    }
}

/// What comes by itself waits for room within the quota; what somebody pulls does not.
async fn room(
    core: &Arc<Core>,
    manifest: &Arc<Manifest>,
    job: &Arc<Job>,
) -> Result<Option<Reserved>, Outcome> {
    if job.kind() == JobKind::Pull {
        return Ok(None);
    }
    let (core_there, manifest, version) = (Arc::clone(core), Arc::clone(manifest), job.version.clone());
    let reserved = blocking(move || {
        let spare = if core_there.is_expendable(&version) { Spare::Much } else { Spare::Enough };
        core_there.reserve(&version.project, manifest.total_bytes(), spare)
    });
    match reserved.await {
        Some(reserved) => Ok(Some(reserved)),
        None => {
            let reason = format!("project {} has no room for it within its quota", job.version.project);
            Err(waiting(ErrorCode::DiskFull, reason, RetryWhen::After(RETRY_QUOTA)))
        }
    }
}

/// Takes what was dropped here and is in the trash still.
async fn take_back(
    core: &Arc<Core>,
    dir: &Dir,
    job: &Arc<Job>,
    incoming: &Arc<Incoming>,
) -> Result<(), Outcome> {
    let (core_there, dir, job_there, incoming) =
        (Arc::clone(core), dir.clone(), Arc::clone(job), Arc::clone(incoming));
    let taken = blocking(move || {
        let taken = space::take_back(&core_there, &dir, &job_there.version, &incoming);
        tell_progress(&job_there, &incoming);
        taken
    });
    let bytes = taken.await.map_err(|error| incoming_failed(core, job, &error))?;
    job.add_local(bytes);
    Ok(())
}

/// Opens the incoming area; files in place that the catalog knows need not be hashed again.
async fn open(core: &Arc<Core>, dir: &Dir, manifest: &Arc<Manifest>) -> Result<Arc<Incoming>, IncomingError> {
    let (core, dir, manifest) = (Arc::clone(core), dir.clone(), Arc::clone(manifest));
    blocking(move || {
        let project = manifest.project().clone();
        let known = |path: &_, stat: &avalon_store::fs::FileStat| {
            let file = core.ledger.local_file(&project, path).ok().flatten()?;
            (file.identity() == stat.identity()).then_some(file.hash)
        };
        core.hasher.run(|| Incoming::open_knowing(&dir, manifest, &known)).map(Arc::new)
    })
    .await
}

/// Takes over what was fetched of other generations of the version, and removes their areas: no other job of the version
/// runs.
async fn adopt_older(
    core: &Arc<Core>,
    dir: &Dir,
    job: &Arc<Job>,
    incoming: &Arc<Incoming>,
) -> Result<(), IncomingError> {
    let (core, dir, job, incoming) = (Arc::clone(core), dir.clone(), Arc::clone(job), Arc::clone(incoming));
    blocking(move || {
        for manifest in Incoming::list(&dir).unwrap_or_default() {
            let version = core.ledger.version_of(manifest).ok().flatten();
            if manifest == job.manifest || version.as_ref() != Some(&job.version) {
                continue;
            }
            core.hasher.run(|| incoming.adopt(manifest))?;
            if let Err(error) = Incoming::remove(&dir, manifest) {
                tracing::warn!(%manifest, error = %ErrorChain(&error), "an old incoming area cannot be removed");
            }
        }
        tell_progress(&job, &incoming);
        Ok(())
    })
    .await
}

/// Returns the manifests that an earlier run began to fetch: their jobs go on.
pub async fn unfinished(core: &Arc<Core>, dir: &Dir) -> Vec<ManifestId> {
    let dir_of_list = dir.clone();
    match blocking(move || Incoming::list(&dir_of_list)).await {
        Ok(manifests) => manifests,
        Err(error) => {
            tracing::warn!(path = %dir.path().display(), error = %ErrorChain(&error), "cannot list unfinished transfers");
            core.health.raise(Health {
                code: "incoming-unreadable".into(),
                severity: Severity::Warning,
                message: format!("unfinished transfers cannot be listed: {}", ErrorChain(&error)),
                hint: Some("check the permissions of .avalon in the project".into()),
            });
            Vec::new()
        }
    }
}

/// What to do with an incoming area of an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOver {
    /// Somebody pulled this version: it goes on.
    Pulled(VersionId),
    /// It goes on by itself, as a mirror or because the version grows; or nothing is known of it yet.
    Kept,
    /// The version is here, or does not come any more.
    Useless,
}

/// Says what to do with the incoming area of a manifest. Only pulls leave areas where nothing comes by itself, and a
/// cancelled one takes its area with it.
pub async fn left_over(core: &Arc<Core>, manifest: ManifestId) -> LeftOver {
    let core = Arc::clone(core);
    blocking(move || {
        let Ok(Some(version)) = core.ledger.version_of(manifest) else { return LeftOver::Kept };
        let Ok(Some(fold)) = core.ledger.version(&version) else { return LeftOver::Kept };
        let decision = |wish| {
            let verdict = core.decide(&version, &fold, wish, &mut Ranks::default());
            verdict.map_or(Decision::Unknown, |verdict| verdict.decision)
        };
        match (decision(Wish::None), decision(Wish::Pulled)) {
            (Decision::Fetch(_), _) | (Decision::Unknown, _) => LeftOver::Kept,
            (_, Decision::Fetch(_)) => LeftOver::Pulled(version),
            _ => LeftOver::Useless,
        }
    })
    .await
}

fn tell_progress(job: &Job, incoming: &Incoming) {
    let progress = incoming.progress();
    job.set_present(
        (progress.files_present as u64, progress.files_total as u64),
        (progress.bytes_present, progress.bytes_total),
    );
}

/// The health code of a project whose disk is full.
const DISK_FULL: &str = "disk-full";

/// The health code of a project in which the daemon's user may not write.
const ROOT_READ_ONLY: &str = "root-read-only";

/// Turns an error of the incoming area into what becomes of the job.
fn incoming_failed(core: &Core, job: &Job, error: &IncomingError) -> Outcome {
    let reason = ErrorChain(error).to_string();
    // What lies there may be published once this version does not come any more.
    if let (IncomingError::FsyncInPlace { files, .. }, Some(project)) =
        (error, core.project(&job.version.project))
    {
        project.unsynced().note(files.iter().cloned());
    }
    if error.is_not_allowed() {
        core.health.about(job.version.project.as_str()).raise(Health {
            code: ROOT_READ_ONLY.into(),
            severity: Severity::Error,
            message: format!("nothing can be placed in project {}: {reason}", job.version.project),
            hint: Some(
                "give the daemon's user the right to write there; a directory that was made after the service had \
                 started needs a restart of it"
                    .into(),
            ),
        });
        return waiting(ErrorCode::Internal, reason, RetryWhen::After(RETRY_DISK));
    }
    if error.is_no_space() {
        core.health.about(job.version.project.as_str()).raise(Health {
            code: DISK_FULL.into(),
            severity: Severity::Error,
            message: format!("the disk of project {} is full: {reason}", job.version.project),
            hint: Some("make room; what waits goes on by itself".into()),
        });
        return waiting(ErrorCode::DiskFull, reason, RetryWhen::After(RETRY_DISK));
    }
    match error {
        // Everything of it was deleted: it is fetched again.
        IncomingError::Fsync { .. }
        | IncomingError::FsyncInPlace { .. }
        | IncomingError::PartFsync { .. } => {
            waiting(ErrorCode::Damaged, reason, RetryWhen::After(RETRY_DISK))
        }
        IncomingError::SizeConflict { .. } => failed(ErrorCode::Damaged, reason),
        _ => waiting(ErrorCode::Internal, reason, RetryWhen::After(RETRY_DISK)),
    }
}

/// The catalog is being rebuilt: nothing is decided on what it does not say.
pub(super) fn catalog_failed(error: &CatalogError) -> Outcome {
    waiting(ErrorCode::Internal, ErrorChain(error).to_string(), RetryWhen::After(RETRY_SOURCES))
}

pub(super) fn waiting(code: ErrorCode, reason: impl Into<String>, when: RetryWhen) -> Outcome {
    Outcome::Waiting { reason: reason.into(), code, when }
}

pub(super) fn failed(code: ErrorCode, reason: impl Into<String>) -> Outcome {
    Outcome::Failed { reason: reason.into(), code }
}

#[cfg(test)]
mod tests;
