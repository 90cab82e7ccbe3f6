//! What happens in the daemon by itself, as entries: the events that matter to somebody who asks later.

use std::{sync::Arc, time::Duration};

use avalon_protocol::{
    audit::{AuditAction, AuditActor, AuditFact, AuditOutcome},
    control::{Event, EventKind, PeerState},
    hash::ManifestId,
};

use crate::{
    core::{Core, blocking},
    tasks::Tasks,
};

/// How often sums are looked at.
const SUMS_EVERY: Duration = Duration::from_secs(10);

/// Writes what happens until the daemon stops.
pub fn follow(core: &Arc<Core>, tasks: &Tasks) {
    let mut events = core.events.follow();
    let (core_, stop) = (Arc::clone(core), tasks.token());
    tasks.spawn("audit", async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => {
                    note_lost(&core_, events.take_lost());
                    note(&core_, &event);
                }
            }
        }
    });
    let (core, stop) = (Arc::clone(core), tasks.token());
    tasks.spawn("audit sums", async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = core.clock.sleep(SUMS_EVERY) => {}
            }
            let due = core.audit.due();
            if !due.is_empty() {
                let core = Arc::clone(&core);
                blocking(move || due.into_iter().for_each(|fact| core.audit.note(named(&core, fact)))).await;
            }
        }
    });
}

/// Names the version of what was served: while it is served, only its manifest is at hand.
fn named(core: &Core, mut fact: AuditFact) -> AuditFact {
    let Some(manifest) = fact.about.first().and_then(|about| about.parse::<ManifestId>().ok()) else {
        return fact;
    };
    if fact.action == AuditAction::Serve
        && let Ok(Some(version)) = core.ledger.version_of(manifest)
    {
        let name = version.to_string();
        let short = name.split_once(':').map_or(name.as_str(), |(_, version)| version);
        fact.about = vec![short.to_owned()];
        return fact.detail("manifest", manifest.to_string());
    }
    fact
}

fn note(core: &Core, event: &Event) {
    if let Some(fact) = fact_of(&event.kind, core.me.to_string().as_str()) {
        core.audit.note(fact);
    }
}

/// Says that events are missing before the next entry, because more came than could be followed.
fn note_lost(core: &Core, events: u64) {
    if events > 0 {
        tracing::warn!(events, "events were lost for the audit");
        core.audit.note(AuditFact::daemon(AuditAction::Lost).detail("events", events.to_string()));
    }
}

/// Returns what is written of an event; nothing of most.
fn fact_of(event: &EventKind, me: &str) -> Option<AuditFact> {
    let daemon = AuditFact::daemon;
    // What is read in a record of another node was done there.
    let by = |node: &str, action| {
        let peer = AuditActor::Peer { node: node.to_owned() };
        if node == me { daemon(action) } else { AuditFact::new(peer, action, AuditOutcome::Done) }
    };
    Some(match event {
        EventKind::Published { reference, manifest, generation, files, bytes, author, completeness } => {
            of(daemon(AuditAction::Publish), reference)
                .detail("manifest", manifest)
                .detail("generation", generation.to_string())
                .detail("files", files.to_string())
                .detail("bytes", bytes.to_string())
                .detail("author", author)
                .detail("completeness", completeness)
        }
        EventKind::Placed { reference, manifest, files, bytes, .. } => {
            of(daemon(AuditAction::Place), reference)
                .detail("manifest", manifest)
                .detail("files", files.to_string())
                .detail("bytes", bytes.to_string())
        }
        EventKind::Dropped { reference, manifest, by, bytes } => {
            let mut fact = of(daemon(AuditAction::Drop), reference).detail("manifest", manifest);
            if let Some(by) = by {
                fact = fact.detail("by", by);
            }
            bytes.map_or(fact.clone(), |bytes| fact.detail("bytes", bytes.to_string()))
        }
        EventKind::Damaged { reference, manifest, files } => damaged(reference, manifest, files),
        EventKind::Retired { reference, author, comment, node } => {
            of(by(node, AuditAction::Retire), reference).detail("author", author).detail("comment", comment)
        }
        EventKind::Restored { reference, author, node } => {
            of(by(node, AuditAction::Restore), reference).detail("author", author)
        }
        EventKind::Resolved { reference, keep, author, node } => {
            of(by(node, AuditAction::Resolve), reference).detail("author", author).detail("keep", keep)
        }
        EventKind::PolicyApplied { serial, hash, author, comment, node } => by(node, AuditAction::Policy)
            .about(format!("policy {serial}"))
            .detail("hash", hash)
            .detail("author", author)
            .detail("comment", comment),
        EventKind::NodeRevoked { node } => daemon(AuditAction::Revoke).about(node),
        EventKind::NotAllowed { node, project, action } => lacked(node, project, action),
        EventKind::Peer { node, state, detail } => {
            let outcome = match state {
                PeerState::Online => AuditOutcome::Done,
                PeerState::Refused => AuditOutcome::Denied,
                PeerState::Connecting | PeerState::Offline => return None,
            };
            let peer = AuditActor::Peer { node: node.clone() };
            let fact = AuditFact::new(peer, AuditAction::Connect, outcome);
            detail.as_ref().map_or(fact.clone(), |why| fact.detail("why", why))
        }
        EventKind::Reloaded { changes } => {
            changes.iter().fold(daemon(AuditAction::Reload), |fact, change| fact.about(change))
        }
        EventKind::ProblemsFound { .. }
        | EventKind::Announced { .. }
        | EventKind::HeldElsewhere { .. }
        | EventKind::Conflict { .. }
        | EventKind::Job { .. }
        | EventKind::Pending { .. }
        | EventKind::Refused { .. }
        | EventKind::Problem { .. }
        | EventKind::Solved { .. } => return None,
    })
}

