//! Sequences side by side, such as layers of one render, of which one ends earlier: what the names of one alone cannot show.

use std::collections::BTreeMap;

use super::{Check, CheckSeverity, Found, Seen, SeenBy};
use crate::sequence::Sequence;

pub(super) const CHECK: Check =
    Check { code: "frames-differ", severity: CheckSeverity::Warning, seen_by: SeenBy::Manifest, run };

/// Shorter ones may be anything.
const FEWEST_FRAMES: usize = 3;

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let mut side_by_side: BTreeMap<(&str, &str), Vec<&Sequence>> = BTreeMap::new();
    for sequence in &seen.sequences {
        if sequence.frames.len() >= FEWEST_FRAMES && !seen.is_tiles(sequence) {
            let dir = sequence.prefix.rsplit_once('/').map_or("", |(dir, _)| dir);
            side_by_side.entry((dir, &sequence.suffix)).or_default().push(sequence);
        }
    }
    side_by_side.into_values().flat_map(|group| shorter(&group)).collect()
}

fn shorter(group: &[&Sequence]) -> Vec<Found> {
    let ends = |sequence: &Sequence| Some((*sequence.frames.first()?, *sequence.frames.last()?));
    let Some(longest) = group.iter().max_by_key(|sequence| sequence.frames.len()) else { return Vec::new() };
    let Some((first, last)) = ends(longest) else { return Vec::new() };
    let lacks = |sequence: &&&Sequence| ends(sequence).is_some_and(|(from, to)| from > first || to < last);
    let found = group.iter().filter(lacks).map(|sequence| {
        Found::new(
            format!("{sequence} has other frames than {longest} beside it"),
            "render what it lacks into the same version, or put what is separate into subsets of its own",
        )
    });
    found.collect()
}
