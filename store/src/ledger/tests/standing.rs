//! What changes rights amid all else: by whom, of which history, and while the catalog is at work.

use std::{
    sync::{Barrier, mpsc},
    thread,
};

use avalon_protocol::{
    access::{Extract, Rights},
    hash::ChainHash,
    record::Judged,
};

use super::{
    rights::{ADMIN, Author, THEN_MS, VENDOR, grant, policy, publishes, revoked, versions},
    *,
};

fn vendors_feed() -> FeedId {
    FeedId { project: project(), node: VENDOR.parse().unwrap() }
}

fn judged_at(feed: FeedId, next_seq: u64, rights: Rights, chain: Option<ChainHash>) -> Record {
    Record::Judged(Judged { feed, next_seq, rights, at_ms: THEN_MS, chain })
}

fn studio_feed(node: &str) -> FeedId {
    FeedId { project: ProjectName::studio(), node: node.parse().unwrap() }
}

fn rebuilds(world: &World) -> usize {
    let events = world.events.lock().unwrap();
    events.iter().filter(|event| matches!(event, LedgerEvent::Rebuilding { .. })).count()
}

#[test]
fn what_a_revoked_admin_judges_afterwards_counts_nowhere_in_whatever_order_it_comes() {
    let vendor = Author::vendor().says(&[publishes(1)]).says(&[publishes(2)]);
    let eve = Author::new("eve@paris", "admin", &ProjectName::studio()).says(&[revoked("old@paris", 0)]);
    let end = eve.next_seq();
    let admin = Author::admin().says(&[policy(1, &grant("london", "publish"))]).says(&[
        judged_at(studio_feed("eve@paris"), end, Rights::ALL, Some(eve.reader.head().chain)),
        revoked("eve@paris", THEN_MS),
    ]);
    let eve = eve.says(&[
        judged_at(studio_feed("eve@paris"), 99, Rights::ALL, None),
        judged_at(vendors_feed(), 99, Rights::ALL, None),
        policy(9, &grant(VENDOR, "publish")),
    ]);
    let mut all = Vec::new();
    for order in [[&vendor, &admin, &eve], [&eve, &vendor, &admin], [&vendor, &eve, &admin]] {
        let world = World::new();
        let node = world.open();
        order.into_iter().for_each(|author| drop(author.tells(&node)));
        assert_eq!(versions(&node), 0);
        let admission = node.ledger.admission();
        assert_eq!(admission.revoked().len(), 2, "what it revoked before stays so");
        all.push((node.rows(), admission));
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_others_than_admins_write_of_rights_makes_no_work() {
    let world = World::new();
    let node = world.open();
    Author::vendor().says(&[publishes(1)]).tells(&node);
    Author::admin().says(&[policy(1, &grant(VENDOR, "publish"))]).tells(&node);
    let (before, rebuilt) = (node.ledger.admission(), rebuilds(&world));
    let site = Author::new("nas@rome", "site", &ProjectName::studio()).says(&[
        policy(7, ""),
        judged_at(vendors_feed(), 9, Rights::NONE, None),
        revoked(VENDOR, 0),
    ]);
    site.tells(&node);
    assert!(Arc::ptr_eq(&before, &node.ledger.admission()) && versions(&node) == 1);
    let shared = &node.ledger.inner.shared;
    let group = body_of(&site.groups[0]).unwrap().0;
    assert!(!admit::is_about_rights(shared, &group), "not even looked at again");
    let ours = shared.feed(&studio_feed(ADMIN)).unwrap().read(0, 1).unwrap();
    assert!(admit::is_about_rights(shared, &body_of(&ours[0]).unwrap().0));
    assert_eq!(rebuilds(&world), rebuilt);
}

#[test]
fn what_was_judged_of_another_history_is_passed_over_also_when_the_feed_comes_later() {
    let vendor = Author::vendor().says(&[publishes(1)]).says(&[publishes(2)]).says(&[publishes(3)]);
    let theirs = Author::vendor().says(&[publishes(7)]).says(&[publishes(2)]);
    let ours = [&vendor.groups[1], &theirs.groups[1]].map(|group| group.chain());
    for (chain, left) in ours.into_iter().zip([2, 0]) {
        let world = World::new();
        let node = world.open();
        let judged = judged_at(vendors_feed(), 3, Rights::ALL, Some(chain));
        Author::admin().says(&[judged, policy(1, &grant("london", "publish"))]).tells(&node);
        let tell = |groups: &[SealedGroup]| {
            node.ledger.ingest_wait(vendors_feed(), groups.to_vec(), vec![]).unwrap();
            assert!(node.ledger.wait_ready());
        };
        tell(&vendor.groups[..1]);
        assert_eq!(
            (versions(&node), node.ledger.admission().elsewhere().len()),
            (1, 0),
            "nobody knows better"
        );
        tell(&vendor.groups);
        assert_eq!((versions(&node), node.ledger.admission().elsewhere().is_empty()), (left, left == 2));
        assert_eq!(
            world.events.lock().unwrap().iter().filter(|e| **e == LedgerEvent::Rights).count() > 1,
            left == 0
        );
        drop(node);
        let node = world.open();
        assert_eq!((versions(&node), &node.report.rebuilt), (left, &None));
    }
}

#[test]
fn an_admin_that_was_made_a_site_is_no_admin_by_its_old_certificate() {
    let world = World::new();
    let node = world.open();
    let mut author = Author::admin();
    author.key = Toy(b"nas@paris 1 admin".to_vec());
    let old = author.key.clone();
    let mut author = author.says(&[revoked("ws1@rome", 0)]);
    author.key = Toy(b"nas@paris 5 site".to_vec());
    let mut author = author.says(&[revoked("ws2@rome", 0)]);
    author.key = old;
    author.says(&[revoked("ws3@rome", 0)]).tells(&node);
    let gone: Vec<String> = node.ledger.admission().revoked().keys().map(ToString::to_string).collect();
    assert_eq!(gone, ["ws1@rome"]);
}

#[test]
fn a_node_that_goes_by_an_extract_judges_by_its_grants_also_after_a_restart() {
    let world = World::new();
    let open = |extract: Option<Extract>| {
        let state = StateDir::open(&world.state_path()).unwrap();
        let mut config = world.config("ws9@vendor");
        (config.signer, config.extract) = (Arc::new(Toy(b"ws9@vendor key vendor".to_vec())), extract);
        let (ledger, report) = Ledger::open(&state, config).unwrap();
        Node { ledger, report, _state: state }
    };
    let access = |grants: &str| {
        let Record::Policy(policy) = policy(1, grants) else { panic!() };
        Arc::new(avalon_protocol::policy::Policy::parse(policy.document()).unwrap().access().clone())
    };
    let vendor = Author::vendor().says(&[publishes(1)]);
    let node = open(None);
    vendor.tells(&node);
    assert_eq!(versions(&node), 1, "it takes others' word");
    let Record::Judged(before) = judged_at(vendors_feed(), 2, Rights::ALL, None) else { panic!() };
    let extract = Extract { serial: 3, policy: access(&grant("london", "publish")), judged: vec![before] };
    node.ledger.go_by(extract.clone()).unwrap();
    vendor.says(&[publishes(2)]).tells(&node);
    let (judged, asked) = (versions(&node), rebuilds(&world));
    assert_eq!((judged, asked), (1, 0), "what counted does, and the rest is judged by the grants");
    drop(node);
    let node = open(Some(extract));
    assert_eq!((versions(&node), &node.report.rebuilt), (1, &None));
    assert!(!node.ledger.admission().takes_word());
    // A grant that changes what there is builds it anew.
    node.ledger
        .go_by(Extract { serial: 4, policy: access(&grant(VENDOR, "publish")), judged: vec![] })
        .unwrap();
    assert!(node.ledger.wait_ready());
    assert_eq!((versions(&node), rebuilds(&world)), (2, 1));
}

#[test]
fn a_revocation_takes_effect_and_is_told_while_the_catalog_is_built() {
    let world = World::new();
    let node = world.open();
    Author::admin().says(&[policy(1, &grant(VENDOR, "publish"))]).tells(&node);
    for other in ["ws2@rome", "ws3@rome", "ws4@rome"] {
        Author::new(other, "site", &project()).says(&[placed(9, 9)]).tells(&node);
    }
    Author::vendor().says(&[publishes(1)]).says(&[publishes(2)]).tells(&node);
    let gone = Author::admin()
        .says(&[policy(1, &grant(VENDOR, "publish"))])
        .says(&[judged_at(vendors_feed(), 2, Rights::ALL, None), revoked(VENDOR, 0)]);
    world.events.lock().unwrap().clear();
    let (ledger, (seen, see)) = (node.ledger.clone(), mpsc::channel());
    let mut first = Some(gone.groups);
    let progress = move |_| {
        seen.send(ledger.admission().is_revoked(&VENDOR.parse().unwrap())).unwrap();
        if let Some(groups) = first.take() {
            ledger.ingest(studio_feed(ADMIN), groups, vec![], Box::new(|taken| drop(taken.unwrap())));
        }
    };
    node.ledger.rebuild(Box::new(progress)).unwrap();
    let seen: Vec<bool> = see.iter().collect();
    assert_eq!((seen.first(), seen.last()), (Some(&false), Some(&true)), "amid it");
    let place = |wanted: fn(&LedgerEvent) -> bool| world.events.lock().unwrap().iter().position(wanted);
    let told = place(|event| matches!(event, LedgerEvent::Advanced { feed, .. } if feed.is_of_studio()));
    assert!(told.unwrap() < place(|event| *event == LedgerEvent::Rebuilt).unwrap());
    // What was built by the rights before is built again.
    assert!(node.ledger.wait_ready());
    assert_eq!((versions(&node), rebuilds(&world)), (1, 1));
    drop(node);
    let node = world.open();
    assert_eq!((versions(&node), &node.report.rebuilt), (1, &None));
}

#[test]
fn what_is_not_about_rights_is_in_the_catalog_that_was_built_meanwhile() {
    let world = World::new();
    let node = world.open();
    Author::vendor().says(&[publishes(1)]).tells(&node);
    let admin = Author::admin().says(&[revoked("ws1@rome", 0)]);
    let (ledger, mut groups) = (node.ledger.clone(), Some(admin.groups));
    let progress = move |_| {
        if let Some(groups) = groups.take() {
            ledger.ingest(studio_feed(ADMIN), groups, vec![], Box::new(|taken| drop(taken.unwrap())));
        }
    };
    node.ledger.rebuild(Box::new(progress)).unwrap();
    assert!(node.ledger.wait_ready() && node.ledger.admission().revoked().len() == 1);
    node.check_rows(&node.expected_rows(&[]));
    assert_eq!(rebuilds(&world), 0);
}

#[test]
fn of_many_who_change_rights_at_once_none_stands_over_a_newer_one() {
    let world = World::new();
    let node = world.open();
    let mut admin = Author::admin();
    for number in 0..40 {
        admin = admin.says(&[revoked(&format!("ws{number}@rome"), 0)]);
    }
    let (node_, start) = (&node, &Barrier::new(3));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                start.wait();
                let policy = node_.ledger.admission().policy().clone();
                for serial in 1..40 {
                    let extract = Extract { serial, policy: policy.clone(), judged: vec![] };
                    node_.ledger.go_by(extract).unwrap();
                }
            });
        }
        start.wait();
        for end in 1..=admin.groups.len() {
            let groups = admin.groups[..end].to_vec();
            node_.ledger.ingest_wait(studio_feed(ADMIN), groups, vec![]).unwrap();
            assert_eq!(node_.ledger.admission().revoked().len(), end);
        }
    });
}