fn damaged(reference: &str, manifest: &str, files: &[String]) -> AuditFact {
    let fact = AuditFact::new(AuditActor::Daemon, AuditAction::Verify, AuditOutcome::Failed);
    of(fact, reference).detail("manifest", manifest).detail("files", files.join(" "))
}

fn lacked(node: &str, project: &str, action: &str) -> AuditFact {
    let peer = AuditActor::Peer { node: node.to_owned() };
    AuditFact::new(peer, AuditAction::Grant, AuditOutcome::Denied).project(project).detail("lacked", action)
}

/// Names a version, and its project apart.
fn of(fact: AuditFact, reference: &str) -> AuditFact {
    match reference.split_once(':') {
        Some((project, version)) => fact.project(project).about(version),
        None => fact.about(reference),
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{
        audit::{AuditLine, Known},
        mode::ProjectMode,
    };

    use super::*;
    use crate::fixture::Studio;

    #[tokio::test]
    async fn events_that_were_lost_are_counted_in_an_entry() {
        let studio = Studio::new();
        let node = studio.node("srv@london", ProjectMode::OnDemand);
        note_lost(&node.core, 0);
        note_lost(&node.core, 7);
        node.core.audit.record(AuditFact::daemon(AuditAction::Start)).await.unwrap();
        let mut lost = Vec::new();
        let mut each = |line: &AuditLine, _: &[u8]| {
            let fact = &line.entry.fact;
            lost.extend(fact.detail.get("events").filter(|_| fact.action == AuditAction::Lost).cloned());
        };
        node.core.audit.reader().unwrap().check(&Known::default(), None, &mut each).unwrap();
        assert_eq!(lost, ["7"]);
    }

    #[test]
    fn what_another_node_did_is_its_own_and_what_this_one_did_is_the_daemons() {
        let retired = |node: &str| EventKind::Retired {
            reference: "lantern:robot/rig@v001".into(),
            author: "anna".into(),
            comment: String::new(),
            node: node.into(),
        };
        let own = fact_of(&retired("a@b"), "a@b").unwrap();
        assert_eq!((own.actor, own.project.as_deref()), (AuditActor::Daemon, Some("lantern")));
        assert_eq!((own.about, own.detail["author"].as_str()), (vec!["robot/rig@v001".into()], "anna"));
        let theirs = fact_of(&retired("c@d"), "a@b").unwrap();
        assert_eq!(theirs.actor, AuditActor::Peer { node: "c@d".into() });
        let refused =
            EventKind::Peer { node: "x@y".into(), state: PeerState::Refused, detail: Some("no".into()) };
        assert_eq!(fact_of(&refused, "a@b").unwrap().outcome, AuditOutcome::Denied);
    }
}
