//! The last stage: a verified version becomes visible, and this node says that it holds it.
//!
//! Previous stage: [`super::transfer`], which alone can make a [`VerifiedVersion`]. The record is made of the
//! [`Placement`] that `store` returns when the version is durable and visible, never before.

use std::{sync::Arc, time::Duration};

use avalon_protocol::{
    control::{ErrorCode, EventKind, Health, JobKind, Severity},
    hash::ManifestId,
    id::{VersionId, VersionSlot},
    manifest::Manifest,
    plan::{Decision, Wish},
    record::{Held, Record},
    rel_path::RelPath,
    version_fold::Standing,
};
use avalon_store::{
    catalog::{LocalChange, LocalFile},
    fs::FileIdentity,
    ledger::{Committed, LedgerError},
    object::incoming::{Incoming, VerifiedVersion},
    place::{PlaceError, PlaceOptions, Placement, ReadOnly, Replaces},
};

use super::{
    jobs::{Job, Occupied, Outcome, RetryWhen},
    transfer::{catalog_failed, failed, waiting},
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    policy::Ranks,
    project::Project,
    publish::record::{REWRITTEN, superseded},
    scrub::DAMAGED,
};

/// How long before a placement that the system refused is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long before a place that was taken by other files is looked at again.
const RETRY_OCCUPIED: Duration = Duration::from_secs(60);

/// How many generations before the one that comes are looked into for files that it replaces.
const GENERATIONS_BEFORE: usize = 4;

/// The health code of a version whose place is taken.
pub const OCCUPIED: &str = "occupied";

/// Places a version and records it.
pub(super) async fn place(
    core: &Arc<Core>,
    project: &Arc<Project>,
    job: &Arc<Job>,
    verified: VerifiedVersion,
) -> Result<(), Outcome> {
    let manifest = Arc::clone(verified.manifest());
    let lock = project.lock_version(manifest.dir()).await;
    let placement = make_visible(core, project, job, verified).await?;
    let committed = record(core, &placement).await;
    core.health.about(&job.version.to_string()).clear(REWRITTEN);
    core.health.about(&job.version.to_string()).clear(DAMAGED);
    drop(lock);
    let committed = committed.map_err(|error| not_recorded(&error))?;
    project.unsynced().forget(placement.files().iter().map(|file| &file.path));
    let (core_there, placed) = (Arc::clone(core), placement.files().to_vec());
    let name = project.name().clone();
    blocking(move || core_there.damaged.forget(&name, placed.iter().map(|file| &file.path))).await;
    core.space.came(project.name(), manifest.total_bytes());
    tracing::info!(version = %job.version, manifest = %job.manifest, files = manifest.files().len(), bytes = manifest.total_bytes(), seq = committed.first_seq(), "placed");
    core.events.emit(EventKind::Placed {
        reference: job.version.to_string(),
        manifest: job.manifest.to_string(),
        files: manifest.files().len() as u64,
        bytes: manifest.total_bytes(),
        seconds: job.status().seconds,
    });
    Ok(())
}

/// Places some frames of a version. The catalog knows what they are, and nothing is recorded.
pub(super) async fn place_frames(
    core: &Arc<Core>,
    project: &Arc<Project>,
    job: &Arc<Job>,
    verified: VerifiedVersion,
) -> Result<(), Outcome> {
    let _lock = project.lock_version(&verified.manifest().dir().clone()).await;
    let placement = make_visible(core, project, job, verified).await?;
    let (ledger, local) = (core.ledger.clone(), local_changes(&placement, job.manifest));
    let noted = blocking(move || ledger.update_local_wait(local)).await;
    noted.map_err(|error| not_recorded(&error))
}

