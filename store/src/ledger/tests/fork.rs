//! Feeds with two histories: found however they part, proved for good, and taken no further.

use avalon_protocol::feed::{FeedError, FeedReader};

use super::*;

/// Somebody who writes a feed, and can be copied while doing so.
#[derive(Clone)]
struct Hand {
    key: Toy,
    reader: FeedReader,
    groups: Vec<SealedGroup>,
}

impl Hand {
    fn of(node: &str) -> Self {
        Self { key: Toy::of(node), reader: FeedReader::new(toy::feed(node)), groups: Vec::new() }
    }

    /// Adds a group of these records.
    fn add(&mut self, manifests: &[u8]) {
        let records = manifests.iter().map(|manifest| placed(1, *manifest).to_raw()).collect();
        let group = self.reader.seal(records, 1, &self.key, &ToyTrust);
        self.reader.accept(&group, &ToyTrust).unwrap();
        self.groups.push(group);
    }

    fn with(mut self, groups: &[&[u8]]) -> Self {
        groups.iter().for_each(|manifests| self.add(manifests));
        self
    }
}

fn ingest(node: &Node, of: &str, groups: &[SealedGroup]) -> Result<Ingested, IngestError> {
    node.ledger.ingest_wait(toy::feed(of), groups.to_vec(), vec![])
}

fn check_fork(mine: &Hand, theirs: &[SealedGroup], seq: u64) {
    let world = World::new();
    let node = world.open();
    ingest(&node, PEER, &mine.groups).unwrap();
    let head = node.ledger.heads(&project());
    let error = ingest(&node, PEER, theirs).unwrap_err();
    assert!(matches!(error, IngestError::Feed(FeedError::Fork { .. })) && error.is_fork(), "{error:?}");
    let fork = node.ledger.fork(&toy::feed(PEER)).unwrap();
    assert_eq!((fork.feed.clone(), fork.settled.clone()), (toy::feed(PEER), None));
    let proof = fork.proof.clone().unwrap();
    assert!(proof.holds() && mine.groups.contains(&proof.ours) && theirs.contains(&proof.theirs));
    assert_eq!(proof.seq, seq);
    assert!(world.events.lock().unwrap().contains(&LedgerEvent::Forked { feed: toy::feed(PEER) }));
    // Not even what would follow is taken, from anybody, now or after a start; what is known is passed over.
    let mut later = mine.clone();
    later.add(&[9]);
    drop(node);
    for _ in 0..2 {
        let node = world.open();
        assert!(matches!(ingest(&node, PEER, &later.groups), Err(IngestError::Frozen { .. })));
        assert!(matches!(ingest(&node, PEER, theirs), Err(IngestError::Frozen { .. })));
        assert_eq!(ingest(&node, PEER, &mine.groups).unwrap().head, mine.reader.head());
        assert_eq!(node.ledger.heads(&project()), head);
        assert_eq!(node.groups(PEER), mine.groups, "what was taken before stays");
        assert_eq!(*node.ledger.fork(&toy::feed(PEER)).unwrap(), *fork);
    }
}

#[test]
fn two_histories_are_proved_wherever_they_part() {
    let common = Hand::of(PEER).with(&[&[1], &[2]]);
    let mine = common.clone().with(&[&[3], &[4]]);
    // In the place of a group of ours; within one; behind our end; with other borders.
    check_fork(&mine, &common.clone().with(&[&[5]]).groups, 3);
    check_fork(&mine, &common.clone().with(&[&[5, 6, 7, 8], &[9]]).groups, 3);
    check_fork(&mine, &common.clone().with(&[&[5], &[6], &[7]]).groups[4..], 4);
    let wide = common.clone().with(&[&[3, 4, 5]]);
    check_fork(&wide, &common.with(&[&[6], &[7]]).groups[3..], 4);
    check_fork(&mine, &Hand::of(PEER).with(&[&[7]]).groups, 0);
}

#[test]
fn a_history_that_parts_before_the_key_was_renewed_is_a_fork_and_not_a_bad_signature() {
    let common = Hand::of(PEER).with(&[&[1]]);
    let mut mine = common.clone().with(&[&[2]]);
    mine.key = Toy(format!("{PEER} renewed").into_bytes());
    let mine = mine.with(&[&[3]]);
    check_fork(&mine, &common.clone().with(&[&[4]]).groups, 2);
    // A wrong signature at that place is still nobody's fault but the sender's.
    let world = World::new();
    let node = world.open();
    ingest(&node, PEER, &mine.groups).unwrap();
    let mut forged = common.with(&[&[4]]).groups;
    forged[1].signature[0] ^= 1;
    let error = ingest(&node, PEER, &forged).unwrap_err();
    assert!(matches!(error, IngestError::Feed(FeedError::Signature { .. })), "{error:?}");
    assert!(node.ledger.forks().is_empty());
}

