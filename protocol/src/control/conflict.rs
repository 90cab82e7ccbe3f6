//! Versions of which sites published different content under one number, and what is decided about them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer to `conflicts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConflictsReply {
    /// `avalonctl.conflicts/1`.
    pub schema: String,
    /// The versions in conflict, in order.
    pub conflicts: Vec<ConflictItem>,
}

/// One version in conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConflictItem {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What claims the number, at least two.
    pub candidates: Vec<Candidate>,
    /// Decisions that keep different contents: somebody has to decide again.
    pub disagreement: Vec<DecisionItem>,
}

/// One content that claims a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// Its manifest.
    pub manifest: String,
    /// Its generation.
    pub generation: u32,
    /// The node that published it.
    pub node: String,
    /// Who published it.
    pub author: String,
    /// When.
    pub published: String,
    /// How many files it has.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// The nodes that hold it.
    pub holders: Vec<String>,
    /// Their sites, in order.
    pub sites: Vec<String>,
}

/// What somebody decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecisionItem {
    /// The manifest that keeps the number.
    pub keep: String,
    /// Who decided.
    pub author: String,
    /// Why.
    pub comment: String,
    /// At which node.
    pub node: String,
    /// When.
    pub decided: String,
}

/// Asks to decide about a conflict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResolveRequest {
    /// The version.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The project of a reference that names none.
    #[serde(default)]
    pub project: Option<String>,
    /// What keeps the number: a site or a node that holds it, or the first digits of its manifest.
    pub keep: String,
    /// Why.
    #[serde(default)]
    pub comment: String,
    /// Who; the caller when empty.
    #[serde(default)]
    pub author: String,
    /// Say what would be decided, and decide nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The answer to `resolve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResolveReply {
    /// `avalonctl.resolve/1`.
    pub schema: String,
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What keeps the number.
    pub kept: Candidate,
    /// What gets a number of its own.
    pub moved: Vec<MovedItem>,
    /// Whether nothing was decided.
    pub dry_run: bool,
}

/// One content that gets a number of its own. Each node that holds it renames its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MovedItem {
    /// What.
    pub candidate: Candidate,
    /// The version that it becomes.
    pub becomes: String,
}