/// Puts a version where people see it, if it is still wanted. The caller holds its lock.
async fn make_visible(
    core: &Arc<Core>,
    project: &Arc<Project>,
    job: &Arc<Job>,
    verified: VerifiedVersion,
) -> Result<Placement, Outcome> {
    let (core_there, version, area) = (Arc::clone(core), job.version.clone(), verified.manifest().id());
    let read_only = still_wanted(core, job).await?;
    still_there(project).await?;
    let before = before(core, &version).await?;
    let ids_before = ids(&before);
    let damaged = core.damaged.of(&version.project);
    let (puts_back, is_part) = (job.puts_back(), job.frames().is_some());
    let placed = blocking(move || {
        let replaces = match version.slot {
            // What a part of a version does not have is not stale.
            VersionSlot::Hero if !is_part => Replaces::Hero(before.first()),
            _ if puts_back => Replaces::Rewritten,
            _ => Replaces::Followed(&before),
        };
        let options = PlaceOptions { read_only, replaces, damaged: Some(&damaged) };
        core_there.hasher.run(|| avalon_store::place::place(verified, &options))
    });
    match placed.await {
        Ok(placement) => {
            core.health.about(&job.version.to_string()).clear(OCCUPIED);
            job.set_occupied(None);
            Ok(placement)
        }
        Err(error) => {
            if let PlaceError::Sync { files, .. } = &error {
                project.unsynced().note(files.iter().cloned());
            }
            if let PlaceError::Occupied { path } = &error {
                // What lies there may be a publish of its own; it is not recorded while the version counts as coming.
                forget_area(project, area).await;
                let identity = identity(project, path).await;
                let reason = ErrorChain(&error).to_string();
                let before = ids_before;
                job.set_occupied(identity.map(|there| Occupied {
                    path: path.clone(),
                    there,
                    before,
                    reason,
                }));
            }
            Err(refused(core, job, &error, puts_back))
        }
    }
}

/// Looks whether what lay in the place of a version lies there still: nothing is fetched then, which would be thrown away.
///
/// # Errors
/// It does: what becomes of the job.
pub(super) async fn still_occupied(core: &Arc<Core>, project: &Project, job: &Job) -> Result<(), Outcome> {
    let Some(occupied) = job.occupied() else { return Ok(()) };
    let is_there = identity(project, &occupied.path).await == Some(occupied.there)
        && ids(&before(core, &job.version).await?) == occupied.before;
    // In this order: whoever asks for what stands says so before the job counts as pulled.
    let kind = job.kind();
    if is_there && !job.puts_back() {
        return Err(taken(kind, occupied.reason));
    }
    job.set_occupied(None);
    Ok(())
}

async fn identity(project: &Project, path: &RelPath) -> Option<FileIdentity> {
    let (dir, path) = (project.dir()?, path.clone());
    blocking(move || dir.stat(&path).ok().flatten().map(|stat| stat.identity())).await
}

fn ids(manifests: &[Manifest]) -> Vec<ManifestId> {
    manifests.iter().map(Manifest::id).collect()
}

/// Whoever pulls hears of it now; a mirror looks again, in case somebody has made room.
fn taken(kind: JobKind, reason: String) -> Outcome {
    match kind {
        JobKind::Pull => failed(ErrorCode::Conflict, reason),
        JobKind::Mirror => waiting(ErrorCode::Conflict, reason, RetryWhen::After(RETRY_OCCUPIED)),
    }
}

fn not_recorded(error: &LedgerError) -> Outcome {
    let code = if error.is_no_space() { ErrorCode::DiskFull } else { ErrorCode::Internal };
    waiting(code, ErrorChain(error).to_string(), RetryWhen::After(RETRY))
}

/// Removes what was fetched of a version that does not come.
pub async fn forget_area(project: &Arc<Project>, manifest: ManifestId) {
    let Some(dir) = project.dir() else { return };
    if let Err(error) = blocking(move || Incoming::remove(&dir, manifest)).await {
        tracing::warn!(%manifest, error = %ErrorChain(&error), "an incoming area cannot be removed");
    }
}

/// Another directory in the project's place would get nothing of what is placed into the one that is open.
async fn still_there(project: &Arc<Project>) -> Result<(), Outcome> {
    let there = Arc::clone(project);
    if blocking(move || there.is_current()).await {
        return Ok(());
    }
    let reason = format!("{} was replaced or is not mounted", project.path().display());
    Err(waiting(ErrorCode::ProjectPaused, reason, RetryWhen::After(RETRY)))
}

/// Asks once more, now that nobody else can publish or place the version: what was announced meanwhile may have made it a
/// conflict, or a newer generation stands for it. Returns whether the policy wants its files read-only.
async fn still_wanted(core: &Arc<Core>, job: &Job) -> Result<ReadOnly, Outcome> {
    let (core_there, version) = (Arc::clone(core), job.version.clone());
    let asked = blocking(move || {
        let fold = core_there.ledger.version(&version)?.unwrap_or_default();
        let verdict = core_there.decide(&version, &fold, Wish::Pulled, &mut Ranks::default())?;
        Ok((fold, verdict))
    });
    let (fold, verdict) = asked.await.map_err(|error| catalog_failed(&error))?;
    if let Decision::Forbidden(rule) = &verdict.decision {
        return Err(failed(ErrorCode::Denied, core.forbids(&job.version, rule.as_ref())));
    }
    if matches!(verdict.decision, Decision::Retired | Decision::Move(_)) {
        return Err(Outcome::Cancelled);
    }
    match fold.standing(job.version.slot) {
        Standing::Head(head) if fold.same_as(&head, &job.manifest) => {
            Ok(if verdict.read_only { ReadOnly::Set } else { ReadOnly::Keep })
        }
        Standing::Head(_) => Err(Outcome::Cancelled),
        Standing::Conflict(_) | Standing::Unknown => {
            Err(failed(ErrorCode::Conflict, "sites published different content under this version"))
        }
    }
}

