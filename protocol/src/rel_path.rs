//! [`RelPath`], the only path type on the wire and in manifests.
//!
//! A relative path is refused, never cleaned: what passes here can be joined to a directory and stays beneath it on
//! every system that a studio runs. Conversion to an operating system's path happens in `store` alone.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// A relative path: UTF-8 in NFC, parts joined by `/`, none empty, `.` or `..`, and no part that Windows or a
/// terminal would take for something else.
///
/// Limits: 1,024 bytes, 64 parts, 255 bytes a part. The order is that of the parts compared bytewise, so that a
/// directory stands directly before what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

/// Why a text is not a [`RelPath`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path:?} cannot be a path in a project: {rule}")]
pub struct InvalidPath {
    /// The rejected text, shortened to 200 characters.
    pub path: String,
    /// What is wrong with it.
    pub rule: PathRule,
}

/// The rule that a refused path breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathRule {
    /// Empty, absolute, or with an empty part.
    #[error("it is empty, absolute, or has an empty part")]
    EmptyPart,
    /// A part is `.` or `..`.
    #[error("it has a part '.' or '..'")]
    DotPart,
    /// More than 1,024 bytes, 64 parts or 255 bytes in a part.
    #[error("it is longer than 1024 bytes, 64 parts or 255 bytes a part")]
    TooLong,
    /// A character that a system that we support does not allow, or that hides in a terminal.
    #[error(
        "it has a character that Windows or a terminal does not take (one of \\ : * ? \" < > | or a control)"
    )]
    Character,
    /// A part that Windows reserves for a device, or that it would shorten.
    #[error("Windows reserves the name or ends it elsewhere (CON, NUL, COM1, a dot or space at the end)")]
    Reserved,
    /// Not in Unicode's composed form, so that macOS and Linux would disagree about it.
    #[error("it is not in Unicode normal form C; rename the file")]
    NotNormal,
    /// The bytes are not UTF-8.
    #[error("its name is not UTF-8; rename the file")]
    NotUtf8,
}

impl RelPath {
    /// The longest path in bytes.
    pub const MAX_BYTES: usize = 1024;
    /// The largest number of parts.
    pub const MAX_PARTS: usize = 64;
    /// The longest part in bytes, as on every common file system.
    pub const MAX_PART_BYTES: usize = 255;

    /// Returns the text, parts joined by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the parts from the top.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Returns the last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Returns the last part as a path of its own.
    #[must_use]
    pub fn name(&self) -> Self {
        Self(self.file_name().to_owned())
    }

    /// Returns the directory that it lies in, or `None` for a single part.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Appends a path.
    ///
    /// # Errors
    /// [`InvalidPath`] when the joined path is longer than the limits.
    pub fn join(&self, tail: &Self) -> Result<Self, InvalidPath> {
        format!("{}/{}", self.0, tail.0).parse()
    }

    /// Appends one or more parts given as text.
    ///
    /// # Errors
    /// [`InvalidPath`] when the joined path breaks a rule.
    pub fn join_str(&self, tail: &str) -> Result<Self, InvalidPath> {
        format!("{}/{tail}", self.0).parse()
    }

    /// Returns what follows `directory`, or `None` when it does not lie beneath it.
    pub fn strip_prefix(&self, directory: &Self) -> Option<Self> {
        let tail = self.0.strip_prefix(directory.as_str())?.strip_prefix('/')?;
        Some(Self(tail.to_owned()))
    }

    /// Says whether it is `directory` or lies beneath it.
    pub fn is_within(&self, directory: &Self) -> bool {
        self == directory || self.strip_prefix(directory).is_some()
    }

    /// Returns the key under which two paths collide on a system that ignores case or Unicode composition: NFC, then
    /// upper and lower case folded away.
    pub fn collision_key(&self) -> String {
        self.0.to_uppercase().to_lowercase().nfc().collect()
    }

    fn check(text: &str) -> Result<(), PathRule> {
        if text.len() > Self::MAX_BYTES || text.split('/').count() > Self::MAX_PARTS {
            return Err(PathRule::TooLong);
        }
        text.split('/').try_for_each(check_part)?;
        if is_nfc(text) { Ok(()) } else { Err(PathRule::NotNormal) }
    }
}

fn check_part(part: &str) -> Result<(), PathRule> {
    if part.is_empty() {
        return Err(PathRule::EmptyPart);
    }
    if part == "." || part == ".." {
        return Err(PathRule::DotPart);
    }
    if part.len() > RelPath::MAX_PART_BYTES {
        return Err(PathRule::TooLong);
    }
    if part.chars().any(is_forbidden) {
        return Err(PathRule::Character);
    }
    if is_reserved_on_windows(part) { Err(PathRule::Reserved) } else { Ok(()) }
}

