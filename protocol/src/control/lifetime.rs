//! What becomes of a version after it was published: out of use and back, and files that were changed in place.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ErrorCode;

/// Asks for something to be done to versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LifetimeRequest {
    /// References; globs are allowed.
    pub refs: Vec<String>,
    /// The project of references that name none.
    #[serde(default)]
    pub project: Option<String>,
    /// Why.
    #[serde(default)]
    pub comment: String,
    /// Who; the caller when empty.
    #[serde(default)]
    pub author: String,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was done to versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LifetimeReply {
    /// `avalonctl.retire/1`, `avalonctl.restore/1` or `avalonctl.accept/1`.
    pub schema: String,
    /// Every version that the references name, in order.
    pub versions: Vec<LifetimeItem>,
}

/// What was done to one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LifetimeItem {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What became of it; in a dry run, what would.
    pub state: LifetimeState,
    /// Why it was refused, or what to look at.
    pub messages: Vec<String>,
    /// What kind of error refused it.
    pub error: Option<ErrorCode>,
    /// How many files it has.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// The nodes that hold it.
    pub holders: Vec<String>,
    /// Of a version that was retired: until when nothing of it is removed anywhere.
    pub undo_until: Option<String>,
    /// The job that puts files back.
    pub job: Option<String>,
    /// Of a version whose files were changed in place: what was put back, or accepted, in order.
    #[serde(default)]
    pub changed: Vec<String>,
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LifetimeState {
    /// It is out of use.
    Retired,
    /// It is in use again.
    Restored,
    /// What stands is put back over files that were changed in place here; the job does it.
    PuttingBack,
    /// The files that were changed in place are its next generation.
    Accepted,
    /// There was nothing to do.
    Unchanged,
    /// It was not done; the messages say why.
    Refused,
}
