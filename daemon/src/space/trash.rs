//! The trash of this node's projects: emptied after a while, and taken from before anything is fetched.

use std::{sync::Arc, time::Duration};

use avalon_protocol::{hash::ManifestId, id::VersionId};
use avalon_store::{
    fs::Dir,
    object::incoming::{Incoming, IncomingError, LocalCopy},
    trash::{Cause, TrashEntry, entries},
};
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    project::Project,
};

/// The longest and the shortest time between two looks into the trash.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_millis(500);

/// Removes what has been in the trash for longer than the project's grace, again and again until the daemon stops.
pub async fn empty_trash(core: Arc<Core>, project: Arc<Project>, stop: CancellationToken) {
    loop {
        let (grace, now_ms, there) = (project.space().trash_grace, core.now_ms(), Arc::clone(&project));
        blocking(move || remove_older(&there, now_ms, grace)).await;
        let wait = (grace / 8).clamp(SHORTEST, LONGEST);
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.clock.sleep(wait) => {}
        }
    }
}

fn remove_older(project: &Project, now_ms: u64, grace: Duration) {
    let Some((dir, all)) = listed(project) else { return };
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    for entry in all.into_iter().filter(|entry| now_ms.saturating_sub(entry.came_ms) >= grace_ms) {
        // A clock that is behind: what seems to come from the future has its time still to come.
        if entry.came_ms <= now_ms {
            remove(project, &dir, &entry);
        }
    }
}

/// Removes from the trash what was dropped first; false when nothing that was dropped is in it. Blocks.
pub(super) fn remove_oldest_dropped(project: &Project) -> bool {
    let Some((dir, all)) = listed(project) else { return false };
    let oldest = all.into_iter().find(|entry| entry.cause == Cause::Dropped);
    oldest.is_some_and(|entry| remove(project, &dir, &entry))
}

fn listed(project: &Project) -> Option<(Dir, Vec<TrashEntry>)> {
    let dir = project.dir()?;
    match entries(&dir) {
        Ok(all) => Some((dir, all)),
        Err(error) => {
            tracing::warn!(project = %project.name(), error = %ErrorChain(&error), "the trash cannot be read");
            None
        }
    }
}

fn remove(project: &Project, dir: &Dir, entry: &TrashEntry) -> bool {
    match entry.remove(dir) {
        Ok(()) => {
            tracing::info!(project = %project.name(), manifest = %entry.manifest, "removed from the trash");
            true
        }
        Err(error) => {
            tracing::warn!(project = %project.name(), manifest = %entry.manifest, error = %ErrorChain(&error), "cannot be removed from the trash");
            false
        }
    }
}

/// Takes what an incoming version needs from what was dropped of it, each file verified; returns how many bytes. Blocks.
///
/// # Errors
/// [`IncomingError`] when the disk is full. What cannot be used is fetched instead.
pub fn take_back(
    core: &Core,
    dir: &Dir,
    version: &VersionId,
    incoming: &Incoming,
) -> Result<u64, IncomingError> {
    let mut bytes = 0;
    let all = entries(dir).unwrap_or_default();
    for entry in all.iter().rev().filter(|entry| entry.cause == Cause::Dropped) {
        let is_of_version = matches!(&core.ledger.version_of(entry.manifest), Ok(Some(of)) if of == version);
        let Some(manifest) = core.ledger.manifest(entry.manifest).ok().flatten().filter(|_| is_of_version)
        else {
            continue;
        };
        let Ok(from) = entry.open(dir) else { continue };
        for file in manifest.files() {
            if incoming.need(&file.hash).is_none() {
                continue;
            }
            match incoming.copy_local(&file.hash, &from, &file.path) {
                Ok(LocalCopy::Reflinked { bytes: some } | LocalCopy::Copied { bytes: some }) => bytes += some,
                Ok(LocalCopy::AlreadyHere) => {}
                Err(error) if error.is_no_space() => return Err(error),
                Err(error) => {
                    tracing::debug!(%version, path = %file.path, error = %ErrorChain(&error), "a file in the trash cannot be used");
                }
            }
        }
    }
    Ok(bytes)
}

/// Removes from the trash what is in its place again. Blocks.
pub fn took_back(dir: &Dir, manifest: ManifestId) {
    for entry in entries(dir).unwrap_or_default() {
        if entry.cause == Cause::Dropped
            && entry.manifest == manifest
            && let Err(error) = entry.remove(dir)
        {
            tracing::debug!(%manifest, error = %ErrorChain(&error), "what was restored stays in the trash");
        }
    }
}
