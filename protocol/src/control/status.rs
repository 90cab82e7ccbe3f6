//! How the daemon is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobStatus, ScrubStatus, SpaceStatus};
use crate::mode::ProjectMode;

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusReply {
    /// `avalonctl.status/1`.
    pub schema: String,
    /// This node, as `ws12`.
    pub node: String,
    /// Its site.
    pub site: String,
    /// The studio that issued its certificate.
    pub studio: String,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// How long it runs.
    pub uptime_seconds: f64,
    /// Where it listens for peers.
    pub listen: String,
    /// When its certificate ends.
    pub certificate_expires: String,
    /// How many seconds ago this node knew for certain whom the studio trusts; 0 at an admin's node.
    #[serde(default)]
    pub knowledge_age_seconds: f64,
    /// The other nodes that are configured or connected.
    pub peers: Vec<PeerStatus>,
    /// What is being fetched or waits to be.
    pub jobs: Vec<JobStatus>,
    /// What somebody has to look at; empty when all is well.
    pub health: Vec<Health>,
    /// The projects that it serves.
    pub projects: Vec<ProjectStatus>,
    /// How the reading of files stands that looks for damage.
    #[serde(default)]
    pub scrub: Option<ScrubStatus>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerStatus {
    /// Its name; empty while an address was never reached.
    pub node: String,
    /// Its site; empty likewise.
    pub site: String,
    /// Whether it is connected.
    pub state: PeerState,
    /// Where it was dialled or comes from.
    pub address: String,
    /// The smoothed round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Why it is not connected, or what else is to be known.
    pub detail: Option<String>,
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Connected and greeted.
    Online,
    /// Being dialled.
    Connecting,
    /// Not reachable; dialled again later.
    Offline,
    /// Reached and refused, by it or by us; dialled again later.
    Refused,
}

/// Something that somebody has to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// A stable word for scripts, such as `root-missing`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It works, and should be looked at.
    Warning,
    /// Something does not work until somebody acts.
    Error,
}

/// One project at this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectStatus {
    /// Its name.
    pub name: String,
    /// Its directory here.
    pub path: String,
    /// Whether versions come by themselves.
    pub mode: ProjectMode,
    /// Whether it is watched.
    pub state: ProjectState,
    /// Why it is paused.
    pub detail: Option<String>,
    /// How many versions are known.
    pub versions: u64,
    /// Version directories that are not whole yet, and why.
    pub pending: Vec<PendingVersion>,
    /// How full it is, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<SpaceStatus>,
    /// Where other machines write to it, which no event tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<MountStatus>,
}

/// A project that lies where other machines write, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MountStatus {
    /// Its file system, such as `NFS`; nothing where only the configuration says that others write there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether it is known that others can write there; of a file system in user space it is not.
    pub certain: bool,
    /// Within how many seconds a version that another machine finished is noticed, as the last scan went; nothing before the
    /// first scan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_within_seconds: Option<f64>,
}

/// Whether a project is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectState {
    /// The first scan runs.
    Scanning,
    /// Publishes are noticed.
    Watching,
    /// The root is missing: nothing is published, placed or dropped until it is back.
    Paused,
}

/// A version directory that is not whole yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingVersion {
    /// The directory, relative to the project.
    pub dir: String,
    /// What it waits for.
    pub why: Vec<String>,
}
