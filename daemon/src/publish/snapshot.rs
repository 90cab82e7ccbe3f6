//! One look at a version directory: what the decision that it is whole is made from.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    panic::resume_unwind,
    thread,
    time::{Duration, SystemTime},
};

use avalon_protocol::{
    limits::MAX_MANIFEST_FILES,
    rel_path::{PathRule, RelPath},
    settle::{
        Blocker, BlockerKind, DirSnapshot, EndMark, Exclusion, HEAD_BYTES, NameProblem, ProblemKind,
        SeenFile, TAIL_BYTES, classify, collisions, end_mark, has_end_mark, hero_backup,
    },
};
use avalon_store::fs::{Dir, DirEntry, FileKind, FileStat, IoError};
use thiserror::Error;

/// A lock with more in it does not just name somebody.
const MAX_LOCK_BYTES: u64 = 256;

/// How many files a server is asked for at once.
const ASKED_AT_ONCE: usize = 16;

/// Why a version directory could not be looked at.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// It is not there.
    #[error("the version directory {dir} is not there")]
    Gone {
        /// The directory, relative to the project.
        dir: RelPath,
    },
    /// It, or a directory in it, cannot be read.
    #[error("cannot look into the version directory {dir}")]
    Unreadable {
        /// The directory, relative to the project.
        dir: RelPath,
        /// What failed.
        #[source]
        source: IoError,
    },
    /// More files than a manifest takes.
    #[error("{dir} has more than {MAX_MANIFEST_FILES} files; publish it as several subsets")]
    TooManyFiles {
        /// The directory, relative to the project.
        dir: RelPath,
    },
}

/// Looks at the version directory `version` of the project `project`. Blocks.
///
/// The files come in the order of their paths. Of files whose format has an end mark, the first and last bytes are read. A
/// file that vanishes meanwhile is as if it had not been there. Blockers count as new.
///
/// # Errors
/// [`SnapshotError`]; nothing may be concluded then.
pub fn snapshot_version(project: &Dir, version: &RelPath) -> Result<DirSnapshot, SnapshotError> {
    snapshot(project, version, (&[], SystemTime::UNIX_EPOCH))
}

/// As [`snapshot_version`], without reading those files again that `previous`, the files of an earlier look in the order of
/// their paths, has unchanged and closed. What blocks is as old as it is at the time `now`, and backups that were left behind
/// do not count.
///
/// # Errors
/// [`SnapshotError`] as for [`snapshot_version`].
pub fn snapshot_again(
    project: &Dir,
    version: &RelPath,
    previous: &[SeenFile],
    now: SystemTime,
) -> Result<DirSnapshot, SnapshotError> {
    let mut seen = snapshot(project, version, (previous, now))?;
    seen.blockers.retain(|blocker| !blocker.is_stale());
    Ok(seen)
}

/// As [`snapshot_again`], with sizes and times of the files of an earlier look, `seen`, that the server is asked for where the
/// project lies on a network mount. Others the system has to ask it for by itself.
///
/// # Errors
/// [`SnapshotError`] as for [`snapshot_version`].
pub fn snapshot_at_server(
    project: &Dir,
    version: &RelPath,
    (seen, previous): (&[SeenFile], &[SeenFile]),
    now: SystemTime,
) -> Result<DirSnapshot, SnapshotError> {
    ask_server(&project.open_dir(version).map_err(|e| unreadable(version, e))?, version, seen)?;
    snapshot_again(project, version, previous, now)
}

