//! A catalog that takes too much room is copied while it is in use, and not again and again.

use super::{engine::Gate, *};

const HOUR: u64 = 3600;

/// A node whose catalog is always too large: it may take no more than its rows. A copy does not help.
fn watched() -> (World, Node) {
    let care = CatalogCare { small_bytes: 0, max_ratio: 1, ..CatalogCare::default() };
    let world = World { care, ..World::new() };
    let node = world.open();
    (1..=5).for_each(|number| drop(world.publish(&node.ledger, number)));
    // What is not flushed yet takes no room.
    node.ledger.sync().unwrap();
    (world, node)
}

impl World {
    pub(super) fn hours_pass(&self, hours: u64) {
        self.clock.fetch_add(hours * HOUR, Ordering::Relaxed);
    }

    pub(super) fn generations(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state_path().join("catalog")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.contains("gen-")).collect();
        names.sort();
        names
    }
}

impl Node {
    pub(super) fn generation(&self) -> u64 {
        self.ledger.stats().generation
    }

    /// Has the thread that writes look around until the catalog is of another generation than `before`.
    pub(super) fn until_copied(&self, before: u64) {
        for _ in 0..60_000 {
            self.ledger.sync().unwrap();
            if self.generation() != before {
                return;
            }
            // Without a pause the thread that copies never gets the engine's lock on a busy machine.
            thread::park_timeout(Duration::from_millis(1));
        }
        panic!("the catalog is still generation {before}");
    }

    /// Has the thread that writes look around; nothing is copied, nor begun to be.
    pub(super) fn stays(&self, generation: u64) {
        self.ledger.sync().unwrap();
        self.ledger.sync().unwrap();
        assert_eq!(self.generation(), generation);
        assert!(!self.is_copying());
    }

    fn is_copying(&self) -> bool {
        format!("{:?}", self.ledger.inner.shared.store()).contains("Watched")
    }
}

#[test]
fn a_catalog_that_takes_too_much_room_is_copied_and_the_old_one_removed() {
    let (world, node) = watched();
    let rows = node.rows();
    node.stays(1);
    world.hours_pass(1);
    node.until_copied(1);
    assert_eq!((node.rows(), world.generations()), (rows.clone(), vec!["gen-2".to_owned()]));
    world.publish(&node.ledger, 6);
    let rows = node.rows();
    drop(node);
    let node = world.open();
    assert_eq!((&node.report.rebuilt, node.report.replayed_records), (&None, 0));
    assert_eq!((node.generation(), node.rows()), (2, rows));
    assert!(node.ledger.verify().catalog.is_none());
}

#[test]
fn a_copy_that_does_not_help_is_not_repeated_before_a_day_also_after_a_restart() {
    let (world, node) = watched();
    world.hours_pass(1);
    node.until_copied(1);
    world.hours_pass(1);
    node.stays(2);
    drop(node);
    let node = world.open();
    for _ in 0..23 {
        world.hours_pass(1);
        node.stays(2);
    }
    world.hours_pass(1);
    node.until_copied(2);
    world.hours_pass(2);
    node.stays(3);
}

#[test]
fn what_is_written_while_the_catalog_is_copied_is_in_the_copy() {
    let (world, node) = watched();
    world.hours_pass(1);
    let before = node.generation();
    let mut number = 6;
    // The copy begins before the first of these and ends after some of them.
    while node.generation() == before {
        let manifest = world.publish(&node.ledger, number);
        let path = manifest.dir().join_str("a.abc").unwrap();
        node.ledger.update_local_wait(vec![LocalChange::Remove { project: project(), path }]).unwrap();
        number += 1;
        assert!(number < 2000, "the copy does not end");
    }
    assert!(number > 6);
    let local: Vec<LocalChange> = (1..number)
        .flat_map(|number| {
            let text = format!("content of {number}");
            let contents = [("a.abc", text.as_bytes()), ("b.abc", &b"shared"[..])];
            let mut changes = world.local_changes(&toy::manifest(number, &contents));
            changes.drain(..usize::from(number >= 6));
            changes
        })
        .collect();
    node.check_rows(&node.expected_rows(&local));
    assert!(node.ledger.verify().catalog.is_none());
}

