//! Patterns over names and texts, and what can be said of two of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::reference::{Pattern, glob_matches};

/// A text in which `*` stands for any text, also none, and `?` for one character. It must cover the whole name, and upper and
/// lower case differ. Without wildcards it matches that text alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(String);

/// Most patterns for what two match together; with a few wildcards each there are fewer.
const MAX_COMMON: usize = 64;
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

    /// Returns patterns that together match what both match; nothing when they are too many or too long.
    pub(super) fn common(&self, other: &Self) -> Option<Vec<Self>> {
        if self.covers(other) {
            return Some(vec![other.clone()]);
        }
        if other.covers(self) {
            return Some(vec![self.clone()]);
        }
        let mut known = BTreeMap::new();
        let found = common(self.0.as_bytes(), other.0.as_bytes(), &mut known)?;
        let globs = found.into_iter().map(|bytes| String::from_utf8(bytes).ok());
        globs.map(|text| text.filter(|text| text.len() <= MAX_BYTES).map(Self)).collect()
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

type Patterns = BTreeSet<Vec<u8>>;

/// Returns patterns of what two patterns of one-byte characters both match. Of a text that both match, either the first
/// character is one that both begin with, or the `*` that one begins with takes nothing, or it takes the first character. `known` has what
/// was found for what is left of both, by its lengths.
fn common(one: &[u8], other: &[u8], known: &mut BTreeMap<(usize, usize), Patterns>) -> Option<Patterns> {
    let at = (one.len(), other.len());
    if let Some(found) = known.get(&at) {
        return Some(found.clone());
    }
    let behind = |first: u8, rest: Patterns| {
        rest.into_iter().map(move |rest| {
            // Two in a row are one.
            let is_double = first == b'*' && rest.first() == Some(&b'*');
            if is_double { rest } else { [&[first], &rest[..]].concat() }
        })
    };
    let mut found = Patterns::new();
    match (one.split_first(), other.split_first()) {
        (None, None) => drop(found.insert(Vec::new())),
        (Some((b'*', after)), Some((b'*', other_after))) => {
            found.extend(behind(b'*', common(after, other, known)?));
            found.extend(behind(b'*', common(one, other_after, known)?));
        }
        (Some((b'*', after)), rest) => {
            found.extend(common(after, other, known)?);
            if let Some((first, rest)) = rest {
                found.extend(behind(*first, common(one, rest, known)?));
            }
        }
        (rest, Some((b'*', after))) => {
            found.extend(common(one, after, known)?);
            if let Some((first, rest)) = rest {
                found.extend(behind(*first, common(rest, other, known)?));
            }
        }
        (Some((first, rest)), Some((other_first, other_rest))) => {
            let both = match (*first, *other_first) {
                (b'?', literal) | (literal, b'?') => Some(literal),
                (first, other_first) => (first == other_first).then_some(first),
            };
            if let Some(both) = both {
                found.extend(behind(both, common(rest, other_rest, known)?));
            }
        }
        (None, Some(_)) | (Some(_), None) => {}
    }
    if found.len() > MAX_COMMON {
        return None;
    }
    known.insert(at, found.clone());
    Some(found)
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
