//! Peers' groups: whole and true, or nothing.

use avalon_protocol::feed::{FeedError, FeedReader};

use super::*;

/// A peer's feed in memory.
struct Peer {
    reader: FeedReader,
    groups: Vec<SealedGroup>,
}

impl Peer {
    fn new() -> Self {
        Self { reader: FeedReader::new(toy::feed(PEER)), groups: Vec::new() }
    }

    fn with(records: Vec<Record>) -> Self {
        let mut peer = Self::new();
        records.into_iter().for_each(|record| peer.add(record));
        peer
    }

    fn add(&mut self, record: Record) {
        let group = self.reader.seal(vec![record.to_raw()], 1, &Toy::of(PEER), &ToyTrust);
        self.reader.accept(&group, &ToyTrust).unwrap();
        self.groups.push(group);
    }
}

fn ingest(node: &Node, groups: &[SealedGroup], manifests: &[&Manifest]) -> Result<Ingested, IngestError> {
    let manifests = manifests.iter().map(|manifest| manifest.encode()).collect();
    node.ledger.ingest_wait(toy::feed(PEER), groups.to_vec(), manifests)
}

#[test]
fn groups_and_manifests_of_a_peer_are_stored_visible_and_passed_on_unchanged() {
    let world = World::new();
    let node = world.open();
    let manifest = toy::manifest(1, &[("a.abc", b"x")]);
    let stray = toy::manifest(9, &[("a.abc", b"stray")]);
    let peer = Peer::with(vec![toy::published(&manifest), placed(2, 2)]);
    let ingested = ingest(&node, &peer.groups, &[&stray, &manifest]).unwrap();
    assert_eq!(ingested.head, peer.reader.head());
    assert_eq!(ingested.touched, [toy::version(1), toy::version(2)]);
    assert_eq!(ingested.manifests_stored, [manifest.id()], "a manifest that nobody published is not kept");
    assert!(!node.ledger.has_manifest(stray.id()).unwrap());
    assert_eq!(node.groups(PEER), peer.groups);
    node.check_rows(&node.expected_rows(&[]));
    drop(node);
    let node = world.open();
    assert_eq!(node.ledger.heads(&project()), [(PEER.parse().unwrap(), peer.reader.head())]);
    node.check_rows(&node.expected_rows(&[]));
}

#[test]
fn a_member_that_writes_without_end_fills_its_feed_only_so_far() {
    let mut world = World::new();
    let mut peer = Peer::with(vec![placed(1, 1)]);
    world.max_feed_bytes = {
        let node = world.open();
        ingest(&node, &peer.groups, &[]).unwrap();
        node.ledger.inner.shared.feed(&toy::feed(PEER)).unwrap().bytes() + 1
    };
    let node = world.open();
    let before = peer.reader.head();
    peer.add(placed(2, 2));
    let refused = ingest(&node, &peer.groups, &[]).unwrap_err();
    assert!(
        matches!(refused, IngestError::FeedTooLong { bytes, limit, .. } if bytes + 1 == limit),
        "{refused}"
    );
    assert_eq!(node.ledger.heads(&project())[0].1, before);
    // What is here already, others, and its own are no matter of that.
    assert!(!ingest(&node, &peer.groups[..1], &[]).unwrap().is_new);
    node.ledger.commit_wait(&project(), (3..9).map(|number| placed(number, 3)).collect(), vec![], 1).unwrap();
    drop(node);
    world.max_feed_bytes = u64::MAX;
    let node = world.open();
    assert!(ingest(&node, &peer.groups, &[]).unwrap().is_new, "with more room it goes on");
}

#[test]
fn what_is_here_already_is_passed_over() {
    let world = World::new();
    let node = world.open();
    let mut peer = Peer::with(vec![placed(1, 1), placed(2, 2)]);
    ingest(&node, &peer.groups, &[]).unwrap();
    peer.add(placed(3, 3));
    for _ in 0..2 {
        assert_eq!(ingest(&node, &peer.groups, &[]).unwrap().head, peer.reader.head());
    }
    assert_eq!(node.groups(PEER), peer.groups);
    let again = ingest(&node, &peer.groups[1..], &[]).unwrap();
    assert!(again.touched.is_empty());
}

