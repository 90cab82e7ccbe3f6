//! Stage 1b, scan: every version directory of a project, and which of them hold something that the catalog does not know.
//!
//! What the watcher missed is found here, and on a network mount everything is. A directory that cannot be read is a
//! problem in the report and never the end of the scan. No symbolic link is followed.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use avalon_protocol::{
    rel_path::RelPath,
    settle::{Exclusion, classify},
    template::TemplateSet,
};
use avalon_store::fs::{Dir, FileIdentity, FileStat};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use walkdir::{DirEntry, WalkDir};

use super::{
    area,
    watch::{relative, usable_part},
};

/// Says whether the catalog knows a file, relative to the project, just as it is.
pub type Known = dyn Fn(&RelPath, &FileIdentity) -> bool + Send + Sync;

/// How many problems a report names; all are counted.
pub const MAX_PROBLEMS_NAMED: usize = 100;

/// What one scan saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Every version directory, in the order of their paths.
    pub versions: Vec<VersionDirFound>,
    /// What stood in the way, the first [`MAX_PROBLEMS_NAMED`].
    pub problems: Vec<ScanProblem>,
    /// How many problems there were.
    pub problems_total: usize,
}

/// One version directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionDirFound {
    /// Where it is, relative to the project.
    pub dir: RelPath,
    /// How many files are in it, without those that are excluded.
    pub files_total: u64,
    /// How many of them the catalog does not know as they are; names that cannot be published count.
    pub files_changed: u64,
}

/// Something that a scan could not look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanProblem {
    /// A directory could not be read.
    Unreadable {
        /// The directory, as the system names it.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A symbolic link stands where versions would be looked for.
    Symlink {
        /// The link, relative to the project.
        path: RelPath,
    },
    /// Two version directories are one where case or Unicode composition is ignored.
    Collision {
        /// The first in order.
        first: RelPath,
        /// The second.
        second: RelPath,
    },
}

impl ScanProblem {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "give the daemon's user the right to read what it cannot",
            Self::Symlink { .. } => "mount or move what a symbolic link points to; none is followed",
            Self::Collision { .. } => {
                "rename one of two directories that differ only in case or Unicode composition"
            }
        }
    }
}

impl fmt::Display for ScanProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, why } => write!(f, "cannot read {}: {why}", path.display()),
            Self::Symlink { path } => {
                write!(f, "{path} is a symbolic link and not looked into; mount or move what it points to")
            }
            Self::Collision { first, second } => write!(
                f,
                "{first} and {second} are one directory where case or Unicode composition is ignored; rename one"
            ),
        }
    }
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The project directory is not there, or is no directory.
    #[error("the project directory {} is not there", root.display())]
    RootMissing {
        /// The project directory.
        root: PathBuf,
    },
    /// The project directory cannot be read.
    #[error("cannot read the project directory {}", root.display())]
    RootUnreadable {
        /// The project directory.
        root: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody stopped it.
    #[error("the scan of {} was stopped", root.display())]
    Stopped {
        /// The project directory.
        root: PathBuf,
    },
}

/// Looks at every version directory of a project. Blocks; memory grows with the number of versions, not of files.
///
/// # Errors
/// [`ScanError`]; nothing may be concluded then, above all not that a version is gone.
pub fn scan_project(
    dir: &Dir,
    templates: &TemplateSet,
    known: &Known,
    stop: &CancellationToken,
) -> Result<ScanReport, ScanError> {
    scan_beneath(dir, None, templates, known, stop)
}

/// Looks at the version directories at and beneath `start`: what an explicit publish of a whole asset means.
///
/// # Errors
/// [`ScanError`] as for [`scan_project`].
pub fn scan_beneath(
    dir: &Dir,
    start: Option<&RelPath>,
    templates: &TemplateSet,
    known: &Known,
    stop: &CancellationToken,
) -> Result<ScanReport, ScanError> {
    let root = dir.path();
    check_root(root)?;
    let from = start.map_or_else(|| root.to_owned(), |start| root.join(start.as_str()));
    let mut scan = Scan { root, templates, known, report: ScanReport::default(), version: None };
    let walk = WalkDir::new(from).follow_links(false).sort_by_file_name().into_iter();
    // The walk asks before it enters a directory; what is asked about links there is told by the entries.
    let walk = walk.filter_entry(|entry| wants(root, templates, entry));
    for entry in walk {
        if stop.is_cancelled() {
            return Err(ScanError::Stopped { root: root.to_owned() });
        }
        match entry {
            Ok(entry) => scan.entry(&entry),
            Err(error) => scan.unreadable(&error),
        }
    }
    check_root(root)?;
    Ok(scan.finish())
}

