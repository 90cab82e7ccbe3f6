//! The one way to write a file that must survive: temporary name, fsync, rename, fsync of the directory.
//!
//! Measured on ext4 and XFS with power cuts: only this order (or its `O_TMPFILE` twin) never showed a torn or missing
//! file; see `docs/storage.md`.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs::File,
    io::Write as _,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use avalon_protocol::rel_path::RelPath;
use rayon::prelude::*;
use rustix::{
    fs::{Advice, fadvise, fstat, fsync},
    io::Errno,
};

use super::{Dir, IoError, Overwrite, error::FSYNC, path_of};

/// Below this number files are synced one by one; from it on, one sync of the volume is cheaper.
pub(crate) const FILES_SYNCED_ONE_BY_ONE: usize = 16;

/// How many files are open at once while their volume is synced.
const HELD_OPEN: usize = 256;

/// What [`Dir::write_atomic`] does when there is such a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// It fails with `is_already_there`.
    CreateNew,
    /// The new content takes the place of the old at once: readers see one or the other.
    Replace,
}

/// When a change of a directory is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durably {
    /// When the call returns.
    Yes,
    /// When somebody syncs it.
    Later,
}

/// How the name of a file begins that has not got its final name yet; a crash may leave one.
const TEMPORARY_PREFIX: &str = ".avalon-tmp-";

static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// A file that has not got its name yet.
struct Begun {
    dir: Dir,
    temporary: RelPath,
    file: File,
    name: RelPath,
}

impl Dir {
    /// Writes a whole file so that after any crash it has the old content or the new, never a part. It is on disk when
    /// this returns.
    ///
    /// # Errors
    /// [`IoError`]; then the old file is as it was, except when the last step failed, the sync of the directory: then
    /// either may be found after a power cut. A failed fsync is not repeated: the new data is gone.
    pub fn write_atomic(&self, path: &RelPath, bytes: &[u8], mode: WriteMode) -> Result<(), IoError> {
        self.write_by_rename(path, mode, Durably::Yes, |file| self.put(file, path, bytes))
    }

    /// As [`Dir::write_atomic`], with the content from `write`, which need not have all of it in memory. When it fails, the
    /// old file stays.
    ///
    /// # Errors
    /// As for [`Dir::write_atomic`], and those of `write`.
    pub fn write_streamed<E: From<IoError>>(
        &self,
        path: &RelPath,
        mode: WriteMode,
        write: impl FnOnce(&File) -> Result<(), E>,
    ) -> Result<(), E> {
        self.write_by_rename(path, mode, Durably::Yes, write)
    }

    /// Writes a whole file that is derived from others: readers see the old or the new, a power cut may leave anything.
    pub(crate) fn write_derived(&self, path: &RelPath, bytes: &[u8]) -> Result<(), IoError> {
        self.write_by_rename(path, WriteMode::Replace, Durably::Later, |file| self.put(file, path, bytes))
    }

    /// As [`Dir::write_atomic`] for many files, which replace what is there: from `FILES_SYNCED_ONE_BY_ONE` on with one sync of the volume,
    /// where that can be believed. The directories that they lie in must be there, on this volume.
    ///
    /// # Errors
    /// As for [`Dir::write_atomic`]; some files may be new then and others as they were, each whole.
    pub(crate) fn write_many_atomic(&self, files: &[(RelPath, &[u8])]) -> Result<(), IoError> {
        if files.len() < FILES_SYNCED_ONE_BY_ONE || !self.reports_sync_errors() {
            return files
                .iter()
                .try_for_each(|(path, bytes)| self.write_atomic(path, bytes, WriteMode::Replace));
        }
        files.chunks(HELD_OPEN).try_for_each(|files| {
            let mut begun = Vec::with_capacity(files.len());
            let written = self.write_at_once(files, &mut begun);
            for Begun { dir, temporary, .. } in begun {
                if let Err(left) = dir.remove_file(&temporary)
                    && !left.is_not_found()
                {
                    tracing::debug!(error = %left, "a temporary file stays behind");
                }
            }
            written
        })
    }

