//! Times of modification that lie after the publish: a machine's clock is wrong, and whoever compares times does too little.

use super::{Check, CheckSeverity, Found, Seen, SeenBy, first_and_more, verb};

pub(super) const CHECK: Check =
    Check { code: "future-time", severity: CheckSeverity::Warning, seen_by: SeenBy::Manifest, run };

/// Clocks of one studio differ by less.
const TOLERANCE_NS: i128 = 5 * 60 * 1_000_000_000;

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let published_ns = i128::from(seen.manifest.draft().published_at_ms) * 1_000_000;
    let ahead = |mtime_ns: i64| i128::from(mtime_ns) - published_ns;
    let mut late = seen.files().iter().filter(|file| ahead(file.mtime_ns) > TOLERANCE_NS);
    let Some(first) = late.next() else { return Vec::new() };
    let count = 1 + late.count();
    let minutes = ahead(first.mtime_ns) / 60_000_000_000;
    let message = format!(
        "{} {} {minutes} minutes after the version was published: whoever compares times takes the file for new",
        first_and_more(first.path.as_str(), count),
        verb(count, "was changed", "were changed"),
    );
    vec![Found::new(message, "set the clock of the machine that wrote it, and of the one that published")]
}
