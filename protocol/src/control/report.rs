//! What was published and transferred in a time.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer to `report`: the facts, which whoever asks adds up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReportReply {
    /// `avalonctl.report-facts/1`.
    pub schema: String,
    /// This node's site.
    pub site: String,
    /// Every generation that was published in the time, at any node, in the order of versions.
    pub publishes: Vec<ReportPublish>,
    /// Every version that came to this node in the time, the oldest first.
    pub transfers: Vec<ReportTransfer>,
    /// Transfers from before this time are not known here any more; none when nothing was forgotten.
    pub transfers_known_since: Option<String>,
}

/// One generation of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportPublish {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Its project.
    pub project: String,
    /// Who published it.
    pub author: String,
    /// The node that it was published at.
    pub node: String,
    /// Its site.
    pub site: String,
    /// When, by the clock of that node.
    pub published: String,
    /// The generation.
    pub generation: u32,
    /// How many files it has that the generation before did not have.
    pub files: u64,
    /// How many bytes more than the generation before.
    pub bytes: u64,
    /// The sites that have it now.
    pub held_at: Vec<String>,
}

/// One version that came to this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReportTransfer {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Its project.
    pub project: String,
    /// When it was all here.
    pub placed: String,
    /// How many files it has.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// How much of it came over the line; what is encoded counts as it came.
    pub bytes_received: u64,
    /// How long it took, with waiting.
    pub seconds: f64,
    /// The nodes that it came from.
    pub sources: Vec<String>,
}