    /// Writes files under temporary names and syncs them together before any gets its own: a name that is there can be believed.
    fn write_at_once(&self, files: &[(RelPath, &[u8])], begun: &mut Vec<Begun>) -> Result<(), IoError> {
        // Opened before anything is written: it hears of every error of writing back since.
        let mut dirs: BTreeMap<Option<RelPath>, Self> = BTreeMap::new();
        for (path, _) in files {
            if let Entry::Vacant(place) = dirs.entry(path.parent()) {
                let dir = match place.key() {
                    Some(parent) => self.open_dir(parent)?,
                    None => self.clone(),
                };
                place.insert(dir);
            }
        }
        for (path, bytes) in files {
            let Some(dir) = dirs.get(&path.parent()).cloned() else { continue };
            let (temporary, file) = dir.create_temporary()?;
            let name = path_of(path.file_name());
            begun.push(Begun { dir, temporary, file, name });
            let Some(Begun { file, .. }) = begun.last() else { continue };
            self.put(file, path, bytes)?;
        }
        if let Some(dir) = dirs.values().next() {
            dir.sync_filesystem()?;
        }
        begun.par_iter().with_max_len(1).try_for_each(|Begun { dir, file, name, .. }| {
            file.sync_all().map_err(|e| IoError::new(FSYNC, dir.path().join(name.as_str()), e))
        })?;
        for Begun { dir, temporary, name, .. } in &*begun {
            dir.rename(temporary, dir, name, Overwrite::Replace)?;
        }
        dirs.values().try_for_each(Self::sync)
    }

    fn put(&self, mut file: &File, path: &RelPath, bytes: &[u8]) -> Result<(), IoError> {
        file.write_all(bytes).map_err(|e| IoError::new("write", self.path().join(path.as_str()), e))
    }

    fn write_by_rename<E: From<IoError>>(
        &self,
        path: &RelPath,
        mode: WriteMode,
        durably: Durably,
        write: impl FnOnce(&File) -> Result<(), E>,
    ) -> Result<(), E> {
        let (dir, name) = match path.parent() {
            Some(parent) => (self.open_dir(&parent)?, path_of(path.file_name())),
            None => (self.clone(), path.clone()),
        };
        let (temporary, file) = dir.create_temporary()?;
        let failed = |error| E::from(IoError::new("write", dir.path().join(name.as_str()), error));
        let written = write(&file).and_then(|()| match durably {
            Durably::Yes => file.sync_all().map_err(failed),
            Durably::Later => Ok(()),
        });
        let overwrite = match mode {
            WriteMode::CreateNew => Overwrite::Refuse,
            WriteMode::Replace => Overwrite::Replace,
        };
        let renamed = written.and_then(|()| Ok(dir.rename(&temporary, &dir, &name, overwrite)?));
        if let Err(error) = renamed {
            if let Err(left) = dir.remove_file(&temporary) {
                tracing::debug!(error = %left, "a temporary file stays behind");
            }
            return Err(error);
        }
        match durably {
            Durably::Yes => Ok(dir.sync()?),
            Durably::Later => Ok(()),
        }
    }

    /// Makes a file that has no name: it is gone when it is closed, however that happens.
    pub(crate) fn create_unnamed(&self) -> Result<File, IoError> {
        let (name, file) = self.create_temporary()?;
        self.remove_file(&name)?;
        Ok(file)
    }

    /// Removes temporary files that a crash left in this directory. Nobody may be writing into it.
    pub(crate) fn remove_temporaries(&self) -> Result<(), IoError> {
        let entries = self.list(None)?;
        let names = entries.iter().filter_map(|entry| entry.rel_path().ok());
        for name in names.filter(|name| name.as_str().starts_with(TEMPORARY_PREFIX)) {
            self.remove_file(&name)?;
        }
        Ok(())
    }

    fn create_temporary(&self) -> Result<(RelPath, File), IoError> {
        loop {
            let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
            let name = path_of(&format!("{TEMPORARY_PREFIX}{}-{number}", process::id()));
            match self.create_file(&name) {
                // Left by an earlier process of the same number.
                Err(error) if error.is_already_there() => {}
                created => return created.map(|file| (name, file)),
            }
        }
    }

