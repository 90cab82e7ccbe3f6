//! Room: what is dropped, what is pinned, and how full a project is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks to drop versions at this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropRequest {
    /// References, as `[project:]asset/subset[@version]`; globs are allowed.
    pub refs: Vec<String>,
    /// The project of references that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Only say what would be done; other nodes are asked what their records say.
    #[serde(default)]
    pub dry_run: bool,
}

/// The answer to [`DropRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropReply {
    /// `avalonctl.drop/1`.
    pub schema: String,
    /// The versions, in the order of the references.
    pub versions: Vec<DropItem>,
}

/// One version that was to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropItem {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What became of it.
    pub state: DropState,
    /// How many bytes went to the trash, or would.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
    /// A word for scripts why it stays: `pinned`, `kept`, `not-known`, `conflict`, `open`, `recent`, `coming`, `changed`,
    /// `too-few-copies`, `unable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many other sites had to prove that they have it, as far as that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_copies: Option<u32>,
    /// The other nodes that were looked at.
    pub holders: Vec<DropHolder>,
}

/// What became of a version that was to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DropState {
    /// This node does not hold it any more; its files are in the trash.
    Dropped,
    /// It could go.
    WouldDrop,
    /// It stays as it was.
    Stays,
    /// It is not here.
    Absent,
}

/// Another node that records a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropHolder {
    /// Its name.
    pub node: String,
    /// Whether it counts as a copy.
    pub counts: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Asks to pin or unpin versions at this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinRequest {
    /// References, as `[project:]asset/subset[@version]`; globs are allowed and mean what is there now.
    pub refs: Vec<String>,
    /// The project of references that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Whether they are unpinned.
    #[serde(default)]
    pub unpin: bool,
}

/// Pins: all of the node, or those that were changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinsReply {
    /// `avalonctl.pins/1`.
    pub schema: String,
    /// In the order of the versions.
    pub pins: Vec<PinItem>,
}

/// A version that somebody wants to stay at this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PinItem {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Who pinned it.
    pub by: String,
    /// Since when.
    pub since: String,
}

/// How full a project is at this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpaceStatus {
    /// Bytes of the versions that are held; nothing before they are counted.
    pub used_bytes: Option<u64>,
    /// How many there may be.
    pub quota_bytes: Option<u64>,
    /// Bytes that are free on the volume.
    pub free_bytes: Option<u64>,
    /// How many are to stay free.
    pub keep_free_bytes: Option<u64>,
}
