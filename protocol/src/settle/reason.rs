//! Why a version is waited for, and what is odd about one that was not waited for any longer, in words for people.

use std::{fmt, time::Duration};

use super::{Blocker, BlockerKind, DirSnapshot, EndMark, SeenFile};
use crate::{
    rel_path::RelPath,
    sequence::{self, Sequence},
};

/// What a version lacks before it is whole. `Display` is a fragment for `avalonctl status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// Its files changed, or something touched its directory, not long enough ago.
    Changing {
        /// How long ago.
        ago: Duration,
        /// How long nothing may change.
        quiet: Duration,
    },
    /// Something in it says that somebody is at work.
    Blocked {
        /// The first such thing.
        blocker: Blocker,
        /// How many more of the same kind there are.
        others: usize,
    },
    /// Frames are missing in the middle of a sequence. Time does not help: they must come, or somebody must publish
    /// the version as it is.
    Gap(FrameGap),
    /// A file of a format with an end mark has none.
    NotClosed {
        /// The first such file.
        path: RelPath,
        /// How many more there are.
        others: usize,
    },
    /// A process has one of its files open for writing.
    OpenWriter,
    /// A file has no bytes, as one that was just created.
    EmptyFile {
        /// The first such file.
        path: RelPath,
        /// How many more there are.
        others: usize,
        /// How long nothing may change before that is believed.
        quiet: Duration,
    },
}

/// Something odd about a version that was found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Files have no bytes.
    EmptyFile {
        /// The first such file.
        path: RelPath,
        /// How many more there are.
        others: usize,
    },
    /// Frames are missing; only an explicit publish goes on without them.
    Gap(FrameGap),
}

/// A sequence with frames missing between its first and its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameGap {
    /// The sequence as if it had no gap: text before the number.
    prefix: String,
    padding: usize,
    suffix: String,
    first: u32,
    last: u32,
    step: u32,
    missing: Vec<u32>,
}

impl FrameGap {
    /// The most runs of missing frames that `Display` writes.
    const MAX_RUNS_SHOWN: usize = 8;

    pub(crate) fn of(sequence: &Sequence) -> Option<Self> {
        let missing = sequence.missing();
        let (first, last) = (*sequence.frames.first()?, *sequence.frames.last()?);
        let Sequence { prefix, padding, suffix, .. } = sequence.clone();
        let step = sequence.step();
        (!missing.is_empty()).then_some(Self { prefix, padding, suffix, first, last, step, missing })
    }

    /// Says whether all that is missing is missing in the other as well.
    fn is_part_of(&self, other: &Self) -> bool {
        let name = |gap: &Self| (gap.prefix.clone(), gap.padding, gap.suffix.clone());
        name(self) == name(other) && self.missing.iter().all(|frame| other.missing.contains(frame))
    }

    /// Returns the missing frames, ascending; of very many only the first.
    pub fn missing(&self) -> &[u32] {
        &self.missing
    }

    /// Returns the missing frames as first and last of each run.
    fn runs(&self) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for &frame in &self.missing {
            match runs.last_mut() {
                Some((_, last)) if frame - *last == self.step => *last = frame,
                _ => runs.push((frame, frame)),
            }
        }
        runs
    }
}

impl fmt::Display for FrameGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, padding, suffix, first, last, step, missing } = self;
        let padding = *padding;
        f.write_str(if missing.len() == 1 { "frame " } else { "frames " })?;
        let runs = self.runs();
        for (index, (from, to)) in runs.iter().take(Self::MAX_RUNS_SHOWN).enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            write!(f, "{from:0padding$}")?;
            if to > from {
                write!(f, "-{to:0padding$}")?;
            }
        }
        let hidden = runs.len().saturating_sub(Self::MAX_RUNS_SHOWN);
        if hidden > 0 {
            write!(f, " and {hidden} more gaps")?;
        }
        write!(f, " of {prefix}[{first:0padding$}-{last:0padding$}")?;
        if *step > 1 {
            write!(f, "x{step}")?;
        }
        write!(f, "]{suffix} {}", if missing.len() == 1 { "is missing" } else { "are missing" })
    }
}

