//! Stage 3: the files of a whole version get their names. Previous: [`super::settle`]. Next: [`super::manifest`].
//!
//! A file that the catalog knows unchanged (size, times and inode) is not read again. A file that changes while it is read
//! makes the version unsettled again; nothing of it is used.

use std::sync::Arc;

use avalon_protocol::{hash::ObjectHash, id::ProjectName, rel_path::RelPath, settle::SeenFile};
use avalon_store::{
    fs::{Dir, FileStat, IoError},
    object::hash::HashError,
};
use thiserror::Error;

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    project::Project,
};

/// One file of a version with its name.
#[derive(Debug, Clone)]
pub struct NamedFile {
    /// Where it lies, relative to the version directory.
    pub inside: RelPath,
    /// Where it lies, relative to the project.
    pub path: RelPath,
    /// What it holds.
    pub object: ObjectHash,
    /// What the file system said of it before and after it was read.
    pub stat: FileStat,
    /// Whether it was read now; else the catalog knew it.
    pub is_fresh: bool,
}

/// Why a version was not hashed.
#[derive(Debug, Error)]
pub enum HashVersionError {
    /// A file changed, came or went meanwhile: settle again.
    #[error("{path} changed while it was hashed; the version is looked at again when it is quiet")]
    Changed {
        /// The file, relative to the project.
        path: RelPath,
    },
    /// A file cannot be read.
    #[error("a file cannot be hashed")]
    Read(#[source] HashError),
    /// The files cannot be made durable; nothing is recorded.
    #[error("the files cannot be made durable; check the disk")]
    Sync(#[source] IoError),
    /// What the disk has of a file is not what was read before it could not be made durable.
    #[error("the disk did not take what was written to {path}, and has other bytes now; write it again")]
    Lost {
        /// The file, relative to the project.
        path: RelPath,
    },
    /// A path is too long in its place.
    #[error("a file of the version has a path that cannot be used")]
    Path(#[source] avalon_protocol::rel_path::InvalidPath),
}

/// Names the files of the version directory `dir`, in the order of `files`.
///
/// # Errors
/// [`HashVersionError`]; nothing is half done.
pub async fn hash(
    core: &Arc<Core>,
    project: &Arc<Project>,
    root: &Dir,
    dir: &RelPath,
    files: &[SeenFile],
) -> Result<Vec<NamedFile>, HashVersionError> {
    let paths = files.iter().map(|file| dir.join(&file.path)).collect::<Result<Vec<_>, _>>();
    let paths = paths.map_err(HashVersionError::Path)?;
    let (core_there, name, root_there) = (Arc::clone(core), project.name().clone(), root.clone());
    let named = blocking(move || name_all(&core_there, &name, &root_there, &paths)).await?;
    let inside = files.iter().map(|file| file.path.clone());
    let named: Vec<NamedFile> = inside
        .zip(named)
        .map(|(inside, (path, object, stat, is_fresh))| NamedFile { inside, path, object, stat, is_fresh })
        .collect();
    make_durable(core, project, root, &named).await?;
    // What was seen whole must be what was hashed.
    for (seen, named) in files.iter().zip(&named) {
        if (seen.size, seen.mtime_ns, seen.inode) != (named.stat.size, named.stat.mtime_ns, named.stat.inode)
        {
            return Err(HashVersionError::Changed { path: named.path.clone() });
        }
    }
    Ok(named)
}

/// Whoever published may not have synced: what a record says must survive a power cut. Files that the catalog knows were
/// synced when it learned of them. Of files whose sync fails is noted what was read: the next time they have to be the same.
async fn make_durable(
    core: &Arc<Core>,
    project: &Project,
    root: &Dir,
    named: &[NamedFile],
) -> Result<(), HashVersionError> {
    let (core, root) = (Arc::clone(core), root.clone());
    let fresh: Vec<&NamedFile> = named.iter().filter(|file| file.is_fresh).collect();
    if fresh.is_empty() {
        return Ok(());
    }
    if let Some(lost) = fresh.iter().find(|file| project.unsynced().has_lost(file)) {
        return Err(HashVersionError::Lost { path: lost.path.clone() });
    }
    let paths: Vec<RelPath> = fresh.iter().map(|file| file.path.clone()).collect();
    let synced = blocking(move || core.hasher.run(|| root.sync_files(&paths))).await;
    match synced {
        Ok(()) => project.unsynced().forget(fresh.iter().map(|file| &file.path)),
        Err(_) => project.unsynced().note(fresh),
    }
    synced.map_err(HashVersionError::Sync)
}

type Named = (RelPath, ObjectHash, FileStat, bool);

fn name_all(
    core: &Core,
    project: &ProjectName,
    root: &Dir,
    paths: &[RelPath],
) -> Result<Vec<Named>, HashVersionError> {
    let known: Vec<Option<Named>> = paths.iter().map(|path| known_file(core, project, root, path)).collect();
    let unknown: Vec<RelPath> =
        paths.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(path, _)| path.clone()).collect();
    let hashed = core.hasher.hash_files(root, &unknown, &|_| {});
    let mut hashed = hashed.into_iter();
    let mut all = Vec::with_capacity(paths.len());
    for (path, known) in paths.iter().zip(known) {
        match known {
            Some(known) => all.push(known),
            None => match hashed.next() {
                Some(Ok(file)) => {
                    // Peers ask for the block list; without this the file would be read once more then.
                    if let Err(error) = core.blocks.put(&file.blocks) {
                        tracing::debug!(%path, error = %ErrorChain(&error), "a block list is not kept");
                    }
                    all.push((path.clone(), file.object(), file.stat, true));
                }
                Some(Err(HashError::Changed { path })) => return Err(HashVersionError::Changed { path }),
                Some(Err(error)) if error.is_not_found() => {
                    return Err(HashVersionError::Changed { path: path.clone() });
                }
                Some(Err(error)) => return Err(HashVersionError::Read(error)),
                None => return Err(HashVersionError::Changed { path: path.clone() }),
            },
        }
    }
    Ok(all)
}

fn known_file(core: &Core, project: &ProjectName, root: &Dir, path: &RelPath) -> Option<Named> {
    let file = core.ledger.local_file(project, path).ok().flatten()?;
    let stat = root.stat(path).ok().flatten()?;
    (file.identity() == stat.identity()).then(|| (path.clone(), file.hash, stat, false))
}
