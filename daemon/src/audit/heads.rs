//! Heads of the audit in the studio's feeds: once an hour at most, and only when it went on. Whoever rewrites the files later
//! cannot rewrite those.

use std::{sync::Arc, time::Duration};

use avalon_protocol::{
    audit::{AuditHead, Known, audit_heads},
    control::{Health, Severity},
    feed::FeedId,
    id::{NodeId, ProjectName},
    limits::RECORDS_FRAME_TARGET_BYTES,
    record::Record,
};
use avalon_store::ledger::{Ledger, LedgerError};

use crate::{
    core::{Core, blocking},
    health::HealthBoard,
    log::ErrorChain,
    tasks::Tasks,
};

/// How often a head is published at most.
const EVERY_MS: u64 = 3_600_000;
/// How often it is looked whether one is due; a workstation may not run for an hour.
const LOOK_EVERY: Duration = Duration::from_secs(300);

pub(crate) const AUDIT_DAMAGED: &str = "audit-damaged";

/// Compares the audit with what this node published of it, then publishes heads until the daemon stops.
pub fn keep_heads(core: &Arc<Core>, tasks: &Tasks) {
    let (core, stop) = (Arc::clone(core), tasks.token());
    tasks.spawn("audit heads", async move {
        let mut last = check(&core).await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = core.clock.sleep(LOOK_EVERY) => {}
            }
            if core.now_ms().saturating_sub(last.map_or(0, |head| head.at_ms)) >= EVERY_MS {
                last = publish(&core, last).await;
            }
        }
    });
}

/// Checks all of it; returns the newest head of this node.
async fn check(core: &Arc<Core>) -> Option<AuditHead> {
    let (Some(reader), written) = (core.audit.reader(), core.audit.written()) else { return None };
    let core_ = Arc::clone(core);
    let checked = blocking(move || {
        let heads = heads_of(&core_.ledger, &core_.me).unwrap_or_default();
        let last = heads.iter().max_by_key(|head| head.entries).copied();
        let known = Known { heads, running: None };
        (reader.check(&known, written.as_ref(), |_, _| {}), last)
    });
    match checked.await {
        (Ok(verdict), last) => {
            if let Some(fault) = verdict.faults.first() {
                raise_damaged(
                    &core.health,
                    &format!("{}, line {}: {}", fault.file, fault.line, fault.problem),
                );
            }
            last
        }
        (Err(error), last) => {
            raise_damaged(&core.health, &ErrorChain(&error).to_string());
            last
        }
    }
}

/// Publishes a head when there are more entries than `last` has; returns the newest.
pub(crate) async fn publish(core: &Core, last: Option<AuditHead>) -> Option<AuditHead> {
    let Some(written) = core.audit.written() else { return last };
    if last.is_some_and(|last| written.entries <= last.entries) {
        return last;
    }
    let head = AuditHead { entries: written.entries, hash: written.hash, at_ms: core.now_ms() };
    match core.commit(ProjectName::studio(), vec![Record::AuditHead(head)], Vec::new()).await {
        Ok(_) => Some(head),
        Err(error) => {
            tracing::warn!(error = %ErrorChain(&error), "the head of the audit is not published; it is tried again");
            last
        }
    }
}

/// Returns the heads that a node has published, as far as this node knows its feed. Blocks.
///
/// # Errors
/// [`LedgerError`] when the feed cannot be read.
pub(crate) fn heads_of(ledger: &Ledger, node: &NodeId) -> Result<Vec<AuditHead>, LedgerError> {
    let feed = FeedId { project: ProjectName::studio(), node: node.clone() };
    let (mut heads, mut next) = (Vec::new(), 0);
    loop {
        let groups = ledger.read_groups(&feed, next, RECORDS_FRAME_TARGET_BYTES)?;
        let bodies = groups
            .iter()
            .filter_map(|group| postcard::from_bytes::<avalon_protocol::feed::Group>(&group.body).ok());
        let end = bodies.map(|body| body.first_seq + body.records.len() as u64).max();
        heads.extend(audit_heads(&groups));
        match end {
            Some(end) if end > next => next = end,
            _ => return Ok(heads),
        }
    }
}

/// Says that the audit is not what was written.
pub(super) fn raise_damaged(health: &HealthBoard, what: &str) {
    health.raise(Health {
        code: AUDIT_DAMAGED.into(),
        severity: Severity::Error,
        message: format!("the audit is not what was written: {what}"),
        hint: Some(
            "keep a copy of the audit directory, find out who was there, and see avalonctl audit verify"
                .into(),
        ),
    });
}
