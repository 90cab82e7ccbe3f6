//! [`Settle`], the state machine of one version directory.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Blocker, DirSnapshot, EndMark, NameProblem, SeenFile, WaitReason, Warning,
    growth::{Flow, Growth},
    reason::{empty_files, gaps, new_gaps, signs_of_work},
};
use crate::{manifest::Completeness, rel_path::RelPath};

/// How long nothing may change before a version is believed to be done: longer than a program pauses between two files
/// of one publish, short enough that nobody wonders.
pub const DEFAULT_QUIET: Duration = Duration::from_secs(5);

/// The same while a file has no bytes: it was probably just created, and over NFS its bytes may take their time.
pub const EMPTY_FILE_QUIET: Duration = Duration::from_secs(60);

/// How often a version that waits for something other than time is looked at again, at the latest: the watcher tells of
/// changes on a local disk, and on a network mount it does not.
const MAX_RECHECK_MS: u64 = 60_000;
/// And at the earliest.
const MIN_RECHECK_MS: u64 = 1_000;

/// How patient a [`Settle`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettleConfig {
    /// How long nothing may change.
    pub quiet: Duration,
    /// How long nothing may change while a file is empty; counts only when it is longer than `quiet`.
    pub empty_file_quiet: Duration,
    /// How long nothing may change while a file has no end mark that says that it is closed; counts only when it is longer than
    /// `quiet`. It is where other machines write: what they keep back comes late, and nobody sees that they have a file open.
    pub unproved_quiet: Duration,
}

impl Default for SettleConfig {
    fn default() -> Self {
        Self { quiet: DEFAULT_QUIET, empty_file_quiet: EMPTY_FILE_QUIET, unproved_quiet: Duration::ZERO }
    }
}

/// Decides when one version directory is whole.
///
/// The caller looks at the directory when it likes, hands in what it saw, and looks again at `until_ms` or when something
/// is touched. Time is in milliseconds of one monotonic clock. A version is [`Verdict::Whole`] when, in this order,
///
/// 1. it holds a file (else [`Verdict::Empty`]);
/// 2. nothing in it is impossible to publish (else [`Verdict::Refused`]);
/// 3. no lock, temporary file or backup is in it, no process writes it, and no file lacks the end mark of its format;
/// 4. its sequences have no gap but what was missing already when it was recorded; a constant step is none, nor are UDIM
///    tiles;
/// 5. nothing changed for the quiet period: no path, size, time or inode of a file, no lock, and nothing was touched.
///    While a file is empty, that is the longer period for empty files; then it is published with a warning. While one has
///    no end mark that says that it is closed, it is the period for those.
///
/// The quiet period runs from when this machine *saw* the state first. The age of a file proves nothing: a hard link and
/// `cp -p` keep the old time of modification.
///
/// An explicit request stands for 4 and 5: somebody says that it is whole. It does not stand for 3: the version then waits
/// for the lock to go or the file to be closed, and is whole at once when that happens; a half-written file is published
/// for nobody. Rule 2 ends the request.
///
/// Waiting for 3 and 4 has no end of its own; [`WaitReason`] says what is lacking. While a lock is there the frames of sequences
/// that are done, each quiet for its time, closed and not empty, may flow before the rest: [`Verdict::Grows`].
#[derive(Debug, Clone)]
pub struct Settle {
    config: SettleConfig,
    /// The files of the last look, in the order of their paths.
    files: Vec<SeenFile>,
    /// Of each file, since when it has been as it is.
    since_ms: Vec<u64>,
    growth: Growth,
    blockers: Vec<Blocker>,
    /// When the state was first seen as it is, or last touched.
    changed_ms: Option<u64>,
    request: Request,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    None,
    Explicit,
}

/// What to do with a version directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Look again.
    Wait {
        /// When, if nothing is touched before; later than now.
        until_ms: u64,
        /// What is lacking, at least one thing.
        why: Vec<WaitReason>,
    },
    /// Look again as for [`Verdict::Wait`]; what is done of it may flow meanwhile.
    Grows {
        /// When to look again, if nothing is touched before; later than now.
        until_ms: u64,
        /// What is lacking, a lock among it.
        why: Vec<WaitReason>,
        /// The frames that are done, from the first of each sequence on, in the order of their paths; more than the last time.
        files: Vec<SeenFile>,
    },
    /// Publish it.
    Whole {
        /// The strongest signal that says so.
        completeness: Completeness,
        /// Its files, in the order of their paths.
        files: Vec<SeenFile>,
        /// What a person should hear about it.
        warnings: Vec<Warning>,
    },
    /// It cannot be published before somebody changes something.
    Refused {
        /// What, at least one thing.
        problems: Vec<NameProblem>,
    },
    /// There is nothing in it.
    Empty,
}

impl Settle {
    /// Starts to decide about a directory of which nothing is known.
    pub fn new(config: SettleConfig) -> Self {
        Self {
            config,
            files: Vec::new(),
            since_ms: Vec::new(),
            growth: Growth::default(),
            blockers: Vec::new(),
            changed_ms: None,
            request: Request::None,
        }
    }

    /// Changes how patient it is, from the next look on.
    pub fn configure(&mut self, config: SettleConfig) {
        self.config = config;
    }

    /// Notes that the watcher saw something happen in the directory; the quiet period starts again.
    pub fn touched(&mut self, now_ms: u64) {
        self.changed_ms = Some(now_ms);
    }

    /// Notes that somebody said that the version is whole. It counts until the version is whole, refused or empty.
    pub fn request_explicit(&mut self) {
        self.request = Request::Explicit;
    }

