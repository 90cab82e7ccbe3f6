//! What the API says about the audit.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::audit::Verdict;

/// The answer to `audit verify`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerifyReply {
    /// `avalonctl.audit-verify/1`.
    pub schema: String,
    /// Whether nothing is wrong.
    pub ok: bool,
    /// The node whose audit it is, if there is any.
    pub node: Option<String>,
    /// How many files there are.
    pub files: u64,
    /// How many lines they have.
    pub lines: u64,
    /// The number of the first entry; older ones were forgotten.
    pub first: u64,
    /// How many entries there ever were.
    pub entries: u64,
    /// The hash of the last.
    pub hash: String,
    /// With how many published heads the files were compared.
    pub heads_compared: u64,
    /// What is wrong, in the order of the files; a hundred at most.
    pub faults: Vec<AuditFault>,
    /// How many faults there are.
    pub faults_total: u64,
}

/// Something that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditFault {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: u64,
    /// What is wrong.
    pub problem: String,
}

impl From<Verdict> for AuditVerifyReply {
    fn from(verdict: Verdict) -> Self {
        let fault = |fault: crate::audit::Fault| AuditFault {
            file: fault.file,
            line: fault.line,
            problem: fault.problem,
        };
        Self {
            schema: "avalonctl.audit-verify/1".into(),
            ok: verdict.faults_total == 0,
            node: verdict.node,
            files: verdict.files,
            lines: verdict.lines,
            first: verdict.first,
            entries: verdict.head.0,
            hash: verdict.head.1.to_string(),
            heads_compared: verdict.heads_compared,
            faults: verdict.faults.into_iter().map(fault).collect(),
            faults_total: verdict.faults_total,
        }
    }
}

/// The heads that a node has published of its audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditHeadsReply {
    /// `avalonctl.audit-heads/1`.
    pub schema: String,
    /// The node.
    pub node: String,
    /// In the order in which they were published.
    pub heads: Vec<AuditHeadItem>,
}

/// One head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditHeadItem {
    /// How many entries there were.
    pub entries: u64,
    /// The hash of the last.
    pub hash: String,
    /// When it was published, by that node's clock.
    pub published: String,
}
