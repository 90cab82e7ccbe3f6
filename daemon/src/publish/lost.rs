//! What this node says that it holds and does not have any more.
//!
//! After each scan of a healthy project, the files of the versions that this node holds are looked for. A version with
//! files missing is recorded as dropped, so that no other node relies on it; nothing is deleted anywhere, and a node that
//! mirrors fetches it again. Files that were there and are all gone at once look like a volume that is not mounted, and
//! then nothing is recorded.

use std::sync::Arc;

use avalon_protocol::{
    control::{EventKind, Health, Severity},
    hash::ManifestId,
    id::VersionId,
    manifest::Manifest,
    record::{Held, Record},
    rel_path::RelPath,
    version_fold::VersionFold,
};
use avalon_store::{catalog::LocalChange, fs::Dir};

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    project::Project,
};

/// How many versions are read from the catalog at a time.
const PAGE: usize = 500;
/// Up to this many versions may be gone at once and are believed; above, half of what is held must still be there.
const BELIEVED: usize = 10;

struct Lost {
    version: VersionId,
    manifest: ManifestId,
    missing: Vec<RelPath>,
}

/// Looks for the files of every version that this node holds in a project, and records which are gone.
pub async fn look(core: &Arc<Core>, project: &Arc<Project>) {
    let Some(dir) = project.dir() else { return };
    let (core_there, project_there) = (Arc::clone(core), Arc::clone(project));
    let (held, lost) = blocking(move || find(&core_there, &project_there, &dir)).await;
    let board = core.health.about(project.name().as_str());
    if lost.len() > BELIEVED && lost.len() * 2 > held {
        board.raise(Health {
            code: MANY_GONE.into(),
            severity: Severity::Error,
            message: format!(
                "{} of {held} versions that this node holds of project {} are gone at once; nothing is recorded",
                lost.len(),
                project.name()
            ),
            hint: Some("is a volume not mounted? when they were removed on purpose, restart avalond with an empty project".into()),
        });
        return;
    }
    board.clear(MANY_GONE);
    for lost in lost {
        drop_one(core, project, lost).await;
    }
}

const MANY_GONE: &str = "many-versions-gone";

/// Looks for the files of one version that somebody wants here: who deleted it and pulls it again does not wait for the
/// next scan. Does nothing while many versions are gone at once.
pub async fn look_at(core: &Arc<Core>, version: &VersionId) {
    let Some(project) = core.project(&version.project).cloned() else { return };
    let Some(dir) = project.dir() else { return };
    if core.health.items().iter().any(|health| health.code == MANY_GONE) {
        return;
    }
    let (core_there, id) = (Arc::clone(core), version.clone());
    let lost = blocking(move || {
        let fold = core_there.ledger.version(&id).ok().flatten().unwrap_or_default();
        lost_of(&core_there, &dir, &id, &fold)
    });
    for lost in lost.await {
        drop_one(core, &project, lost).await;
    }
}

fn find(core: &Core, project: &Project, dir: &Dir) -> (usize, Vec<Lost>) {
    let (mut held_count, mut lost) = (0, Vec::new());
    let mut after: Option<VersionId> = None;
    loop {
        let page = core.ledger.versions(project.name(), None, after.as_ref(), PAGE).unwrap_or_default();
        let Some((last, _)) = page.last() else { return (held_count, lost) };
        after = Some(last.clone());
        for (version, fold) in page {
            held_count += fold.held_by(&core.me).count();
            lost.extend(lost_of(core, dir, &version, &fold));
        }
    }
}

/// Returns what this node says that it holds of one version and does not have.
fn lost_of(core: &Core, dir: &Dir, version: &VersionId, fold: &VersionFold) -> Vec<Lost> {
    let held = fold.held_by(&core.me).filter_map(|manifest| {
        let known = core.ledger.manifest(manifest).ok().flatten()?;
        let missing = missing_files(dir, &known);
        (!missing.is_empty()).then(|| Lost { version: version.clone(), manifest, missing })
    });
    held.collect()
}

fn missing_files(dir: &Dir, manifest: &Manifest) -> Vec<RelPath> {
    let paths = manifest.files().iter().filter_map(|file| manifest.dir().join(&file.path).ok());
    paths.filter(|path| matches!(dir.stat(path), Ok(None))).collect()
}

async fn drop_one(core: &Arc<Core>, project: &Arc<Project>, lost: Lost) {
    let changes = lost
        .missing
        .iter()
        .map(|path| LocalChange::Remove { project: project.name().clone(), path: path.clone() });
    let held = Held { version: lost.version.clone(), manifest: lost.manifest };
    let changes = changes.collect();
    match core.commit(project.name().clone(), vec![Record::Dropped(held)], changes).await {
        Ok(_) => {
            tracing::warn!(version = %lost.version, manifest = %lost.manifest, files = lost.missing.len(), "files are gone from the disk, this node does not hold the version any more");
            core.events.emit(EventKind::Dropped {
                reference: lost.version.to_string(),
                manifest: lost.manifest.to_string(),
            });
        }
        Err(error) => {
            tracing::warn!(version = %lost.version, error = %ErrorChain(&error), "that files are gone cannot be recorded");
        }
    }
}
