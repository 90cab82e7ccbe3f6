//! Frames that are far smaller than the others of their sequence: the renderer wrote nothing into them, or died.

use super::{Check, CheckSeverity, Found, Seen, SeenBy, first_and_more, verb};
use crate::manifest::FileEntry;

pub(super) const CHECK: Check =
    Check { code: "odd-size", severity: CheckSeverity::Warning, seen_by: SeenBy::Manifest, run };

/// A frame is odd that has less than this part of the median.
const PART: u64 = 10;
/// Of fewer frames, none is usual.
const FEWEST_FRAMES: usize = 5;
/// Files below it are small for any reason.
const LEAST_MEDIAN_BYTES: u64 = 4096;

fn run(seen: &Seen<'_>) -> Vec<Found> {
    seen.numbered().into_values().filter_map(|files| odd(&files)).collect()
}

fn odd(files: &[&FileEntry]) -> Option<Found> {
    let mut sizes: Vec<u64> = files.iter().map(|file| file.size).collect();
    sizes.sort_unstable();
    let median = *sizes.get(sizes.len() / 2)?;
    // Files without bytes are told by another check.
    let is_odd = |file: &&&FileEntry| file.size > 0 && file.size.saturating_mul(PART) < median;
    let odd: Vec<&&FileEntry> = files.iter().filter(is_odd).collect();
    // Where a quarter is so, it is what the shot looks like: a fade compresses well.
    if files.len() < FEWEST_FRAMES || median < LEAST_MEDIAN_BYTES || odd.len() * 4 > files.len() {
        return None;
    }
    let first = odd.first()?;
    let count = odd.len();
    let message = format!(
        "{} {} far smaller than the other frames, {} bytes where half of them have {median} or more: likely broken",
        first_and_more(first.path.as_str(), count),
        verb(count, "is", "are"),
        first.size,
    );
    Some(Found::new(message, "look at it; if it is broken, render it again and publish the next version"))
}