enum Asking<'scope, 'files> {
    Begun(thread::ScopedJoinHandle<'scope, Result<(), IoError>>),
    NoThread(&'files [SeenFile]),
}

/// Has the system ask the server for the sizes and times of files, and remember them. Each takes a round trip, so many are on their way at once.
fn ask_server(dir: &Dir, version: &RelPath, files: &[SeenFile]) -> Result<(), SnapshotError> {
    let ask = |files: &[SeenFile]| files.iter().try_for_each(|file| dir.stat_at_server(&file.path).map(drop));
    let share = files.len().div_ceil(ASKED_AT_ONCE).max(1);
    let asked = thread::scope(|scope| {
        let begin = |files| match thread::Builder::new().spawn_scoped(scope, move || ask(files)) {
            Ok(asking) => Asking::Begun(asking),
            Err(_) => Asking::NoThread(files),
        };
        let asking: Vec<_> = files.chunks(share).map(begin).collect();
        asking.into_iter().try_for_each(|asking| match asking {
            Asking::Begun(asking) => asking.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Asking::NoThread(files) => ask(files),
        })
    });
    asked.map_err(|e| unreadable(version, e))
}

fn unreadable(version: &RelPath, source: IoError) -> SnapshotError {
    match source.is_not_found() {
        true => SnapshotError::Gone { dir: version.clone() },
        false => SnapshotError::Unreadable { dir: version.clone(), source },
    }
}

fn snapshot(
    project: &Dir,
    version: &RelPath,
    (previous, now): (&[SeenFile], SystemTime),
) -> Result<DirSnapshot, SnapshotError> {
    let root = project.open_dir(version).map_err(|e| unreadable(version, e))?;
    let mut look = Look { version, previous, now, seen: DirSnapshot::default() };
    look.directory(&root, None)?;
    if version.file_name() == "hero" {
        look.hero_backups(project).map_err(|e| unreadable(version, e))?;
    }
    let mut seen = look.seen;
    seen.problems.extend(collisions(seen.files.iter().map(|file| &file.path)));
    seen.problems.sort();
    Ok(seen)
}

struct Look<'a> {
    version: &'a RelPath,
    /// In the order of their paths.
    previous: &'a [SeenFile],
    now: SystemTime,
    seen: DirSnapshot,
}

impl Look<'_> {
    fn directory(&mut self, dir: &Dir, inside: Option<&RelPath>) -> Result<(), SnapshotError> {
        let entries = match dir.list(None) {
            Err(error) if inside.is_some() && error.is_not_found() => return Ok(()),
            entries => entries.map_err(|e| self.unreadable(e))?,
        };
        for entry in entries {
            self.entry(dir, inside, &entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &Dir, inside: Option<&RelPath>, entry: &DirEntry) -> Result<(), SnapshotError> {
        let (name, path) = match self.path_of(inside, entry) {
            Ok(paths) => paths,
            Err(rule) => {
                self.problem(inside, entry, ProblemKind::Name(rule));
                return Ok(());
            }
        };
        match (classify(&path), entry.kind) {
            (Exclusion::Ignored, _) => Ok(()),
            (Exclusion::Blocks(kind), _) => {
                self.blocker(dir, &name, path, kind);
                Ok(())
            }
            (_, FileKind::Symlink) => {
                self.problem(inside, entry, ProblemKind::Symlink);
                Ok(())
            }
            (Exclusion::None, FileKind::Dir) => match dir.open_dir(&name) {
                Err(error) if error.is_not_found() => Ok(()),
                opened => {
                    let opened = opened.map_err(|e| self.unreadable(e))?;
                    self.directory(&opened, Some(&path))
                }
            },
            (Exclusion::None, FileKind::File) => self.file(dir, &name, path),
            (Exclusion::None, FileKind::Other) => {
                self.problem(inside, entry, ProblemKind::Special);
                Ok(())
            }
        }
    }

    /// Returns the entry's name in its directory and its path in the version.
    fn path_of(&self, inside: Option<&RelPath>, entry: &DirEntry) -> Result<(RelPath, RelPath), PathRule> {
        let name = entry.rel_path().map_err(|e| e.rule)?;
        let path =
            inside.map_or_else(|| Ok(name.clone()), |inside| inside.join(&name)).map_err(|e| e.rule)?;
        // The manifest's limit is on the whole path.
        self.version.join(&path).map_err(|e| e.rule)?;
        Ok((name, path))
    }

    fn file(&mut self, dir: &Dir, name: &RelPath, path: RelPath) -> Result<(), SnapshotError> {
        let stat = dir.stat(name).map_err(|e| self.unreadable(e))?;
        let Some(stat) = stat else { return Ok(()) };
        if stat.kind != FileKind::File {
            return Ok(());
        }
        if self.seen.files.len() >= MAX_MANIFEST_FILES {
            return Err(SnapshotError::TooManyFiles { dir: self.version.clone() });
        }
        let mut file = seen_file(path, &stat);
        if has_end_mark(name.as_str()) && !self.was_closed(&mut file) {
            file.end_mark = read_end_mark(dir, name, stat.size);
        }
        self.seen.files.push(file);
        Ok(())
    }

    /// Takes over the mark of an earlier look if the file was closed and is unchanged.
    ///
    /// Another mark is read again: one that is written within a tick of the file system's clock changes no time.
    fn was_closed(&self, file: &mut SeenFile) -> bool {
        let before = self.previous.binary_search_by(|before| before.path.cmp(&file.path));
        let before = before.ok().and_then(|index| self.previous.get(index));
        let was_closed = before.is_some_and(|b| b.end_mark == EndMark::Closed && b.is_unchanged(file));
        if was_closed {
            file.end_mark = EndMark::Closed;
        }
        was_closed
    }

    /// An integrator that replaces a hero renames the old directory aside until it is done.
    fn hero_backups(&mut self, project: &Dir) -> Result<(), IoError> {
        for entry in project.list(self.version.parent().as_ref())? {
            if let (Ok(path), FileKind::Dir) = (entry.rel_path(), entry.kind)
                && hero_backup(path.as_str())
            {
                let beside = match self.version.parent() {
                    Some(parent) => parent.join(&path).ok(),
                    None => Some(path.clone()),
                };
                self.blocker(project, &beside.unwrap_or_else(|| path.clone()), path, BlockerKind::Backup);
            }
        }
        Ok(())
    }

    /// Notes what blocks. It blocks as well when nothing can be said of its age; a lock that vanished is seen by the next
    /// look.
    fn blocker(&mut self, dir: &Dir, at: &RelPath, path: RelPath, kind: BlockerKind) {
        let stat = dir.stat(at).ok().flatten();
        let who = stat.as_ref().filter(|stat| kind == BlockerKind::Lock && stat.kind == FileKind::File);
        let who = who.filter(|stat| stat.size <= MAX_LOCK_BYTES).and_then(|stat| {
            let file = dir.open_file(at).ok()?;
            Blocker::name_in(&read_at(&file, 0, stat.size)?)
        });
        let age_hours = stat.map_or(0, |stat| hours_since(stat.ctime_ns, self.now));
        self.seen.blockers.push(Blocker { path, kind, age_hours, who });
    }

    fn problem(&mut self, inside: Option<&RelPath>, entry: &DirEntry, kind: ProblemKind) {
        let name = entry.display_name();
        let name = inside.map_or_else(|| name.to_string(), |inside| format!("{inside}/{name}"));
        self.seen.problems.push(NameProblem { name, kind });
    }

    fn unreadable(&self, source: IoError) -> SnapshotError {
        SnapshotError::Unreadable { dir: self.version.clone(), source }
    }
}

/// Since the inode was last changed: a file that is put aside keeps its time of modification.
fn hours_since(ctime_ns: i64, now: SystemTime) -> u64 {
    let changed = Duration::from_nanos(u64::try_from(ctime_ns).unwrap_or(0));
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(changed).as_secs() / 3600
}

fn seen_file(path: RelPath, stat: &FileStat) -> SeenFile {
    let FileStat { size, mtime_ns, ctime_ns, inode, .. } = *stat;
    SeenFile { path, size, mtime_ns, ctime_ns, inode, end_mark: EndMark::Unknown }
}

/// A file that cannot be read says nothing here; hashing it will say why.
fn read_end_mark(dir: &Dir, name: &RelPath, size: u64) -> EndMark {
    match read_ends(dir, name, size) {
        Some((head, tail)) => end_mark(name.as_str(), size, &head, &tail),
        None => EndMark::Unknown,
    }
}

/// Reads the first and the last bytes of a file, as many as end marks need; nothing when it cannot be read.
pub(super) fn read_ends(dir: &Dir, name: &RelPath, size: u64) -> Option<(Vec<u8>, Vec<u8>)> {
    let file = dir.open_file(name).ok()?;
    let head = read_at(&file, 0, size.min(HEAD_BYTES as u64))?;
    let tail_bytes = size.min(TAIL_BYTES as u64);
    let tail = read_at(&file, size - tail_bytes, tail_bytes)?;
    Some((head, tail))
}

fn read_at(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs,
        os::unix::{ffi::OsStrExt as _, fs::symlink},
        path::{Path, PathBuf},
    };

    use super::*;

    const VERSION: &str = "assets/robot/publish/model/v001";

    struct Project(tempfile::TempDir);

    impl Project {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            fs::create_dir_all(temp.path().join(VERSION)).unwrap();
            Self(temp)
        }

        fn version(&self) -> PathBuf {
            self.0.path().join(VERSION)
        }

        fn write(&self, name: impl AsRef<Path>, content: &[u8]) {
            let path = self.version().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = File::create(path).unwrap();
            std::io::Write::write_all(&mut file, content).unwrap();
        }

        fn look(&self) -> DirSnapshot {
            self.look_at(VERSION).unwrap()
        }

        fn look_at(&self, version: &str) -> Result<DirSnapshot, SnapshotError> {
            snapshot_version(&Dir::open(self.0.path()).unwrap(), &version.parse().unwrap())
        }
    }

