//! `why`: why a version is at a node, is not, or is not yet.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::JobStatus;
use crate::policy::Tried;

/// Why versions are where they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhyReply {
    /// Always `avalonctl.why/1`.
    pub schema: String,
    /// One answer for each version and node, in that order.
    pub answers: Vec<WhyAnswer>,
}

/// Why one version is at one node, is not, or is not yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhyAnswer {
    /// The version in full; of one that is not published yet, its directory.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The node that the answer is about.
    pub node: String,
    /// How it stands there.
    pub state: WhyState,
    /// Why, each in a sentence, the most important first.
    pub because: Vec<String>,
    /// What somebody can do, if there is something.
    pub hint: Option<String>,
    /// What the policy makes of it: `here, priority high`; none without a policy.
    pub ruling: Option<String>,
    /// The rule that decides, and the line on which it begins: `rigs (line 12)`; none for the defaults.
    pub rule: Option<String>,
    /// The rules that were asked, in their order, each with what it answered.
    pub tried: Vec<Tried>,
    /// The job that brings it, at this node.
    pub job: Option<JobStatus>,
    /// Its place in the queue, from 1, while it waits for its turn.
    pub position: Option<u64>,
}

/// How a version stands at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhyState {
    /// It is there.
    Here,
    /// It is coming, or waits to come.
    Coming,
    /// It belongs there and is not there.
    Missing,
    /// It comes when somebody pulls it.
    OnDemand,
    /// The policy keeps it away.
    Forbidden,
    /// It is out of use.
    Retired,
    /// Sites published different content under its number.
    Conflict,
    /// It is not published: it is not known to be whole.
    NotPublished,
    /// It cannot be said yet.
    NotKnown,
}
