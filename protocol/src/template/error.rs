//! Why a template is refused.

use std::fmt;

use thiserror::Error;

use super::component::Key;

/// A template that cannot be used, because it is malformed or because its paths could not be read back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("template {template:?} cannot be used{}", At(*.position))]
pub struct TemplateError {
    /// The template, shortened to 1,024 characters.
    pub template: String,
    /// The character that is wrong, counted from 1; `None` when something is missing.
    pub position: Option<usize>,
    /// What is wrong and what to do.
    #[source]
    pub problem: TemplateProblem,
}

struct At(Option<usize>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |position| write!(f, " (see character {position})"))
    }
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateProblem {
    /// A `{` or `}` without its partner.
    #[error("a brace has no partner; write {{{{ or }}}} for a brace in a name")]
    UnbalancedBrace,
    /// A `<` or `>` without its partner, nested, across a `/`, or without a key in it.
    #[error("an optional part is written <...>, within one folder or file name, not nested, and holds a key")]
    BadOptional,
    /// A key that is not known.
    #[error("the key {{{key}}} is not known; known are {}", Key::KNOWN.join(", "))]
    UnknownKey {
        /// The text between the braces, up to the format.
        key: String,
    },
    /// A format that is not for filling numbers with zeros.
    #[error("the format {format:?} of {{{key}}} is not known; version, frame and udim take 0>3, 03 or 03d")]
    BadFormat {
        /// The key.
        key: String,
        /// The text after the colon.
        format: String,
    },
    /// It does not begin with the project's directory, or names the root again.
    #[error(
        "it must start with {{root}}/{{project}}/, which is where a project lives, and hold no other {{root}}"
    )]
    NotInProject,
    /// A folder name that is empty or could be.
    #[error(
        "a folder or file name is empty, or would be without its optional part; remove a '/' or add text"
    )]
    EmptyComponent,
    /// Text that cannot stand in a path.
    #[error("the text {text:?} cannot stand in a path; separate folders with '/'")]
    BadText {
        /// The text.
        text: String,
    },
    /// More than 1,024 bytes or 64 folders.
    #[error("it is longer than 1024 bytes or 64 folders")]
    TooLong,
    /// Two fields directly after each other.
    #[error(
        "{{{second}}} directly follows another key, so that the two names cannot be told apart; put text between"
    )]
    Adjacent {
        /// The second key.
        second: String,
    },
    /// A key without which a version has no name.
    #[error("{{{key}}} is missing; add it to a folder")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key that stands only in the file name, or below the version directory.
    #[error(
        "{{{key}}} must stand in a folder, and not below the last folder that holds {{version}}: that folder is the \
         version directory, which appears at once and must say asset, subset and version"
    )]
    NotInDirectory {
        /// The key.
        key: &'static str,
    },
    /// A representation in or above the version directory.
    #[error(
        "{{representation}} must stand below the folder that holds {{version}}, so that a version is one folder"
    )]
    RepresentationInDirectory,
    /// A hierarchy that shares its component, comes twice, or comes after the version.
    #[error("{{hierarchy}} must be alone between two '/', once, and before {{version}}")]
    Hierarchy,
}
