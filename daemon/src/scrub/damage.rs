//! What is damaged is not served and not counted on any more, at once, and somebody hears of it. Nothing is removed.

use std::sync::Arc;

use avalon_protocol::{
    control::{DamageKind, EventKind, Health, Severity},
    hash::{ManifestId, ObjectHash},
    id::{NodeId, VersionId},
    manifest::Manifest,
    record::{Held, Record},
    rel_path::RelPath,
    version_fold::{Standing, VersionFold},
};
use avalon_store::{
    catalog::LocalChange,
    fs::{Dir, FileStat},
    ledger::LedgerError,
};

use super::{Target, check::Bad};
use crate::{
    core::{Core, blocking},
    project::Project,
};

/// The health code of files that their disk damaged.
pub const DAMAGED: &str = "damaged";
/// How many files an event names.
const MOST_NAMED: usize = 20;

/// Notes what its disk did to files of a version: the catalog does not know them any more, so nobody is given them for what
/// they held and the next scan reads them, and this node does not say any more that it holds the version. Returns those that are still as they were found.
///
/// # Errors
/// [`LedgerError`]; what was noted before stays.
pub(super) async fn note(core: &Arc<Core>, target: &Target, bad: Vec<Bad>) -> Result<Vec<Bad>, LedgerError> {
    let _lock = target.project.lock_version(target.manifest.dir()).await;
    note_locked(core, target, bad).await
}

/// A file with the size and the time that it was published with, and other bytes.
#[derive(Debug, Clone)]
pub struct Rotten {
    /// Where it lies, relative to the project.
    pub path: RelPath,
    /// What it should hold.
    pub object: ObjectHash,
    /// What the system said of it.
    pub stat: FileStat,
}

/// Notes what was found by who reads for another reason, with the version's lock held; it is fetched again as what is found by itself.
///
/// # Errors
/// [`LedgerError`]; what was noted before stays.
pub async fn note_rotten(
    core: &Arc<Core>,
    project: &Arc<Project>,
    manifest: Arc<Manifest>,
    rotten: Vec<Rotten>,
) -> Result<(), LedgerError> {
    let bad = rotten.into_iter().map(|Rotten { path, object, stat }| Bad {
        path,
        object,
        damage: DamageKind::Rot,
        detail: "other bytes than were published".to_owned(),
        stat: Some(stat),
        is_lost: true,
    });
    let target = Target { version: manifest.version().clone(), manifest, project: Arc::clone(project) };
    let noted = note_locked(core, &target, bad.collect()).await?;
    ask_for(core, &target.version, &noted).await;
    Ok(())
}

/// Asks for what was noted to be fetched again, also after a restart.
pub(super) async fn ask_for(core: &Arc<Core>, version: &VersionId, noted: &[Bad]) {
    if noted.is_empty() {
        return;
    }
    let (core, version) = (Arc::clone(core), version.clone());
    let paths: Vec<RelPath> = noted.iter().map(|bad| bad.path.clone()).collect();
    blocking(move || core.damaged.ask_for(&version, paths.iter())).await;
}

