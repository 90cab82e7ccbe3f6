//! Own feeds that may not be written yet, and keys that change under way.

use avalon_protocol::{
    audit::AuditHead,
    hash::AuditHash,
    own_feed::Writing,
    record::{Key, Note, Revoked},
};

use super::*;

type Answer = std::sync::mpsc::Receiver<Result<Committed, LedgerError>>;

fn commit(node: &Node, records: Vec<Record>) -> Answer {
    let (answer, answered) = sync_channel(1);
    node.ledger.commit(&project(), records, vec![], 1, Box::new(move |result| answer.send(result).unwrap()));
    answered
}

fn head(node: &Node) -> u64 {
    node.ledger.heads(&project()).iter().map(|(_, head)| head.next_seq).sum()
}

#[test]
fn what_is_held_waits_and_is_written_in_its_order_once_it_may_be() {
    let world = World::new();
    let node = world.open();
    node.ledger.hold_all();
    let answers: Vec<Answer> = (1..=3).map(|number| commit(&node, vec![placed(number, 1)])).collect();
    node.ledger.update_local_wait(vec![]).unwrap();
    commit(&node, vec![]).recv().unwrap().unwrap();
    assert_eq!(head(&node), 0, "what needs no record does not wait");
    assert!(answers.iter().all(|answer| answer.try_recv().is_err()));
    node.ledger.set_writing(&project(), Writing::Free);
    let firsts: Vec<u64> = answers.iter().map(|answer| answer.recv().unwrap().unwrap().first_seq()).collect();
    assert_eq!(firsts, [1, 2, 3]);
    assert!(commit(&node, vec![placed(4, 1)]).recv().unwrap().is_ok());
}

#[test]
fn what_is_held_for_longer_is_refused_and_so_is_what_waits_when_it_closes() {
    let world = World::new();
    let node = world.open();
    node.ledger.hold_all();
    let waits = commit(&node, vec![placed(1, 1)]);
    node.ledger.set_writing(&project(), Writing::Refused);
    for answer in [waits, commit(&node, vec![placed(2, 2)])] {
        let error = answer.recv().unwrap().unwrap_err();
        assert!(matches!(error, LedgerError::Held { .. }) && error.is_held(), "{error:?}");
    }
    assert_eq!(head(&node), 0);
    node.ledger.set_writing(&project(), Writing::Waits);
    let waits = commit(&node, vec![placed(3, 3)]);
    node.ledger.clone().close().unwrap();
    assert!(matches!(waits.recv().unwrap(), Err(LedgerError::Closed)));
}

#[test]
fn a_revocation_goes_past_what_is_held() {
    let (world, note) = (World::new(), || Note::try_from("stolen".to_owned()).unwrap());
    let node = world.open();
    node.ledger.hold_all();
    let studio = ProjectName::studio();
    let send = |record: Record| {
        let (answer, answered) = sync_channel(1);
        let reply = Box::new(move |result| answer.send(result).unwrap());
        node.ledger.commit(&studio, vec![record], vec![], 1, reply);
        answered
    };
    let head = AuditHead { entries: 1, hash: AuditHash::from_bytes([1; 32]), at_ms: 1 };
    let head_of_audit = send(Record::AuditHead(head));
    let revoked = Revoked { node: "thief@x".parse().unwrap(), author: note(), comment: note(), at_ms: 1 };
    let revocation = send(Record::Revoked(revoked));
    node.ledger.set_writing_apart(&studio, Writing::Waits, Writing::Free);
    assert!(revocation.recv_timeout(Duration::from_secs(60)).unwrap().is_ok());
    assert!(head_of_audit.try_recv().is_err(), "it waits");
    node.ledger.set_writing_apart(&studio, Writing::Refused, Writing::Free);
    assert!(matches!(head_of_audit.recv().unwrap(), Err(LedgerError::Held { .. })));
}

