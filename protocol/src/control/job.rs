//! Fetching versions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ErrorCode, MissingInput};
use crate::limit::Class;

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
    /// Only these frames, as `1001-1050x10`; only where the project's configuration allows parts of versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<String>,
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
    /// Why it is not fetched, where the policy forbids it or it is out of use.
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
    /// It is out of use; see `reason`.
    Retired,
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
    /// Somebody paused it, or all fetching at this node; what came stays. See `reason`.
    Paused,
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
    /// How urgent it is: who waits goes before what was just published, and that before all that is older.
    #[serde(default)]
    pub class: Option<Class>,
    /// What somebody said about its order.
    #[serde(default)]
    pub prio: Option<Prio>,
    /// The frames that are fetched, where it is not all of the version.
    #[serde(default)]
    pub frames: Option<String>,
    /// Its place among the jobs that wait for their turn, from 1; only in the queue.
    #[serde(default)]
    pub position: Option<u64>,
}

/// What somebody says about the order of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Prio {
    /// As if somebody waited for it: before all that comes by itself, at once.
    Now,
    /// Before all else that comes by itself.
    High,
    /// As the policy says.
    Normal,
    /// After everything else.
    Low,
}

/// Asks for a change of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueRequest {
    /// What is to be done.
    #[serde(flatten)]
    pub change: QueueChange,
    /// The jobs, by their ids or by references of what they bring; globs are allowed. Empty with pause and resume: all
    /// fetching at this node, also of what comes later.
    #[serde(default)]
    pub jobs: Vec<String>,
    /// The project of references that name none.
    #[serde(default)]
    pub project: Option<String>,
}

/// A change of the queue. It holds until it is taken back or the job ends, also over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum QueueChange {
    /// Stop, and keep what came.
    Pause,
    /// Go on.
    Resume,
    /// Change the order.
    Prio {
        /// To what.
        prio: Prio,
    },
}

/// The jobs that have not ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueReply {
    /// `avalonctl.queue/1`.
    pub schema: String,
    /// Set while all fetching at this node is paused.
    pub paused: Option<PausedItem>,
    /// The jobs: those that run, those whose turn comes, in this order, those that wait and those that are paused. After a
    /// change, those that it is about.
    pub jobs: Vec<JobStatus>,
}

/// That all fetching is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PausedItem {
    /// Who paused it.
    pub by: String,
    /// When.
    pub since: String,
}
