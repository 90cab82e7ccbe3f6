//! What somebody has to look at about the policy.

use std::collections::BTreeSet;

use avalon_protocol::{
    access::Elsewhere,
    control::{Health, Severity},
    id::NodeId,
    studio::PolicyFold,
};
use avalon_store::ledger::LedgerError;

use crate::{health::HealthBoard, log::ErrorChain};

/// The health code of a policy that this node cannot read.
const NOT_UNDERSTOOD: &str = "policy-not-understood";
/// The health code of two policies with one serial.
const APPLIED_TWICE: &str = "policy-applied-twice";
/// The health code of a studio feed that cannot be read back.
const UNREADABLE: &str = "policy-unreadable";
/// The health code of records that state nothing in the studio's feed.
const IGNORED: &str = "studio-records-ignored";
/// The health code of rights that were said of another history of a feed.
const ELSEWHERE: &str = "judged-elsewhere";

/// Says whether the policy that stands is in effect, and whether it is the only one of its serial.
pub(super) fn tell_standing(board: &HealthBoard, fold: &PolicyFold, problem: Option<&str>) {
    match (problem, fold.standing()) {
        (Some(problem), Some(standing)) => {
            let instead = match fold.in_effect() {
                Some(stands) => format!("policy {} stays in effect here", stands.id.serial),
                None => "no policy is in effect here".to_owned(),
            };
            board.raise(Health {
                code: NOT_UNDERSTOOD.into(),
                severity: Severity::Error,
                message: format!(
                    "policy {}, applied by {} at {}, is not understood here, {instead}: {problem}",
                    standing.id.serial, standing.entry.author, standing.entry.place.0
                ),
                hint: Some("upgrade avalond here, or apply one that it understands".into()),
            });
        }
        _ => board.clear(NOT_UNDERSTOOD),
    }
    match (fold.rivals().next_back(), fold.standing()) {
        (Some((_, rival)), Some(standing)) => board.raise(Health {
            code: APPLIED_TWICE.into(),
            severity: Severity::Warning,
            message: format!(
                "policy {} was applied twice at the same time; that of {} at {} stands, that of {} at {} does not",
                standing.id.serial,
                standing.entry.author,
                standing.entry.place.0,
                rival.author,
                rival.place.0
            ),
            hint: Some("compare them, avalonctl policy history, and apply what is meant".into()),
        }),
        _ => board.clear(APPLIED_TWICE),
    }
}

/// Says whether the studio's feeds could be read to their ends.
pub(super) fn tell_unreadable(board: &HealthBoard, failed: Option<&LedgerError>) {
    let Some(error) = failed else { return board.clear(UNREADABLE) };
    tracing::error!(error = %ErrorChain(error), "a feed of the studio cannot be read");
    board.raise(Health {
        code: UNREADABLE.into(),
        severity: Severity::Error,
        message: format!(
            "a feed of the studio cannot be read, so a newer policy may be missed: {}",
            ErrorChain(error)
        ),
        hint: Some("check the disk of the state directory and restart".into()),
    });
}

/// Says whether some of what admins say about rights is of another history of a feed than the one here.
pub(super) fn tell_elsewhere(board: &HealthBoard, elsewhere: &BTreeSet<Elsewhere>) {
    let Some(Elsewhere { by, feed, next_seq }) = elsewhere.first() else { return board.clear(ELSEWHERE) };
    board.raise(Health {
        code: ELSEWHERE.into(),
        severity: Severity::Warning,
        message: format!(
            "what {by} says about the rights up to record {next_seq} of feed {feed} is about another history of it than the \
             one here, so it says nothing here ({} such records)",
            elsewhere.len()
        ),
        hint: Some(format!("feed {feed} has two histories; ask what happened at {}: avalonctl feed", feed.node)),
    });
}

/// Says that a node wrote records that state nothing.
pub(super) fn tell_ignored(board: &HealthBoard, node: &NodeId, records: u64) {
    board.about(&node.to_string()).raise(Health {
        code: IGNORED.into(),
        severity: Severity::Warning,
        message: format!("{records} records of {node} in the studio's feed state nothing there"),
        hint: Some(format!("they are kept and have no effect; check avalond at {node}")),
    });
}
