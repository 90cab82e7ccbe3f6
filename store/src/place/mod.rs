//! Placing: a verified version becomes visible, whole or, where its directory exists, file by file with the entries last.
//!
//! Nothing that is there is ever overwritten with other content, unless [`Replaces`] says so: for `hero`, for a generation
//! that was accepted over another one, and when somebody wants back what stands. The old files go to the trash then. What the caller gets, a [`Placement`], is the ground for the record that this node holds it.

mod check;
mod files;
mod renumber;
mod whole;

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    hash::ObjectHash,
    id::ProjectName,
    manifest::{FileEntry, Manifest},
    rel_path::RelPath,
};
use rayon::prelude::*;
use thiserror::Error;

pub use self::renumber::{KnownObject, RenumberFailed, renumber};
use self::whole::Whole;
use crate::{
    fs::{Dir, FileIdentity, FileKind, FileStat, IoError, path_of},
    object::{
        hash::HashError,
        incoming::{UnsyncedFile, VerifiedFile, VerifiedVersion, area_path},
    },
};

/// Whether placed files stay writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadOnly {
    /// As the umask says.
    #[default]
    Keep,
    /// Nobody may write them; against saving over a published file by mistake.
    Set,
}

/// How to place.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlaceOptions<'a> {
    /// Whether the files stay writable.
    pub read_only: ReadOnly,
    /// What may be replaced.
    pub replaces: Replaces<'a>,
    /// Files, by their paths in the project, that are damaged copies and are replaced besides as long as they are exactly these: nobody
    /// wrote them. They go to the trash like all that is replaced.
    pub damaged: Option<&'a BTreeMap<RelPath, FileIdentity>>,
}

/// Which other content may lie where a file of the version belongs. It goes to the trash and is never lost; files that no
/// manifest names are left alone.
#[derive(Debug, Clone, Copy, Default)]
pub enum Replaces<'a> {
    /// None: it stops the placement.
    #[default]
    Nothing,
    /// For the hero slot: any. The manifest is that of what lies there now, if it is known; its files that the new one does
    /// not have go to the trash, too.
    Hero(Option<&'a Manifest>),
    /// What one of these generations, which the version follows, says of the same path, to the byte. Their files that the
    /// version does not have go to the trash, too, if they are as these say.
    Followed(&'a [Manifest]),
    /// Any: somebody wants back what stands.
    Rewritten,
}

/// Why a version was not placed. It stays in the incoming area.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// Something else lies where a file of the version belongs: perhaps the same version number was published here.
    /// When it was found in time, as it nearly always is, nothing was moved.
    #[error("{path} is taken by other content; nothing is overwritten, somebody must decide")]
    Occupied {
        /// The path, relative to the project.
        path: RelPath,
    },
    /// A file that lay in its place when the version was put together does not any more; put it together again.
    #[error("{path} changed while its version was placed; try again")]
    Vanished {
        /// The path, relative to the project.
        path: RelPath,
    },
    /// Files that somebody wrote into the version directory meanwhile, and that are as the version says, could not be made durable.
    /// Nothing was moved.
    #[error("files in {dir} that are in their place could not be made durable; check the disk")]
    Sync {
        /// The version directory, relative to the project.
        dir: RelPath,
        /// What was read from them, which the disk may not have.
        files: Vec<UnsyncedFile>,
        /// Which sync and why.
        #[source]
        source: IoError,
    },
    /// A file that is there could not be compared.
    #[error("a file in the version directory cannot be compared")]
    Compare(#[source] HashError),
    /// The system refuses, or a symbolic link stands in the way.
    #[error("the version cannot be placed at {dir}")]
    Io {
        /// The version directory, relative to the project.
        dir: RelPath,
        /// What and why.
        #[source]
        source: IoError,
    },
}

impl PlaceError {
    /// Says whether room on the volume would help.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } | Self::Sync { source, .. } => source.is_no_space(),
            Self::Compare(source) => source.is_no_space(),
            Self::Occupied { .. } | Self::Vanished { .. } => false,
        }
    }
}

/// Proof that a version lies in its place, durably; only [`place`] makes one.
#[derive(Debug)]
pub struct Placement {
    manifest: Arc<Manifest>,
    files: Vec<PlacedFile>,
}

