//! Files that were found damaged. Their disk changed them and nobody wrote them, so nothing concludes from what they hold that
//! somebody did, and they alone are replaced when the version comes again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{
    id::{ProjectName, VersionId},
    rel_path::RelPath,
};
use avalon_store::fs::{Dir, FileIdentity};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{log::ErrorChain, state_file::StateFile};

/// More than that on one node is a disk that is thrown away. Those beyond are forgotten by a restart.
const MOST_KEPT: usize = 10_000;

/// What was found, with what identified it then: a file that somebody writes is another one.
#[derive(Debug)]
pub struct FoundDamaged {
    file: Option<StateFile>,
    marks: Mutex<Marks>,
    /// Which are to be fetched again and were not begun with yet.
    to_begin: Mutex<BTreeSet<VersionId>>,
    asked: Notify,
}

type Marks = BTreeMap<(ProjectName, RelPath), Found>;

#[derive(Debug)]
struct Found {
    identity: FileIdentity,
    /// The version that is to be fetched again because of it.
    repair: Option<VersionId>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    files: Vec<Mark>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    project: ProjectName,
    path: RelPath,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    inode: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repair: Option<VersionId>,
}

impl FoundDamaged {
    /// Goes on with what was found before. Blocks.
    pub fn open(root: &Dir) -> Self {
        let file = StateFile::new(root, "damaged.json", "avalon.damaged/1");
        let kept: Kept = match file.read() {
            Ok(kept) => kept.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "which files are damaged cannot be read; they are found again");
                Kept::default()
            }
        };
        let to_begin = kept.files.iter().filter_map(|mark| mark.repair.clone()).collect();
        let mark = |Mark { project, path, size, mtime_ns, ctime_ns, inode, repair }| {
            ((project, path), Found { identity: FileIdentity { size, mtime_ns, ctime_ns, inode }, repair })
        };
        let marks = kept.files.into_iter().map(mark).collect();
        Self {
            file: Some(file),
            marks: Mutex::new(marks),
            to_begin: Mutex::new(to_begin),
            asked: Notify::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn unkept() -> Self {
        Self { file: None, marks: Mutex::default(), to_begin: Mutex::default(), asked: Notify::new() }
    }

    /// Notes files. Blocks.
    pub fn add(&self, project: &ProjectName, files: impl Iterator<Item = (RelPath, FileIdentity)>) {
        let mut marks = self.lock();
        for (path, identity) in files {
            let found = marks.entry((project.clone(), path)).or_insert(Found { identity, repair: None });
            if found.identity != identity {
                *found = Found { identity, repair: None };
            }
        }
        self.write(&marks);
    }

    /// Says whether a file is one of them, as it was found.
    pub fn has(&self, project: &ProjectName, path: &RelPath, identity: FileIdentity) -> bool {
        self.lock().get(&(project.clone(), path.clone())).is_some_and(|found| found.identity == identity)
    }

    /// Returns those of a project.
    pub fn of(&self, project: &ProjectName) -> BTreeMap<RelPath, FileIdentity> {
        let marks = self.lock();
        let of_project = marks.iter().filter(|((of, _), _)| of == project);
        of_project.map(|((_, path), found)| (path.clone(), found.identity)).collect()
    }

    /// Forgets files, because others lie there now or a person took them as they are. Blocks.
    pub fn forget<'a>(&self, project: &ProjectName, paths: impl Iterator<Item = &'a RelPath>) {
        let mut marks = self.lock();
        let before = marks.len();
        for path in paths {
            marks.remove(&(project.clone(), path.clone()));
        }
        if marks.len() != before {
            self.write(&marks);
        }
    }

    /// Asks for a version to be fetched again because of these files, which were added before. That is kept over a restart as long as they
    /// are. Blocks.
    pub fn ask_for<'a>(&self, version: &VersionId, paths: impl Iterator<Item = &'a RelPath>) {
        {
            let mut marks = self.lock();
            for path in paths {
                if let Some(found) = marks.get_mut(&(version.project.clone(), path.clone())) {
                    found.repair = Some(version.clone());
                }
            }
            self.write(&marks);
        }
        self.to_begin.lock().unwrap_or_else(PoisonError::into_inner).insert(version.clone());
        self.asked.notify_one();
    }

    /// Waits for a version that is to be fetched again. For one that waits.
    pub async fn asked(&self) -> VersionId {
        loop {
            if let Some(version) = self.to_begin.lock().unwrap_or_else(PoisonError::into_inner).pop_first() {
                return version;
            }
            self.asked.notified().await;
        }
    }

    /// Says whether one of the files because of which a version is to be fetched again lies in its project as it was found: it may have
    /// been put right, dropped or replaced since. `None` where that cannot be said now. Blocks.
    pub fn is_still_to_repair(&self, version: &VersionId, dir: &Dir) -> Option<bool> {
        let files: Vec<(RelPath, FileIdentity)> = self
            .lock()
            .iter()
            .filter(|(_, found)| found.repair.as_ref() == Some(version))
            .map(|((_, path), found)| (path.clone(), found.identity))
            .collect();
        let mut is_known = true;
        for (path, identity) in &files {
            match dir.stat(path) {
                Ok(Some(stat)) if stat.identity() == *identity => return Some(true),
                Ok(_) => {}
                Err(_) => is_known = false,
            }
        }
        is_known.then_some(false)
    }

    fn write(&self, marks: &Marks) {
        let Some(file) = &self.file else { return };
        let mark = |((project, path), found): (&(ProjectName, RelPath), &Found)| {
            let FileIdentity { size, mtime_ns, ctime_ns, inode } = found.identity;
            let (project, path, repair) = (project.clone(), path.clone(), found.repair.clone());
            Mark { project, path, size, mtime_ns, ctime_ns, inode, repair }
        };
        let kept = Kept { files: marks.iter().take(MOST_KEPT).map(mark).collect() };
        if let Err(error) = file.write(&kept) {
            tracing::warn!(error = %ErrorChain(&error), "which files are damaged is not kept over a restart");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        // Each change under the lock is of whole entries.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_known_over_restarts_until_it_is_another_file() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let project: ProjectName = "lantern".parse().unwrap();
        let path = |text: &str| text.parse::<RelPath>().unwrap();
        let identity = |ctime_ns| FileIdentity { size: 7, mtime_ns: 1, ctime_ns, inode: 9 };
        let found = FoundDamaged::open(&dir);
        found.add(&project, [(path("a/b"), identity(2)), (path("a/c"), identity(3))].into_iter());
        for found in [found, FoundDamaged::open(&dir)] {
            assert!(found.has(&project, &path("a/b"), identity(2)) && found.of(&project).len() == 2);
            assert!(!found.has(&project, &path("a/b"), identity(4)), "somebody wrote it");
            assert!(!found.has(&"comet".parse().unwrap(), &path("a/b"), identity(2)));
        }
        FoundDamaged::open(&dir).forget(&project, [path("a/b")].iter());
        assert_eq!(FoundDamaged::open(&dir).of(&project).into_keys().collect::<Vec<_>>(), [path("a/c")]);
    }

    #[tokio::test]
    async fn a_repair_that_was_asked_for_is_asked_for_again_after_a_restart_while_the_file_lies_there() {
        let (temp, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dir, tree) = (Dir::open(temp.path()).unwrap(), Dir::open(tree.path()).unwrap());
        let (version, project) = (crate::fixture::version(1), crate::fixture::project());
        let path: RelPath = "a.abc".parse().unwrap();
        let write = |content: &[u8]| {
            tree.write_atomic(&path, content, avalon_store::fs::WriteMode::Replace).unwrap();
            tree.stat(&path).unwrap().unwrap().identity()
        };
        let found = FoundDamaged::open(&dir);
        found.add(&project, [(path.clone(), write(b"rot"))].into_iter());
        assert_eq!(found.is_still_to_repair(&version, &tree), Some(false), "nobody asked");
        found.ask_for(&version, [path.clone()].iter());
        // Reading it once more takes nothing back.
        found.add(&project, [(path.clone(), found.of(&project)[&path])].into_iter());
        for found in [found, FoundDamaged::open(&dir)] {
            assert_eq!(found.asked().await, version);
            assert_eq!(found.is_still_to_repair(&version, &tree), Some(true));
        }
        write(b"somebody's");
        let found = FoundDamaged::open(&dir);
        assert_eq!((found.asked().await, found.is_still_to_repair(&version, &tree)), (version, Some(false)));
        found.forget(&project, [path.clone()].iter());
        assert!(FoundDamaged::open(&dir).to_begin.lock().unwrap().is_empty());
    }
}
