//! Checks of what was published: frames that are missing, files without bytes, names that break elsewhere. They never hold a
//! publish back; they say what an artist would want to hear before somebody else finds it.
//!
//! One file per check, one line each in [`ALL`]. What a manifest shows is computed from it by whoever asks, so every site says
//! the same. What only the publishing node can see (bytes, its template, what it knows) it notes in the manifest's metadata as
//! [`Note`]. `docs/checks.md` is the table for people.

mod empty_file;
mod frame_padding;
mod frames_differ;
mod future_time;
mod long_path;
mod missing_frames;
mod missing_input;
mod name_case;
mod name_characters;
mod name_off_template;
mod note;
mod odd_size;
mod seen;
mod truncated;

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::seen::Seen;
pub use self::{
    note::{Note, PREFIX},
    truncated::{has_length_mark, length_mark},
};
use crate::manifest::Manifest;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckSeverity {
    /// Against the conventions; everything works. It changes no exit code.
    Note,
    /// Probably not meant so.
    Warning,
    /// Somebody cannot work with it.
    Error,
}

impl fmt::Display for CheckSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Who can see what a check looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenBy {
    /// Whoever has the manifest.
    Manifest,
    /// The node that publishes; it notes it in the manifest.
    Publisher,
    /// A part each.
    Both,
}

impl fmt::Display for SeenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Publisher => "publisher",
            Self::Both => "both",
        })
    }
}

/// One check.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Its name in rules and answers, for ever.
    pub code: &'static str,
    /// How bad what it finds is.
    pub severity: CheckSeverity,
    /// Who can see it.
    pub seen_by: SeenBy,
    run: fn(&Seen<'_>) -> Vec<Found>,
}

/// Every check, in the order in which problems are told.
pub const ALL: [Check; 12] = [
    empty_file::CHECK,
    truncated::CHECK,
    missing_frames::CHECK,
    frames_differ::CHECK,
    odd_size::CHECK,
    missing_input::CHECK,
    name_case::CHECK,
    frame_padding::CHECK,
    future_time::CHECK,
    long_path::CHECK,
    name_characters::CHECK,
    name_off_template::CHECK,
];

/// The code of truncated files, which the publisher notes.
pub const TRUNCATED_FILE: &str = truncated::CHECK.code;
/// The code of inputs that are not published, of which the publisher notes those that are references.
pub const MISSING_INPUT: &str = missing_input::CHECK.code;
/// The code of names that the template does not give, which the publisher notes.
pub const NAME_OFF_TEMPLATE: &str = name_off_template::CHECK.code;

/// Most problems that one check tells of one version; what is beyond is counted in the last.
const MAX_FOUND: usize = 8;

/// What a check found: what and why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    message: String,
    hint: String,
}

impl Found {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// One problem of a version. `Display` is one line without the hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckProblem {
    /// Which check found it.
    pub code: String,
    /// How bad it is.
    pub severity: CheckSeverity,
    /// What is wrong, and why that matters.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for CheckProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.severity, self.code, self.message)
    }
}

/// Runs all checks over a version, but those whose codes are in `off`. `is_known` says of a reference that the publisher did
/// not know whether it is known by now.
///
/// Deterministic in the manifest, `off` and `is_known`; takes time in the number of files.
pub fn problems(
    manifest: &Manifest,
    off: &BTreeSet<&str>,
    is_known: &dyn Fn(&str) -> bool,
) -> Vec<CheckProblem> {
    let seen = Seen::new(manifest, is_known);
    let on = ALL.iter().filter(|check| !off.contains(check.code));
    on.flat_map(|check| {
        let mut found = (check.run)(&seen);
        let hidden = found.len().saturating_sub(MAX_FOUND);
        found.truncate(MAX_FOUND);
        if let Some(last) = found.last_mut().filter(|_| hidden > 0) {
            last.message.push_str(&format!("; and {hidden} more like it"));
        }
        found.into_iter().map(|found| CheckProblem {
            code: check.code.to_owned(),
            severity: check.severity,
            message: found.message,
            hint: found.hint,
        })
    })
    .collect()
}

/// Writes the first of several names and how many more there are: `a.exr`, `a.exr and 3 more`.
fn first_and_more(first: &str, count: usize) -> String {
    match count {
        0 | 1 => first.to_owned(),
        _ => format!("{first} and {} more", count - 1),
    }
}

/// Chooses the verb that fits a number of things.
fn verb<'w>(count: usize, one: &'w str, several: &'w str) -> &'w str {
    if count == 1 { one } else { several }
}

#[cfg(test)]
mod tests;
