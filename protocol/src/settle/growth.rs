//! Which frames of a version that is still being made may flow already.
//!
//! A renderer that holds a lock for hours writes frame after frame. Each frame that is done is worth having elsewhere: so the
//! frames of a sequence, from its first on, flow while the lock is there, as generations of a version that grows. Anything
//! that is not a frame of a sequence waits for the lock to go, as does what comes after a frame that is missing or not done.

use std::collections::BTreeMap;

use super::{Blocker, BlockerKind, EndMark, SeenFile, SettleConfig, WaitReason, state::millis};
use crate::{
    rel_path::RelPath,
    sequence::{self, FrameName, Sequence},
};

/// How many quiet periods lie between two generations, at least: a generation for each frame would only be work.
const QUIET_PERIODS: u32 = 6;
/// The longer a version has grown, the rarer: by this part of the time since the first. A render of a night comes in about a
/// hundred generations.
const PART_OF_AGE: u64 = 32;

/// With how many frames a sequence begins to flow: of fewer nobody can tell whether one between them is missing.
const FIRST_FRAMES: usize = 3;

/// What flowed of one version so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Growth {
    files: usize,
    /// When the first and the last time were.
    times_ms: Option<(u64, u64)>,
}

/// What may flow, or when to look again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// These files, in the order of their paths.
    Now(Vec<SeenFile>),
    /// Nothing before then.
    NotBefore(u64),
    /// Nothing, as far as is known.
    Nothing,
}

impl Growth {
    /// Says what may flow: only while nothing but a lock, time and missing frames hold the version up. `since_ms` says of each
    /// file since when it has been as it is.
    pub(super) fn flow(
        &mut self,
        now_ms: u64,
        config: &SettleConfig,
        (files, since_ms): (&[SeenFile], &[u64]),
        (why, blockers): (&[WaitReason], &[Blocker]),
    ) -> Flow {
        let is_locked = blockers.iter().any(|blocker| blocker.kind == BlockerKind::Lock);
        let is_replaced = blockers.iter().any(|blocker| blocker.kind == BlockerKind::Backup);
        if !is_locked || is_replaced || why.contains(&WaitReason::OpenWriter) {
            return Flow::Nothing;
        }
        let quiet_ms = millis(config.quiet);
        let unproved_ms = millis(config.quiet.max(config.unproved_quiet));
        let mut settles_ms: Option<u64> = None;
        let mut done = BTreeMap::new();
        for (file, since_ms) in files.iter().zip(since_ms) {
            let is_closed = file.end_mark == EndMark::Closed;
            let settled_ms = since_ms.saturating_add(if is_closed { quiet_ms } else { unproved_ms });
            if settled_ms > now_ms {
                settles_ms = Some(settles_ms.map_or(settled_ms, |other| other.min(settled_ms)));
            } else if file.size > 0 && file.end_mark != EndMark::Open {
                done.insert(&file.path, file);
            }
        }
        let sequences = sequence::group(files.iter().map(|file| file.path.as_str()));
        let mut flowing: Vec<&SeenFile> = sequences.iter().flat_map(|one| first_frames(one, &done)).collect();
        let again = |at_ms: Option<u64>| at_ms.map_or(Flow::Nothing, Flow::NotBefore);
        if flowing.len() <= self.files {
            return again(settles_ms);
        }
        let due_ms = self.times_ms.map_or(0, |(first, last)| {
            let pause_ms =
                quiet_ms.saturating_mul(u64::from(QUIET_PERIODS)).max((last - first) / PART_OF_AGE);
            last.saturating_add(pause_ms)
        });
        if due_ms > now_ms {
            return Flow::NotBefore(due_ms);
        }
        self.files = flowing.len();
        self.times_ms = Some((self.times_ms.map_or(now_ms, |(first, _)| first), now_ms));
        flowing.sort_by(|a, b| a.path.cmp(&b.path));
        Flow::Now(flowing.into_iter().cloned().collect())
    }
}

/// Returns the frames of a sequence from its first on, up to one that is missing or not done.
fn first_frames<'f>(sequence: &Sequence, done: &BTreeMap<&RelPath, &'f SeenFile>) -> Vec<&'f SeenFile> {
    let missing = sequence.missing().first().copied().unwrap_or(u32::MAX);
    let named = sequence.frames.iter().take_while(|frame| **frame < missing).map(|frame| {
        let Sequence { prefix, padding, suffix, .. } = sequence.clone();
        FrameName { prefix, frame: *frame, padding, suffix }.to_string()
    });
    let frames: Vec<&SeenFile> =
        named.map_while(|name| done.get(&name.parse::<RelPath>().ok()?).copied()).collect();
    if frames.len() < FIRST_FRAMES { Vec::new() } else { frames }
}
