//! What a version was made from and nobody published: others cannot open it whole.

use super::{Check, CheckSeverity, Found, Seen, SeenBy, first_and_more, verb};
use crate::inputs::Input;

pub(super) const CHECK: Check =
    Check { code: "missing-input", severity: CheckSeverity::Warning, seen_by: SeenBy::Both, run };

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let paths =
        seen.manifest.draft().inputs.iter().filter(|input| matches!(Input::read(input), Input::Path(_)));
    let noted = seen.note(CHECK.code).unwrap_or_default();
    let unnamed = noted.count - noted.first.len();
    let unknown: Vec<&String> = noted.first.iter().filter(|reference| !seen.is_known(reference)).collect();
    // Those that the note does not name may be published by now, unless even the named ones are not.
    let unknown_count = if unknown.is_empty() { 0 } else { unknown.len() + unnamed };
    [not_published(paths.collect()), not_known(unknown.first().map(|first| first.as_str()), unknown_count)]
        .into_iter()
        .flatten()
        .collect()
}

fn not_published(paths: Vec<&String>) -> Option<Found> {
    let message = format!(
        "it was made from {}, which {} not published: others cannot fetch {}",
        first_and_more(paths.first()?, paths.len()),
        verb(paths.len(), "is", "are"),
        verb(paths.len(), "that", "them"),
    );
    Some(Found::new(message, "publish what it refers to, let it refer to that, and publish the next version"))
}

fn not_known(first: Option<&str>, count: usize) -> Option<Found> {
    let message = format!("it was made from {}, which nobody has published", first_and_more(first?, count),);
    Some(Found::new(message, "publish that under this name; the problem is gone then"))
}
