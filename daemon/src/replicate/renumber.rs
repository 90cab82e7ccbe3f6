//! A version that lost its number when a conflict was resolved gets its new one at this node.
//!
//! What is to be done follows from the records and from what lies on disk, never from memory: after a crash at any step it is
//! found and done again. Order: manifests durable, then the directory renamed and synced, then one group of records that says
//! that the old number is not held any more and the new one is.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    control::{EventKind, Health, Severity},
    hash::ManifestId,
    id::{VersionId, VersionSlot},
    manifest::{Manifest, Renumbered, renumber as renumbered},
    record::{Held, Record},
    rel_path::RelPath,
    version_fold::{Move, VersionFold},
};
use avalon_store::{
    catalog::{CatalogError, LocalChange, LocalFile},
    fs::FileStat,
    ledger::LedgerError,
    manifest_file::ManifestFileError,
    place::{PlacedFile, RenumberFailed, renumber},
};
use thiserror::Error;

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    project::Project,
    publish::record::published,
};

/// The health code of a version that cannot get its new number here.
pub const RENUMBER_BLOCKED: &str = "renumber-blocked";

/// How many decisions about the number that it got, and the next one, are looked at.
const MAX_FURTHER: usize = 16;

/// Why a version did not get its new number.
#[derive(Debug, Error)]
enum Failed {
    /// Its files are not as they were published, or gone: what lies there is found out first.
    #[error("files of {version} are not as they were published")]
    NotHeld {
        /// The version.
        version: VersionId,
    },
    /// Its manifest, or one before it, has not come, or no template makes its directory.
    #[error("{0}")]
    Unknown(String),
    /// The project is paused.
    #[error("project {project} is paused, or another directory lies in its place")]
    Paused {
        /// The project.
        project: avalon_protocol::id::ProjectName,
    },
    #[error("it cannot be renamed")]
    Rename(#[source] RenumberFailed),
    #[error("its manifest cannot be stored")]
    Manifest(#[source] ManifestFileError),
    #[error("it cannot be recorded")]
    Ledger(#[source] LedgerError),
    #[error("what is known of it cannot be read")]
    Catalog(#[source] CatalogError),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is done, or nothing is to be done any more.
    Done,
    /// It is tried again after a while.
    Later,
}

/// Gives what this node holds of a version its new number, if it lost the old one.
pub async fn run(core: &Arc<Core>, version: &VersionId) -> Ended {
    let Some(project) = core.project(&version.project) else { return Ended::Done };
    let board = core.health.about(&version.to_string());
    match give_number(core, project, version).await {
        Ok(()) => {
            board.clear(RENUMBER_BLOCKED);
            Ended::Done
        }
        Err(error @ (Failed::NotHeld { .. } | Failed::Paused { .. })) => {
            tracing::info!(%version, error = %ErrorChain(&error), "a version does not get its new number yet");
            Ended::Later
        }
        Err(error) => {
            let why = ErrorChain(&error).to_string();
            tracing::warn!(%version, error = why, "a version cannot get its new number");
            board.raise(Health {
                code: RENUMBER_BLOCKED.into(),
                severity: Severity::Error,
                message: format!(
                    "{version} lost its number when a conflict was resolved, and stays where it is: {why}"
                ),
                hint: Some("move what is in the way aside; it is tried again every minute".into()),
            });
            Ended::Later
        }
    }
}

async fn give_number(core: &Arc<Core>, project: &Arc<Project>, version: &VersionId) -> Result<(), Failed> {
    let mut given = give(core, project, version, 0).await;
    // Its new number may have been given to something else since, with a next one for it.
    for further in 1..=MAX_FURTHER {
        if !matches!(given, Err(Failed::Rename(RenumberFailed::Taken { .. }) | Failed::NotHeld { .. }))
            || planned(core, project, version, further).await?.is_none()
        {
            break;
        }
        given = give(core, project, version, further).await;
    }
    given
}

async fn give(
    core: &Arc<Core>,
    project: &Arc<Project>,
    version: &VersionId,
    further: usize,
) -> Result<(), Failed> {
    let Some((old, new)) = planned(core, project, version, further).await? else { return Ok(()) };
    // In one order, whoever locks two.
    let (first, second) = match old.dir() < new.manifest.dir() {
        true => (old.dir(), new.manifest.dir()),
        false => (new.manifest.dir(), old.dir()),
    };
    let _first = project.lock_version(first).await;
    let _second = project.lock_version(second).await;
    match planned(core, project, version, further).await? {
        Some((again, becomes)) if again.id() == old.id() && becomes.manifest.id() == new.manifest.id() => {}
        _ => return Ok(()),
    }
    let dir = project.dir().ok_or_else(|| Failed::Paused { project: project.name().clone() })?;
    let (core_there, project_there) = (Arc::clone(core), Arc::clone(project));
    let (old_there, new_there) = (old.clone(), new.clone());
    let renamed = blocking(move || {
        if !project_there.is_current() {
            return Err(Failed::Paused { project: project_there.name().clone() });
        }
        core_there.ledger.put_manifest(&new_there.manifest).map_err(Failed::Manifest)?;
        let known = |path: &RelPath, stat: &FileStat| {
            let file = core_there.ledger.local_file(project_there.name(), path).ok().flatten()?;
            (file.identity() == stat.identity()).then_some(file.hash)
        };
        core_there.hasher.run(|| renumber(&dir, &old_there, &new_there, &known)).map_err(
            |error| match error {
                RenumberFailed::Changed { .. } | RenumberFailed::Gone { .. } => {
                    Failed::NotHeld { version: old_there.version().clone() }
                }
                error => Failed::Rename(error),
            },
        )
    });
    let files = renamed.await?;
    record(core, version, &old, &new, &files).await
}

/// Says what is to be done: the manifest that is held, and what it becomes. With `further`, what became of that by so many
/// decisions about the numbers that it got; nothing when there are not so many. Asked again under the version's lock.
async fn planned(
    core: &Arc<Core>,
    project: &Arc<Project>,
    version: &VersionId,
    further: usize,
) -> Result<Option<(Manifest, Renumbered)>, Failed> {
    let (core, project, version) = (Arc::clone(core), Arc::clone(project), version.clone());
    blocking(move || {
        let fold = core.ledger.version(&version).map_err(Failed::Catalog)?.unwrap_or_default();
        let Some(Move { manifest, number }) = fold.to_move(version.slot, &core.me) else { return Ok(None) };
        let missing = || Failed::Unknown(format!("the manifest of {version} has not come here yet"));
        let mut chain = vec![core.ledger.manifest(manifest).ok().flatten().ok_or_else(missing)?];
        // The new ones name each other as the old ones do; how long a chain can be is limited by what was published.
        while let Some(before) = chain.last().and_then(|last| last.draft().predecessor)
            && chain.len() <= fold.generations().len()
        {
            chain.push(core.ledger.manifest(before).ok().flatten().ok_or_else(missing)?);
        }
        let Some(held) = chain.first().cloned() else { return Ok(None) };
        let (mut chain, mut becomes) = under(chain, number, &project)?;
        for _ in 0..further {
            let at = becomes.manifest.version().clone();
            let fold = core.ledger.version(&at).map_err(Failed::Catalog)?.unwrap_or_default();
            let Some(number) = fold.moved_to(at.slot, becomes.manifest.id()) else { return Ok(None) };
            let (next_chain, next) = under(chain, number, &project)?;
            let names: BTreeMap<RelPath, RelPath> = next.files.into_iter().collect();
            let to = |path: RelPath| names.get(&path).cloned().unwrap_or(path);
            let files = becomes.files.into_iter().map(|(from, path)| (from, to(path))).collect();
            (chain, becomes) = (next_chain, Renumbered { manifest: next.manifest, files });
        }
        Ok(Some((held, becomes)))
    })
    .await
}

/// Gives a number to a generation and all before it, the newest first; returns them under it, and the newest with the names
/// of its files.
fn under(
    chain: Vec<Manifest>,
    number: u32,
    project: &Project,
) -> Result<(Vec<Manifest>, Renumbered), Failed> {
    let mut new: Vec<Manifest> = Vec::with_capacity(chain.len());
    let mut last: Option<Renumbered> = None;
    for old in chain.iter().rev() {
        let before = last.as_ref().map(|last| last.manifest.id());
        let next = renumbered(old, number, before, project.templates());
        let next = next.map_err(|error| Failed::Unknown(ErrorChain(&error).to_string()))?;
        new.push(next.manifest.clone());
        last = Some(next);
    }
    new.reverse();
    let last = last.ok_or_else(|| Failed::Unknown("there is nothing to rename".to_owned()))?;
    Ok((new, last))
}

async fn record(
    core: &Arc<Core>,
    version: &VersionId,
    old: &Manifest,
    new: &Renumbered,
    files: &[PlacedFile],
) -> Result<(), Failed> {
    let (ledger, id) = (core.ledger.clone(), version.clone());
    let fold = blocking(move || ledger.version(&id)).await;
    let fold: VersionFold = fold.map_err(Failed::Catalog)?.unwrap_or_default();
    let held: Vec<ManifestId> = fold.held_by(&core.me).collect();
    let dropped = |manifest| Record::Dropped(Held { version: version.clone(), manifest });
    let records =
        held.into_iter().map(dropped).chain([Record::Published(published(&new.manifest))]).collect();
    let project = || version.project.clone();
    let gone = old.files().iter().filter_map(|file| old.dir().join(&file.path).ok());
    let gone = gone.map(|path| LocalChange::Remove { project: project(), path });
    let here = files.iter().map(|file| LocalChange::Put {
        project: project(),
        path: file.path.clone(),
        file: LocalFile::new(file.object, &file.stat, new.manifest.id()),
    });
    let committed = core.commit(project(), records, gone.chain(here).collect()).await;
    committed.map_err(Failed::Ledger)?;
    let draft = new.manifest.draft();
    let becomes = VersionId { slot: draft.version.slot, ..version.clone() };
    tracing::info!(%version, %becomes, manifest = %new.manifest.id(), "a version got a new number");
    core.events.emit(EventKind::Dropped {
        reference: version.to_string(),
        manifest: old.id().to_string(),
        by: None,
        bytes: None,
    });
    core.events.emit(EventKind::Published {
        reference: becomes.to_string(),
        manifest: new.manifest.id().to_string(),
        generation: draft.generation,
        files: new.manifest.files().len() as u64,
        bytes: new.manifest.total_bytes(),
        author: draft.author.clone(),
        completeness: format!("{:?}", draft.completeness).to_lowercase(),
    });
    debug_assert!(matches!(becomes.slot, VersionSlot::Number(_)), "a hero has no conflicts");
    Ok(())
}
