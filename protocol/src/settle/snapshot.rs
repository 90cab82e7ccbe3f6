//! [`DirSnapshot`], what one look at a version directory saw.

use std::{collections::HashMap, fmt};

use super::{EndMark, hero_backup};
use crate::rel_path::{PathRule, RelPath};

/// One look at a version directory and all that is beneath it.
///
/// What `classify` calls ignored is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirSnapshot {
    /// The regular files with usable names, in any order, each path once.
    pub files: Vec<SeenFile>,
    /// What says that somebody is still at work.
    pub blockers: Vec<Blocker>,
    /// What can never be published as it is.
    pub problems: Vec<NameProblem>,
    /// Whether a process holds a file open for writing; `None` when the system cannot say.
    pub open_writers: Option<bool>,
    /// The files that this node has recorded of the version, in any order, whatever lies there now. Only a version with a
    /// gap needs them.
    pub recorded: Vec<RelPath>,
}

/// A file as one `stat` saw it. It is the same file unchanged when everything but the end mark is equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// Its path inside the version directory.
    pub path: RelPath,
    /// Its length in bytes.
    pub size: u64,
    /// When its content was last changed, in nanoseconds since 1970. A hard link keeps an old one.
    pub mtime_ns: i64,
    /// When its inode was last changed, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// The number of its inode.
    pub inode: u64,
    /// What its first and last bytes say.
    pub end_mark: EndMark,
}

impl SeenFile {
    /// Says whether both are the same file with, as far as `stat` can tell, the same content.
    pub fn is_unchanged(&self, other: &Self) -> bool {
        let state = |file: &Self| (file.size, file.mtime_ns, file.ctime_ns, file.inode);
        self.path == other.path && state(self) == state(other)
    }
}

/// A file or directory whose presence says that the version is still being written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocker {
    /// Its path inside the version directory; for the backup of a hero, its name beside it.
    pub path: RelPath,
    /// What it is.
    pub kind: BlockerKind,
    /// How many whole hours ago it was last changed or renamed.
    pub age_hours: u64,
    /// Who made it, if it is a lock with nothing but a name in it.
    pub who: Option<String>,
}

impl Blocker {
    /// How old a backup is that nobody works with any more.
    const STALE_BACKUP_HOURS: u64 = 1;
    /// A longer text in a lock is no name.
    const MAX_WHO_BYTES: usize = 64;

    /// Says whether it was left behind: an integrator is done with a `*.bak` within an hour. What was put aside of a hero
    /// stays a sign, and so do locks.
    pub fn is_stale(&self) -> bool {
        self.kind == BlockerKind::Backup
            && !hero_backup(self.path.file_name())
            && self.age_hours >= Self::STALE_BACKUP_HOURS
    }

    /// Returns the name in the content of a lock, if that is one short line of letters, digits and a few signs.
    pub fn name_in(content: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(content).ok()?.trim();
        let is_fit = |c: char| c.is_ascii_alphanumeric() || " ._-@:/+".contains(c);
        let is_name = !text.is_empty() && text.len() <= Self::MAX_WHO_BYTES && text.chars().all(is_fit);
        is_name.then(|| text.to_owned())
    }
}

/// The kinds of [`Blocker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockerKind {
    /// A lock: `.publish.lock`, or any `*.lock`.
    Lock,
    /// A file that a program writes before it gives it its name.
    Temp,
    /// What an integrator put aside and removes, or puts back, when it is done: `*.bak`, `hero.BACKUP*`.
    Backup,
}

/// Something in a version directory that cannot be published under that name, or at all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameProblem {
    /// Its path inside the version directory; where it is not UTF-8, with replacement characters.
    pub name: String,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

/// What is wrong with a [`NameProblem`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemKind {
    /// A symbolic link: what it points to may lie outside, may change, and means nothing at another site.
    Symlink,
    /// A device, a socket or a pipe.
    Special,
    /// A name that another system would not take.
    Name(PathRule),
    /// A name that another system takes for this one.
    Collision {
        /// The other one.
        other: String,
    },
}

