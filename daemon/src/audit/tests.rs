//! The audit over restarts and failures, and its heads.

use std::sync::Arc;

use avalon_protocol::{
    audit::{AuditActor, AuditOutcome, Known},
    mode::ProjectMode,
};

use super::*;
use crate::{clock::ManualClock, events::EventBus, fixture::Studio};

fn fact(about: &str) -> AuditFact {
    let anna = AuditActor::User { uid: 1001, name: "anna".into() };
    AuditFact::new(anna, AuditAction::Pull, AuditOutcome::Done).about(about)
}

fn open(dir: &tempfile::TempDir) -> (Audit, HealthBoard) {
    let clock = Arc::new(ManualClock::new());
    let health = HealthBoard::new(EventBus::new(clock.clone()));
    let dir = Dir::open(dir.path()).unwrap();
    (Audit::open(&dir, "ws12@london", None, clock, &health).unwrap(), health)
}

fn told(audit: &Audit) -> Vec<String> {
    let mut told = Vec::new();
    let verdict = audit.reader().unwrap().check(&Known::default(), None, |line, _| {
        let about = line.entry.fact.about.first().cloned();
        told.push(about.unwrap_or_else(|| line.entry.fact.action.word()));
    });
    assert_eq!(verdict.unwrap().faults, []);
    told
}

#[tokio::test]
async fn what_was_recorded_is_there_after_a_crash_and_a_torn_end_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let (audit, _) = open(&temp);
    audit.record(fact("one")).await.unwrap();
    // No close: the thread just ends.
    drop(audit);
    let file = temp.path().join("audit-000000000000.jsonl");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend(b"{\"seq\":2,\"at\"");
    std::fs::remove_file(&file).unwrap();
    std::io::Write::write_all(&mut std::fs::File::create(&file).unwrap(), &bytes).unwrap();
    let (audit, health) = open(&temp);
    audit.record(fact("two")).await.unwrap();
    assert_eq!(told(&audit), ["begin", "one", "audit-000000000000.jsonl", "two"]);
    assert!(health.items().is_empty(), "a torn end is normal");
}

#[tokio::test]
async fn what_cannot_be_written_for_long_is_counted_in_the_next_entry() {
    let temp = tempfile::tempdir().unwrap();
    let (audit, health) = open(&temp);
    let block = temp.path().join("audit-000000000000.jsonl");
    std::fs::create_dir(&block).unwrap();
    let refused = audit.record(fact("asked")).await.unwrap_err();
    assert!(!refused.is_no_space && !refused.reason.is_empty());
    for number in 0..3 * QUEUE {
        audit.note(fact(&number.to_string()));
        if number % 1000 == 0 {
            audit.record(fact("in between")).await.unwrap_err();
        }
    }
    while audit.record(fact("full")).await.unwrap_err().reason.contains("too much") {
        tokio::task::yield_now().await;
    }
    assert_eq!(health.items().len(), 1);
    std::fs::remove_dir(&block).unwrap();
    audit.record(fact("again")).await.unwrap();
    assert!(health.items().is_empty());
    let told = told(&audit);
    assert!(told.len() <= QUEUE + 10, "{}", told.len());
    assert_eq!(told[told.len() - 2..], ["again", "lost"]);
}

#[tokio::test]
async fn a_head_is_published_when_the_audit_went_on_and_what_was_rewritten_is_found_by_it() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let core = &node.core;
    core.audit.record(fact("one")).await.unwrap();
    let first = heads::publish(core, None).await;
    assert_eq!(first.unwrap().entries, 2);
    assert_eq!(heads::publish(core, first).await, first, "nothing new");
    core.audit.record(fact("two")).await.unwrap();
    heads::publish(core, first).await;
    let known = heads_of(&core.ledger, &core.me).unwrap();
    assert_eq!(known.iter().map(|head| head.entries).collect::<Vec<_>>(), [2, 3]);
    let check =
        |heads| core.audit.reader().unwrap().check(&Known { heads, running: None }, None, |_, _| {}).unwrap();
    let verdict = check(known.clone());
    assert_eq!((verdict.faults, verdict.heads_compared), (vec![], 2));
    let mut other = known;
    other[0].hash = avalon_protocol::hash::AuditHash::START;
    let verdict = check(other);
    assert_eq!((verdict.faults_total, verdict.faults[0].line), (1, 2));
}