#[test]
fn records_that_come_back_from_a_peer_are_taken_while_the_feed_is_held() {
    let before = World::new();
    let node = before.open();
    before.publish(&node.ledger, 1);
    let groups = node.groups(ME);
    let world = World::new();
    let restored = world.open();
    restored.ledger.hold_all();
    let waits = commit(&restored, vec![placed(2, 2)]);
    let ingested = restored.ledger.ingest_wait(toy::feed(ME), groups.clone(), vec![]).unwrap();
    restored.ledger.set_writing(&project(), Writing::Free);
    assert_eq!(waits.recv().unwrap().unwrap().first_seq(), ingested.head.next_seq, "it goes on behind them");
    assert_eq!(restored.groups(ME)[..groups.len()], groups);
}

#[test]
fn what_was_concluded_before_own_records_came_back_is_not_written() {
    let before = World::new();
    let node = before.open();
    before.publish(&node.ledger, 1);
    let groups = node.groups(ME);
    let world = World::new();
    let restored = world.open();
    let (elsewhere, peer) = (World::new(), World::new());
    let peer = peer.try_open(PEER).unwrap();
    elsewhere.publish(&peer.ledger, 3);
    let peer = peer.groups(PEER);
    let concluded = |came_back| {
        let (answer, answered) = sync_channel(1);
        let reply = Box::new(move |result| answer.send(result).unwrap());
        let records = vec![placed(2, 2)];
        restored.ledger.commit_concluded((&project(), came_back), records, vec![], 1, reply);
        answered
    };
    let then = restored.ledger.came_back(&project());
    restored.ledger.hold_all();
    let waits = concluded(then);
    restored.ledger.ingest_wait(toy::feed(PEER), peer, vec![]).unwrap();
    assert_eq!(restored.ledger.came_back(&project()), then, "what is another's does not come back");
    restored.ledger.ingest_wait(toy::feed(ME), groups.clone(), vec![]).unwrap();
    restored.ledger.set_writing(&project(), Writing::Free);
    for answer in [waits, concluded(then)] {
        assert!(matches!(answer.recv().unwrap(), Err(LedgerError::CameBack { .. })));
    }
    assert_eq!(restored.groups(ME), groups);
    let now = restored.ledger.came_back(&project());
    restored.ledger.ingest_wait(toy::feed(ME), groups.clone(), vec![]).unwrap();
    concluded(now).recv().unwrap().unwrap();
    concluded(now).recv().unwrap().unwrap();
    assert_eq!(
        restored.ledger.came_back(&project()),
        now,
        "what it has does not come back, nor what it writes"
    );
}

#[test]
fn a_new_signer_signs_from_the_next_group_on_with_its_certificate_in_front() {
    let world = World::new();
    let node = world.open();
    node.ledger.commit_wait(&project(), vec![placed(1, 1)], vec![], 1).unwrap();
    let renewed = Toy(format!("{ME} renewed").into_bytes());
    node.ledger.set_signer(Arc::new(renewed.clone()));
    node.ledger.commit_wait(&project(), vec![placed(2, 2)], vec![], 2).unwrap();
    node.ledger.commit_wait(&project(), vec![placed(3, 3)], vec![], 3).unwrap();
    let certificates: Vec<Vec<Vec<u8>>> = node
        .groups(ME)
        .iter()
        .map(|group| {
            let records = body_of(group).unwrap().0.records;
            let keys = records.iter().filter_map(|raw| match Record::from_raw(raw) {
                Ok(Record::Key(Key { certificate })) => Some(certificate),
                _ => None,
            });
            keys.collect()
        })
        .collect();
    assert_eq!(certificates, [vec![Toy::of(ME).0], vec![renewed.0.clone()], vec![]]);
    // Another node follows the change, and this one after a start with the new key.
    let (groups, head) = (node.groups(ME), node.ledger.heads(&project()));
    drop(node);
    let other = World::new();
    let reader = other.try_open(PEER).unwrap();
    reader.ledger.ingest_wait(toy::feed(ME), groups, vec![]).unwrap();
    assert_eq!(reader.ledger.heads(&project()), head);
    let node = world.open();
    node.ledger.set_signer(Arc::new(renewed));
    node.ledger.commit_wait(&project(), vec![placed(4, 4)], vec![], 4).unwrap();
    assert_eq!(head[0].1.next_seq + 1, node.ledger.heads(&project())[0].1.next_seq, "no certificate again");
}
