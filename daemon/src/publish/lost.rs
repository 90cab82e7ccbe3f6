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

fn find(core: &Core, project: &Project, dir: &Dir) -> (usize, Vec<Lost>) {
    let (mut held_count, mut lost) = (0, Vec::new());
    let mut after: Option<VersionId> = None;
    loop {
        let page = core.ledger.versions(project.name(), None, after.as_ref(), PAGE).unwrap_or_default();
        let Some((last, _)) = page.last() else { return (held_count, lost) };
        after = Some(last.clone());
        for (version, fold) in page {
            for manifest in fold.held_by(&core.me) {
                held_count += 1;
                let Ok(Some(known)) = core.ledger.manifest(manifest) else { continue };
                let missing = missing_files(dir, &known);
                if !missing.is_empty() {
                    lost.push(Lost { version: version.clone(), manifest, missing });
                }
            }
        }
    }
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
