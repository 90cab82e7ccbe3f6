//! The audit from a daemon and from a copy.

#![expect(clippy::disallowed_methods, reason = "a copy in a test needs no durability")]

use avalon_protocol::audit::{
    AuditAction, AuditActor, AuditEntry, AuditFact, AuditOutcome, seal, segment_name,
};
use avalon_protocol::hash::AuditHash;
use tempfile::TempDir;

use super::*;
use crate::fake::{FakeDaemon, run as ctl};

/// A copy of an audit with one entry of anna and one that nobody can print as it is.
fn copy() -> (TempDir, AuditHash) {
    let temp = tempfile::tempdir().unwrap();
    let begin = AuditFact::daemon(AuditAction::Begin).detail("after", AuditHash::START.to_string());
    let anna = AuditActor::User { uid: 1001, name: "anna".into() };
    let pull = AuditFact::new(anna, AuditAction::Pull, AuditOutcome::Done);
    let ugly = AuditFact::new(AuditActor::Daemon, AuditAction::Place, AuditOutcome::Failed)
        .about("=cmd(\"\u{1b}[2J\")");
    let (mut bytes, mut hash) = (Vec::new(), AuditHash::START);
    for (seq, fact) in [begin, pull.project("lantern").about("robot/rig@v001"), ugly].into_iter().enumerate()
    {
        let at = format!("2026-11-2{seq}T03:25:21.000Z");
        let (line, next) = seal(hash, &AuditEntry { seq: seq as u64, at, node: "ws12@london".into(), fact });
        bytes.extend(line);
        hash = next;
    }
    std::fs::write(temp.path().join(segment_name(0)), bytes).unwrap();
    (temp, hash)
}

fn at(temp: &TempDir) -> &str {
    temp.path().to_str().unwrap()
}

#[test]
fn a_copy_is_verified_without_a_daemon_and_a_changed_byte_is_named() {
    let (temp, _) = copy();
    let ran = ctl(&["audit", "verify", "--dir", at(&temp)]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("ok: 3 lines of ws12@london in 1 file, 0 to 2"), "{ran:?}");
    let file = temp.path().join(segment_name(0));
    let text = std::fs::read_to_string(&file).unwrap().replace("anna", "anne");
    std::fs::write(&file, text).unwrap();
    let ran = ctl(&["audit", "verify", "--dir", at(&temp)]);
    assert_eq!(ran.exit, 8, "{ran:?}");
    assert!(ran.stdout.contains("audit-000000000000.jsonl:2: entry 1 is not what was written"), "{ran:?}");
    let ran = ctl(&["audit", "verify", "--json", "--dir", at(&temp)]);
    let reply: AuditVerifyReply = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((reply.ok, reply.faults[0].line), (false, 2));
    assert_eq!(ctl(&["audit", "verify", "--dir", "/nowhere/at/all"]).exit, 4);
}

#[test]
fn a_copy_of_another_node_is_compared_with_the_heads_that_the_daemon_knows() {
    let (temp, hash) = copy();
    let daemon = FakeDaemon::start();
    let heads = |hash: String| AuditHeadsReply {
        schema: "avalonctl.audit-heads/1".into(),
        node: "ws12@london".into(),
        heads: vec![avalon_protocol::control::AuditHeadItem { entries: 3, hash, published: String::new() }],
    };
    let asked = "GET /v1/audit/heads";
    daemon.on(asked, &heads(hash.to_string())).on(asked, &heads(AuditHash::START.to_string()));
    let ran = daemon.line(&["audit", "verify", "--heads", "--dir", at(&temp)]).run();
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stdout.contains("compared with 1 published head"), "{ran:?}");
    let ran = daemon.line(&["audit", "verify", "--heads", "--dir", at(&temp)]).run();
    assert_eq!(ran.exit, 8, "{ran:?}");
    assert!(ran.stdout.contains(":3: up to here the audit is another than its node published"), "{ran:?}");
}

#[test]
fn entries_are_shown_for_people_exported_as_they_stand_and_as_csv() {
    let (temp, _) = copy();
    let ran = ctl(&["audit", "tail", "-n", "2", "--dir", at(&temp)]);
    assert_eq!(ran.stdout.lines().count(), 2, "{ran:?}");
    assert!(ran.stdout.contains("anna (uid 1001)  pull done  lantern:  robot/rig@v001"), "{ran:?}");
    assert!(!ran.stdout.contains('\u{1b}'));
    let ran = ctl(&["audit", "export", "--dir", at(&temp)]);
    assert_eq!(ran.stdout, std::fs::read_to_string(temp.path().join(segment_name(0))).unwrap());
    let ran = ctl(&["audit", "export", "--format", "csv", "--since", "2026-11-21", "--dir", at(&temp)]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    assert!(lines[1].contains(",user,anna,1001,pull,done,lantern,robot/rig@v001,"), "{lines:?}");
    assert!(lines[2].contains("\"'=cmd(\"\""), "no formula: {lines:?}");
    let ran = ctl(&["audit", "export", "--until", "2026-11-21", "--dir", at(&temp)]);
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
}