/// One file in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedFile {
    /// Where it lies, relative to the project directory.
    pub path: RelPath,
    /// What it holds.
    pub object: ObjectHash,
    /// What the file system says of it while that is so.
    pub stat: FileStat,
}

impl Placement {
    /// Returns the project.
    pub fn project(&self) -> &ProjectName {
        self.manifest.project()
    }

    /// Returns the manifest of the version.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Returns the files in the order of the manifest.
    pub fn files(&self) -> &[PlacedFile] {
        &self.files
    }
}

/// Puts a version where artists see it. When this returns, it is durable and the incoming area is gone.
///
/// After an error or a crash nothing is lost: [`crate::object::incoming::Incoming::open`] takes up what is left,
/// including files that were placed already.
///
/// # Errors
/// [`PlaceError`].
pub fn place(version: VerifiedVersion, options: &PlaceOptions<'_>) -> Result<Placement, PlaceError> {
    let placing = Placing { version: &version, options };
    if options.read_only == ReadOnly::Set {
        placing.make_read_only()?;
    }
    let dir = placing.manifest().dir();
    let there = version.project.stat(dir).map_err(|e| placing.failed(e))?;
    let known = match there.map(|stat| stat.kind) {
        None => match placing.place_whole()? {
            Whole::Placed(known) => known,
            Whole::DirectoryCameFirst => placing.place_files()?,
        },
        Some(FileKind::Dir) => placing.place_files()?,
        Some(_) => return Err(PlaceError::Occupied { path: dir.clone() }),
    };
    let files = placing.placed_files(known)?;
    let manifest = version.manifest.clone();
    if let Err(error) = version.project.remove_tree(&area_path(manifest.id())) {
        tracing::warn!(manifest = %manifest.id(), %error, "an incoming area that is not needed stays behind");
    }
    Ok(Placement { manifest, files })
}

/// One placement under way.
struct Placing<'a> {
    version: &'a VerifiedVersion,
    options: &'a PlaceOptions<'a>,
}

impl Placing<'_> {
    fn manifest(&self) -> &Manifest {
        &self.version.manifest
    }

    fn failed(&self, source: IoError) -> PlaceError {
        PlaceError::Io { dir: self.manifest().dir().clone(), source }
    }

    /// Returns the path of a file of the version in the project.
    fn in_project(&self, path: &RelPath) -> RelPath {
        #[expect(clippy::expect_used, reason = "a manifest with a path that is too long cannot be made")]
        self.manifest().dir().join(path).expect("a manifest checks the joined paths")
    }

    /// Pairs each file of the manifest with what is known of it.
    fn files(&self) -> impl IndexedParallelIterator<Item = (&FileEntry, &VerifiedFile)> {
        self.manifest().files().par_iter().zip(&self.version.files)
    }

    fn tree(&self) -> Result<Dir, PlaceError> {
        self.version.area.open_dir(&path_of("tree")).map_err(|e| self.failed(e))
    }

    /// Before anybody sees the tree; the sync after the rename makes it durable too.
    fn make_read_only(&self) -> Result<(), PlaceError> {
        let tree = self.tree()?;
        self.files()
            .filter(|(_, verified)| matches!(verified, VerifiedFile::InTree(_)))
            .try_for_each(|(file, _)| tree.set_read_only(&file.path))
            .map_err(|e| self.failed(e))
    }

    /// Looks at each file once more. One that somebody changed in this moment keeps what was `known` of it before: the
    /// catalog then sees that it does not match and hashes it.
    fn placed_files(&self, known: Vec<FileStat>) -> Result<Vec<PlacedFile>, PlaceError> {
        let version_dir = self.version.project.open_dir(self.manifest().dir()).map_err(|e| self.failed(e))?;
        let placed = |(file, then): (&FileEntry, FileStat)| {
            let now = version_dir.stat(&file.path).map_err(|e| self.failed(e))?;
            let stat = now.filter(|now| is_same_content(&then, now)).unwrap_or(then);
            Ok(PlacedFile { path: self.in_project(&file.path), object: file.hash, stat })
        };
        self.manifest().files().par_iter().zip(known).map(placed).collect()
    }
}

/// Renaming and permissions change the ctime, so it is not compared.
fn is_same_content(then: &FileStat, now: &FileStat) -> bool {
    (then.size, then.mtime_ns, then.inode, then.kind) == (now.size, now.mtime_ns, now.inode, now.kind)
}

#[cfg(test)]
mod tests;
