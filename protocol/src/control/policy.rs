//! The studio's policy, as it is applied and shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A policy to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyRequest {
    /// The document, in TOML; at most 48 KiB.
    pub document: String,
    /// What there is to say about it; at most 4 KiB.
    #[serde(default)]
    pub comment: String,
    /// Who applies it; the caller's user when it is empty.
    #[serde(default)]
    pub author: String,
    /// The serial of the policy that it is meant to replace, 0 when there is none yet. Another one standing refuses it.
    /// Without it, whatever stands is replaced.
    #[serde(default)]
    pub replaces: Option<u64>,
    /// Only says what would come of it. Reserved: this daemon refuses it.
    #[serde(default)]
    pub dry_run: bool,
}

/// A policy that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyAppliedReply {
    /// `avalonctl.policy-apply/1`.
    pub schema: String,
    /// What was applied.
    pub policy: PolicyItem,
    /// The serial of the policy that it replaced; 0 for none.
    pub replaced: u64,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyReply {
    /// `avalonctl.policy-show/1`.
    pub schema: String,
    /// Which one, and who applied it.
    pub policy: PolicyItem,
    /// The document.
    pub document: String,
    /// Why this node does not understand it, if it does not.
    pub problem: Option<String>,
    /// The serial of the policy that is in effect at this node, if one is.
    pub in_effect: Option<u64>,
}

/// All policies that were applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyHistoryReply {
    /// `avalonctl.policy-history/1`.
    pub schema: String,
    /// The newest first; at most 1000.
    pub policies: Vec<PolicyItem>,
}

/// A policy without its document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyItem {
    /// Its number: one more than that of the one which it replaced.
    pub serial: u64,
    /// The BLAKE3 of the document, as `b3sum` prints it.
    pub hash: String,
    /// How long the document is.
    pub bytes: u64,
    /// Who applied it.
    pub author: String,
    /// What they said about it.
    pub comment: String,
    /// The node that they applied it at.
    pub node: String,
    /// When, by that node's clock.
    pub applied: String,
    /// Whether it is the policy that stands in the studio, as far as this node knows.
    pub stands: bool,
    /// Whether this node goes by it.
    pub in_effect: bool,
    /// Whether this node understands it.
    pub understood: bool,
}
