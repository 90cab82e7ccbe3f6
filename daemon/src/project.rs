//! One project at this node: its directory, how it takes part, and what may not happen at the same time.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
};

use avalon_protocol::{
    control::{PendingVersion, ProjectState},
    id::ProjectName,
    mode::ProjectMode,
    rel_path::RelPath,
    template::TemplateSet,
};
use avalon_store::fs::{Dir, IoError};
use tokio::sync::OwnedMutexGuard;

use crate::{
    config::{ProjectConfig, SpaceConfig},
    publish::unsynced::Unsynced,
};

/// A project that this node serves.
#[derive(Debug)]
pub struct Project {
    name: ProjectName,
    path: PathBuf,
    templates: Arc<TemplateSet>,
    partial: bool,
    inner: RwLock<Inner>,
    /// One lock per version directory that is being published or placed, so that neither sees the other half-way.
    locks: Mutex<HashMap<RelPath, Weak<tokio::sync::Mutex<()>>>>,
    unsynced: Mutex<Unsynced>,
}

/// Which directory it is: another device or inode is another project directory, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootIdentity {
    device: u64,
    inode: u64,
}

impl RootIdentity {
    /// Returns which directory the metadata are of.
    pub fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// How often a directory is opened that is replaced at just that moment.
const OPEN_TRIES: usize = 3;

/// Whether what a project directory holds is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubted {
    /// It looks like a volume that is not mounted.
    Yes,
    /// It looks as usual.
    No,
}

#[derive(Debug)]
struct Inner {
    dir: Option<Dir>,
    /// Which directory is open; `None` when that could not be told.
    identity: Option<RootIdentity>,
    mode: ProjectMode,
    state: ProjectState,
    detail: Option<String>,
    pending: Vec<PendingVersion>,
    /// So much is gone from it at once that a volume may not be mounted.
    is_doubted: bool,
    space: SpaceConfig,
}

impl Project {
    /// Takes a project as it is configured; its directory is opened if it is there.
    pub fn new(config: &ProjectConfig) -> Self {
        let project = Self {
            name: config.name.clone(),
            path: config.dir(),
            templates: Arc::clone(&config.templates),
            partial: config.partial,
            inner: RwLock::new(Inner {
                dir: None,
                identity: None,
                mode: config.mode,
                state: ProjectState::Scanning,
                detail: None,
                pending: Vec::new(),
                is_doubted: false,
                space: config.space,
            }),
            locks: Mutex::default(),
            unsynced: Mutex::default(),
        };
        if let Err(error) = project.reopen() {
            project.pause(&format!("{}", crate::log::ErrorChain(&error)));
        }
        project
    }

    /// Returns its name.
    pub fn name(&self) -> &ProjectName {
        &self.name
    }

    /// Returns where it is on disk.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Says whether some frames of a version may come here without the others.
    pub fn allows_parts(&self) -> bool {
        self.partial
    }

    /// Returns its templates.
    pub fn templates(&self) -> &Arc<TemplateSet> {
        &self.templates
    }

    /// Opens its directory, again if it was open: the root may have been mounted anew or replaced.
    ///
    /// # Errors
    /// [`IoError`] when it is not there.
    pub fn reopen(&self) -> Result<Dir, IoError> {
        let mut before = self.identity_now();
        let mut dir = Dir::open(&self.path)?;
        let mut after = self.identity_now();
        for _ in 1..OPEN_TRIES {
            if before == after {
                break;
            }
            before = after;
            dir = Dir::open(&self.path)?;
            after = self.identity_now();
        }
        let mut inner = self.write();
        inner.dir = Some(dir.clone());
        inner.identity = after.filter(|_| before == after);
        Ok(dir)
    }

    /// Says whether the directory that is open is the one that its path leads to now. Another one may have been moved or
    /// mounted there, and what is written into the open one is then seen by nobody. Blocks.
    pub fn is_current(&self) -> bool {
        let open = self.identity();
        open.is_some() && open == self.identity_now()
    }

