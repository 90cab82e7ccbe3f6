//! Feeds, as they are shown and decided about.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The feeds that a node keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FeedsReply {
    /// `avalonctl.feeds/1`.
    pub schema: String,
    /// The feeds, by project and node. After a change, those that it was about.
    pub feeds: Vec<FeedItem>,
}

/// One feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FeedItem {
    /// The project, a slash, and the node.
    pub feed: String,
    /// How many records of it are here.
    pub records: u64,
    /// Whether it is as it should be.
    pub state: FeedState,
    /// The hash up to its end here, which the same feed has everywhere with as many records.
    pub head: String,
    /// What is known of its second history.
    #[serde(default)]
    pub fork: Option<ForkItem>,
}

/// Whether a feed is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeedState {
    /// It is.
    Good,
    /// It is this node's own, and is not written before a peer has said how far it went.
    Held,
    /// It has two histories; nothing more of it is taken.
    Forked,
    /// It has two histories, and somebody has dealt with that; nothing more of it is taken.
    Settled,
}

/// The two histories of a feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForkItem {
    /// The record at which they part; none when the proof is damaged.
    pub record: Option<u64>,
    /// The file with both signed groups, at the node's machine.
    pub proof: String,
    /// The group that was here.
    #[serde(default)]
    pub ours: Option<ForkSide>,
    /// The other one.
    #[serde(default)]
    pub theirs: Option<ForkSide>,
    /// Who has dealt with it.
    #[serde(default)]
    pub settled_by: Option<String>,
    /// What they said.
    #[serde(default)]
    pub comment: Option<String>,
}

/// One side of a fork.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForkSide {
    /// The number of the group's first record.
    pub first_record: u64,
    /// When the group says that it was written.
    pub written: String,
    /// Its hash.
    pub head: String,
    /// The versions that its records are about.
    pub versions: Vec<String>,
}

/// Decides about a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum FeedRequest {
    /// This node's own feed is to be written as it is, though no peer has said how far it went.
    Release {
        /// Its project.
        project: String,
    },
    /// What a fork needed has been done: it is not told any more. The feed stays frozen.
    Settle {
        /// The project, a slash, and the node.
        feed: String,
        /// What was done.
        #[serde(default)]
        comment: String,
    },
}
