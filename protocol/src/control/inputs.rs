//! What versions were made from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Presence;

/// The answer to `inputs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputsReply {
    /// `avalonctl.inputs/1`.
    pub schema: String,
    /// The versions, each after those that it was made from; what was asked for has depth 0.
    pub versions: Vec<InputVersion>,
    /// The inputs that cannot be fetched.
    pub missing: Vec<MissingInput>,
    /// How many more of them are not listed.
    pub missing_more: u64,
    /// How many files the versions have together.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// How much of it is at this node.
    pub bytes_here: u64,
}

/// One version of a closure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputVersion {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// How many steps it is from what was asked for.
    pub depth: u32,
    /// The version that was made from it, the first of several; none for what was asked for.
    pub needed_by: Option<String>,
    /// How many files it has.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// How much of it is at this node.
    pub bytes_here: u64,
    /// Whether it can be opened here.
    pub here: Presence,
}

/// An input that cannot be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissingInput {
    /// The input, as it stands in the manifest.
    pub input: String,
    /// The version that was made from it.
    pub needed_by: String,
    /// Why it cannot be fetched.
    pub why: MissingReason,
}

/// Why an input cannot be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MissingReason {
    /// It is a path that leads to nothing published.
    NotPublished,
    /// No version that this node knows has this name.
    Unknown,
    /// It belongs to a project that this node does not serve.
    OtherProject,
    /// The version is fetched, and what it was made from is not known yet: its manifest has not come.
    NoManifest,
    /// There are more than one closure takes.
    TooMany,
}