    #[test]
    fn files_come_in_the_order_of_their_paths_with_what_stat_says() {
        let project = Project::new();
        for name in ["b.abc", "a-b/x", "a/y", "a.b", "a/x"] {
            project.write(name, b"12345");
        }
        let seen = project.look();
        let paths: Vec<&RelPath> = seen.files.iter().map(|file| &file.path).collect();
        assert!(paths.is_sorted() && paths.len() == 5, "{paths:?}");
        let stat = FileStat::from(&fs::metadata(project.version().join("b.abc")).unwrap());
        assert_eq!(seen.files[4], seen_file("b.abc".parse().unwrap(), &stat));
        assert_eq!(seen.files[4].size, 5);
    }

    #[test]
    fn locks_temporary_files_and_backups_block_and_litter_is_not_there() {
        let project = Project::new();
        for name in
            [".publish.lock", "a.abc.tmp", "a.abc.bak", ".DS_Store", ".git/HEAD", "tex/~b.exr", "a.abc"]
        {
            project.write(name, b"");
        }
        fs::create_dir(project.version().join("cache.tmp")).unwrap();
        let seen = project.look();
        assert_eq!(seen.files.len(), 1);
        let mut blockers: Vec<String> =
            seen.blockers.iter().map(|blocker| format!("{:?} {}", blocker.kind, blocker.path)).collect();
        blockers.sort();
        assert_eq!(
            blockers,
            ["Backup a.abc.bak", "Lock .publish.lock", "Temp a.abc.tmp", "Temp cache.tmp", "Temp tex/~b.exr"]
        );
        assert_eq!(seen.problems, []);
    }