    /// Notes whether so much is gone at once that a volume may not be mounted.
    pub fn set_doubted(&self, doubted: Doubted) {
        self.write().is_doubted = doubted == Doubted::Yes;
    }

    /// Says whether so much is gone at once that a volume may not be mounted: nothing should come by itself then.
    pub fn is_doubted(&self) -> bool {
        self.read().is_doubted
    }

    /// Returns which directory is open, unless the project is paused.
    pub fn identity(&self) -> Option<RootIdentity> {
        self.read().identity
    }

    fn identity_now(&self) -> Option<RootIdentity> {
        fs::metadata(&self.path).ok().map(|metadata| RootIdentity::of(&metadata))
    }

    /// Returns its directory, unless the project is paused.
    pub fn dir(&self) -> Option<Dir> {
        self.read().dir.clone()
    }

    /// Notes that the directory is gone: nothing is published, placed or dropped until [`Project::reopen`].
    pub fn pause(&self, detail: &str) {
        let mut inner = self.write();
        inner.dir = None;
        inner.identity = None;
        inner.state = ProjectState::Paused;
        inner.detail = Some(detail.to_owned());
    }

    /// Notes that the project is scanned or watched.
    pub fn set_state(&self, state: ProjectState) {
        let mut inner = self.write();
        inner.state = state;
        inner.detail = None;
    }

    /// Returns the state and why it is paused.
    pub fn state(&self) -> (ProjectState, Option<String>) {
        let inner = self.read();
        (inner.state, inner.detail.clone())
    }

    /// Returns how the node takes part.
    pub fn mode(&self) -> ProjectMode {
        self.read().mode
    }

    /// Changes how the node takes part.
    pub fn set_mode(&self, mode: ProjectMode) {
        self.write().mode = mode;
    }

    /// Returns how much room it may take.
    pub fn space(&self) -> SpaceConfig {
        self.read().space
    }

    /// Changes how much room it may take.
    pub fn set_space(&self, space: SpaceConfig) {
        self.write().space = space;
    }

    /// Returns the version directories that are not whole.
    pub fn pending(&self) -> Vec<PendingVersion> {
        self.read().pending.clone()
    }

    /// Replaces the list of version directories that are not whole.
    pub fn set_pending(&self, pending: Vec<PendingVersion>) {
        self.write().pending = pending;
    }

    /// Waits until nobody else publishes or places this version directory, and keeps others out while the guard lives.
    pub async fn lock_version(&self, dir: &RelPath) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(dir).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                locks.insert(dir.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }

    /// Returns the files of which it is not known whether the disk has what was written.
    pub fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<RelPath, Weak<tokio::sync::Mutex<()>>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::template::{DEFAULT_PUBLISH, Template};

    use super::*;
    use crate::config::NetworkMode;

    fn project(root: &std::path::Path) -> Project {
        Project::new(&ProjectConfig {
            name: "lantern".parse().unwrap(),
            root: root.to_owned(),
            templates: Arc::new(TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap()),
            template_texts: Vec::new(),
            mode: ProjectMode::Mirror,
            partial: false,
            network: NetworkMode::default(),
            space: SpaceConfig::default(),
        })
    }

    #[test]
    fn another_directory_in_its_place_is_used_only_when_it_is_opened_again() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().join("lantern");
        fs::create_dir(&place).unwrap();
        let project = project(temp.path());
        assert!(project.is_current());
        fs::rename(&place, temp.path().join("old")).unwrap();
        assert!(!project.is_current(), "nothing is there");
        fs::create_dir(&place).unwrap();
        fs::create_dir(place.join("new")).unwrap();
        assert!(!project.is_current());
        let (before, inside) = (project.identity(), "new".parse().unwrap());
        assert!(project.dir().unwrap().stat(&inside).unwrap().is_none());
        project.reopen().unwrap();
        assert!(project.is_current());
        assert_ne!(project.identity(), before);
        assert!(project.dir().unwrap().stat(&inside).unwrap().is_some());
        project.pause("unmounted");
        assert!(!project.is_current());
    }
}