fn check_root(root: &Path) -> Result<(), ScanError> {
    let missing = || ScanError::RootMissing { root: root.to_owned() };
    match fs::read_dir(root) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(missing())
        }
        Err(source) => Err(ScanError::RootUnreadable { root: root.to_owned(), source }),
    }
}

/// Says whether an entry is looked at: files always, directories when they concern publishing.
fn wants(root: &Path, templates: &TemplateSet, entry: &DirEntry) -> bool {
    if !entry.file_type().is_dir() || entry.path() == root {
        return true;
    }
    match relative(root, entry.path()) {
        Some(dir) => area::concerns_publishing(templates, &dir),
        // Its name cannot be published. In a version that is told by `entry`; elsewhere it is nothing.
        None => {
            usable_part(root, entry.path()).is_some_and(|dir| area::version_dir_of(templates, &dir).is_some())
        }
    }
}

struct Scan<'a> {
    root: &'a Path,
    templates: &'a TemplateSet,
    known: &'a Known,
    report: ScanReport,
    /// The version directory that the walk is in.
    version: Option<VersionDirFound>,
}

impl Scan<'_> {
    fn entry(&mut self, entry: &DirEntry) {
        let (usable, is_usable) = match relative(self.root, entry.path()) {
            Some(path) => (path, true),
            None => match usable_part(self.root, entry.path()) {
                Some(above) => (above, false),
                None => return,
            },
        };
        if self.version.as_ref().is_none_or(|version| !usable.is_within(&version.dir)) {
            self.leave_version();
            if let Some(version) = area::version_dir_of(self.templates, &usable) {
                self.version = Some(VersionDirFound { dir: version.dir, files_total: 0, files_changed: 0 });
            }
        }
        match &mut self.version {
            Some(version) if usable != version.dir || !is_usable => {
                if let Some(is_known) = is_known_file(&usable, is_usable, entry, self.known) {
                    version.files_total += 1;
                    version.files_changed += u64::from(!is_known);
                }
            }
            _ => self.outside_versions(usable, entry),
        }
    }

    fn outside_versions(&mut self, path: RelPath, entry: &DirEntry) {
        let is_link = entry.file_type().is_symlink();
        if is_link && area::concerns_publishing(self.templates, &path) {
            self.version = None;
            self.problem(ScanProblem::Symlink { path });
        }
    }

    fn leave_version(&mut self) {
        self.report.versions.extend(self.version.take());
    }

    fn unreadable(&mut self, error: &walkdir::Error) {
        // What vanished while we looked was not there.
        let is_gone = error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
        if !is_gone {
            let path = error.path().unwrap_or(self.root).to_owned();
            let why = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
            self.problem(ScanProblem::Unreadable { path, why });
        }
    }

    fn problem(&mut self, problem: ScanProblem) {
        self.report.problems_total += 1;
        if self.report.problems.len() < MAX_PROBLEMS_NAMED {
            self.report.problems.push(problem);
        }
    }

    fn finish(mut self) -> ScanReport {
        self.leave_version();
        self.report.versions.sort_by(|a, b| a.dir.cmp(&b.dir));
        let mut spellings: HashMap<String, RelPath> = HashMap::with_capacity(self.report.versions.len());
        let mut collisions = Vec::new();
        for version in &self.report.versions {
            if let Some(first) = spellings.insert(version.dir.collision_key(), version.dir.clone()) {
                collisions.push(ScanProblem::Collision { first, second: version.dir.clone() });
            }
        }
        for collision in collisions {
            self.problem(collision);
        }
        self.report
    }
}

