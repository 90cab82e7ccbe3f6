//! The last stage: a verified version becomes visible, and this node says that it holds it.
//!
//! Previous stage: [`super::transfer`], which alone can make a [`VerifiedVersion`]. The record is made of the
//! [`Placement`] that `store` returns when the version is durable and visible, never before.

use std::sync::Arc;

use avalon_protocol::{
    control::{ErrorCode, EventKind, Health, Severity},
    record::{Held, Record},
    version_fold::VersionFold,
};
use avalon_store::{
    catalog::{LocalChange, LocalFile},
    ledger::{Committed, LedgerError},
    object::incoming::VerifiedVersion,
    place::{PlaceError, PlaceOptions, Placement, ReadOnly},
};

use super::{
    jobs::{Job, Outcome, RetryWhen},
    transfer::{failed, waiting},
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    project::Project,
};

/// How long before a placement that the system refused is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(10);

/// Places a version and records it.
pub(super) async fn place(
    core: &Arc<Core>,
    project: &Arc<Project>,
    job: &Arc<Job>,
    verified: VerifiedVersion,
) -> Result<(), Outcome> {
    let manifest = Arc::clone(verified.manifest());
    let lock = project.lock_version(manifest.dir()).await;
    let core_there = Arc::clone(core);
    let version = job.version.clone();
    let placed = blocking(move || {
        let replaces = replaced_hero(&core_there, &version);
        let options = PlaceOptions { read_only: ReadOnly::Keep, replaces: replaces.as_ref() };
        core_there.hasher.run(|| avalon_store::place::place(verified, &options))
    });
    let placement = placed.await.map_err(|error| refused(core, job, &error))?;
    let committed = record(core, &placement).await;
    drop(lock);
    let committed = committed.map_err(|error| {
        let code = if error.is_no_space() { ErrorCode::DiskFull } else { ErrorCode::Internal };
        waiting(code, ErrorChain(&error).to_string(), RetryWhen::After(RETRY))
    })?;
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

/// Returns the manifest of the hero files that lie here now.
fn replaced_hero(
    core: &Core,
    version: &avalon_protocol::id::VersionId,
) -> Option<avalon_protocol::manifest::Manifest> {
    if version.slot != avalon_protocol::id::VersionSlot::Hero {
        return None;
    }
    let fold: VersionFold = core.ledger.version(version).ok().flatten()?;
    let held = fold.held_by(&core.me).max_by_key(|id| fold.generation(id).map(|g| g.generation))?;
    core.ledger.manifest(held).ok().flatten()
}

async fn record(core: &Arc<Core>, placement: &Placement) -> Result<Committed, LedgerError> {
    let manifest = placement.manifest();
    let held = Held { version: manifest.version().clone(), manifest: manifest.id() };
    let local = placement.files().iter().map(|file| LocalChange::Put {
        project: placement.project().clone(),
        path: file.path.clone(),
        file: LocalFile::new(file.object, &file.stat, manifest.id()),
    });
    let local = local.collect();
    let project = placement.project().clone();
    core.commit(project, vec![Record::Placed(held)], local).await
}

fn refused(core: &Core, job: &Job, error: &PlaceError) -> Outcome {
    let reason = ErrorChain(error).to_string();
    if error.is_no_space() {
        return waiting(ErrorCode::DiskFull, reason, RetryWhen::After(RETRY));
    }
    match error {
        PlaceError::Occupied { .. } => {
            core.health.about(&job.version.to_string()).raise(Health {
                code: "occupied".into(),
                severity: Severity::Error,
                message: format!("{} cannot be placed: {reason}", job.version),
                hint: Some(
                    "move the files that are there aside, or publish them under another version".into(),
                ),
            });
            failed(ErrorCode::Conflict, reason)
        }
        PlaceError::Vanished { .. } | PlaceError::Compare(_) | PlaceError::Io { .. } => {
            waiting(ErrorCode::Internal, reason, RetryWhen::After(RETRY))
        }
    }
}
