//! Which records count: what its author had no right to states nothing, in whatever order records come, and over restarts.

use avalon_protocol::{
    access::{Action, Rights},
    feed::FeedReader,
    record::{Judged, Note, Revoked},
    studio::AppliedPolicy,
};
use proptest::prelude::*;

use super::*;

pub(super) const VENDOR: &str = "ws1@vendor";
pub(super) const ADMIN: &str = "nas@paris";
/// When the manifests of these tests were published.
pub(super) const THEN_MS: u64 = 1_763_800_000_000;

/// A node that writes a feed in memory.
pub(super) struct Author {
    pub(super) key: Toy,
    pub(super) reader: FeedReader,
    pub(super) groups: Vec<SealedGroup>,
}

impl Author {
    pub(super) fn new(node: &str, role: &str, project: &ProjectName) -> Self {
        let feed = FeedId { project: project.clone(), node: node.parse().unwrap() };
        let key = Toy(format!("{node} key {role}").into_bytes());
        Self { key, reader: FeedReader::new(feed), groups: Vec::new() }
    }

    pub(super) fn vendor() -> Self {
        Self::new(VENDOR, "vendor", &project())
    }

    pub(super) fn admin() -> Self {
        Self::new(ADMIN, "admin", &ProjectName::studio())
    }

    pub(super) fn says(mut self, records: &[Record]) -> Self {
        let raw = records.iter().map(Record::to_raw).collect();
        let group = self.reader.seal(raw, 1, &self.key, &ToyTrust);
        self.reader.accept(&group, &ToyTrust).unwrap();
        self.groups.push(group);
        self
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.reader.head().next_seq
    }

    pub(super) fn tells(&self, node: &Node) -> Ingested {
        let ingested =
            node.ledger.ingest_wait(self.reader.feed().clone(), self.groups.clone(), vec![]).unwrap();
        assert!(node.ledger.wait_ready());
        ingested
    }
}

pub(super) fn policy(serial: u64, grants: &str) -> Record {
    let document =
        format!("schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"here\"\nmin_copies = 1\n{grants}");
    Record::Policy(AppliedPolicy::new(serial, document, "anna".into(), String::new(), THEN_MS).unwrap())
}

pub(super) fn grant(to: &str, actions: &str) -> String {
    format!("[[grant]]\nto = \"{to}\"\nprojects = \"lantern\"\nactions = \"{actions}\"\n")
}

fn judged(next_seq: u64, actions: &[Action]) -> Record {
    let feed = FeedId { project: project(), node: VENDOR.parse().unwrap() };
    Record::Judged(Judged {
        feed,
        next_seq,
        rights: Rights::of(actions.iter().copied()),
        at_ms: THEN_MS,
        chain: None,
    })
}

pub(super) fn revoked(node: &str, at_ms: u64) -> Record {
    let [author, comment] = ["anna", "stolen"].map(|text| Note::try_from(text.to_owned()).unwrap());
    Record::Revoked(Revoked { node: node.parse().unwrap(), author, comment, at_ms })
}

pub(super) fn publishes(number: u32) -> Record {
    toy::published(&toy::manifest(number, &[("a.abc", b"x")]))
}

pub(super) fn versions(node: &Node) -> u64 {
    node.check_rows(&node.expected_rows(&[]));
    node.ledger.stats().versions
}

#[test]
fn what_its_author_has_no_right_to_is_kept_and_told_and_states_nothing() {
    let world = World::new();
    let node = world.open();
    let manifest = toy::manifest(1, &[("a.abc", b"x")]);
    let vendor = Author::vendor().says(&[toy::published(&manifest)]);
    let feed = vendor.reader.feed().clone();
    let ingested =
        node.ledger.ingest_wait(feed.clone(), vendor.groups.clone(), vec![manifest.encode()]).unwrap();
    assert_eq!((ingested.manifests_stored, versions(&node)), (vec![], 0));
    assert_eq!(node.ledger.read_groups(&feed, 0, usize::MAX).unwrap(), vendor.groups, "passed on unchanged");
    let told = LedgerEvent::NotAllowed { feed: feed.clone(), seq: 1, action: Action::Publish };
    assert!(world.events.lock().unwrap().contains(&told));
    assert_eq!(node.ledger.admits(&feed, 1, &toy::published(&manifest)), Err(Action::Publish));
    assert!(!node.ledger.has_manifest(manifest.id()).unwrap());
    drop(node);
    assert_eq!(versions(&world.open()), 0);
}