/// Returns the gaps of all sequences in a version, each directory for itself.
pub(super) fn gaps(files: &[SeenFile]) -> Vec<FrameGap> {
    gaps_of(files.iter().map(|file| file.path.as_str()))
}

fn gaps_of<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<FrameGap> {
    /// Names of more sequences than that help nobody.
    const MAX_GAPS: usize = 16;
    sequence::group(paths).iter().filter_map(FrameGap::of).take(MAX_GAPS).collect()
}

/// Returns the gaps that the version did not have already when it was recorded.
pub(super) fn new_gaps(gaps: &[FrameGap], recorded: &[RelPath]) -> Vec<FrameGap> {
    let old = gaps_of(recorded.iter().map(RelPath::as_str));
    gaps.iter().filter(|gap| !old.iter().any(|old| gap.is_part_of(old))).cloned().collect()
}

/// Returns the first file without bytes and how many more there are.
pub(super) fn empty_files(files: &[SeenFile]) -> Option<(RelPath, usize)> {
    first_and_others(files, |file| file.size == 0)
}

/// Returns what no explicit publish overrides: signs that a file is half-written right now.
pub(super) fn signs_of_work(files: &[SeenFile], snapshot: &DirSnapshot) -> Vec<WaitReason> {
    let mut reasons = Vec::new();
    for kind in [BlockerKind::Lock, BlockerKind::Temp, BlockerKind::Backup] {
        let mut alike: Vec<&Blocker> =
            snapshot.blockers.iter().filter(|blocker| blocker.kind == kind).collect();
        alike.sort();
        if let [first, others @ ..] = alike.as_slice() {
            reasons.push(WaitReason::Blocked { blocker: (*first).clone(), others: others.len() });
        }
    }
    if let Some((path, others)) = first_and_others(files, |file| file.end_mark == EndMark::Open) {
        reasons.push(WaitReason::NotClosed { path, others });
    }
    if snapshot.open_writers == Some(true) {
        reasons.push(WaitReason::OpenWriter);
    }
    reasons
}

fn first_and_others(files: &[SeenFile], is_meant: impl Fn(&SeenFile) -> bool) -> Option<(RelPath, usize)> {
    let mut meant = files.iter().filter(|file| is_meant(file));
    let first = meant.next()?.path.clone();
    Some((first, meant.count()))
}

/// Writes ` and 3 more`, and the verb that fits.
fn others_and(others: usize, singular: &str, plural: &str) -> String {
    match others {
        0 => singular.to_owned(),
        _ => format!("and {others} more {plural}"),
    }
}