#[test]
fn a_catalog_that_could_not_be_built_by_new_rights_is_built_by_the_next_start() {
    let world = World::new();
    let node = world.open();
    let vendor = Author::vendor().says(&[publishes(1)]);
    vendor.tells(&node);
    node.ledger.sync().unwrap();
    // What stands in the way of the directory of the catalog cannot be removed by the ledger.
    let catalog = world.state_path().join("catalog");
    let away = world.state_path().join("away");
    fs::rename(&catalog, &away).unwrap();
    drop(fs::File::create(&catalog).unwrap());
    let admin = Author::admin().says(&[policy(1, &grant(VENDOR, "publish"))]);
    node.ledger.ingest_wait(studio_feed(ADMIN), admin.groups.clone(), vec![]).unwrap();
    // Neither does it count for judged when the admin says more, nor when others do.
    let admin = admin.says(&[placed(1, 1)]);
    node.ledger.ingest_wait(studio_feed(ADMIN), admin.groups, vec![]).unwrap();
    node.ledger.ingest_wait(vendors_feed(), vendor.says(&[publishes(2)]).groups, vec![]).unwrap();
    assert!(!node.ledger.is_ready() && node.ledger.admission().policy().grants().len() == 1);
    drop(node);
    fs::remove_file(&catalog).unwrap();
    fs::rename(&away, &catalog).unwrap();
    let node = world.open();
    assert_eq!((versions(&node), &node.report.rebuilt), (2, &Some(Cause::Rights)));
}