#[test]
fn a_grant_that_comes_later_makes_what_was_said_before_count() {
    let world = World::new();
    let node = world.open();
    Author::vendor().says(&[publishes(1)]).tells(&node);
    assert_eq!(versions(&node), 0);
    Author::admin().says(&[policy(1, &grant(VENDOR, "publish"))]).tells(&node);
    assert_eq!(versions(&node), 1);
    let rebuilt = |event: &LedgerEvent| *event == LedgerEvent::Rebuilding { cause: Cause::Rights };
    assert!(world.events.lock().unwrap().iter().any(rebuilt));
    let missing = node.ledger.missing_manifests(&project(), 10);
    assert_eq!(missing.len(), 1, "its manifest is asked for");
    world.events.lock().unwrap().clear();
    // What changes no verdict builds nothing.
    Author::admin()
        .says(&[policy(1, &grant(VENDOR, "publish"))])
        .says(&[policy(2, &grant(VENDOR, "admin"))])
        .tells(&node);
    assert!(!world.events.lock().unwrap().iter().any(rebuilt));
}

#[test]
fn a_grant_that_is_taken_away_takes_back_only_what_was_not_judged_before() {
    let granted = policy(1, &grant(VENDOR, "publish"));
    for (with, left) in
        [(None, 0), (Some(judged(3, &[Action::Publish])), 2), (Some(judged(2, &[Action::Publish])), 1)]
    {
        let world = World::new();
        let node = world.open();
        Author::admin().says(std::slice::from_ref(&granted)).tells(&node);
        Author::vendor().says(&[publishes(1)]).says(&[publishes(2)]).tells(&node);
        assert_eq!(versions(&node), 2);
        let taken: Vec<Record> = with.into_iter().chain([policy(2, &grant("london", "publish"))]).collect();
        Author::admin().says(std::slice::from_ref(&granted)).says(&taken).tells(&node);
        assert_eq!(versions(&node), left);
        drop(node);
        assert_eq!(versions(&world.open()), left);
    }
}

#[test]
fn who_is_revoked_says_nothing_more_and_who_is_no_admin_revokes_nobody() {
    let world = World::new();
    let node = world.open();
    let granted = policy(1, &grant(VENDOR, "publish"));
    Author::admin().says(std::slice::from_ref(&granted)).tells(&node);
    let vendor = Author::vendor().says(&[publishes(1)]);
    vendor.tells(&node);
    let studio = ProjectName::studio();
    Author::new("ws9@vendor", "vendor", &studio).says(&[revoked(VENDOR, 0)]).tells(&node);
    assert_eq!((versions(&node), node.ledger.admission().revoked().len()), (1, 0));
    let gone = [judged(vendor.next_seq(), &[Action::Publish]), revoked(VENDOR, 0)];
    Author::admin().says(&[granted]).says(&gone).tells(&node);
    assert!(node.ledger.admission().is_revoked(&VENDOR.parse().unwrap()));
    vendor.says(&[publishes(2)]).tells(&node);
    assert_eq!(versions(&node), 1);
}

#[test]
fn a_catalog_or_checkpoint_of_before_the_rights_changed_is_built_anew() {
    let world = World::new();
    let node = world.open();
    Author::vendor().says(&[publishes(1)]).tells(&node);
    node.ledger.sync().unwrap();
    let before = world.crash_copy();
    Author::admin().says(&[policy(1, &grant(VENDOR, "publish"))]).tells(&node);
    drop(node);
    // As a crash leaves it between the feed and the catalog.
    let feeds = before.state_path().join("feeds");
    fs::remove_dir_all(&feeds).unwrap();
    copy_tree(&world.state_path().join("feeds"), &feeds);
    let node = before.open();
    assert_eq!((node.report.rebuilt.clone(), versions(&node)), (Some(Cause::Rights), 1));
}

/// A ledger of a node with this role.
fn open_as(world: &World, node: &str, role: &str) -> Ledger {
    let state = StateDir::open(&world.state_path()).unwrap();
    let mut config = world.config(node);
    config.signer = Arc::new(Toy(format!("{node} key {role}").into_bytes()));
    Ledger::open(&state, config).unwrap().0
}