/// As [`note`], for who holds the version's lock.
async fn note_locked(core: &Arc<Core>, target: &Target, bad: Vec<Bad>) -> Result<Vec<Bad>, LedgerError> {
    let Target { version, manifest, project } = target;
    let Some(dir) = project.dir() else { return Ok(Vec::new()) };
    let project_there = Arc::clone(project);
    let still = blocking(move || still_so(&project_there, &dir, bad)).await;
    if still.is_empty() {
        return Ok(still);
    }
    let found = still.iter().filter_map(|bad| Some((bad.path.clone(), bad.stat?.identity())));
    let (core_there, name, found) = (Arc::clone(core), project.name().clone(), found.collect::<Vec<_>>());
    // First, or what is read of them next would be somebody's work.
    blocking(move || core_there.damaged.add(&name, found.into_iter())).await;
    let forget = |bad: &Bad| LocalChange::Remove { project: project.name().clone(), path: bad.path.clone() };
    let changes = still.iter().map(forget).collect();
    let ledger = core.ledger.clone();
    // From here on it is not served.
    blocking(move || ledger.update_local_wait(changes)).await?;
    let (core_there, id, lost) = (Arc::clone(core), version.clone(), still.clone());
    let gone = blocking(move || held_with(&core_there, &id, &lost)).await?;
    if !gone.is_empty() {
        let dropped =
            |manifest: &ManifestId| Record::Dropped(Held { version: version.clone(), manifest: *manifest });
        core.commit(version.project.clone(), gone.iter().map(dropped).collect(), Vec::new()).await?;
    }
    tracing::error!(%version, files = still.len(), first = %still.first().map_or("", |bad| bad.path.as_str()), "files are damaged on this node's disk");
    for manifest in &gone {
        core.events.emit(EventKind::Dropped {
            reference: version.to_string(),
            manifest: manifest.to_string(),
            by: None,
            bytes: None,
        });
    }
    let paths: Vec<RelPath> = still.iter().map(|bad| bad.path.clone()).collect();
    core.events.emit(EventKind::Damaged {
        reference: version.to_string(),
        manifest: manifest.id().to_string(),
        files: paths.iter().take(MOST_NAMED).map(ToString::to_string).collect(),
    });
    let (core_there, version) = (Arc::clone(core), version.clone());
    blocking(move || tell_damaged(&core_there, &version, &paths)).await;
    Ok(still)
}

/// Somebody may have put a good one there meanwhile. Blocks.
fn still_so(project: &Project, dir: &Dir, bad: Vec<Bad>) -> Vec<Bad> {
    if !project.is_current() {
        return Vec::new();
    }
    let is_so = |bad: &Bad| {
        let now = dir.stat(&bad.path).ok().flatten();
        now.map(|stat| stat.identity()) == bad.stat.map(|stat| stat.identity())
    };
    bad.into_iter().filter(is_so).collect()
}

/// Returns what this node says that it holds of a version and that has one of these files. Blocks.
fn held_with(core: &Core, version: &VersionId, bad: &[Bad]) -> Result<Vec<ManifestId>, LedgerError> {
    let fold = core.ledger.version(version).map_err(|source| LedgerError::Catalog { source })?;
    let fold = fold.unwrap_or_default();
    let has_one = |id: &ManifestId| {
        let manifest = core.ledger.manifest(*id).ok().flatten();
        manifest.is_none_or(|manifest| bad.iter().any(|bad| names(&manifest, bad)))
    };
    Ok(fold.held_by(&core.me).filter(has_one).collect())
}

fn names(manifest: &Manifest, bad: &Bad) -> bool {
    let mut files = manifest.files().iter().filter(|file| file.hash == bad.object);
    files.any(|file| manifest.dir().join(&file.path).is_ok_and(|path| path == bad.path))
}

/// Returns who else says that it has what stands for a version.
pub(super) fn others(core: &Core, version: &VersionId, fold: &VersionFold) -> Vec<NodeId> {
    let Standing::Head(head) = fold.standing(version.slot) else { return Vec::new() };
    fold.holders(&head).into_iter().filter(|node| *node != core.me).collect()
}

/// Tells people that files of a version are damaged here, and what helps. Blocks.
pub fn tell_damaged(core: &Core, version: &VersionId, files: &[RelPath]) {
    let fold = core.ledger.version(version).ok().flatten().unwrap_or_default();
    let first = files.first().map_or("unknown", RelPath::as_str);
    let (count, are) = match files.len() {
        1 => ("a file".to_owned(), "is"),
        more => (format!("{more} files"), "are"),
    };
    let hint = match others(core, version, &fold).as_slice() {
        [] => format!(
            "no other node is known to have it: put the file back from a backup, or let what is there be the next generation: \
             avalonctl accept {version}; the file stays as it is until then"
        ),
        [one, ..] => format!(
            "{one} has it: avalonctl verify {version} --repair fetches it again and keeps the damaged file in the trash; \
             check the disk of this node"
        ),
    };
    core.health.about(&version.to_string()).raise(Health {
        code: DAMAGED.into(),
        severity: Severity::Error,
        message: format!(
            "{count} of {version} {are} damaged on this node's disk, the first is {first}; this node does not serve or count \
             it any more"
        ),
        hint: Some(hint),
    });
}