/// Characters that Windows refuses, controls, and those that change the direction or the look of a line of text.
fn is_forbidden(c: char) -> bool {
    matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The device names of Windows, with any extension, and names that it would cut; superscript digits count as digits
/// (git and cap-std were caught by those).
fn is_reserved_on_windows(part: &str) -> bool {
    if part.ends_with('.') || part.ends_with(' ') {
        return true;
    }
    let stem = part.split('.').next().unwrap_or(part).trim_end();
    let upper = stem.to_ascii_uppercase();
    if matches!(upper.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let port = upper.strip_prefix("COM").or_else(|| upper.strip_prefix("LPT"));
    port.is_some_and(|n| {
        let mut digits = n.chars();
        matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    })
}

impl FromStr for RelPath {
    type Err = InvalidPath;
    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        match Self::check(text) {
            Ok(()) => Ok(Self(text.to_owned())),
            Err(rule) => Err(InvalidPath { path: text.chars().take(200).collect(), rule }),
        }
    }
}

impl TryFrom<String> for RelPath {
    type Error = InvalidPath;
    fn try_from(text: String) -> Result<Self, InvalidPath> {
        text.parse()
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for RelPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Ord for RelPath {
    /// By the parts from the top, so that a directory stands directly before what is in it. Read byte by byte: manifests and
    /// directories are searched by it all the time.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (one, other) = (self.0.as_bytes(), other.0.as_bytes());
        let order = |byte: u8| (byte != b'/', byte);
        match one.iter().zip(other).find(|(one, other)| one != other) {
            Some((one, other)) => order(*one).cmp(&order(*other)),
            None => one.len().cmp(&other.len()),
        }
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<(), PathRule>) {
        assert_eq!(text.parse::<RelPath>().map(|_| ()).map_err(|e| e.rule), expected, "{text:?}");
    }

    #[test]
    fn ordinary_publish_paths_pass() {
        for good in [
            "assets/robot/publish/modelDefault/v001/modelDefault.abc",
            "film/sh010/publish/beauty/v001/beauty.exr/beauty.1001.exr",
            "a",
            ".avalon/incoming",
            "Bruce (final) [2]/naïve.ma",
            "COM10/console.txt",
        ] {
            check(good, Ok(()));
        }
    }

    #[test]
    fn paths_that_escape_or_confuse_are_refused() {
        for (bad, rule) in [
            ("", PathRule::EmptyPart),
            ("/etc/passwd", PathRule::EmptyPart),
            ("a//b", PathRule::EmptyPart),
            ("a/", PathRule::EmptyPart),
            ("..", PathRule::DotPart),
            ("a/../b", PathRule::DotPart),
            ("./a", PathRule::DotPart),
            ("a\\b", PathRule::Character),
            ("C:/x", PathRule::Character),
            ("a\0b", PathRule::Character),
            ("a\nb", PathRule::Character),
            ("a\u{202e}gpj.exe", PathRule::Character),
            ("NUL", PathRule::Reserved),
            ("a/con.txt", PathRule::Reserved),
            ("com¹", PathRule::Reserved),
            ("lpt9.log", PathRule::Reserved),
            ("trailing.", PathRule::Reserved),
            ("trailing ", PathRule::Reserved),
            ("cafe\u{301}.ma", PathRule::NotNormal),
        ] {
            check(bad, Err(rule));
        }
        check(&"x".repeat(256), Err(PathRule::TooLong));
        check(&["x"; 65].join("/"), Err(PathRule::TooLong));
        check(&vec!["x".repeat(200); 6].join("/"), Err(PathRule::TooLong));
    }

    #[test]
    fn case_and_composition_collide() {
        let key = |text: &str| text.parse::<RelPath>().unwrap().collision_key();
        assert_eq!(key("Tex/Skin.exr"), key("tex/skin.EXR"));
        assert_eq!(key("straße"), key("STRASSE"));
        assert_ne!(key("a1"), key("a2"));
    }

    #[test]
    fn a_directory_stands_directly_before_what_is_in_it() {
        let mut paths: Vec<RelPath> = ["a-b", "a/x", "a", "a.b"].map(|p| p.parse().unwrap()).to_vec();
        paths.sort();
        assert_eq!(paths.iter().map(RelPath::as_str).collect::<Vec<_>>(), ["a", "a/x", "a-b", "a.b"]);
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_parts(one in "[a!.]{1,3}(/[a!.\u{e9}]{1,3}){0,3}", other in "[a!.]{1,3}(/[a!.\u{e9}]{1,3}){0,3}") {
            let (one, other) = (RelPath(one), RelPath(other));
            prop_assert_eq!(one.cmp(&other), one.parts().cmp(other.parts()), "{:?} {:?}", one, other);
        }

        #[test]
        fn what_is_accepted_stays_beneath_the_directory_it_is_joined_to(text in "[a./\\\\: ~\\PC]{0,40}") {
            if let Ok(path) = text.parse::<RelPath>() {
                let mut depth = 0usize;
                for part in std::path::Path::new(path.as_str()).components() {
                    match part {
                        std::path::Component::Normal(_) => depth += 1,
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                prop_assert_eq!(depth, path.parts().count());
            }
        }
    }
}
