//! Frames that are missing within a sequence, or at its ends where the pipeline said which frames there are.

use super::{Check, CheckSeverity, Found, Seen, SeenBy};
use crate::{sequence::Sequence, settle::FrameGap};

pub(super) const CHECK: Check =
    Check { code: "missing-frames", severity: CheckSeverity::Warning, seen_by: SeenBy::Manifest, run };

const HINT: &str =
    "render them into the same version, it grows by them; or publish a version with other frames";

/// How pipelines call the first and the last frame in a version's metadata.
const RANGES: [(&str, &str); 2] = [("startFrame", "endFrame"), ("frameStart", "frameEnd")];

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    let declared = declared(seen);
    for sequence in seen.sequences.iter().filter(|sequence| !seen.is_tiles(sequence)) {
        found.extend(FrameGap::of(sequence).map(|gap| Found::new(gap.to_string(), HINT)));
        found.extend(declared.and_then(|range| ends(sequence, range)));
    }
    found
}

fn declared(seen: &Seen<'_>) -> Option<(u32, u32)> {
    let metadata = &seen.manifest.draft().metadata;
    // Pipelines write whole numbers as floats, too.
    let number = |key: &str| {
        let text = metadata.get(key)?.trim();
        text.strip_suffix(".0").unwrap_or(text).parse::<u32>().ok()
    };
    let ranges = RANGES.iter().filter_map(|(first, last)| Some((number(first)?, number(last)?)));
    ranges.into_iter().find(|(first, last)| first <= last)
}

/// Compares the ends of a sequence with the frames that the version is said to have. Handles may go beyond.
fn ends(sequence: &Sequence, (start, end): (u32, u32)) -> Option<Found> {
    let (first, last) = (*sequence.frames.first()?, *sequence.frames.last()?);
    // A lone number, or numbers that have nothing to do with the range, are no frames of it.
    let is_of_range = sequence.frames.len() > 1 && first <= end && last >= start;
    let step = sequence.step();
    let is_short = first.saturating_sub(start) >= step || end.saturating_sub(last) >= step;
    (is_of_range && is_short).then(|| {
        let message =
            format!("{sequence} has frames {first} to {last}; the version is said to have {start} to {end}");
        Found::new(message, HINT)
    })
}
