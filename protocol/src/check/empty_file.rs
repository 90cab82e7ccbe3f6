//! Files without bytes: a writer that died, or a disk that was full.

use super::{Check, CheckSeverity, Found, Seen, SeenBy, first_and_more, verb};

pub(super) const CHECK: Check =
    Check { code: "empty-file", severity: CheckSeverity::Error, seen_by: SeenBy::Manifest, run };

/// Some files mean something by being there.
fn is_marker(name: &str) -> bool {
    name.starts_with('.') || name == "__init__.py"
}

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let mut empty = seen.files().iter().filter(|file| file.size == 0 && !is_marker(file.path.file_name()));
    let Some(first) = empty.next() else { return Vec::new() };
    let count = 1 + empty.count();
    let message = format!(
        "{} {} no bytes: nobody can open {}",
        first_and_more(first.path.as_str(), count),
        verb(count, "has", "have"),
        verb(count, "it", "them")
    );
    vec![Found::new(message, "write it again, look for a full disk, and publish the next version")]
}
