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

use super::{area, watch::usable_part};

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

fn relative(root: &Path, path: &Path) -> Option<RelPath> {
    let usable = usable_part(root, path)?;
    (root.join(usable.as_str()) == path).then_some(usable)
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
        let Some(usable) = usable_part(self.root, entry.path()) else { return };
        if self.version.as_ref().is_none_or(|version| !usable.is_within(&version.dir)) {
            self.leave_version();
            if let Some(version) = area::version_dir_of(self.templates, &usable) {
                self.version = Some(VersionDirFound { dir: version.dir, files_total: 0, files_changed: 0 });
            }
        }
        let is_usable = self.root.join(usable.as_str()) == entry.path();
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