/// Says whether an entry in a version is known to the catalog, or `None` for what is no file of the version.
fn is_known_file(path: &RelPath, is_usable: bool, entry: &DirEntry, known: &Known) -> Option<bool> {
    if !is_usable || entry.file_type().is_symlink() {
        return Some(false);
    }
    if entry.file_type().is_dir() || classify(path) != Exclusion::None {
        return None;
    }
    match entry.metadata() {
        Ok(metadata) if metadata.is_file() => Some(known(path, &FileStat::from(&metadata).identity())),
        Ok(_) => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use avalon_protocol::template::{DEFAULT_PUBLISH, Template};

    use super::*;

    struct Project(tempfile::TempDir);

    impl Project {
        fn with(files: &[&str]) -> Self {
            let temp = tempfile::tempdir().unwrap();
            for file in files {
                let path = temp.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::File::create(path).unwrap();
            }
            Self(temp)
        }

        fn scan(&self, start: Option<&str>, known: &Known) -> Result<ScanReport, ScanError> {
            let templates = TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap();
            let start = start.map(|start| start.parse().unwrap());
            let dir = Dir::open(self.0.path()).unwrap();
            scan_beneath(&dir, start.as_ref(), &templates, known, &CancellationToken::new())
        }

        /// Scans with nothing known; each version as `dir total changed`.
        fn versions(&self, start: Option<&str>) -> Vec<String> {
            let report = self.scan(start, &|_, _| false).unwrap();
            let text = |v: &VersionDirFound| format!("{} {} {}", v.dir, v.files_total, v.files_changed);
            report.versions.iter().map(text).collect()
        }
    }

    #[test]
    fn every_version_is_found_with_its_files_and_nothing_else_is() {
        let project = Project::with(&[
            "assets/robot/publish/model/v001/model.abc",
            "assets/robot/publish/model/v001/tex/a.exr",
            "assets/robot/publish/model/v001/.publish.lock",
            "assets/robot/publish/model/v001/.DS_Store",
            "assets/robot/publish/model/hero/model.abc",
            "assets/robot/publish/model/hero.BACKUP1/model.abc",
            "assets/robot/publish/model/notes.txt",
            "assets/robot/publish/model/latest/model.abc",
            "assets/robot/work/publish/model/v001/model.abc",
            ".avalon/incoming/assets/robot/publish/model/v009/model.abc",
            "film/sh010/publish/beauty/v001/beauty.exr/beauty.1001.exr",
        ]);
        fs::create_dir_all(project.0.path().join("film/sh010/publish/empty/v001")).unwrap();
        let model = "assets/robot/publish/model";
        let expected = [
            format!("{model}/hero 1 1"),
            format!("{model}/v001 2 2"),
            "film/sh010/publish/beauty/v001 1 1".to_owned(),
            "film/sh010/publish/empty/v001 0 0".to_owned(),
        ];
        assert_eq!(project.versions(None), expected);
        assert_eq!(project.versions(Some("film")), &expected[2..]);
        assert_eq!(project.versions(Some(&format!("{model}/v001"))), &expected[1..2]);
        assert_eq!(project.versions(Some("assets/nobody")), [""; 0]);
    }

    #[test]
    fn files_that_the_catalog_knows_are_not_changed() {
        let project = Project::with(&["a/b/publish/c/v001/one.abc", "a/b/publish/c/v001/two.abc"]);
        let path = project.0.path().join("a/b/publish/c/v001/one.abc");
        let stat = FileStat::from(&fs::metadata(path).unwrap()).identity();
        let known = move |path: &RelPath, identity: &FileIdentity| {
            path.as_str() == "a/b/publish/c/v001/one.abc" && *identity == stat
        };
        let report = project.scan(None, &known).unwrap();
        assert_eq!((report.versions[0].files_total, report.versions[0].files_changed), (2, 1));
    }

    #[test]
    fn names_that_cannot_be_published_count_as_changed() {
        let project = Project::with(&["a/b/publish/c/v001/ok.abc", "a/b/publish/c/v001/CON/x.abc"]);
        let version = project.0.path().join("a/b/publish/c/v001");
        fs::File::create(version.join(OsStr::from_bytes(b"\xff.abc"))).unwrap();
        std::os::unix::fs::symlink("ok.abc", version.join("link.abc")).unwrap();
        let report = project.scan(None, &|path, _| path.file_name() == "ok.abc").unwrap();
        assert_eq!(report.versions.len(), 1);
        assert!(report.versions[0].files_changed >= 3, "{report:?}");
    }

    #[test]
    fn links_and_names_that_collide_are_problems() {
        let project = Project::with(&["a/b/publish/c/v001/x.abc", "a/B/publish/c/v001/x.abc"]);
        std::os::unix::fs::symlink("b", project.0.path().join("a/linked")).unwrap();
        let report = project.scan(None, &|_, _| false).unwrap();
        assert_eq!(report.versions.len(), 2, "nothing is found through the link");
        let path = |text: &str| text.parse::<RelPath>().unwrap();
        assert_eq!(
            report.problems,
            [
                ScanProblem::Symlink { path: path("a/linked") },
                ScanProblem::Collision {
                    first: path("a/B/publish/c/v001"),
                    second: path("a/b/publish/c/v001")
                },
            ]
        );
        assert_eq!(report.problems_total, 2);
    }

    #[test]
    fn a_missing_root_and_a_stop_give_no_report() {
        let project = Project::with(&["a/b/publish/c/v001/x.abc"]);
        let templates = TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap();
        let dir = Dir::open(project.0.path()).unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        let stopped = scan_project(&dir, &templates, &|_, _| false, &stop);
        assert!(matches!(stopped, Err(ScanError::Stopped { .. })));
        project.0.close().unwrap();
        let gone = scan_project(&dir, &templates, &|_, _| false, &CancellationToken::new());
        assert!(matches!(gone, Err(ScanError::RootMissing { .. })));
    }
}
