//! Invites and nodes, as they are asked for and shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{Action, Role};

/// Asks for an invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteRequest {
    /// The site that the machine joins at.
    pub site: String,
    /// As what it joins; not as admin, which only the studio's CA itself makes of a node.
    pub role: Role,
    /// Its name; whoever joins chooses one when it is not given.
    #[serde(default)]
    pub node: Option<String>,
    /// For how many seconds the invite holds, at most a week.
    pub ttl_seconds: u64,
    /// The projects of its first configuration; those of this node when none is given, and none for a vendor.
    #[serde(default)]
    pub projects: Vec<String>,
    /// Where this node is reached from there, as `host:port`; its own address and name when none is given.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// An invite that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InviteReply {
    /// `avalonctl.invite/1`.
    pub schema: String,
    /// The token: whoever has it may join. It is shown this once.
    pub token: String,
    /// Where it leads to.
    pub addresses: Vec<String>,
    /// What it is for.
    pub invite: InviteItem,
}

/// The invites of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InvitesReply {
    /// `avalonctl.invites/1`.
    pub schema: String,
    /// The invites, the newest first. After a change, that which was revoked.
    pub invites: Vec<InviteItem>,
}

/// One invite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InviteItem {
    /// Its id.
    pub id: String,
    /// The site.
    pub site: String,
    /// The role.
    pub role: Role,
    /// The name, if it says one; of who joined, when somebody has.
    pub node: Option<String>,
    /// The projects.
    pub projects: Vec<String>,
    /// Whether it can be used.
    pub state: InviteState,
    /// When it was made.
    pub made: String,
    /// When it ends.
    pub expires: String,
}

/// What became of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InviteState {
    /// It can be used.
    Open,
    /// Somebody joined by it.
    Used,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
}

/// The nodes of the studio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodesReply {
    /// `avalonctl.nodes/1`.
    pub schema: String,
    /// Every node that has said something about a project of this node, or about the studio; by site and name.
    pub nodes: Vec<NodeItem>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeItem {
    /// Its name, `node@site`.
    pub node: String,
    /// The role of its certificate, or what the policy makes of it.
    pub role: Role,
    /// Whether there is a connection with it; always with this node itself.
    pub connected: bool,
    /// Since when it is not trusted any more, if it is not.
    pub revoked: Option<String>,
    /// What it may do now, by project: of those that this node serves.
    pub rights: BTreeMap<String, Vec<Action>>,
}

/// Asks to revoke a node, or what the studio's CA has on a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokeRequest {
    /// The node, `node@site`; empty when there is a list.
    #[serde(default)]
    pub node: String,
    /// A list of revoked certificates that the studio's CA signed: its DER in hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Who does it; whoever asks, when it is empty.
    #[serde(default)]
    pub author: String,
    /// Why.
    #[serde(default)]
    pub comment: String,
}

/// A node was revoked, or what is on a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokeReply {
    /// `avalonctl.node-revoke/1`.
    pub schema: String,
    /// The node; empty for a list.
    pub node: String,
    /// The number of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<u64>,
    /// How many certificates it revokes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<u64>,
}
