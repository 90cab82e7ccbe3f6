//! Errors as the API and `--json` show them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::exit_code::ExitCode;

/// What kind of error; the text form is for searching and scripts, and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum ErrorCode {
    /// An error of the daemon's own.
    #[serde(rename = "AVL-0100")]
    Internal,
    /// The request does not parse.
    #[serde(rename = "AVL-0201")]
    BadRequest,
    /// A reference is written wrongly.
    #[serde(rename = "AVL-0202")]
    BadReference,
    /// A path cannot be published: not in a project, not a version, or with names that other systems do not take.
    #[serde(rename = "AVL-0203")]
    BadPath,
    /// No project given and none to guess.
    #[serde(rename = "AVL-0204")]
    NoProject,
    /// A limit is written wrongly, or cannot be changed by command.
    #[serde(rename = "AVL-0205")]
    BadLimit,
    /// Nothing by that name.
    #[serde(rename = "AVL-0401")]
    NotFound,
    /// A version is here, and some of what it was made from cannot be fetched.
    #[serde(rename = "AVL-0402")]
    InputsMissing,
    /// A version is known, and is not at this node.
    #[serde(rename = "AVL-0403")]
    NotHere,
    /// The daemon does not answer.
    #[serde(rename = "AVL-0501")]
    DaemonUnreachable,
    /// No site that can be reached holds it.
    #[serde(rename = "AVL-0601")]
    NoSource,
    /// Too few of the nodes that have to agree can be reached.
    #[serde(rename = "AVL-0602")]
    NoQuorum,
    /// The disk is full.
    #[serde(rename = "AVL-0701")]
    DiskFull,
    /// Content does not match its hash.
    #[serde(rename = "AVL-0801")]
    Damaged,
    /// Two sites published different content under one version number.
    #[serde(rename = "AVL-0802")]
    Conflict,
    /// A published file was changed in place; the new state is held.
    #[serde(rename = "AVL-0803")]
    Rewritten,
    /// The version is not whole yet.
    #[serde(rename = "AVL-0804")]
    NotWhole,
    /// A version number belongs to somebody else, by what the voters say.
    #[serde(rename = "AVL-0805")]
    NumberTaken,
    /// Not allowed.
    #[serde(rename = "AVL-0901")]
    Denied,
    /// The version is retired: out of use.
    #[serde(rename = "AVL-0902")]
    Retired,
    /// This node has no grant for it in the project.
    #[serde(rename = "AVL-0903")]
    NotGranted,
    /// This node has not heard for too long whom the studio trusts.
    #[serde(rename = "AVL-0904")]
    RightsTooOld,
    /// The time is over.
    #[serde(rename = "AVL-1001")]
    TimedOut,
    /// The project is paused: its root is missing.
    #[serde(rename = "AVL-1101")]
    ProjectPaused,
    /// The daemon is stopping.
    #[serde(rename = "AVL-1102")]
    Stopping,
    /// This node may not write its own feed now.
    #[serde(rename = "AVL-1103")]
    FeedHeld,
    /// A policy document is refused.
    #[serde(rename = "AVL-1201")]
    BadPolicy,
    /// Another policy stands than the one that was to be replaced.
    #[serde(rename = "AVL-1202")]
    PolicyChanged,
}

impl ErrorCode {
    /// Returns the exit code of a command that ends with this error.
    pub fn exit(self) -> ExitCode {
        match self {
            Self::Internal
            | Self::ProjectPaused
            | Self::Stopping
            | Self::FeedHeld
            | Self::NotWhole
            | Self::BadPolicy
            | Self::PolicyChanged => ExitCode::Error,
            Self::BadRequest | Self::BadReference | Self::BadPath | Self::NoProject | Self::BadLimit => {
                ExitCode::Usage
            }
            Self::NotFound | Self::InputsMissing | Self::NotHere => ExitCode::NotFound,
            Self::DaemonUnreachable => ExitCode::DaemonUnreachable,
            Self::NoSource | Self::NoQuorum => ExitCode::NoSource,
            Self::DiskFull => ExitCode::DiskFull,
            Self::Damaged | Self::Conflict | Self::Rewritten | Self::NumberTaken => ExitCode::Integrity,
            Self::Denied | Self::Retired | Self::NotGranted | Self::RightsTooOld => ExitCode::Denied,
            Self::TimedOut => ExitCode::TimedOut,
        }
    }

    /// Returns the HTTP status that carries it.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::BadRequest
            | Self::BadReference
            | Self::BadPath
            | Self::NoProject
            | Self::BadLimit
            | Self::BadPolicy => 400,
            Self::NotFound | Self::InputsMissing | Self::NotHere => 404,
            Self::DiskFull => 507,
            Self::Denied | Self::NotGranted | Self::RightsTooOld => 403,
            Self::TimedOut => 408,
            Self::Conflict
            | Self::Rewritten
            | Self::NumberTaken
            | Self::Retired
            | Self::NotWhole
            | Self::Damaged
            | Self::PolicyChanged => 409,
            Self::NoSource
            | Self::NoQuorum
            | Self::DaemonUnreachable
            | Self::ProjectPaused
            | Self::FeedHeld
            | Self::Stopping => 503,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// An error: what failed and why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// Always `error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of error.
    pub code: ErrorCode,
    /// What failed and why, causes included.
    pub message: String,
    /// What to do next, if there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The exit code that a command ends with.
    pub exit: u8,
}

impl ApiError {
    /// Makes an error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { kind: "error".into(), code, message: message.into(), hint: None, exit: code.exit().code() }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl std::error::Error for ApiError {}
