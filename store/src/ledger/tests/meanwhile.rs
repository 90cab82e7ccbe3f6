//! A catalog that takes long to build is built while the ledger is open already.

use std::sync::{Condvar, mpsc};

use super::*;
use crate::catalog::Cause;

/// A world whose next start builds the catalog in the thread that writes, which `gate` can stop at its first event.
fn damaged() -> (World, Vec<Manifest>) {
    let mut world = World::new();
    world.care.build_at_open_records = 0;
    let node = world.open();
    let manifests: Vec<Manifest> = (1..=5).map(|number| world.publish(&node.ledger, number)).collect();
    node.ledger.close().unwrap();
    fs::remove_dir_all(world.state_path().join("catalog")).unwrap();
    (world, manifests)
}

/// Stops the thread that writes when it is about to build.
#[derive(Debug, Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn wait(&self) {
        let shut = self.open.lock().unwrap();
        drop(self.changed.wait_while(shut, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// Opens with a gate before the build.
fn open_gated(world: &World) -> (Node, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let state = StateDir::open(&world.state_path()).unwrap();
    let mut config = world.config(ME);
    let (at_gate, on_change) = (Arc::clone(&gate), config.on_change);
    config.on_change = Arc::new(move |event| {
        if matches!(event, LedgerEvent::Rebuilding { .. }) {
            at_gate.wait();
        }
        on_change(event);
    });
    let (ledger, report) = Ledger::open(&state, config).unwrap();
    (Node { ledger, report, _state: state }, gate)
}

#[test]
fn a_large_catalog_is_built_while_feeds_and_manifests_can_be_read() {
    let (world, manifests) = damaged();
    let (node, gate) = open_gated(&world);
    assert_eq!((&node.report.rebuilding, &node.report.rebuilt), (&Some(Cause::Absent), &None));
    assert!(!node.ledger.is_ready());
    let object = manifests[0].files()[0].hash;
    assert!(node.ledger.locate_meanwhile(&project(), &object).is_err(), "it is not known to be gone");
    let heads = node.ledger.heads(&project());
    assert_eq!(heads.len(), 1);
    let feed = FeedId { project: project(), node: ME.parse().unwrap() };
    assert!(!node.ledger.read_groups(&feed, 0, 1 << 20).unwrap().is_empty());
    assert_eq!(node.ledger.manifest(manifests[0].id()).unwrap().as_ref(), Some(&manifests[0]));

    gate.open();
    assert!(node.ledger.wait_ready() && node.ledger.is_ready());
    assert_eq!(node.ledger.locate_meanwhile(&project(), &object).unwrap().len(), 1);
    let local: Vec<LocalChange> = manifests.iter().flat_map(|m| world.local_changes(m)).collect();
    node.check_rows(&node.expected_rows(&local));
    node.ledger.sync().unwrap();
    let events = world.events.lock().unwrap().clone();
    assert!(events.contains(&LedgerEvent::Rebuilding { cause: Cause::Absent }), "{events:?}");
    assert!(events.contains(&LedgerEvent::Rebuilt), "{events:?}");
}

#[test]
fn what_is_published_meanwhile_is_in_the_catalog_that_is_built() {
    let (world, _) = damaged();
    let (node, gate) = open_gated(&world);
    let (said, hear) = mpsc::channel();
    let record = Record::Placed(toy::held(77, 7));
    let reply = Box::new(move |committed| said.send(committed).unwrap());
    node.ledger.commit(&project(), vec![record], vec![], 1, reply);
    assert!(hear.try_recv().is_err(), "it waits");
    gate.open();
    hear.recv().unwrap().unwrap();
    assert!(node.ledger.version(&toy::held(77, 7).version).unwrap().is_some());
}

#[test]
fn a_question_waits_for_a_catalog_that_is_there_soon() {
    let (world, manifests) = damaged();
    let (node, gate) = open_gated(&world);
    let version = manifests[0].version().clone();
    let asking = {
        let ledger = node.ledger.clone();
        thread::spawn(move || ledger.version(&version))
    };
    gate.open();
    assert!(asking.join().unwrap().unwrap().is_some());
}

#[test]
fn closing_ends_a_build_at_once_and_the_next_start_does_it() {
    let (world, _) = damaged();
    let (node, gate) = open_gated(&world);
    let closing = {
        let ledger = node.ledger.clone();
        thread::spawn(move || ledger.close())
    };
    // It is closing once nobody waits for the catalog any more.
    assert!(!node.ledger.wait_ready());
    gate.open();
    closing.join().unwrap().ok();
    drop(node);
    let events = world.events.lock().unwrap().clone();
    assert!(!events.contains(&LedgerEvent::Rebuilt), "{events:?}");
    let node = world.open();
    assert!(node.ledger.wait_ready());
}

#[test]
fn manifests_that_are_missing_are_known_after_a_build() {
    let (world, manifests) = damaged();
    let id = manifests[2].id();
    let gone: Vec<_> = walkdir::WalkDir::new(world.state_path().join("manifests"))
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().contains(&id.to_string()[2..]))
        .collect();
    assert_eq!(gone.len(), 1);
    fs::remove_file(gone[0].path()).unwrap();
    let node = world.open();
    assert!(node.ledger.wait_ready());
    assert_eq!(node.ledger.missing_manifests(&project(), 9), [(id, manifests[2].version().clone())]);
}

#[test]
fn a_catalog_directory_that_is_removed_under_a_running_node_costs_a_rebuild_and_nothing_else() {
    let world = World::new();
    let node = world.open();
    let manifest = world.publish(&node.ledger, 1);
    let catalog = world.state_path().join("catalog");
    fs::remove_dir_all(&catalog).unwrap();
    node.ledger.rebuild(Box::new(|_| {})).unwrap();
    assert!(catalog.join("CURRENT").exists());
    assert!(node.ledger.version(manifest.version()).unwrap().is_some());
    world.publish(&node.ledger, 2);
    node.ledger.close().unwrap();
    drop(node.report);
    drop(node._state);
    let node = world.open();
    assert_eq!(
        (&node.report.rebuilt, node.ledger.version(manifest.version()).unwrap().is_some()),
        (&None, true)
    );
}

#[test]
fn a_build_that_failed_is_tried_again_after_a_minute_whatever_happens_meanwhile() {
    let (world, _) = damaged();
    // What stands in the way of the directory cannot be removed by the ledger.
    let catalog = world.state_path().join("catalog");
    let (node, gate) = open_gated(&world);
    fs::remove_dir_all(&catalog).unwrap();
    world.tree_dir().create_file(&"in-the-way".parse().unwrap()).unwrap();
    fs::rename(world.tree.path().join("in-the-way"), &catalog).unwrap();
    gate.open();
    // Each is a round of the thread that writes.
    let sync = |rounds: usize| (0..rounds).for_each(|_| drop(node.ledger.sync()));
    sync(300);
    assert!(!node.ledger.is_ready());
    fs::remove_file(&catalog).unwrap();
    world.clock.fetch_add(59, Ordering::Relaxed);
    sync(300);
    assert!(!node.ledger.is_ready(), "not yet");
    world.clock.fetch_add(1, Ordering::Relaxed);
    sync(1);
    assert!(node.ledger.wait_ready());
}
