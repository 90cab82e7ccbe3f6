//! Patterns over names and texts, and what can be said of two of them.

use std::fmt;

use crate::reference::{Pattern, glob_matches};

/// A text in which `*` stands for any text, also none, and `?` for one character. It must cover the whole name, and upper and
/// lower case differ. Without wildcards it matches that text alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(String);

/// Longest pattern in bytes, as long as a name may be.
const MAX_BYTES: usize = 128;

impl Glob {
    /// Reads a pattern over names of Avalon; what no name could match is refused.
    pub(super) fn of_name(text: &str) -> Result<Self, &'static str> {
        const RULE: &str =
            "write 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', with * for any text and ? for one character";
        text.parse::<Pattern>().map(|pattern| Self(pattern.as_str().to_owned())).map_err(|_| RULE)
    }

    /// Reads a pattern over any text, such as people's names and metadata.
    pub(super) fn of_text(text: &str) -> Result<Self, &'static str> {
        let fits = (1..=MAX_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        let rule =
            "write 1 to 128 bytes without control characters, with * for any text and ? for one character";
        if fits { Ok(Self(text.to_owned())) } else { Err(rule) }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether a text matches.
    pub fn matches(&self, text: &str) -> bool {
        glob_matches(&self.0, text, |_| true)
    }

    /// Says whether every text matches, also the empty one.
    pub(super) fn matches_everything(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// Says whether it certainly matches whatever `other` matches. `false` leaves it open.
    pub(super) fn covers(&self, other: &Self) -> bool {
        // The other pattern is read as a text whose `*` only a `*` can take: then whatever stands for it is taken as well.
        glob_matches(&self.0, &other.0, |c| c != '*')
    }

    /// Says whether certainly no text matches both. `false` leaves it open.
    pub(super) fn is_apart_from(&self, other: &Self) -> bool {
        match (self.is_literal(), other.is_literal()) {
            (true, _) => !other.matches(&self.0),
            (_, true) => !self.matches(&other.0),
            (false, false) => {
                let fixed = |text: &str| text.split(['*', '?']).next().unwrap_or_default().to_owned();
                let turned = |text: &str| text.chars().rev().collect::<String>();
                let differ = |a: String, b: String| !a.starts_with(&*b) && !b.starts_with(&*a);
                differ(fixed(&self.0), fixed(&other.0))
                    || differ(fixed(&turned(&self.0)), fixed(&turned(&other.0)))
            }
        }
    }

    fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::of_text(text).unwrap()
    }

    #[test]
    fn what_one_covers_and_what_is_apart_is_seen() {
        for (wide, narrow) in
            [("*", "a"), ("*", "*"), ("r*", "rig*"), ("?", "a"), ("??", "a?"), ("*a*", "b*a?")]
        {
            assert!(glob(wide).covers(&glob(narrow)), "{wide} {narrow}");
        }
        for (one, other) in [("a", "*"), ("?", "*"), ("rig*", "r*"), ("a?", "?a"), ("a", "b")] {
            assert!(!glob(one).covers(&glob(other)), "{one} {other}");
        }
        for (one, other) in [("a", "b"), ("a*", "b"), ("robot*", "sh*"), ("*_abc", "*_def")] {
            assert!(glob(one).is_apart_from(&glob(other)) && glob(other).is_apart_from(&glob(one)));
        }
        assert!(!glob("a*").is_apart_from(&glob("*b")) && !glob("ab*").is_apart_from(&glob("a*")));
    }

    #[test]
    fn what_no_name_can_match_is_refused() {
        for bad in ["", "robot[12]", "a/b", "{a,b}", "sh 010"] {
            assert!(Glob::of_name(bad).is_err(), "{bad}");
        }
        assert!(Glob::of_text("Anna Sørensen [lead]").is_ok());
        assert!(Glob::of_text("a\nb").is_err() && Glob::of_text("").is_err());
    }

    proptest! {
        #[test]
        fn covering_and_apartness_are_never_wrong(a in "[ab*?]{1,6}", b in "[ab*?]{1,6}", text in "[ab]{0,7}") {
            let (a, b) = (glob(&a), glob(&b));
            prop_assert!(!(a.covers(&b) && b.matches(&text)) || a.matches(&text));
            prop_assert!(!(a.is_apart_from(&b) && a.matches(&text) && b.matches(&text)));
        }
    }
}
