//! Fetching versions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ErrorCode, MissingInput};

/// Asks for versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PullRequest {
    /// References; globs are allowed.
    pub refs: Vec<String>,
    /// The project of references that name none.
    #[serde(default)]
    pub project: Option<String>,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Fetch what the versions were made from, too, and what that was made from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_inputs: bool,
}

/// What a pull does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PullReply {
    /// Every version that the references name; with inputs, each after those that it was made from.
    pub versions: Vec<PullItem>,
    /// The inputs that cannot be fetched; only with inputs.
    #[serde(default)]
    pub missing: Vec<MissingInput>,
    /// How many more of them are not listed.
    #[serde(default)]
    pub missing_more: u64,
    /// How many bytes may still be written, on the fullest of the volumes that the versions come to; only with inputs.
    #[serde(default)]
    pub disk_free_bytes: Option<u64>,
    /// How many bytes a second came lately, if something came; only with inputs.
    #[serde(default)]
    pub recent_bytes_per_second: Option<f64>,
}

/// One version of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PullItem {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What happens with it.
    pub state: PlanState,
    /// The job that fetches it; none when it is here, or in a dry run.
    pub job: Option<String>,
    /// The manifest of the generation that is fetched.
    pub manifest: String,
    /// Where it is or will be.
    pub path: Option<String>,
    /// How many files it has.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// How much of it needs not be fetched.
    pub bytes_here: u64,
    /// The nodes that it can come from now.
    pub sources: Vec<String>,
    /// The nodes that hold it, reachable or not.
    pub holders: Vec<String>,
    /// Why it is not fetched, where the policy forbids it.
    pub reason: Option<String>,
}

/// What a pull does with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PlanState {
    /// It is here already.
    Here,
    /// It is fetched now.
    Fetch,
    /// No holder can be reached; it is queued.
    NoSource,
    /// Two sites published different content; a person decides.
    Conflict,
    /// The studio's policy does not let it come here; see `reason`.
    Forbidden,
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Somebody asked.
    Pull,
    /// The project is mirrored here, or the version grew.
    Mirror,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Its turn has not come.
    Queued,
    /// It waits for something outside: a source, room on the disk. See `reason`.
    Waiting,
    /// Bytes are coming in.
    Running,
    /// All is here and verified, and is put into the project.
    Placing,
    /// The version is visible.
    Done,
    /// It was given up; see `error`.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl JobState {
    /// Says whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// One job: one version that comes here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobStatus {
    /// The job's id.
    pub id: String,
    /// What it is for.
    pub kind: JobKind,
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The manifest of the generation.
    pub manifest: String,
    /// Where it stands.
    pub state: JobState,
    /// What it waits for, or why it failed.
    pub reason: Option<String>,
    /// What kind of error ended it.
    pub error: Option<ErrorCode>,
    /// How many files the version has.
    pub files_total: u64,
    /// How many are here and verified.
    pub files_present: u64,
    /// Their size.
    pub bytes_total: u64,
    /// How much is here and verified.
    pub bytes_present: u64,
    /// How many bytes came over the network for it, as they were encoded.
    pub bytes_received: u64,
    /// How many bytes were found on this machine.
    pub bytes_local: u64,
    /// How many bytes of content came as deltas against another version.
    #[serde(default)]
    pub bytes_delta: u64,
    /// How many bytes of content came compressed.
    #[serde(default)]
    pub bytes_compressed: u64,
    /// How many bytes of content came as they are.
    #[serde(default)]
    pub bytes_raw: u64,
    /// The rate now.
    pub bytes_per_second: f64,
    /// How long it will take at this rate.
    pub eta_seconds: Option<f64>,
    /// How long it took, waiting included.
    pub seconds: f64,
    /// The nodes that bytes came from.
    pub sources: Vec<String>,
    /// Where the version is or will be.
    pub path: Option<String>,
}