    /// Makes files that somebody else wrote durable, with the directories that they lie in up to this one: one by one, or
    /// from `FILES_SYNCED_ONE_BY_ONE` on by one sync of each volume that they lie on, where that can be believed.
    ///
    /// # Errors
    /// [`IoError`]; what was not durable before must be taken as lost, and a second sync would prove nothing: the kernel
    /// takes what it could not write for written. It is asked to forget these files, so that who reads them next reads the
    /// disk.
    pub fn sync_files(&self, paths: &[RelPath]) -> Result<(), IoError> {
        let synced = self.sync_files_and_dirs(paths);
        if synced.is_err() {
            self.forget_cached(paths);
        }
        synced
    }

    fn sync_files_and_dirs(&self, paths: &[RelPath]) -> Result<(), IoError> {
        let mut dirs = BTreeSet::new();
        for path in paths {
            let mut above = path.parent();
            while let Some(dir) = above {
                above = dir.parent();
                if !dirs.insert(dir) {
                    break;
                }
            }
        }
        if paths.len() >= FILES_SYNCED_ONE_BY_ONE {
            let volumes = self.one_on_each_volume(&dirs)?;
            if volumes.values().all(Self::reports_sync_errors) {
                return paths.chunks(HELD_OPEN).try_for_each(|paths| self.sync_at_once(&volumes, paths));
            }
        }
        paths.par_iter().with_max_len(1).try_for_each(|path| {
            let file = self.open_file(path)?;
            file.sync_all().map_err(|e| IoError::new(FSYNC, self.path().join(path.as_str()), e))
        })?;
        dirs.iter().try_for_each(|dir| self.open_dir(dir)?.sync())?;
        self.sync()
    }

    /// An error of writing back is told once to whoever syncs the volume through one handle, and another publish may have heard it. Each
    /// file tells it to whoever had it open before, too; and asking a file that was just written back costs little.
    fn sync_at_once(&self, volumes: &BTreeMap<u64, Self>, paths: &[RelPath]) -> Result<(), IoError> {
        let files = paths.iter().map(|path| self.open_file(path)).collect::<Result<Vec<File>, _>>()?;
        volumes.values().try_for_each(Self::sync_filesystem)?;
        files.par_iter().zip(paths).with_max_len(1).try_for_each(|(file, path)| {
            file.sync_all().map_err(|e| IoError::new(FSYNC, self.path().join(path.as_str()), e))
        })
    }

    /// Returns this directory and, of those in it, one on each other volume: something may be mounted inside a project.
    fn one_on_each_volume(&self, dirs: &BTreeSet<RelPath>) -> Result<BTreeMap<u64, Self>, IoError> {
        let mut volumes = BTreeMap::from([(self.volume()?, self.clone())]);
        for dir in dirs {
            let dir = self.open_dir(dir)?;
            volumes.entry(dir.volume()?).or_insert(dir);
        }
        Ok(volumes)
    }

    fn volume(&self) -> Result<u64, IoError> {
        fstat(self.fd()).map(|stat| stat.st_dev).map_err(|e| IoError::new("stat", self.path(), e))
    }

    fn forget_cached(&self, paths: &[RelPath]) {
        for file in paths.iter().filter_map(|path| self.open_file(path).ok()) {
            if let Err(error) = fadvise(&file, 0, None, Advice::DontNeed) {
                tracing::debug!(%error, "what is cached of a file stays");
            }
        }
    }

    /// Makes the names in this directory durable: what was created, renamed and removed in it.
    ///
    /// # Errors
    /// [`IoError`]; what was not durable before must be taken as lost. Systems that cannot sync a directory (some network
    /// mounts) are taken at their word.
    pub fn sync(&self) -> Result<(), IoError> {
        match fsync(self.fd()) {
            Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => Err(IoError::new(FSYNC, self.path(), errno)),
        }
    }