    /// Returns the files of the last look, in the order of their paths.
    pub fn files(&self) -> &[SeenFile] {
        &self.files
    }

    /// Decides, given what the directory looks like now.
    pub fn observe(&mut self, now_ms: u64, snapshot: &DirSnapshot) -> Verdict {
        let changed_ms = self.note(now_ms, snapshot);
        if self.files.is_empty() && self.blockers.is_empty() && snapshot.problems.is_empty() {
            *self = Self::new(self.config);
            return Verdict::Empty;
        }
        if !snapshot.problems.is_empty() {
            self.request = Request::None;
            return Verdict::Refused { problems: snapshot.problems.clone() };
        }
        let mut why = signs_of_work(&self.files, snapshot);
        let gaps = gaps(&self.files);
        if self.request == Request::None {
            why.extend(new_gaps(&gaps, &snapshot.recorded).into_iter().map(WaitReason::Gap));
        }
        let helps = if why.is_empty() { Helps::Time } else { Helps::Somebody };
        if self.request == Request::None {
            why.extend(self.not_quiet(now_ms, changed_ms));
        }
        if why.is_empty() {
            return self.whole(gaps);
        }
        let until_ms = self.next_look(now_ms, changed_ms, helps);
        if self.request != Request::None {
            return Verdict::Wait { until_ms, why };
        }
        let seen = (self.files.as_slice(), self.since_ms.as_slice());
        match self.growth.flow(now_ms, &self.config, seen, (&why, &self.blockers)) {
            Flow::Now(files) => Verdict::Grows { until_ms, why, files },
            Flow::NotBefore(at_ms) => Verdict::Wait { until_ms: until_ms.min(at_ms.max(now_ms + 1)), why },
            Flow::Nothing => Verdict::Wait { until_ms, why },
        }
    }

    /// Remembers what was seen and returns since when it has been so.
    fn note(&mut self, now_ms: u64, snapshot: &DirSnapshot) -> u64 {
        let mut files: Vec<&SeenFile> = snapshot.files.iter().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut blockers = snapshot.blockers.clone();
        blockers.sort();
        let same_files = files.len() == self.files.len()
            && files.iter().zip(&self.files).all(|(now, before)| now.is_unchanged(before));
        let since = self.changed_ms.filter(|_| same_files && blockers == self.blockers).unwrap_or(now_ms);
        let before: BTreeMap<&RelPath, (&SeenFile, u64)> =
            self.files.iter().zip(&self.since_ms).map(|(file, since)| (&file.path, (file, *since))).collect();
        let unchanged_since = |file: &SeenFile| match before.get(&file.path) {
            Some((before, since_ms)) if file.is_unchanged(before) => *since_ms,
            _ => now_ms,
        };
        self.since_ms = files.iter().map(|file| unchanged_since(file)).collect();
        // Kept also when unchanged: an end mark may be written within one tick of the file system's clock.
        self.files = files.into_iter().cloned().collect();
        self.blockers = blockers;
        self.changed_ms = Some(since);
        since
    }

    /// Returns the period for which nothing may change, given what is there.
    fn quiet(&self) -> Duration {
        match empty_files(&self.files) {
            Some(_) => self.quiet_of_bytes().max(self.config.empty_file_quiet),
            None => self.quiet_of_bytes(),
        }
    }

    /// The same, as if no file were empty.
    fn quiet_of_bytes(&self) -> Duration {
        if self.files.iter().all(|file| file.end_mark == EndMark::Closed) {
            self.config.quiet
        } else {
            self.config.quiet.max(self.config.unproved_quiet)
        }
    }

    fn not_quiet(&self, now_ms: u64, changed_ms: u64) -> Option<WaitReason> {
        let ago = Duration::from_millis(now_ms.saturating_sub(changed_ms));
        if ago >= self.quiet() {
            return None;
        }
        match empty_files(&self.files) {
            Some((path, others)) if ago >= self.quiet_of_bytes() => {
                Some(WaitReason::EmptyFile { path, others, quiet: self.quiet() })
            }
            _ => Some(WaitReason::Changing { ago, quiet: self.quiet_of_bytes() }),
        }
    }

    fn next_look(&self, now_ms: u64, changed_ms: u64, helps: Helps) -> u64 {
        let quiet_ms = millis(self.quiet());
        let quiet_end = changed_ms.saturating_add(quiet_ms);
        match helps {
            Helps::Time => quiet_end.max(now_ms + 1),
            Helps::Somebody => {
                let age_ms = now_ms.saturating_sub(changed_ms);
                let pause_ms =
                    (age_ms / 2).max(millis(self.config.quiet)).clamp(MIN_RECHECK_MS, MAX_RECHECK_MS);
                now_ms.saturating_add(pause_ms)
            }
        }
    }

    fn whole(&mut self, gaps: Vec<super::FrameGap>) -> Verdict {
        let has = |mark| self.files.iter().any(|file| file.end_mark == mark);
        let completeness = match self.request {
            Request::Explicit => Completeness::Explicit,
            Request::None if has(EndMark::Closed) && !has(EndMark::Open) => Completeness::EndMarks,
            Request::None => Completeness::Quiet,
        };
        let empty = empty_files(&self.files).map(|(path, others)| Warning::EmptyFile { path, others });
        let warnings = empty.into_iter().chain(gaps.into_iter().map(Warning::Gap)).collect();
        self.request = Request::None;
        Verdict::Whole { completeness, files: self.files.clone(), warnings }
    }
}

/// What ends a wait.
enum Helps {
    Time,
    Somebody,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
