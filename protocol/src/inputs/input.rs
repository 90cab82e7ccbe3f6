//! [`Input`], one thing that a version was made from, as it stands in a manifest.

use std::fmt;

use crate::reference::Reference;

/// One thing that a version was made from.
///
/// `Display` is what stands in the manifest, and [`Input::read`] reads it back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// Published versions: others can fetch them. Without a version it means the latest at the time of asking.
    Reference(Reference),
    /// A path that leads to no published version: others cannot fetch it.
    Path(String),
}

impl Input {
    /// Reads an input. What begins like a path is one; of the rest, what is no reference is kept as a path too.
    ///
    /// `tex/wood.exr` reads as subset `wood.exr` of asset `tex`: a relative path has to begin with `./`.
    pub fn read(text: &str) -> Self {
        match text.parse() {
            Ok(reference) if !is_path(text) => Self::Reference(reference),
            _ => Self::Path(text.to_owned()),
        }
    }
}

/// Says whether a text begins as paths do on any system, or as a variable that stands for one.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with(['/', '\\', '{', '$', '%', '~'])
        || text.starts_with("./")
        || text.starts_with("../")
        || text.starts_with(".\\")
        || text.starts_with("..\\")
        || text.contains("://")
        || drive(text).is_some()
}

/// Returns the letter of `P:/...` or `P:\...`.
pub(super) fn drive(text: &str) -> Option<char> {
    let mut chars = text.chars();
    let (letter, colon, slash) = (chars.next()?, chars.next()?, chars.next()?);
    (letter.is_ascii_alphabetic() && colon == ':' && matches!(slash, '/' | '\\')).then_some(letter)
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => reference.fmt(f),
            Self::Path(path) => f.write_str(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_like_a_path_is_one_and_what_reads_as_a_reference_is_one() {
        for text in ["robot/rig", "robot/rigDefault/ma@v003", "comet:robot/rig@hero", "sh0*/anim*"] {
            let input = Input::read(text);
            assert!(matches!(input, Input::Reference(_)), "{text}");
            assert_eq!(input.to_string(), text);
        }
        assert_eq!(Input::read("robot/rig@3").to_string(), "robot/rig@v003");
        for text in [
            "/mnt/a/b",
            "P:/a/b",
            "p:\\a\\b",
            "//server/share",
            "\\\\server\\share",
            "{root}/lantern/a",
            "$AVALON_PROJECTS/a",
            "%AVALON_PROJECTS%/a",
            "./tex/a",
            "../tex/a",
            "https://example.org/a",
            "robot",
            "a b/c",
            "",
        ] {
            assert_eq!(Input::read(text), Input::Path(text.into()), "{text}");
        }
    }
}