    /// Makes durable every directory on the way from here to `path`, both included.
    ///
    /// # Errors
    /// [`IoError`] as for [`Dir::sync`].
    pub fn sync_path(&self, path: &RelPath) -> Result<(), IoError> {
        self.open_dir(path)?.sync()?;
        let mut above = path.parent();
        while let Some(parent) = above {
            self.open_dir(&parent)?.sync()?;
            above = parent.parent();
        }
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(dir: &Dir) -> Vec<String> {
        dir.list(None).unwrap().iter().map(|entry| entry.display_name().into_owned()).collect()
    }

    #[test]
    fn creates_replaces_and_refuses() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.create_dirs(&path_of("sub")).unwrap();
        let (path, on_disk) = (path_of("sub/state"), temp.path().join("sub/state"));
        dir.write_atomic(&path, b"one", WriteMode::CreateNew).unwrap();
        assert!(dir.write_atomic(&path, b"two", WriteMode::CreateNew).unwrap_err().is_already_there());
        assert_eq!(fs::read(&on_disk).unwrap(), b"one");
        dir.write_atomic(&path, b"three", WriteMode::Replace).unwrap();
        assert_eq!(fs::read(&on_disk).unwrap(), b"three");
        assert_eq!(names(&dir.open_dir(&path_of("sub")).unwrap()), ["state"], "nothing temporary stays");
    }

    #[test]
    fn a_reader_of_the_old_file_keeps_it_whole() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.write_atomic(&path_of("state"), b"old", WriteMode::Replace).unwrap();
        let old = dir.open_file(&path_of("state")).unwrap();
        dir.write_atomic(&path_of("state"), b"newer", WriteMode::Replace).unwrap();
        assert_eq!(std::io::read_to_string(old).unwrap(), "old");
    }

    #[test]
    fn what_a_crash_left_under_a_temporary_name_does_not_hinder() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let next = NEXT_TEMPORARY.load(Ordering::Relaxed);
        for number in next..next + 3 {
            let left = format!("{TEMPORARY_PREFIX}{}-{number}", process::id());
            File::create(temp.path().join(&left)).unwrap();
        }
        dir.write_atomic(&path_of("state"), b"x", WriteMode::CreateNew).unwrap();
        assert!(names(&dir).contains(&"state".to_owned()));
    }

    #[test]
    fn a_directory_in_the_place_of_the_file_is_refused_without_a_trace() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.create_dirs(&path_of("state")).unwrap();
        assert!(dir.write_atomic(&path_of("state"), b"x", WriteMode::Replace).is_err());
        assert_eq!(names(&dir), ["state"]);
    }

    #[test]
    fn every_volume_that_files_lie_on_is_synced() {
        let root = Dir::open(std::path::Path::new("/")).unwrap();
        let dirs = BTreeSet::from(["proc", "proc/sys", "usr"].map(path_of));
        let volumes = root.one_on_each_volume(&dirs).unwrap();
        let paths: Vec<_> = volumes.values().map(Dir::path).collect();
        assert!(paths.contains(&std::path::Path::new("/")), "{paths:?}");
        assert!(paths.contains(&std::path::Path::new("/proc")), "{paths:?}");
        assert!(!paths.contains(&std::path::Path::new("/proc/sys")), "once is enough: {paths:?}");
    }

    #[test]
    fn files_are_synced_with_their_directories_and_a_missing_one_fails() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.create_dirs(&path_of("a/b")).unwrap();
        let few: Vec<RelPath> = (0..3).map(|file| path_of(&format!("a/b/{file}"))).collect();
        let many: Vec<RelPath> =
            (0..FILES_SYNCED_ONE_BY_ONE).map(|file| path_of(&format!("a/{file}"))).collect();
        for path in few.iter().chain(&many) {
            dir.create_file(path).unwrap();
        }
        dir.sync_files(&few).unwrap();
        dir.sync_files(&many).unwrap();
        fs::remove_file(temp.path().join("a/b/1")).unwrap();
        assert!(dir.sync_files(&few).unwrap_err().is_not_found());
    }
}
