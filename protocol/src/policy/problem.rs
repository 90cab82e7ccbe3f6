//! What is wrong with a policy: where, why, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// One thing that is wrong with a policy document. Prints as compilers do, without the file: `12:7: reason; advice`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The line, from 1.
    pub line: u32,
    /// The character in the line, from 1.
    pub column: u32,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.line, self.column, self.reason, self.advice)
    }
}

/// Why a document is not a policy: all that was found, in the order of the lines.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the policy is refused, line {}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join(", line "))]
pub struct Refused {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// Where a byte of a text stands: its line and the character within, both from 1.
pub(super) fn place(text: &str, at: usize) -> (u32, u32) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    // A document is far shorter than four billion lines.
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// Returns the candidate that was probably meant.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    let scored =
        candidates.into_iter().map(|known| (strsim::jaro_winkler(&word, &known.to_lowercase()), known));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// Joins words as people do: `a, b or c`.
pub(super) fn listed(words: &[impl AsRef<str>], last: &str) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => one.as_ref().to_owned(),
        [first @ .., end] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} {last} {}", first.join(", "), end.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_characters_are_counted_from_one() {
        let text = "a\nbé c\n";
        assert_eq!((place(text, 0), place(text, 2), place(text, 6)), ((1, 1), (2, 1), (2, 4)));
        assert_eq!(place(text, 99), (3, 1));
    }

    #[test]
    fn what_was_probably_meant_is_found_and_nothing_far_off() {
        assert_eq!(nearest("familiy", ["family", "author"]), Some("family"));
        assert_eq!(nearest("London", ["london", "montreal"]), Some("london"));
        assert_eq!(nearest("zebra", ["family", "author"]), None);
    }

    #[test]
    fn words_are_joined_as_people_do() {
        assert_eq!(listed(&["a"], "or"), "a");
        assert_eq!(listed(&["a", "b", "c"], "or"), "a, b or c");
    }
}
