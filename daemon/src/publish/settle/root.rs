//! The project directory itself: whether it is there, and whether it is still the same one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use avalon_store::fs::{Dir, IoError};
use thiserror::Error;
use tokio::sync::mpsc;

use super::{
    super::watch::{RawChange, WatchError, Watcher, Watching},
    pace::Mount,
    words::{ProjectSource, WatcherState},
};
use crate::{log::ErrorChain, project::RootIdentity};

/// How many changes wait for the settler; when more come, one scan stands for them.
const CHANGES: usize = 4_096;

/// A project directory that is there.
pub(super) struct OpenRoot {
    pub(super) dir: Dir,
    pub(super) identity: RootIdentity,
    pub(super) changes: mpsc::Receiver<RawChange>,
    /// Whether changes may still come.
    pub(super) is_watched: bool,
    pub(super) watcher: WatcherState,
    pub(super) mount: Mount,
    pub(super) watching: Option<Box<dyn Watching>>,
}

/// Why a project directory cannot be used.
#[derive(Debug, Error)]
pub(super) enum RootError {
    #[error("the project directory {} is not there; mount or create it", path.display())]
    Missing { path: PathBuf },
    #[error("the project directory {} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error("cannot look at the project directory {}", path.display())]
    Refused {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open the project directory {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: IoError,
    },
}

/// Says which directory is there now. Blocks.
pub(super) fn identify(path: &Path) -> Result<RootIdentity, RootError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(RootIdentity::of(&metadata)),
        Ok(_) => Err(RootError::NotADirectory { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(RootError::Missing { path: path.to_owned() }),
        Err(source) => Err(RootError::Refused { path: path.to_owned(), source }),
    }
}

/// Opens the project directory and begins to watch it. Without a watcher the project works by scans. Blocks.
pub(super) fn open(source: &ProjectSource, system: &dyn Watcher) -> Result<OpenRoot, RootError> {
    let path = &source.dir;
    let identity = identify(path)?;
    let unreadable = |source| RootError::Unreadable { path: path.clone(), source };
    let dir = Dir::open(path).map_err(unreadable)?;
    let (sender, changes) = mpsc::channel(CHANGES);
    // Also after a root comes back: another volume may be there.
    let mount = Mount::of(source.network, || dir.kind()).map_err(unreadable)?;
    let (watching, watcher) = match system.start(path.clone(), source.templates.clone(), sender) {
        Ok(watching) => (Some(watching), WatcherState::On),
        Err(WatchError::RootMissing { root }) => return Err(RootError::Missing { path: root }),
        Err(error) => {
            tracing::warn!(project = %source.name, error = %ErrorChain(&error), "no watcher");
            (None, WatcherState::Off { why: ErrorChain(&error).to_string() })
        }
    };
    let is_watched = watching.is_some();
    Ok(OpenRoot { dir, identity, changes, is_watched, watcher, mount, watching })
}
