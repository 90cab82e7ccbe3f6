//! The parts that a template consists of.

use std::fmt;

/// A publish template that can be rendered and inverted; [`Template::parse`] refuses every other.
///
/// `Display` is the text as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(super) text: String,
    /// From below the project's directory to the version directory.
    pub(super) directory: Vec<Component>,
    /// From below the version directory to the file.
    pub(super) inside: Vec<Component>,
    pub(super) hero: Hero,
}

impl Template {
    /// Returns the components that are the same text in every path.
    pub(super) fn literal_folders(&self) -> impl Iterator<Item = &str> {
        self.directory.iter().filter_map(|component| match component.pieces.as_slice() {
            [Piece::Literal(text)] => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn has_hierarchy(&self) -> bool {
        self.directory.iter().any(Component::is_hierarchy)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a directory `hero` in place of the version still tells asset and subset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hero {
    Possible,
    LosesNames,
}

/// The folder that stands for a mutable version.
pub(super) const HERO: &str = "hero";

/// One folder or file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) pieces: Vec<Piece>,
}

impl Component {
    pub(super) fn is_hierarchy(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::Field { key: Key::Hierarchy, .. }])
    }

    /// Says whether it always holds the version.
    pub(super) fn holds_version(&self) -> bool {
        self.required_keys().any(|key| *key == Key::Version)
    }

    /// Returns the keys outside optional parts.
    pub(super) fn required_keys(&self) -> impl Iterator<Item = &Key> {
        self.pieces.iter().filter_map(Piece::key)
    }

    /// Returns all keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        let optional = self.pieces.iter().flat_map(|piece| match piece {
            Piece::Optional(pieces) => pieces.as_slice(),
            _ => &[],
        });
        self.pieces.iter().chain(optional).filter_map(Piece::key)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    /// The version, with the `v` before it, which `hero` replaces too.
    Version {
        v: String,
        width: usize,
    },
    /// `width` is that of a number filled up with zeros; 0 takes a number as it is.
    Field {
        key: Key,
        width: usize,
    },
    /// Literals and fields; never another optional part.
    Optional(Vec<Self>),
}

impl Piece {
    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Self::Version { .. } => Some(&Key::Version),
            Self::Field { key, .. } => Some(key),
            Self::Literal(_) | Self::Optional(_) => None,
        }
    }
}

/// What a field stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Root,
    Project,
    Silo,
    Hierarchy,
    Asset,
    Subset,
    Version,
    Representation,
    /// `frame` or `udim`.
    Number(String),
    /// Any other, such as `family` or `project[code]`.
    Text(String),
}

impl Key {
    /// Every key, as it is written.
    pub(super) const KNOWN: [&str; 16] = [
        "root",
        "project",
        "silo",
        "hierarchy",
        "asset",
        "subset",
        "family",
        "version",
        "representation",
        "ext",
        "task",
        "app",
        "user",
        "frame",
        "udim",
        "output",
    ];

    /// Reads `asset`, `project[code]`, `root[work]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (base, part) = match text.split_once('[') {
            Some((base, part)) => (base, part.strip_suffix(']')?),
            None => (text, "name"),
        };
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !Self::KNOWN.contains(&base) || part.is_empty() || !part.bytes().all(is_word) {
            return None;
        }
        Some(match (base, part) {
            ("root", _) => Self::Root,
            ("project", "name") => Self::Project,
            ("silo", "name") => Self::Silo,
            ("hierarchy", "name") => Self::Hierarchy,
            ("asset", "name") => Self::Asset,
            ("subset", "name") => Self::Subset,
            ("version", "name") => Self::Version,
            ("representation", "name") => Self::Representation,
            ("frame" | "udim", "name") => Self::Number(base.to_owned()),
            (_, "name") => Self::Text(base.to_owned()),
            _ => Self::Text(text.to_owned()),
        })
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Project => "project",
            Self::Silo => "silo",
            Self::Hierarchy => "hierarchy",
            Self::Asset => "asset",
            Self::Subset => "subset",
            Self::Version => "version",
            Self::Representation => "representation",
            Self::Number(name) | Self::Text(name) => name,
        }
    }

    /// Says whether it is none of those that a version directory's names are made of.
    pub(super) fn is_other(&self) -> bool {
        matches!(self, Self::Project | Self::Number(_) | Self::Text(_))
    }

    /// Says whether the field may hold `value`; versions and hierarchies have rules of their own.
    ///
    /// An `output` of digits alone would be taken for a frame or a tile.
    pub(super) fn accepts(&self, value: &str) -> bool {
        let is_number = || !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        match self {
            Self::Project | Self::Silo | Self::Asset | Self::Subset | Self::Representation => {
                crate::id::is_avalon_name(value)
            }
            Self::Number(_) => is_number(),
            Self::Text(name) => {
                let is_one_part = !value.is_empty() && !value.starts_with('.') && !value.contains('/');
                is_one_part && !(name == "output" && is_number())
            }
            Self::Root | Self::Hierarchy | Self::Version => false,
        }
    }
}