#[test]
fn closing_rebuilding_and_damage_end_a_copy_and_leave_nothing_of_it() {
    let (world, node) = watched();
    world.hours_pass(1);
    node.ledger.sync().unwrap();
    node.ledger.close().unwrap();
    assert_eq!(world.generations().len(), 1);
    drop((node.report, node._state));

    let node = world.open();
    let before = node.generation();
    world.hours_pass(25);
    node.ledger.sync().unwrap();
    node.ledger.rebuild(Box::new(|_| {})).unwrap();
    assert!(node.generation() > before);
    node.stays(node.generation());
    let names = world.generations();
    assert!(
        names.len() <= 2 && names.iter().filter(|name| !name.starts_with("bad-")).count() == 1,
        "{names:?}"
    );
}

#[test]
fn a_small_catalog_is_left_alone() {
    let (world, node) = watched();
    drop(node);
    let world = World { care: CatalogCare::default(), ..world };
    let node = world.open();
    for _ in 0..3 {
        world.hours_pass(24);
        node.stays(1);
    }
}

#[test]
fn a_catalog_that_opened_slowly_is_copied_once() {
    let world = World::new();
    let node = world.open();
    (1..=5).for_each(|number| drop(world.publish(&node.ledger, number)));
    let rows = node.rows();
    drop(node);
    world.open_takes.store(5, Ordering::Relaxed);
    let node = world.open();
    world.hours_pass(1);
    node.stays(1);
    drop(node);

    world.open_takes.store(6, Ordering::Relaxed);
    let node = world.open();
    node.stays(1);
    world.hours_pass(1);
    node.until_copied(1);
    assert_eq!((node.rows(), world.generations()), (rows.clone(), vec!["gen-2".to_owned()]));
    assert!(node.ledger.verify().catalog.is_none());
    for _ in 0..30 {
        world.hours_pass(1);
        node.stays(2);
    }
    drop(node);

    // A copy that opens as slowly is not copied again before a day.
    let node = world.open();
    assert_eq!((&node.report.rebuilt, node.report.replayed_records), (&None, 0));
    for _ in 0..23 {
        world.hours_pass(1);
        node.stays(2);
    }
    world.hours_pass(1);
    node.until_copied(2);
    assert_eq!((node.rows(), world.generations()), (rows, vec!["gen-3".to_owned()]));
}

#[test]
fn a_copy_during_which_too_many_rows_change_is_given_up_and_tried_again_the_next_day() {
    let (world, node) = watched();
    drop(node);
    let world = World { care: CatalogCare { max_touched_rows: 8, ..world.care }, ..world };
    let (release, gate) = Gate::new();
    let node = world.open_hooked(move |store| {
        if store.inner.generation() == 2 {
            let gate = Arc::clone(&gate);
            store.commit = Box::new(move || gate.wait());
        }
    });
    world.hours_pass(1);
    node.ledger.sync().unwrap();
    let manifests: Vec<Manifest> = (6..=8).map(|number| world.publish(&node.ledger, number)).collect();
    assert!(node.is_copying());
    let rows = node.rows();
    drop(release);
    for _ in 0..60_000 {
        node.ledger.sync().unwrap();
        if !node.is_copying() {
            break;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    node.stays(1);
    assert_eq!((node.rows(), world.generations()), (rows.clone(), vec!["gen-1".to_owned()]));
    let file = manifests[2].dir().join_str("a.abc").unwrap();
    assert!(node.ledger.local_file(&project(), &file).unwrap().is_some());
    for _ in 0..23 {
        world.hours_pass(1);
        node.stays(1);
    }
    world.hours_pass(1);
    node.until_copied(1);
    assert_eq!((node.rows(), world.generations()), (rows, vec!["gen-2".to_owned()]));
}
