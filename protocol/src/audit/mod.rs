//! The audit: who did what, when. One line of JSON for each entry, each chained by its hash to all before it.
//!
//! A line is good only if its hash is that of the line and of all lines before it, so that what was changed, removed, added
//! or put elsewhere is found, and where. [`Checker`] does that; it needs the files and nothing else. What it cannot see is a
//! chain that somebody wrote anew as a whole: for that heads of the chain stand in the node's studio feed ([`AuditHead`]).

mod check;
mod entry;
mod head;
mod line;

pub use self::{
    check::{Checker, Fault, Known, Verdict},
    entry::{AuditAction, AuditActor, AuditEntry, AuditFact, AuditOutcome},
    head::{AuditHead, audit_heads},
    line::{AuditLine, InvalidLine, MAX_LINE_BYTES, seal},
};

/// How the files of an audit are called: `audit-`, the number of the first entry in twelve digits, `.jsonl`.
pub fn segment_name(first: u64) -> String {
    format!("audit-{first:012}.jsonl")
}

/// Returns the number of the first entry of a file, by its name; none when it is no file of an audit.
pub fn segment_first(name: &str) -> Option<u64> {
    let first = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()?;
    (segment_name(first) == name).then_some(first)
}
