//! Some frames of a version: fetched and placed in passes, coarse to fine, each as if it were a version.
//!
//! This is the one way in which files come to their place before all of the version is there. Somebody asks for it, in a project
//! whose configuration allows it. Nothing is recorded: to everybody else, and to this node, the version is not held here.

use std::sync::Arc;

use avalon_protocol::{
    control::ErrorCode,
    frames::{FrameWish, passes},
    manifest::Manifest,
};
use avalon_store::fs::Dir;

use super::{Phases, bring, failed, incoming_failed, open, place, tell_progress};
use crate::{
    core::{Core, blocking},
    net::Net,
    project::Project,
    replicate::{
        jobs::{Job, Outcome},
        place::forget_area,
    },
};

/// Fetches the frames that somebody wants of a version. Each pass is visible before the next one comes.
pub(super) async fn fetch_and_place(
    core: &Arc<Core>,
    net: &Net,
    job: &Arc<Job>,
    (project, dir, manifest): (&Arc<Project>, &Dir, &Arc<Manifest>),
    wish: &FrameWish,
) -> Result<(), Outcome> {
    let parts = passes(manifest, wish).map_err(|error| failed(ErrorCode::NotFound, error.to_string()))?;
    let size = |parts: &[Manifest]| {
        parts.iter().fold((0, 0), |(files, bytes), part| {
            (files + part.files().len() as u64, bytes + part.total_bytes())
        })
    };
    let mut left = parts.as_slice();
    let mut before = (0, 0);
    while let Some((part, after)) = left.split_first() {
        job.set_passes(before, size(after));
        before = (before.0 + part.files().len() as u64, before.1 + part.total_bytes());
        left = after;
        let part = Arc::new(part.clone());
        let mut phases = Phases::begin(core);
        let incoming = open(core, dir, &part).await.map_err(|error| incoming_failed(core, job, &error))?;
        tell_progress(job, &incoming);
        let brought = bring(core, net, job, &part, &incoming, &mut phases).await;
        if matches!(&brought, Err(Outcome::Waiting { code: ErrorCode::DiskFull, .. })) {
            blocking(move || incoming.release_room()).await;
        }
        place::place_frames(core, project, job, brought?).await?;
        tracing::info!(version = %job.version, files = part.files().len(), passes_left = after.len(), "frames placed");
    }
    Ok(())
}

/// Removes what was fetched of frames that do not come.
pub async fn forget_passes(core: &Arc<Core>, project: &Arc<Project>, job: &Job) {
    let Some(wish) = job.frames() else { return };
    let (ledger, id) = (core.ledger.clone(), job.manifest);
    let Some(manifest) = blocking(move || ledger.manifest(id).ok().flatten()).await else { return };
    for part in passes(&manifest, wish).unwrap_or_default() {
        forget_area(project, part.id()).await;
    }
}
