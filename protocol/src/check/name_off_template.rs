//! Representations of which no file lies where the project's template puts it. The publisher notes them: others may have
//! another template.

use super::{Check, CheckSeverity, Found, Seen, SeenBy, first_and_more, verb};

pub(super) const CHECK: Check =
    Check { code: "name-off-template", severity: CheckSeverity::Note, seen_by: SeenBy::Publisher, run };

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let Some(note) = seen.note(CHECK.code) else { return Vec::new() };
    let Some(first) = note.first.first() else { return Vec::new() };
    let message = format!(
        "{} {} not named as the project's template says: Avalon's loader does not find {}",
        first_and_more(first, note.count),
        verb(note.count, "is", "are"),
        verb(note.count, "it", "them"),
    );
    vec![Found::new(
        message,
        "name it as the template does, such as {subset}.{representation}, unless it is loaded by hand",
    )]
}