/// Writes an age so coarsely that it does not change with each look.
fn age(hours: u64) -> String {
    match hours {
        0 => "less than an hour old".to_owned(),
        1 => "an hour old".to_owned(),
        2..48 => format!("{hours} hours old"),
        _ => format!("{} days old", hours / 24),
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changing { ago, quiet } => {
                write!(f, "changed {} s ago; waiting for {} s of quiet", ago.as_secs(), quiet.as_secs_f32())
            }
            Self::Blocked { blocker: Blocker { path, kind, age_hours, who }, others } => {
                let more = if *others > 0 { format!(" and {others} more") } else { String::new() };
                let who = who.as_ref().map(|who| format!(" ({who})")).unwrap_or_default();
                let what_to_do = format!("{}; remove it if no publish is running", age(*age_hours));
                match kind {
                    BlockerKind::Lock => write!(f, "locked by {path}{who}{more}, {what_to_do}"),
                    BlockerKind::Temp => write!(f, "being written: temporary file {path}{more}"),
                    BlockerKind::Backup => {
                        write!(f, "being replaced: backup {path}{more} is still there, {what_to_do}")
                    }
                }
            }
            Self::Gap(gap) => gap.fmt(f),
            Self::NotClosed { path, others } => {
                let is = others_and(*others, "is", "are");
                write!(f, "{path} {is} not closed yet")
            }
            Self::OpenWriter => f.write_str("a process has a file of it open for writing"),
            Self::EmptyFile { path, others, quiet } => {
                let is = others_and(*others, "is", "are");
                write!(f, "{path} {is} empty; waiting for {} s of quiet", quiet.as_secs_f32())
            }
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyFile { path, others } => {
                let is = others_and(*others, "is", "are");
                write!(f, "{path} {is} empty")
            }
            Self::Gap(gap) => gap.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        text.parse().unwrap()
    }

    fn gap(prefix: &str, frames: impl IntoIterator<Item = u32>) -> String {
        let files: Vec<String> = frames.into_iter().map(|n| format!("{prefix}{n:04}.exr")).collect();
        let sequences = sequence::group(files.iter().map(String::as_str));
        let gaps: Vec<FrameGap> = sequences.iter().filter_map(FrameGap::of).collect();
        gaps.first().map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn a_gap_names_the_missing_frames_and_the_range() {
        let without =
            |missing: &[u32]| -> Vec<u32> { (1001..=1024).filter(|n| !missing.contains(n)).collect() };
        let seen = without(&[1013, 1014]);
        assert_eq!(gap("beauty.", seen), "frames 1013-1014 of beauty.[1001-1024].exr are missing");
        assert_eq!(gap("b/a.", without(&[1002])), "frame 1002 of b/a.[1001-1024].exr is missing");
        assert_eq!(
            gap("beauty.", without(&[1002, 1005, 1006])),
            "frames 1002, 1005-1006 of beauty.[1001-1024].exr are missing"
        );
        let twos = [1, 3, 5, 11, 13, 15, 17];
        assert_eq!(gap("fx.", twos), "frames 0007-0009 of fx.[0001-0017x2].exr are missing");
        let holes = (0..100).filter(|n| n % 5 != 3);
        assert!(gap("fx.", holes).contains("and 12 more gaps of fx.[0000-0099].exr"));
        assert_eq!(gap("fx.", (1..50).step_by(2)), "");
    }

    #[test]
    fn reasons_read_as_sentences() {
        let seconds = Duration::from_secs;
        let blocked = |name: &str, kind, others| WaitReason::Blocked {
            blocker: Blocker { path: path(name), kind, age_hours: 0, who: None },
            others,
        };
        for (reason, text) in [
            (
                WaitReason::Changing { ago: Duration::from_millis(2900), quiet: seconds(5) },
                "changed 2 s ago; waiting for 5 s of quiet",
            ),
            (
                blocked(".publish.lock", BlockerKind::Lock, 0),
                "locked by .publish.lock, less than an hour old; remove it if no publish is running",
            ),
            (
                WaitReason::Blocked {
                    blocker: Blocker {
                        path: path(".publish.lock"),
                        kind: BlockerKind::Lock,
                        age_hours: 3,
                        who: Some("anna".into()),
                    },
                    others: 1,
                },
                "locked by .publish.lock (anna) and 1 more, 3 hours old; remove it if no publish is running",
            ),
            (blocked("a.tmp", BlockerKind::Temp, 2), "being written: temporary file a.tmp and 2 more"),
            (
                blocked("a.bak", BlockerKind::Backup, 0),
                "being replaced: backup a.bak is still there, less than an hour old; remove it if no publish is running",
            ),
            (
                WaitReason::NotClosed { path: path("modelDefault.abc"), others: 0 },
                "modelDefault.abc is not closed yet",
            ),
            (WaitReason::NotClosed { path: path("a.exr"), others: 3 }, "a.exr and 3 more are not closed yet"),
            (
                WaitReason::EmptyFile { path: path("a.obj"), others: 0, quiet: seconds(60) },
                "a.obj is empty; waiting for 60 s of quiet",
            ),
        ] {
            assert_eq!(reason.to_string(), text);
        }
        assert_eq!(
            Warning::EmptyFile { path: path("a.obj"), others: 1 }.to_string(),
            "a.obj and 1 more are empty"
        );
    }
}
