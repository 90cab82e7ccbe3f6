//! Writing: durable before acknowledged, many commits to one fdatasync.

use std::sync::mpsc;

use avalon_protocol::{
    hash::ObjectHash,
    limits::{MAX_GROUP_RECORDS, MAX_RECORD_BYTES},
    record::{Key, RawRecord},
    version_fold::Standing,
};

use super::*;

#[test]
fn a_publish_is_visible_in_every_index_once_it_is_acknowledged() {
    let world = World::new();
    let node = world.open();
    let manifest = world.publish(&node.ledger, 7);
    let fold = node.ledger.version(&toy::version(7)).unwrap().unwrap();
    assert_eq!(fold.standing(toy::version(7).slot), Standing::Head(manifest.id()));
    assert_eq!(node.ledger.version_of(manifest.id()).unwrap(), Some(toy::version(7)));
    let path = "robot/v007/a.abc".parse().unwrap();
    let file = node.ledger.local_file(&project(), &path).unwrap().unwrap();
    assert_eq!(file.manifest, manifest.id());
    assert_eq!(node.ledger.locate(&file.hash).unwrap(), [(project(), path, file)]);
    assert_eq!(node.ledger.manifest(manifest.id()).unwrap(), Some(manifest));
    let heads = node.ledger.heads(&project());
    assert_eq!((heads.len(), heads[0].1.next_seq), (1, 2), "the key and the publish");
    node.ledger.sync().unwrap(); // the observer is told after the reply: the next job comes after both
    let events = world.events.lock().unwrap();
    let LedgerEvent::Advanced { feed, head, touched } = &events[0] else { panic!("{events:?}") };
    assert_eq!((feed, *head, touched.as_slice()), (&toy::feed(ME), heads[0].1, &[toy::version(7)][..]));
}

