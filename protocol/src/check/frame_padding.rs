//! One sequence whose numbers are filled up to different widths: programs read a part of it only.

use std::collections::BTreeMap;

use super::{Check, CheckSeverity, Found, Seen, SeenBy};
use crate::sequence::Sequence;

pub(super) const CHECK: Check =
    Check { code: "frame-padding", severity: CheckSeverity::Warning, seen_by: SeenBy::Manifest, run };

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let mut alike: BTreeMap<(&str, &str), Vec<&Sequence>> = BTreeMap::new();
    for sequence in &seen.sequences {
        alike.entry((&sequence.prefix, &sequence.suffix)).or_default().push(sequence);
    }
    let mixed = alike.into_values().filter(|group| group.len() > 1);
    mixed
        .map(|group| {
            let names: Vec<String> = group.iter().map(ToString::to_string).collect();
            Found::new(
                format!(
                    "{} differ in how many digits a number has: programs take them for different sequences",
                    names.join(" and ")
                ),
                "write all numbers with the same number of digits, and publish the next version",
            )
        })
        .collect()
}
