//! The studio's own feeds: kept, passed on and read back as any other, and without versions.

use avalon_protocol::{
    feed::{FeedReader, Group},
    record::Published,
    studio::AppliedPolicy,
};

use super::*;

fn policy(serial: u64) -> Record {
    let document = format!("# number {serial}\n");
    Record::Policy(AppliedPolicy::new(serial, document, "anna".into(), String::new(), 5).unwrap())
}

fn studio_feed(node: &str) -> FeedId {
    FeedId { project: ProjectName::studio(), node: node.parse().unwrap() }
}

/// The policies in a feed, as it is read back.
fn policies(node: &Node, feed: &FeedId) -> Vec<Record> {
    let groups = node.ledger.read_groups(feed, 0, usize::MAX).unwrap();
    let bodies = groups.iter().map(|group| postcard::from_bytes::<Group>(&group.body).unwrap());
    let records = bodies.flat_map(|body| body.records);
    let records = records.filter_map(|raw| Record::in_feed(&raw, &feed.project).ok());
    records.filter(|record| matches!(record, Record::Policy(_))).collect()
}

#[test]
fn a_policy_is_durable_when_it_is_acknowledged_and_outlives_the_catalog() {
    let world = World::new();
    let node = world.open();
    for serial in 1..=2 {
        let committed =
            node.ledger.commit_wait(&ProjectName::studio(), vec![policy(serial)], vec![], 1).unwrap();
        assert_eq!((committed.feed(), committed.first_seq()), (&studio_feed(ME), serial));
    }
    let written = vec![policy(1), policy(2)];
    assert_eq!(policies(&node, &studio_feed(ME)), written);
    // As a crash leaves it, and with a catalog that somebody deleted.
    let copy = world.crash_copy();
    fs::remove_dir_all(copy.state_path().join("catalog")).unwrap();
    let after = copy.open();
    assert_eq!(policies(&after, &studio_feed(ME)), written);
    assert_eq!(after.ledger.heads(&ProjectName::studio())[0].1.next_seq, 3);
    after.check_rows(&node.rows());
}

#[test]
fn versions_in_the_studios_feeds_and_policies_in_others_are_kept_and_state_nothing() {
    let world = World::new();
    let node = world.open();
    let manifest = toy::manifest(1, &[("a.abc", b"x")]);
    let Record::Published(published) = toy::published(&manifest) else { panic!("it publishes") };
    let of_studio = VersionId { project: ProjectName::studio(), ..toy::version(1) };
    let disguised = Record::Published(Published { version: of_studio.clone(), ..published.clone() });
    for (feed, records) in [
        (studio_feed(PEER), vec![disguised, Record::Published(published), policy(1)]),
        (toy::feed(PEER), vec![policy(9)]),
    ] {
        let reader = FeedReader::new(feed.clone());
        let raw = records.iter().map(Record::to_raw).collect();
        let groups = vec![reader.seal(raw, 1, &Toy::of(PEER), &ToyTrust)];
        let ingested =
            node.ledger.ingest_wait(feed.clone(), groups.clone(), vec![manifest.encode()]).unwrap();
        assert_eq!((ingested.touched, ingested.manifests_stored), (vec![], vec![]), "{feed}");
        assert_eq!(ingested.head.next_seq, records.len() as u64 + 1, "with the key");
        assert_eq!(node.ledger.read_groups(&feed, 0, usize::MAX).unwrap(), groups, "passed on unchanged");
    }
    assert_eq!(node.ledger.stats().versions, 0);
    assert!(node.ledger.version(&of_studio).unwrap().is_none());
    for project in [project(), ProjectName::studio()] {
        assert!(node.ledger.missing_manifests(&project, 10).is_empty());
    }
    assert!(!node.ledger.has_manifest(manifest.id()).unwrap());
    node.check_rows(&node.expected_rows(&[]));
    assert!(node.rows().keys().all(|(table, _)| matches!(table, Table::Cursors)));
}