#[test]
fn versions_are_paged_in_order_and_by_asset() {
    let world = World::new();
    let node = world.open();
    for number in [10, 9, 200] {
        node.ledger.commit_wait(&project(), vec![placed(number, 1)], vec![], 1).unwrap();
    }
    let ids = |after: Option<&VersionId>, limit| -> Vec<VersionId> {
        let page = node.ledger.versions(&project(), None, after, limit).unwrap();
        page.into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(ids(None, 2), [toy::version(9), toy::version(10)]);
    assert_eq!(ids(Some(&toy::version(10)), 2), [toy::version(200)]);
    let asset =
        |name: &str| node.ledger.versions(&project(), Some(&name.parse().unwrap()), None, 10).unwrap().len();
    assert_eq!((asset("robot"), asset("rob")), (3, 0));
}

#[test]
fn two_hundred_commits_at_once_share_groups_and_keep_their_order() {
    let world = World::new();
    let node = world.open();
    let (replies, answers) = mpsc::channel();
    for number in 0..200u32 {
        let replies = replies.clone();
        let reply = Box::new(move |result: Result<Committed, LedgerError>| {
            replies.send((number, result.unwrap())).unwrap();
        });
        node.ledger.commit(&project(), vec![placed(number, 1), placed(number, 2)], vec![], 1, reply);
    }
    drop(replies);
    let committed: Vec<(u32, Committed)> = answers.iter().collect();
    let groups = node.groups(ME);
    assert!(groups.len() < 40, "{} groups for 200 commits", groups.len());
    assert_eq!(committed.len(), 200);
    for (number, committed) in committed {
        assert_eq!(committed.first_seq(), 1 + 2 * u64::from(number), "behind the key, in order");
        assert!(committed.head().next_seq > committed.first_seq() + 1);
    }
    node.check_rows(&node.expected_rows(&[]));
}

#[test]
fn a_large_commit_is_split_into_groups_within_the_limits() {
    let world = World::new();
    let node = world.open();
    let many: Vec<Record> = (0..600).map(|number| placed(number, 1)).collect();
    let committed = node.ledger.commit_wait(&project(), many, vec![], 1).unwrap();
    assert_eq!((committed.first_seq(), committed.head().next_seq), (1, 601));
    let sizes: Vec<usize> =
        node.groups(ME).iter().map(|group| body_of(group).unwrap().0.records.len()).collect();
    assert_eq!(sizes, [MAX_GROUP_RECORDS, MAX_GROUP_RECORDS - 1, 90]);
    let padded = |number| match toy::published(&toy::manifest(number, &[("a.abc", b"x")])) {
        Record::Published(published) => {
            Record::Published(avalon_protocol::record::Published { author: "x".repeat(60_000), ..published })
        }
        other => other,
    };
    let long = Record::Key(Key { certificate: vec![0; MAX_RECORD_BYTES] });
    let error = node.ledger.commit_wait(&project(), vec![long], vec![], 1).unwrap_err();
    assert!(matches!(error, LedgerError::RecordTooLarge { .. }), "{error:?}");
    let large: Vec<Record> = (0..40).map(padded).collect();
    let before = node.groups(ME).len();
    node.ledger.commit_wait(&project(), large, vec![], 1).unwrap();
    assert_eq!(node.groups(ME).len() - before, 3, "40 records of 60 kB in groups of 1 MiB");
}

#[test]
fn an_empty_commit_is_answered_with_the_head_and_writes_nothing() {
    let world = World::new();
    let node = world.open();
    let committed = node.ledger.commit_wait(&project(), vec![], vec![], 1).unwrap();
    assert_eq!(committed.head(), FeedHead::EMPTY);
    assert!(node.groups(ME).is_empty());
}

#[test]
fn a_drop_without_close_and_a_crash_lose_nothing_acknowledged() {
    let world = World::new();
    let node = world.open();
    let manifests: Vec<Manifest> = (1..=5).map(|number| world.publish(&node.ledger, number)).collect();
    let head = node.ledger.heads(&project());
    let crashed = world.crash_copy();
    drop(node);
    for world in [world, crashed] {
        let node = world.open();
        assert_eq!(node.ledger.heads(&project()), head);
        let changes: Vec<LocalChange> =
            manifests.iter().flat_map(|manifest| world.local_changes(manifest)).collect();
        node.check_rows(&node.expected_rows(&changes));
        assert!(node.ledger.missing_manifests(&project(), 10).is_empty());
        assert!(node.report.torn_tails.is_empty() && node.report.quarantined.is_empty());
    }
}

#[test]
fn local_files_are_listed_beneath_a_directory_and_forgotten() {
    let world = World::new();
    let node = world.open();
    let manifest = world.publish(&node.ledger, 1);
    world.publish(&node.ledger, 2);
    let under = |dir: Option<&str>| -> Vec<String> {
        let dir = dir.map(|dir| dir.parse().unwrap());
        let files = node.ledger.local_files_under(&project(), dir.as_ref(), None, 10).unwrap();
        files.into_iter().map(|(path, _)| path.to_string()).collect()
    };
    assert_eq!(under(Some("robot/v001")), ["robot/v001/a.abc", "robot/v001/b.abc"]);
    assert_eq!((under(None).len(), under(Some("robot/v00")).len()), (4, 0));
    assert_eq!(node.ledger.locate(&ObjectHash::of(b"shared")).unwrap().len(), 2);
    let path = manifest.dir().join_str("b.abc").unwrap();
    node.ledger.update_local_wait(vec![LocalChange::Remove { project: project(), path }]).unwrap();
    assert_eq!(under(Some("robot/v001")), ["robot/v001/a.abc"]);
    assert_eq!(node.ledger.locate(&ObjectHash::of(b"shared")).unwrap().len(), 1);
    assert_eq!(node.ledger.stats().local_files, 3);
}

#[test]
fn after_close_everything_is_refused_and_reading_goes_on() {
    let world = World::new();
    let node = world.open();
    world.publish(&node.ledger, 1);
    let clone = node.ledger.clone();
    node.ledger.close().unwrap();
    let error = clone.commit_wait(&project(), vec![placed(1, 1)], vec![], 1).unwrap_err();
    assert!(matches!(error, LedgerError::Closed), "{error:?}");
    assert!(matches!(clone.sync(), Err(LedgerError::Closed)));
    assert!(clone.version(&toy::version(1)).unwrap().is_some());
}

#[test]
fn a_node_whose_certificate_is_not_its_own_writes_nothing() {
    let world = World::new();
    let state = StateDir::open(&world.state_path()).unwrap();
    let config = LedgerConfig { signer: Arc::new(Toy::of(PEER)), ..world.config(ME) };
    let (ledger, _) = Ledger::open(&state, config).unwrap();
    let error = ledger.commit_wait(&project(), vec![placed(1, 1)], vec![], 1).unwrap_err();
    assert!(matches!(error, LedgerError::Refused { .. }), "{error:?}");
    assert_eq!(ledger.heads(&project())[0].1, FeedHead::EMPTY);
}

#[test]
fn records_of_a_newer_version_are_kept_and_passed_over() {
    let unknown = RawRecord { kind: 900, version: 3, payload: vec![1, 2, 3] };
    assert!(matches!(Record::from_raw(&unknown), Err(RecordError::Unknown { .. })));
    let world = World::new();
    let node = world.open();
    let mut reader = avalon_protocol::feed::FeedReader::new(toy::feed(PEER));
    let records = vec![unknown, placed(1, 1).to_raw()];
    let group = reader.seal(records, 1, &Toy::of(PEER), &ToyTrust);
    reader.accept(&group, &ToyTrust).unwrap();
    let ingested = node.ledger.ingest_wait(toy::feed(PEER), vec![group.clone()], vec![]).unwrap();
    assert_eq!((ingested.head, ingested.touched), (reader.head(), vec![toy::version(1)]));
    assert_eq!(node.groups(PEER), [group]);
}

#[test]
fn a_published_generation_without_its_manifest_is_missing_until_that_comes() {
    let world = World::new();
    let node = world.open();
    let manifest = toy::manifest(3, &[("a.abc", b"x")]);
    node.ledger.commit_wait(&project(), vec![toy::published(&manifest)], vec![], 1).unwrap();
    let missing = vec![(manifest.id(), toy::version(3))];
    assert_eq!(node.ledger.missing_manifests(&project(), 10), missing);
    drop(node);
    let node = world.open();
    assert_eq!(node.ledger.missing_manifests(&project(), 10), missing);
    node.ledger.put_manifest(&manifest).unwrap();
    assert!(node.ledger.missing_manifests(&project(), 10).is_empty());
}
