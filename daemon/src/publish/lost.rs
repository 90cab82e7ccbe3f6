//! What this node says that it holds and does not have any more.
//!
//! After each scan of a healthy project, the files of the versions that this node holds are looked for. A version with
//! files missing is recorded as dropped, so that no other node relies on it; nothing is deleted anywhere, and a node that
//! mirrors fetches it again. Versions that were there and are gone at once look like a volume that is not mounted, and
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
use tokio_util::sync::CancellationToken;

use super::{record::grows_here, settle::SettlerHandle};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    project::{Doubted, Project, RootIdentity},
};

/// How many versions are read from the catalog at a time.
const PAGE: usize = 500;
/// The daemon's own directory in a project, which says nothing about whether the project is there.
const OWN_DIR: &str = ".avalon";

/// A version that this node says it holds, with files that are not there.
struct Lost {
    version: VersionId,
    manifest: ManifestId,
    dir: RelPath,
    missing: Vec<RelPath>,
    /// Whether not one of its files is there.
    is_gone: bool,
}

/// What a look found.
struct Found {
    held: usize,
    lost: Vec<Lost>,
    is_empty: bool,
    /// Versions that this node published while somebody was at work: that nobody is any more may have gone unnoticed.
    growing: Vec<RelPath>,
}

impl Found {
    fn gone(&self) -> usize {
        self.lost.iter().filter(|lost| lost.is_gone).count()
    }
}

/// What one look leaves for the next one of the same project.
#[derive(Debug, Default)]
pub struct LastLook {
    /// The directory that was looked at.
    root: Option<RootIdentity>,
    /// How many versions were held when it was first not believed that some are gone. Those that come meanwhile, to where
    /// a volume may be missing, make it no likelier.
    doubted_of: Option<usize>,
}

/// Why versions that seem to be gone are not believed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// Most of what is held is gone.
    Most,
    /// There is nothing in the project directory.
    Empty,
    /// Another directory lies there than at the last look.
    Replaced,
}

/// Returns what speaks against that files were deleted on purpose which are not there.
fn doubt(found: &Found, is_replaced: bool, doubted_of: Option<usize>) -> Option<Doubt> {
    let held = doubted_of.map_or(found.held, |held| held.min(found.held));
    if found.lost.is_empty() {
        None
    } else if found.is_empty {
        Some(Doubt::Empty)
    } else if is_replaced {
        Some(Doubt::Replaced)
    } else if (held >= 2 || doubted_of.is_some()) && found.gone() * 2 > held {
        Some(Doubt::Most)
    } else {
        None
    }
}

/// Looks for the files of every version that this node holds in a project, and records which are gone.
/// The settler hears of each: when the files come back, they are to be noticed.
pub async fn look(
    core: &Arc<Core>,
    (project, settler): (&Arc<Project>, &SettlerHandle),
    last: &mut LastLook,
    stop: &CancellationToken,
) {
    let Some((dir, now)) = project.dir().zip(project.identity()) else { return };
    let (core_there, project_there, stop) = (Arc::clone(core), Arc::clone(project), stop.clone());
    let found = blocking(move || find(&core_there, &project_there, &dir, &stop)).await;
    // Without an answer about all of it, nothing is known; the next scan looks again.
    let Some(found) = found else { return };
    let is_replaced = last.root.replace(now).is_some_and(|before| before != now);
    let board = core.health.about(project.name().as_str());
    if let Some(doubt) = doubt(&found, is_replaced, last.doubted_of) {
        last.doubted_of.get_or_insert(found.held);
        board.raise(many_gone(project, &found, doubt));
        project.set_doubted(Doubted::Yes);
        return;
    }
    last.doubted_of = None;
    board.clear(MANY_GONE);
    project.set_doubted(Doubted::No);
    for lost in found.lost {
        drop_one(core, (project, settler), lost).await;
    }
    for dir in found.growing {
        settler.reconsider(dir).await.ok();
    }
}

const MANY_GONE: &str = "many-versions-gone";

