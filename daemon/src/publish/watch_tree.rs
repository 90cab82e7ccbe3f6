//! [`WatchTree`], the watches of one project: which directories have one, and keeping that true.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    fmt, fs, io, mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use avalon_protocol::{rel_path::RelPath, template::TemplateSet};
use notify::{Config, ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{
    area,
    watch::{Handler, relative, usable_part},
};

/// The watched directories of one project. Everything here may block and runs on the watcher's own thread.
pub(super) struct WatchTree {
    root: PathBuf,
    templates: Arc<TemplateSet>,
    handler: Handler,
    system: RecommendedWatcher,
    /// Without the root.
    watched: BTreeSet<RelPath>,
    limit: Limit,
}

/// What the system's limit of watches means for this tree.
#[derive(Debug, Default)]
struct Limit {
    /// How many directories should have a watch and have none, as far as they were met.
    refused: usize,
    /// One of them, or a directory that could not be read: there may be more in it.
    example: Option<RelPath>,
    /// Whether `refused` is more than was told.
    is_news: bool,
}

/// Whether the directories that are found are told as touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    Touched,
    Nothing,
}

/// What came of a watch that was asked for.
enum Watched {
    Yes,
    /// The system's limit is reached.
    Refused,
    /// It is gone, or not ours to look into.
    NotThere,
}

impl WatchTree {
    /// Watches the root and nothing else yet.
    pub(super) fn new(
        root: PathBuf,
        templates: Arc<TemplateSet>,
        handler: Handler,
    ) -> Result<Self, notify::Error> {
        let system = watch_root(&root, handler.clone())?;
        Ok(Self { root, templates, handler, system, watched: BTreeSet::new(), limit: Limit::default() })
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
        self.limit = Limit::default();
        self.add_all(stop);
        Ok(())
    }

    /// Says whether the system gives watches again, where it gave too few: versions were removed, or the limit was raised.
    pub(super) fn is_there_room(&mut self) -> bool {
        let Some(example) = self.limit.example.take() else { return false };
        if self.watched.contains(&example) {
            return true;
        }
        if let Watched::Refused = self.watch(&example) {
            self.limit.example = Some(example);
            return false;
        }
        // Whose turn it is, is another question.
        self.remove(&example);
        true
    }

    /// Watches what is not watched yet, and says whether that is all now.
    pub(super) fn fill(&mut self, stop: &dyn Fn() -> bool) -> bool {
        self.limit = Limit::default();
        self.add_all(stop);
        self.limit.example.is_none()
    }

    /// Returns how many directories are watched and how many should be, when more are missing than was told.
    pub(super) fn take_limit(&mut self) -> Option<(usize, usize)> {
        let watched = self.watched.len() + 1;
        mem::take(&mut self.limit.is_news).then_some((watched, watched + self.limit.refused))
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
        if is_dir && self.concerns(&dir) {
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

    /// Where the system refused a watch, takes that of the oldest sibling for a new version: nobody adds to that any more. Returns whether
    /// there was one to take.
    fn make_room_for(&mut self, new: &RelPath) -> bool {
        let is_version = |dir: &RelPath| self.templates.invert_dir(dir).is_some();
        let (Some(number), Some(parent)) = (number_of(new), new.parent()) else { return false };
        if !is_version(new) {
            return false;
        }
        let siblings = self.watched.range(parent.clone()..).take_while(|watched| watched.is_within(&parent));
        let older = siblings.filter(|dir| is_version(dir)).filter_map(|dir| Some((number_of(dir)?, dir)));
        let Some((_, oldest)) = older.filter(|(older, _)| *older < number).min() else { return false };
        let oldest = oldest.clone();
        let before = self.watched.len();
        self.remove(&oldest);
        self.is_refused(&oldest, before - self.watched.len());
        true
    }

    fn concerns(&self, dir: &RelPath) -> bool {
        area::concerns_publishing(&self.templates, dir)
    }

    fn is_refused(&mut self, dir: &RelPath, directories: usize) {
        self.limit.refused += directories;
        self.limit.is_news = true;
        self.limit.example.get_or_insert_with(|| dir.clone());
    }

    /// Watches `start`, or the root, and what is wanted beneath it. Upper directories come first, and among those that lie in
    /// one directory the newest: where the limit cuts, new versions are still noticed, and changes of those that are worked on.
    fn add(&mut self, start: Option<RelPath>, report: Report, stop: &dyn Fn() -> bool) -> Vec<RelPath> {
        let mut found = Vec::new();
        let mut level = vec![start];
        let mut at_limit = false;
        while !level.is_empty() {
            let mut next = Vec::new();
            for dir in level {
                if stop() {
                    return found;
                }
                if let Some(dir) = &dir {
                    match if at_limit { Watched::Refused } else { self.watch_for_older(dir) } {
                        Watched::Yes => {}
                        Watched::Refused => {
                            at_limit = true;
                            self.is_refused(dir, 1);
                        }
                        Watched::NotThere => continue,
                    }
                    if report == Report::Touched {
                        found.push(dir.clone());
                    }
                }
                let mut wanted = self.wanted_in(dir.as_ref());
                wanted.sort_by_key(|dir| Reverse(number_of(dir).unwrap_or(u64::MAX)));
                next.extend(wanted.into_iter().enumerate());
            }
            next.sort_by_key(|(rank, _)| *rank);
            level = next.into_iter().map(|(_, dir)| Some(dir)).collect();
        }
        found
    }

    /// Watches one directory, with the watch of an older version if there is no other.
    fn watch_for_older(&mut self, dir: &RelPath) -> Watched {
        match self.watch(dir) {
            Watched::Refused if self.make_room_for(dir) => self.watch(dir),
            watched => watched,
        }
    }

    /// Watches one directory, unless it is watched.
    fn watch(&mut self, dir: &RelPath) -> Watched {
        if self.watched.contains(dir) {
            return Watched::Yes;
        }
        match self.system.watch(&self.root.join(dir.as_str()), RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(dir.clone());
                Watched::Yes
            }
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => Watched::Refused,
            Err(error) => {
                tracing::debug!(path = %dir, %error, "a directory cannot be watched");
                Watched::NotThere
            }
        }
    }

    fn wanted_in(&mut self, dir: Option<&RelPath>) -> Vec<RelPath> {
        let path = dir.map_or_else(|| self.root.clone(), |dir| self.root.join(dir.as_str()));
        let entries = match fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "what is in a directory cannot be watched");
                let is_final = matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
                );
                if !is_final && self.limit.example.is_none() {
                    self.limit.example = dir.cloned();
                }
                return Vec::new();
            }
        };
        let subdirectories = entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let paths = subdirectories.filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            dir.map_or_else(|| name.parse(), |dir| dir.join_str(name)).ok()
        });
        paths.filter(|path| self.concerns(path)).collect()
    }
}

impl fmt::Debug for WatchTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchTree").field("root", &self.root).field("watched", &self.watched.len()).finish()
    }
}

/// Returns the number that a directory's name ends in, as that of a version does.
fn number_of(dir: &RelPath) -> Option<u64> {
    let name = dir.file_name();
    let digits = name.len() - name.trim_end_matches(|char: char| char.is_ascii_digit()).len();
    name[name.len() - digits..].parse().ok()
}

fn watch_root(root: &Path, handler: Handler) -> Result<RecommendedWatcher, notify::Error> {
    let mut system = RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false))?;
    system.watch(root, RecursiveMode::NonRecursive)?;
    Ok(system)
}
