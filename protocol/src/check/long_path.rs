//! Paths that are too long for Windows once a root stands before them.

use super::{Check, CheckSeverity, Found, Seen, SeenBy, first_and_more, verb};

pub(super) const CHECK: Check =
    Check { code: "long-path", severity: CheckSeverity::Warning, seen_by: SeenBy::Manifest, run };

/// Windows takes 259 characters; this leaves 39 for the root, such as `P:\shows\`.
const MAX_UTF16: usize = 220;

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let draft = seen.manifest.draft();
    let units = |text: &str| text.encode_utf16().count();
    let above = units(draft.version.project.as_str()) + units(draft.dir.as_str()) + 2;
    let mut long = seen.files().iter().filter(|file| above + units(file.path.as_str()) > MAX_UTF16);
    let Some(first) = long.next() else { return Vec::new() };
    let count = 1 + long.count();
    let message = format!(
        "{} {} more than {MAX_UTF16} characters from the project on: most programs on Windows open paths of 259 at most",
        first_and_more(first.path.as_str(), count),
        verb(count, "has", "have"),
    );
    vec![Found::new(message, "use shorter names, or fewer directories, in the next version")]
}
