//! What happens in the daemon, as a stream: the same for `log -f`, scripts, metrics and tests.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Health, JobStatus};
use crate::check::CheckProblem;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts up by one since the daemon's start; a gap means that events were lost to this reader.
    pub id: u64,
    /// When.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A version was published at this node.
    Published {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// The manifest.
        manifest: String,
        /// The generation.
        generation: u32,
        /// How many files it has.
        files: u64,
        /// Their size.
        bytes: u64,
        /// Who published it.
        author: String,
        /// How it was known to be whole.
        completeness: String,
    },
    /// Checks found something in a version that was published at this node.
    ProblemsFound {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// The manifest.
        manifest: String,
        /// What they found, at least one.
        problems: Vec<CheckProblem>,
    },
    /// A version that another node published became known.
    Announced {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// The manifest.
        manifest: String,
        /// The node that published it.
        node: String,
    },
    /// A version became visible at this node.
    Placed {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// The manifest.
        manifest: String,
        /// How many files it has.
        files: u64,
        /// Their size.
        bytes: u64,
        /// How long the job took.
        seconds: f64,
    },
    /// Another node says that it holds a version now.
    HeldElsewhere {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// The manifest.
        manifest: String,
        /// The node.
        node: String,
    },
    /// A version that was here is gone from the disk, or was dropped to make room.
    Dropped {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// The manifest.
        manifest: String,
        /// Who dropped it: a user, or `quota`; nobody when its files were found to be gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// How many bytes went to the trash with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    /// Files of a version at this node rotted on its disk, or cannot be read; it does not count as held any more.
    Damaged {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// The manifest.
        manifest: String,
        /// The files, relative to the project, 20 at most.
        files: Vec<String>,
    },
    /// A version was taken out of use, at this node or another one.
    Retired {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// Who did it.
        author: String,
        /// Why.
        comment: String,
        /// The node that they did it at.
        node: String,
    },
    /// A version is in use again.
    Restored {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// Who did it.
        author: String,
        /// The node that they did it at.
        node: String,
    },
    /// Somebody decided which of several contents keeps its number.
    Resolved {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// The manifest that keeps the number.
        keep: String,
        /// Who decided.
        author: String,
        /// The node that they did it at.
        node: String,
    },
    /// Sites published different content under one number; nobody fetches it until a person has decided.
    Conflict {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// The manifests that none of the others follows.
        manifests: Vec<String>,
    },
    /// A policy was applied, at this node or another one.
    PolicyApplied {
        /// Its serial.
        serial: u64,
        /// The BLAKE3 of its text.
        hash: String,
        /// Who applied it.
        author: String,
        /// What they said about it.
        comment: String,
        /// The node that they applied it at.
        node: String,
    },
    /// A node is not trusted any more.
    NodeRevoked {
        /// The node.
        node: String,
    },
    /// A record states nothing, because the node that wrote it lacked the right.
    NotAllowed {
        /// The node.
        node: String,
        /// The project that it is about.
        project: String,
        /// The right that it lacked, such as `publish`.
        action: String,
    },
    /// A job moved.
    Job {
        /// How it stands.
        job: JobStatus,
    },
    /// A version directory is not whole, and why.
    Pending {
        /// The project.
        project: String,
        /// The directory, relative to the project.
        dir: String,
        /// What it waits for.
        why: Vec<String>,
    },
    /// A published file was changed in place, or a version cannot be published; the state before stands.
    Refused {
        /// The version in full.
        #[serde(rename = "ref")]
        reference: String,
        /// Why.
        messages: Vec<String>,
    },
    /// A peer came, went or was refused.
    Peer {
        /// The node, or its address while it was never reached.
        node: String,
        /// How it stands.
        state: super::PeerState,
        /// Why.
        detail: Option<String>,
    },
    /// Something has to be looked at.
    Problem {
        /// What.
        health: Health,
    },
    /// It is well again.
    Solved {
        /// The code of what was wrong.
        code: String,
    },
    /// The configuration was read again.
    Reloaded {
        /// What changed, and what needs a restart.
        changes: Vec<String>,
    },
}