    #[test]
    fn the_backup_of_a_hero_blocks_the_hero_and_no_other_version() {
        let project = Project::new();
        let subset = project.0.path().join("assets/robot/publish/model");
        for dir in ["hero", "hero.BACKUP1"] {
            fs::create_dir(subset.join(dir)).unwrap();
        }
        let hero = project.look_at("assets/robot/publish/model/hero").unwrap();
        let backup = Blocker {
            path: "hero.BACKUP1".parse().unwrap(),
            kind: BlockerKind::Backup,
            age_hours: 0,
            who: None,
        };
        assert_eq!(hero.blockers, [backup]);
        assert_eq!(project.look().blockers, []);
    }

    #[test]
    fn what_cannot_be_published_is_named_and_not_followed() {
        let project = Project::new();
        let outside = tempfile::tempdir().unwrap();
        File::create(outside.path().join("secret.abc")).unwrap();
        symlink(outside.path(), project.version().join("link")).unwrap();
        project.write(OsStr::from_bytes(b"bytes\xff.abc"), b"");
        project.write("tex/CON.exr", b"");
        project.write("cafe\u{301}.abc", b"");
        project.write("skin.exr", b"");
        project.write("Skin.exr", b"");
        let pipe = project.version().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let seen = project.look();
        assert_eq!(seen.files.len(), 2, "{:?}", seen.files);
        let problem = |name: &str, kind| NameProblem { name: name.to_owned(), kind };
        let mut expected = [
            problem("link", ProblemKind::Symlink),
            problem("pipe", ProblemKind::Special),
            problem("bytes\u{fffd}.abc", ProblemKind::Name(PathRule::NotUtf8)),
            problem("tex/CON.exr", ProblemKind::Name(PathRule::Reserved)),
            problem("cafe\u{301}.abc", ProblemKind::Name(PathRule::NotNormal)),
            problem("skin.exr", ProblemKind::Collision { other: "Skin.exr".into() }),
        ];
        expected.sort();
        assert_eq!(seen.problems, expected);
    }

    #[test]
    fn a_path_that_is_too_long_in_its_project_is_a_problem() {
        let project = Project::new();
        let long =
            ["x".repeat(200), "y".repeat(200), "z".repeat(200), "a".repeat(200), "b".repeat(190)].join("/");
        project.write(&long, b"");
        let problems = project.look().problems;
        assert!(matches!(problems.as_slice(), [one] if one.kind == ProblemKind::Name(PathRule::TooLong)));
    }

    #[test]
    fn end_marks_are_read_and_read_again_until_they_are_closed() {
        let project = Project::new();
        let ogawa = |frozen: u8| {
            let root = 16u64.to_le_bytes();
            [b"Ogawa".as_slice(), &[frozen, 0, 1], &root, &0u64.to_le_bytes()].concat()
        };
        project.write("model.abc", &ogawa(0));
        project.write("model.obj", b"o body");
        let marks = |seen: &DirSnapshot| seen.files.iter().map(|file| file.end_mark).collect::<Vec<_>>();
        let open = project.look();
        assert_eq!(marks(&open), [EndMark::Open, EndMark::Unknown]);
        project.write("model.abc", &ogawa(0xff));
        let dir = Dir::open(project.0.path()).unwrap();
        let closed =
            snapshot_again(&dir, &VERSION.parse().unwrap(), &open.files, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(marks(&closed), [EndMark::Closed, EndMark::Unknown]);
        // Taken over, not read: an earlier look that claims more about an unchanged file is believed.
        let mut claimed = project.look().files;
        claimed[1].end_mark = EndMark::Closed;
        let again =
            snapshot_again(&dir, &VERSION.parse().unwrap(), &claimed, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(
            marks(&again),
            [EndMark::Closed, EndMark::Unknown],
            "no rule for .obj, nothing to take over"
        );
    }

    #[test]
    fn a_version_that_is_not_there_is_gone() {
        let gone = Project::new().look_at("assets/robot/publish/model/v002");
        assert!(matches!(gone, Err(SnapshotError::Gone { .. })));
    }
}