#[test]
fn what_an_admin_says_of_rights_comes_through_however_much_it_is_and_nobody_elses() {
    let mut world = World::new();
    world.max_feed_bytes = 1;
    let node = world.open();
    let studio = ProjectName::studio();
    let site = Author::new("nas@rome", "site", &studio).says(&[revoked("ws5@home", 7)]);
    let refused = node.ledger.ingest_wait(site.reader.feed().clone(), site.groups, vec![]).unwrap_err();
    assert!(matches!(refused, IngestError::FeedTooLong { .. }), "{refused}");
    let admin = Author::admin().says(&[policy(1, "")]).says(&[revoked(VENDOR, 7)]);
    admin.tells(&node);
    assert_eq!(node.ledger.admission().revoked().len(), 1);
}

#[test]
fn a_node_writes_nothing_that_would_count_nowhere() {
    let world = World::new();
    let ledger = open_as(&world, "ws1@home", "farm");
    let commit = |project: &ProjectName, records| ledger.commit_wait(project, records, vec![], 1);
    let admin = Author::admin().says(&[policy(1, &grant("role:farm", "pull"))]);
    let studio = admin.reader.feed().clone();
    ledger.ingest_wait(studio, admin.groups, vec![]).unwrap();
    for (record, action, project) in [
        (publishes(1), Action::Publish, project()),
        (policy(1, ""), Action::Admin, ProjectName::studio()),
        (revoked(ADMIN, 1), Action::Admin, ProjectName::studio()),
    ] {
        let node = "ws1@home".parse().unwrap();
        let refused = commit(&project, vec![record]).unwrap_err();
        let LedgerError::NotAllowed { node: who, action: what, project: place } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((who, what, place), (node, action, project));
    }
    assert_eq!(ledger.heads(&project()), []);
    // What it holds it says.
    commit(&project(), vec![placed(1, 1)]).unwrap();
}

#[test]
fn a_vendor_that_knows_no_grants_takes_the_word_of_those_that_serve_it() {
    let world = World::new();
    let ledger = open_as(&world, "ws9@vendor", "vendor");
    let versions = || {
        assert!(ledger.wait_ready());
        ledger.stats().versions
    };
    let commit = |project: &ProjectName, records| ledger.commit_wait(project, records, vec![], 1);
    commit(&project(), vec![publishes(1)]).unwrap();
    commit(&ProjectName::studio(), vec![policy(1, "")]).unwrap_err();
    let other = Author::vendor().says(&[publishes(2)]);
    ledger.ingest_wait(other.reader.feed().clone(), other.groups, vec![]).unwrap();
    assert_eq!(versions(), 2);
    // Once it may see all projects, it judges by itself.
    let admin = Author::admin().says(&[policy(1, &grant(VENDOR, "publish"))]);
    ledger.ingest_wait(admin.reader.feed().clone(), admin.groups, vec![]).unwrap();
    assert_eq!(versions(), 1);
    commit(&project(), vec![publishes(3)]).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_first_all_nodes_end_with_the_same(
        order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(),
        restart_after in 0..6_usize,
    ) {
        let [one, other] = [World::new(), World::new()];
        let vendor = Author::vendor().says(&[publishes(1)]).says(&[publishes(2)]).says(&[publishes(3)]);
        let admin = Author::admin()
            .says(&[policy(1, &grant(VENDOR, "publish"))])
            .says(&[judged(3, &[Action::Publish]), policy(2, &grant("london", "publish"))]);
        let second = Author::new("ws2@paris", "admin", &ProjectName::studio())
            .says(&[revoked("ws5@home", 7), policy(3, &grant("@none", "see"))])
            .says(&[revoked(ADMIN, THEN_MS + 1)]);
        let parts: Vec<(&Author, usize)> =
            vec![(&vendor, 1), (&vendor, 3), (&admin, 1), (&admin, 2), (&second, 1), (&second, 2)];
        let mut rows = Vec::new();
        for (world, order) in [(&one, (0..6).collect::<Vec<usize>>()), (&other, order)] {
            let mut node = world.open();
            for (round, part) in order.into_iter().enumerate() {
                let (author, end) = parts[part];
                let feed = author.reader.feed().clone();
                node.ledger.ingest_wait(feed, author.groups[..end].to_vec(), vec![]).unwrap();
                if round == restart_after {
                    drop(node);
                    node = world.open();
                }
            }
            prop_assert!(node.ledger.wait_ready());
            node.check_rows(&node.expected_rows(&[]));
            rows.push((node.rows(), node.ledger.admission()));
        }
        prop_assert_eq!(&rows[0], &rows[1]);
        prop_assert_eq!(rows[0].0.keys().filter(|(table, _)| *table == Table::Versions).count(), 2);
    }
}
