//! [`WatchTree`], the watches of one project: which directories have one, and keeping that true.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use avalon_protocol::rel_path::RelPath;
use notify::{Config, ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::watch::{Handler, Interest, relative, usable_part};

/// The watched directories of one project. Everything here may block and runs on the watcher's own thread.
pub(super) struct WatchTree {
    root: PathBuf,
    interest: Interest,
    handler: Handler,
    system: RecommendedWatcher,
    /// Without the root.
    watched: BTreeSet<RelPath>,
    limit: Limit,
}

/// Whether the directories that are found are told as touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    Touched,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    NotReached,
    Reached { refused: usize },
    Reported,
}

impl WatchTree {
    /// Watches the root and nothing else yet.
    pub(super) fn new(root: PathBuf, interest: Interest, handler: Handler) -> Result<Self, notify::Error> {
        let system = watch_root(&root, handler.clone())?;
        Ok(Self { root, interest, handler, system, watched: BTreeSet::new(), limit: Limit::NotReached })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Watches all that is wanted beneath the root.
    pub(super) fn add_all(&mut self, stop: &dyn Fn() -> bool) {
        self.add(None, Report::Nothing, stop);
    }

    /// Forgets all watches and begins again.
    pub(super) fn restart(&mut self, stop: &dyn Fn() -> bool) -> Result<(), notify::Error> {
        self.system = watch_root(&self.root, self.handler.clone())?;
        self.watched.clear();
        self.limit = Limit::NotReached;
        self.add_all(stop);
        Ok(())
    }

    /// Returns how many directories are watched and how many should be, once after the limit was reached.
    pub(super) fn take_limit(&mut self) -> Option<(usize, usize)> {
        let Limit::Reached { refused } = self.limit else { return None };
        self.limit = Limit::Reported;
        Some((self.watched.len() + 1, self.watched.len() + 1 + refused))
    }

    /// Returns what was touched when `path` was; nothing when it is none of our concern.
    pub(super) fn concerned(&self, path: &Path) -> Option<RelPath> {
        usable_part(&self.root, path)
    }

    /// Sets the watches right at and beneath a path where a directory may have come, gone or been replaced. Returns what
    /// was touched: the path, and the directories that came with it.
    pub(super) fn refresh(&mut self, path: &Path, report: Report) -> Vec<RelPath> {
        let Some(dir) = relative(&self.root, path) else {
            // A name that cannot be published; the directory that it lies in was touched.
            return self.concerned(path).into_iter().collect();
        };
        self.remove(&dir);
        let is_dir = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
        let mut touched = vec![dir.clone()];
        if is_dir && (self.interest)(&dir) {
            touched.extend(self.add(Some(dir), report, &|| false));
        }
        touched
    }

    /// Takes the watches at and beneath `dir` away, which may be gone already.
    fn remove(&mut self, dir: &RelPath) {
        let gone: Vec<RelPath> =
            self.watched.range(dir.clone()..).take_while(|watched| watched.is_within(dir)).cloned().collect();
        for path in gone {
            if let Err(error) = self.system.unwatch(&self.root.join(path.as_str())) {
                tracing::trace!(path = %path, %error, "a watch was gone already");
            }
            self.watched.remove(&path);
        }
    }

    /// Watches `start`, or the root, and what is wanted beneath it, the upper directories first: where the limit cuts, new
    /// versions are still noticed.
    fn add(&mut self, start: Option<RelPath>, report: Report, stop: &dyn Fn() -> bool) -> Vec<RelPath> {
        let mut found = Vec::new();
        let mut queue = VecDeque::from([start]);
        while let Some(dir) = queue.pop_front() {
            if stop() {
                break;
            }
            if let Some(dir) = &dir {
                if !self.watch(dir) {
                    continue;
                }
                if report == Report::Touched {
                    found.push(dir.clone());
                }
            }
            queue.extend(self.wanted_in(dir.as_ref()).into_iter().map(Some));
        }
        found
    }

    /// Watches one directory; says whether it is worth looking into it.
    fn watch(&mut self, dir: &RelPath) -> bool {
        if let Limit::Reached { refused } = &mut self.limit {
            *refused += 1;
            return true;
        }
        match self.system.watch(&self.root.join(dir.as_str()), RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(dir.clone());
                true
            }
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                if self.limit == Limit::NotReached {
                    self.limit = Limit::Reached { refused: 1 };
                }
                true
            }
            Err(error) => {
                tracing::debug!(path = %dir, %error, "a directory cannot be watched");
                false
            }
        }
    }

    fn wanted_in(&self, dir: Option<&RelPath>) -> Vec<RelPath> {
        let path = dir.map_or_else(|| self.root.clone(), |dir| self.root.join(dir.as_str()));
        let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let Ok(entries) = entries else { return Vec::new() };
        let subdirectories = entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let paths = subdirectories.filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            dir.map_or_else(|| name.parse(), |dir| dir.join_str(name)).ok()
        });
        paths.filter(|path| (self.interest)(path)).collect()
    }
}

impl fmt::Debug for WatchTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchTree").field("root", &self.root).field("watched", &self.watched.len()).finish()
    }
}

fn watch_root(root: &Path, handler: Handler) -> Result<RecommendedWatcher, notify::Error> {
    let mut system = RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false))?;
    system.watch(root, RecursiveMode::NonRecursive)?;
    Ok(system)
}