fn many_gone(project: &Project, found: &Found, doubt: Doubt) -> Health {
    let (name, path) = (project.name(), project.path().display());
    let (why, hint) = match doubt {
        Doubt::Most => (
            "",
            "is a volume not mounted? if they were removed on purpose, avalonctl pull fetches one again"
                .to_owned(),
        ),
        Doubt::Empty => (
            " and the project directory is empty",
            format!(
                "is a volume not mounted at {path}? if they were removed on purpose, make any directory in it, and \
                 avalonctl pull fetches one again"
            ),
        ),
        Doubt::Replaced => (
            " and another directory lies in its place",
            format!(
                "is the right volume mounted at {path}? if so, avalonctl pull fetches one again; the next scan looks \
                 once more"
            ),
        ),
    };
    Health {
        code: MANY_GONE.into(),
        severity: Severity::Error,
        message: format!(
            "{} of {} versions that this node holds of project {name} are gone at once{why}; nothing is recorded",
            found.lost.len(),
            found.held,
        ),
        hint: Some(hint),
    }
}

/// Looks for the files of one version that somebody wants here: who deleted it and pulls it again does not wait for the
/// next scan, and somebody who asks for one is believed that it is gone. Does nothing while the project directory is
/// empty: it would be fetched to where a volume belongs.
pub async fn look_at(core: &Arc<Core>, settler: &SettlerHandle, version: &VersionId) {
    let Some(project) = core.project(&version.project).cloned() else { return };
    let Some(dir) = project.dir() else { return };
    let (core_there, project_there, id) = (Arc::clone(core), Arc::clone(&project), version.clone());
    let lost = blocking(move || {
        if is_empty(&dir) || !project_there.is_current() {
            return Vec::new();
        }
        let fold = core_there.ledger.version(&id).ok().flatten().unwrap_or_default();
        lost_of(&core_there, &dir, &id, &fold)
    });
    for lost in lost.await {
        drop_one(core, (&project, settler), lost).await;
    }
}

/// Blocks. `None` when it is stopped, the catalog cannot be read, or the directory is not that of the project any more.
fn find(core: &Core, project: &Project, dir: &Dir, stop: &CancellationToken) -> Option<Found> {
    let (mut held, mut lost, mut growing) = (0, Vec::new(), Vec::new());
    let mut after: Option<VersionId> = None;
    loop {
        let page = core.ledger.versions(project.name(), None, after.as_ref(), PAGE).ok()?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (version, fold) in page {
            if stop.is_cancelled() {
                return None;
            }
            held += fold.held_by(&core.me).count();
            lost.extend(lost_of(core, dir, &version, &fold));
            growing.extend(grows_here(core, &version, &fold));
        }
    }
    let dirs = growing.into_iter().filter_map(|id| Some(core.ledger.manifest(id).ok()??.dir().clone()));
    let growing = dirs.collect();
    project.is_current().then(|| Found { held, lost, is_empty: is_empty(dir), growing })
}

/// Says whether nothing lies in a project directory but what is ours. One that cannot be read counts as empty.
fn is_empty(dir: &Dir) -> bool {
    dir.list(None).map_or(true, |entries| entries.iter().all(|entry| entry.display_name() == OWN_DIR))
}

/// Returns what this node says that it holds of one version and does not have.
fn lost_of(core: &Core, dir: &Dir, version: &VersionId, fold: &VersionFold) -> Vec<Lost> {
    let held = fold.held_by(&core.me).filter_map(|manifest| {
        let known = core.ledger.manifest(manifest).ok().flatten()?;
        let missing = missing_files(dir, &known);
        let is_gone = missing.len() == known.files().len();
        let version_dir = known.dir().clone();
        (!missing.is_empty()).then(|| Lost {
            version: version.clone(),
            manifest,
            dir: version_dir,
            missing,
            is_gone,
        })
    });
    held.collect()
}

fn missing_files(dir: &Dir, manifest: &Manifest) -> Vec<RelPath> {
    let paths = manifest.files().iter().filter_map(|file| manifest.dir().join(&file.path).ok());
    paths.filter(|path| matches!(dir.stat(path), Ok(None))).collect()
}