/// Returns the manifests of what may lie here now and is replaced: of a hero, what this node holds. Of any other version,
/// the generations before the one that stands, the newest first, and what this node held last of them: files that one of them
/// has changed are exactly as those say, or nobody replaces them.
async fn before(core: &Arc<Core>, version: &VersionId) -> Result<Vec<Manifest>, Outcome> {
    let (core, version) = (Arc::clone(core), version.clone());
    blocking(move || {
        let fold = core.ledger.version(&version).map_err(|error| catalog_failed(&error))?.unwrap_or_default();
        let number = |id: &ManifestId| fold.generation(id).map(|generation| generation.generation);
        let manifest_of = |id: ManifestId| core.ledger.manifest(id).ok().flatten();
        let Standing::Head(head) = fold.standing(version.slot) else { return Ok(Vec::new()) };
        if version.slot == VersionSlot::Hero {
            return Ok(fold.held_by(&core.me).max_by_key(number).and_then(manifest_of).into_iter().collect());
        }
        let before = |id: &ManifestId| fold.generation(id)?.predecessor;
        let mut ids: Vec<ManifestId> =
            std::iter::successors(before(&head), before).take(GENERATIONS_BEFORE).collect();
        let held = fold.ever_held_by(&core.me).filter(|id| *id != head && fold.precedes(id, &head));
        ids.extend(held.max_by_key(number).filter(|held| !ids.contains(held)));
        Ok(ids.into_iter().filter_map(manifest_of).collect())
    })
    .await
}

/// Records that the version is here, and what is not any more therefore.
async fn record(core: &Arc<Core>, placement: &Placement) -> Result<Committed, LedgerError> {
    loop {
        let came_back = core.ledger.came_back(placement.project());
        let (core_there, new) = (Arc::clone(core), Arc::clone(placement.manifest()));
        let records = blocking(move || {
            let fold = core_there.ledger.version(new.version())?.unwrap_or_default();
            let mut records = superseded(&core_there, &fold, &new);
            records.push(Record::Placed(Held { version: new.version().clone(), manifest: new.id() }));
            Ok(records)
        });
        let records = records.await.map_err(|source| LedgerError::Catalog { source })?;
        let local = local_changes(placement, placement.manifest().id());
        let concluded = (placement.project().clone(), came_back);
        match core.commit_concluded(concluded, records, local).await {
            // What this node held may be known only now.
            Err(LedgerError::CameBack { .. }) => {}
            committed => return committed,
        }
    }
}

fn local_changes(placement: &Placement, manifest: ManifestId) -> Vec<LocalChange> {
    let files = placement.files().iter().map(|file| LocalChange::Put {
        project: placement.project().clone(),
        path: file.path.clone(),
        file: LocalFile::new(file.object, &file.stat, manifest),
    });
    files.collect()
}

fn refused(core: &Core, job: &Job, error: &PlaceError, put_back: bool) -> Outcome {
    let reason = ErrorChain(error).to_string();
    if error.is_no_space() {
        return waiting(ErrorCode::DiskFull, reason, RetryWhen::After(RETRY));
    }
    // Whoever asks for that says so before the job counts as pulled.
    let kind = job.kind();
    match error {
        // Somebody asked for that while this was on its way.
        PlaceError::Occupied { .. } if job.puts_back() && !put_back => {
            waiting(ErrorCode::Conflict, reason, RetryWhen::After(Duration::ZERO))
        }
        PlaceError::Occupied { .. } => {
            core.health.about(&job.version.to_string()).raise(Health {
                code: OCCUPIED.into(),
                severity: Severity::Error,
                message: format!("{} cannot be placed: {reason}", job.version),
                hint: Some(
                    "move the files that are there aside, or publish them under another version".into(),
                ),
            });
            taken(kind, reason)
        }
        PlaceError::Vanished { .. }
        | PlaceError::Sync { .. }
        | PlaceError::Compare(_)
        | PlaceError::Io { .. } => waiting(ErrorCode::Internal, reason, RetryWhen::After(RETRY)),
    }
}