#[test]
fn no_feed_is_read_again_for_a_group_that_nobody_signed() {
    let wide: Vec<u8> = (0..200).collect();
    let mut common = Hand::of(PEER);
    (0..12).for_each(|_| common.add(&wide));
    let mut mine = common.clone().with(&[&[2]]);
    mine.key = Toy(format!("{PEER} renewed").into_bytes());
    let mine = mine.with(&[&[3]]);
    let world = World::new();
    let node = world.open();
    ingest(&node, PEER, &mine.groups).unwrap();
    // Whoever reads it from its beginning finds that out.
    let dir = world.temp.path().join("state").join(format!("feeds/lantern/{PEER}"));
    let segment = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let file = fs::OpenOptions::new().write(true).open(segment).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 64], 300).unwrap();
    let mut forged = common.clone().with(&[&[4]]).groups.split_off(12);
    forged[0].signature[0] ^= 1;
    let error = ingest(&node, PEER, &forged).unwrap_err();
    assert!(matches!(error, IngestError::Feed(FeedError::Signature { .. })), "{error:?}");
    // By the key that it had there it is a fork.
    assert!(ingest(&node, PEER, &common.with(&[&[4]]).groups.split_off(12)).unwrap_err().is_fork());
}

#[test]
fn a_node_whose_own_feed_has_two_histories_writes_no_feed_any_more() {
    let world = World::new();
    let node = world.open();
    let mut clone = Hand::of(ME);
    clone.add(&[1]);
    node.ledger.commit_wait(&project(), vec![placed(1, 2)], vec![], 7).unwrap();
    assert!(ingest(&node, ME, &clone.groups).unwrap_err().is_fork());
    let other: ProjectName = "harbour".parse().unwrap();
    for project in [project(), other] {
        let error = node.ledger.commit_wait(&project, vec![placed(2, 2)], vec![], 8).unwrap_err();
        assert!(matches!(error, LedgerError::Forked { .. }) && error.is_held(), "{error:?}");
    }
    node.ledger.commit_wait(&project(), vec![], vec![], 8).unwrap();
    assert_eq!(node.groups(ME).len(), 1, "what it has is read as ever");
}

#[test]
fn what_is_shown_to_a_peer_lets_it_find_the_fork_too() {
    let common = Hand::of(PEER).with(&[&[1], &[2]]);
    let mine = common.clone().with(&[&[3, 4], &[5]]);
    let other = common.with(&[&[6], &[7], &[8]]);
    let (first, second) = (World::new(), World::new());
    let (here, there) = (first.open(), second.open());
    ingest(&here, PEER, &mine.groups).unwrap();
    ingest(&there, PEER, &other.groups).unwrap();
    // Nobody has a proof: each shows what it has where the other ends.
    let shown = here.ledger.groups_to_show(&toy::feed(PEER), other.reader.head().next_seq).unwrap();
    assert!(ingest(&there, PEER, &shown).unwrap_err().is_fork());
    // With the proof both groups are shown, to whichever side.
    let shown = there.ledger.groups_to_show(&toy::feed(PEER), mine.reader.head().next_seq).unwrap();
    assert_eq!(shown.len(), 2);
    let found = shown.iter().any(|group| ingest(&here, PEER, std::slice::from_ref(group)).is_err());
    assert!(found && here.ledger.fork(&toy::feed(PEER)).is_some());
    let third = World::new();
    let newcomer = third.open();
    ingest(&newcomer, PEER, &mine.groups).unwrap();
    let found = shown.iter().any(|group| ingest(&newcomer, PEER, std::slice::from_ref(group)).is_err());
    assert!(found && newcomer.ledger.fork(&toy::feed(PEER)).is_some());
    // To somebody who has less than it takes to understand it, nothing that reads as a gap.
    let shown = here.ledger.groups_to_show(&toy::feed(PEER), 2).unwrap();
    assert!(shown.iter().all(|group| group.claimed_start().unwrap() <= 2), "{shown:?}");
}

#[test]
fn what_a_person_said_about_a_fork_is_kept_and_a_damaged_proof_freezes_all_the_same() {
    let world = World::new();
    let feed = toy::feed(PEER);
    let said = Settled { by: "anna".into(), comment: "joined again as ws3".into(), at_ms: 5 };
    {
        let node = world.open();
        ingest(&node, PEER, &Hand::of(PEER).with(&[&[1]]).groups).unwrap();
        assert!(!node.ledger.settle_fork(&feed, said.clone()).unwrap(), "there is none yet");
        ingest(&node, PEER, &Hand::of(PEER).with(&[&[2]]).groups).unwrap_err();
        assert!(node.ledger.settle_fork(&feed, said.clone()).unwrap());
    }
    let node = world.open();
    assert_eq!(node.ledger.fork(&feed).unwrap().settled, Some(said));
    drop(node);
    let path = world.state_path().join(format!("forks/lantern/{PEER}.json"));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(200).unwrap();
    let node = world.open();
    assert_eq!(node.ledger.fork(&feed).unwrap().proof, None);
    let error = ingest(&node, PEER, &Hand::of(PEER).with(&[&[2]]).groups).unwrap_err();
    assert!(matches!(error, IngestError::Frozen { .. }), "{error:?}");
}
