//! Names with spaces, letters beyond ASCII, or signs that shells, URLs and scene formats read as something else. What Windows
//! does not take at all is refused when it is published.

use super::{Check, CheckSeverity, Found, Seen, SeenBy, first_and_more, verb};

pub(super) const CHECK: Check =
    Check { code: "name-characters", severity: CheckSeverity::Note, seen_by: SeenBy::Manifest, run };

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-+@=,~/".contains(c)
}

fn is_odd(path: &str) -> bool {
    !path.chars().all(is_plain) || path.split('/').any(|part| part.starts_with('-'))
}

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let mut odd = seen.files().iter().filter(|file| is_odd(file.path.as_str()));
    let Some(first) = odd.next() else { return Vec::new() };
    let count = 1 + odd.count();
    let message = format!(
        "{} {} characters that shells, farms and scene files may read as something else",
        first_and_more(first.path.as_str(), count),
        verb(count, "has", "have"),
    );
    vec![Found::new(
        message,
        "use letters from a to z, digits, dots, dashes and underscores, with no dash in front",
    )]
}