/// Records that a version is not held any more, if that is still so when nobody publishes or places it.
async fn drop_one(core: &Arc<Core>, (project, settler): (&Arc<Project>, &SettlerHandle), lost: Lost) {
    let _lock = project.lock_version(&lost.dir).await;
    let Some(dir) = project.dir() else { return };
    let (core_there, project_there) = (Arc::clone(core), Arc::clone(project));
    let again = blocking(move || {
        let fold = core_there.ledger.version(&lost.version).ok().flatten()?;
        let now = lost_of(&core_there, &dir, &lost.version, &fold);
        now.into_iter().find(|now| now.manifest == lost.manifest).filter(|_| project_there.is_current())
    });
    let Some(lost) = again.await else { return };
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
                by: None,
                bytes: None,
            });
            // It ends only when the daemon does.
            settler.reconsider(lost.dir).await.ok();
        }
        Err(error) => {
            tracing::warn!(version = %lost.version, error = %ErrorChain(&error), "that files are gone cannot be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::id::VersionSlot;

    use super::*;

    /// `gone` versions of which nothing is there, and `torn` that lack a file.
    fn found(held: usize, gone: usize, torn: usize) -> Found {
        let lost = |is_gone| Lost {
            version: VersionId {
                project: "lantern".parse().unwrap(),
                asset: "robot".parse().unwrap(),
                subset: "model".parse().unwrap(),
                slot: VersionSlot::Hero,
            },
            manifest: ManifestId::from_bytes([7; 32]),
            dir: "robot/model/v001".parse().unwrap(),
            missing: Vec::new(),
            is_gone,
        };
        let lost = (0..gone).map(|_| lost(true)).chain((0..torn).map(|_| lost(false))).collect();
        Found { held, lost, is_empty: false, growing: Vec::new() }
    }

    #[test]
    fn more_than_half_at_once_is_never_believed() {
        for (held, gone) in [(2, 2), (3, 2), (30, 30), (1000, 501)] {
            assert_eq!(doubt(&found(held, gone, 0), false, None), Some(Doubt::Most), "{gone} of {held}");
        }
        for (held, gone) in [(5, 0), (1, 1), (2, 1), (30, 15), (1000, 500)] {
            assert_eq!(doubt(&found(held, gone, 0), false, None), None, "{gone} of {held}");
        }
    }

    #[test]
    fn what_comes_meanwhile_makes_it_no_likelier() {
        assert_eq!(doubt(&found(4, 2, 0), false, Some(2)), Some(Doubt::Most), "two of two, and two came");
        assert_eq!(doubt(&found(2, 1, 0), false, Some(1)), Some(Doubt::Most), "the only one, and one came");
        assert_eq!(doubt(&found(4, 1, 0), false, Some(2)), None, "one of them was pulled");
    }

    #[test]
    fn a_version_of_which_something_is_left_does_not_look_unmounted() {
        assert_eq!(doubt(&found(3, 0, 3), false, None), None);
        assert_eq!(doubt(&found(3, 2, 1), false, None), Some(Doubt::Most));
    }

    #[test]
    fn an_empty_directory_is_never_believed_not_even_with_one_version() {
        for held in [1, 2, 30] {
            assert_eq!(
                doubt(&Found { is_empty: true, ..found(held, held, 0) }, false, None),
                Some(Doubt::Empty)
            );
        }
        assert_eq!(doubt(&Found { is_empty: true, ..found(0, 0, 0) }, false, None), None, "a new project");
    }

    #[test]
    fn another_directory_is_not_believed_when_anything_is_missing() {
        assert_eq!(doubt(&found(100, 1, 0), true, None), Some(Doubt::Replaced));
        assert_eq!(doubt(&found(100, 0, 1), true, None), Some(Doubt::Replaced));
        assert_eq!(doubt(&found(100, 0, 0), true, None), None);
    }

    #[test]
    fn the_daemons_own_directory_does_not_count_as_something() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        assert!(is_empty(&dir));
        std::fs::create_dir(temp.path().join(OWN_DIR)).unwrap();
        assert!(is_empty(&dir));
        std::fs::create_dir(temp.path().join("prod")).unwrap();
        assert!(!is_empty(&dir));
    }
}