fn check_refused(groups: &[SealedGroup], refused: fn(&FeedError) -> bool) {
    let world = World::new();
    let node = world.open();
    let peer = Peer::with(vec![placed(1, 1)]);
    ingest(&node, &peer.groups, &[]).unwrap();
    let (rows, head) = (node.rows(), node.ledger.heads(&project()));
    let manifest = toy::manifest(1, &[("a.abc", b"x")]);
    let error = ingest(&node, groups, &[&manifest]).unwrap_err();
    assert!(matches!(&error, IngestError::Feed(source) if refused(source)), "{error:?}");
    node.check_rows(&rows);
    assert_eq!(node.ledger.heads(&project()), head);
    assert_eq!(node.groups(PEER), peer.groups);
    assert!(!node.ledger.has_manifest(manifest.id()).unwrap());
}

#[test]
fn a_forged_signature_a_gap_and_a_fork_are_refused_and_store_nothing() {
    let peer = Peer::with(vec![placed(1, 1), placed(2, 2), placed(3, 3)]);
    let mut forged = peer.groups.clone();
    forged[2].signature[0] ^= 1;
    check_refused(&forged, |error| matches!(error, FeedError::Signature { .. }));
    check_refused(&peer.groups[2..], |error| matches!(error, FeedError::Gap { .. }));
    let mut accusing = peer.groups.clone();
    *accusing[0].body.last_mut().unwrap() ^= 1;
    check_refused(&accusing, |error| matches!(error, FeedError::Signature { seq: 0, .. }));
    let other = Peer::with(vec![placed(7, 7), placed(8, 8)]);
    check_refused(&other.groups, |error| matches!(error, FeedError::Fork { seq: 0, .. }));
    check_refused(&other.groups[1..], |error| matches!(error, FeedError::Fork { seq: 2, .. }));
    let mut broken = peer.groups.clone();
    broken[1].body.truncate(20);
    check_refused(&broken, |error| matches!(error, FeedError::Damaged { .. }));
}

#[test]
fn a_damaged_manifest_refuses_the_whole() {
    let world = World::new();
    let node = world.open();
    let manifest = toy::manifest(1, &[("a.abc", b"x")]);
    let peer = Peer::with(vec![toy::published(&manifest)]);
    let result = node.ledger.ingest_wait(toy::feed(PEER), peer.groups.clone(), vec![b"AVLM".to_vec()]);
    assert!(matches!(result, Err(IngestError::Manifest { .. })), "{result:?}");
    assert!(node.ledger.heads(&project()).is_empty());
    ingest(&node, &peer.groups, &[]).unwrap();
    assert_eq!(node.ledger.missing_manifests(&project(), 9).len(), 1);
    ingest(&node, &[], &[&manifest]).unwrap();
    assert!(node.ledger.missing_manifests(&project(), 9).is_empty(), "it may come later and alone");
}

#[test]
fn a_node_that_lost_its_own_feed_takes_it_back_from_a_peer() {
    let world = World::new();
    let node = world.open();
    world.publish(&node.ledger, 1);
    let groups = node.groups(ME);
    let rows = node.rows();
    let state = world.state_path();
    drop(node);
    fs::remove_dir_all(state.join("feeds/lantern")).unwrap();
    let node = world.open();
    assert!(matches!(node.report.rebuilt, Some(Cause::Cursor { .. })));
    let ingested = node.ledger.ingest_wait(toy::feed(ME), groups.clone(), vec![]).unwrap();
    assert_eq!(ingested.touched, [toy::version(1)]);
    assert_eq!(node.groups(ME), groups);
    world.publish(&node.ledger, 2);
    assert_eq!(node.ledger.heads(&project())[0].1.next_seq, 3, "and goes on behind it");
    assert!(rows.keys().all(|key| node.rows().contains_key(key)), "its files are known again");
}