impl ProblemKind {
    /// Orders kinds, so that problems can be sorted and compared.
    fn rank(&self) -> (u8, String) {
        match self {
            Self::Symlink => (0, String::new()),
            Self::Special => (1, String::new()),
            Self::Name(rule) => (2, rule.to_string()),
            Self::Collision { other } => (3, other.clone()),
        }
    }
}

impl Ord for ProblemKind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for ProblemKind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for NameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.kind {
            ProblemKind::Symlink => write!(f, "{name:?} is a symbolic link; publish the file itself"),
            ProblemKind::Special => write!(f, "{name:?} is a device, a socket or a pipe; remove it"),
            ProblemKind::Name(rule) => write!(f, "{name:?} cannot be published: {rule}"),
            ProblemKind::Collision { other } => write!(
                f,
                "{name:?} and {other:?} are one name where case or Unicode composition is ignored; rename one"
            ),
        }
    }
}

/// Finds the names that macOS or Windows would take for one, directories included, in the order given.
pub fn collisions<'a>(paths: impl IntoIterator<Item = &'a RelPath>) -> Vec<NameProblem> {
    let mut spelling: HashMap<String, RelPath> = HashMap::new();
    let mut problems = Vec::new();
    for path in paths {
        let mut prefix = Some(path.clone());
        while let Some(path) = prefix {
            prefix = path.parent();
            match spelling.get(&path.collision_key()) {
                // The parents of a known spelling are known as well.
                Some(known) if *known == path => break,
                Some(known) => problems.push(NameProblem {
                    name: path.to_string(),
                    kind: ProblemKind::Collision { other: known.to_string() },
                }),
                None => {
                    spelling.insert(path.collision_key(), path);
                }
            }
        }
    }
    problems.sort();
    problems.dedup();
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_by_case_collide_in_files_and_in_directories() {
        let paths: Vec<RelPath> = ["Tex/a.exr", "tex/b.exr", "tex/c.exr", "x.ma", "X.ma", "y.ma"]
            .map(|p| p.parse().unwrap())
            .into();
        let found: Vec<String> = collisions(&paths).iter().map(ToString::to_string).collect();
        let text = |a: &str, b: &str| {
            format!("{a:?} and {b:?} are one name where case or Unicode composition is ignored; rename one")
        };
        assert_eq!(found, [text("X.ma", "x.ma"), text("tex", "Tex")]);
    }

    #[test]
    fn a_backup_is_stale_after_an_hour_and_a_lock_or_a_hero_put_aside_never() {
        let is_stale = |path: &str, kind, age_hours| {
            Blocker { path: path.parse().unwrap(), kind, age_hours, who: None }.is_stale()
        };
        assert!(!is_stale("desk.ma.bak", BlockerKind::Backup, 0));
        assert!(is_stale("tex/desk.ma.bak", BlockerKind::Backup, 1));
        assert!(!is_stale("hero.BACKUP1", BlockerKind::Backup, 100));
        assert!(!is_stale(".publish.lock", BlockerKind::Lock, 100));
    }

    #[test]
    fn only_a_short_line_in_a_lock_is_a_name() {
        assert_eq!(Blocker::name_in(b"anna@ws12\n").as_deref(), Some("anna@ws12"));
        for content in [&b""[..], b" \n", b"anna\nbob", b"\x1b[31manna", b"\xff\xfe", &[b'a'; 65]] {
            assert_eq!(Blocker::name_in(content), None);
        }
    }

    #[test]
    fn a_problem_says_what_to_do() {
        let show = |kind| NameProblem { name: "a\u{fffd}".into(), kind }.to_string();
        assert_eq!(show(ProblemKind::Symlink), "\"a\u{fffd}\" is a symbolic link; publish the file itself");
        assert_eq!(
            show(ProblemKind::Name(PathRule::NotUtf8)),
            "\"a\u{fffd}\" cannot be published: its name is not UTF-8; rename the file"
        );
    }
}
