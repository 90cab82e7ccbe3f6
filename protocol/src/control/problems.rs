//! What checks found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::CheckProblem;

/// The answer to `problems`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemsReply {
    /// `avalonctl.problems/1`.
    pub schema: String,
    /// The versions with problems, in order.
    pub versions: Vec<VersionProblems>,
    /// How many versions were checked.
    pub checked: u64,
    /// Versions that cannot be checked: their manifest has not come, or cannot be read.
    pub unknown: Vec<String>,
}

/// What checks found in one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionProblems {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The generation that was checked: the newest.
    pub generation: u32,
    /// Its manifest.
    pub manifest: String,
    /// Who published it.
    pub author: String,
    /// When.
    pub published: String,
    /// What is wrong, at least one.
    pub problems: Vec<CheckProblem>,
}
