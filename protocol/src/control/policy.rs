//! The studio's policy, as it is applied and shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::policy::{Amount, Copying, Freeing, Problem};

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
    /// Only says what would come of it, as [`PolicyDiffReply`], and applies nothing.
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
    /// What does not fit the studio as this node knows it: names of sites and nodes that it does not have, and minimums of copies
    /// that it cannot reach. They may join tomorrow, so that nothing is refused for it.
    #[serde(default)]
    pub warnings: Vec<Problem>,
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

/// What a policy would change, before anything moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDiffReply {
    /// `avalonctl.policy-diff/1`.
    pub schema: String,
    /// The serial of the policy in effect at this node, which it is compared with; `null` when there is none, and each node
    /// goes by its own mode.
    pub in_effect: Option<u64>,
    /// The projects that were looked at: those that this node serves.
    pub projects: Vec<String>,
    /// All versions that were looked at.
    pub looked_at: Amount,
    /// What changes at each site that takes part in these projects, as far as this node knows.
    pub sites: Vec<PolicyDiffSite>,
    /// What is copied to single nodes: to those that are known to mirror, or that are named by a rule.
    pub nodes: Vec<PolicyDiffNode>,
    /// The copies that could be freed at all sites together.
    pub could_free: Freeing,
    /// Versions that fewer sites have in the end than `min_copies` says.
    pub under_replicated: PolicyDiffList,
    /// Versions that no site keeps: they stay where somebody published or pulled them, at `min_copies` sites.
    pub kept_nowhere: PolicyDiffList,
    /// Versions whose manifest a rule asks for, and it has not come; they are counted nowhere else.
    pub not_known: PolicyDiffList,
    /// Versions under whose number sites published different content; they go nowhere.
    pub conflicts: u64,
    /// What does not fit the studio as this node knows it.
    pub warnings: Vec<Problem>,
}

/// What a policy would change at a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDiffSite {
    /// Its name.
    pub site: String,
    /// Whether no node of it is known to mirror any of the projects: then one that did not say is taken for its server.
    pub server_is_assumed: bool,
    /// What no node of it has and one is to have: what comes over the line.
    pub copying: Copying,
    /// The copies that could be freed there, if no other site frees any.
    pub could_free: Freeing,
    /// How fast it comes, about.
    pub bytes_per_second: Option<f64>,
    /// Where that is from.
    pub speed: PolicyDiffSpeed,
    /// How long all that is to be copied takes then.
    pub seconds: Option<f64>,
}

/// What an estimate of the speed is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyDiffSpeed {
    /// What the limits of now let this node receive. Only for its own site.
    ReceiveLimit,
    /// What the limits of now let this node send to that site; others may send as well, and the site may have limits of its
    /// own.
    SendLimit,
    /// What comes here at this moment. Only for this node's own site.
    Recent,
    /// No limit is known, and nothing moves.
    Unknown,
}

/// What a policy would change at a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDiffNode {
    /// Its name, as `ws12@london`.
    pub node: String,
    /// What it does not have and is to have; some may come from other nodes of its site.
    pub copying: Copying,
}

/// Versions of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDiffList {
    /// Under the new policy.
    pub then: Amount,
    /// Under the policy in effect.
    pub now: Amount,
    /// The first 20 under the new policy; those that are so only then come first.
    pub first: Vec<PolicyDiffVersion>,
}

/// One version of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDiffVersion {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Whether it is so under the policy in effect as well.
    pub already: bool,
    /// How many sites have it in the end.
    pub copies: u32,
    /// How many have to.
    pub min_copies: u32,
    /// The rule that says how many, or that asks for the manifest, with its line; `null` for the defaults.
    pub rule: Option<String>,
}
