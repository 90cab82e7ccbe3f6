//! Checkpoints bound what a rebuild replays, and never change what it comes to.

use std::{io::Write as _, path::PathBuf};

use crate::catalog::Cause;

use super::*;

/// A world whose nodes write a checkpoint after so many records.
fn world(checkpoint_records: u64) -> World {
    World { care: CatalogCare { checkpoint_records, ..CatalogCare::default() }, ..World::new() }
}

/// A node that published versions one by one: one record each, and one for its key.
fn filled(world: &World, versions: std::ops::RangeInclusive<u32>) {
    let node = world.open();
    for number in versions {
        world.publish(&node.ledger, number);
    }
    node.ledger.sync().unwrap();
    node.ledger.close().unwrap();
}

impl World {
    fn catalog(&self, name: &str) -> PathBuf {
        self.state_path().join("catalog").join(name)
    }

    /// The names of the catalog's files that are about checkpoints.
    fn checkpoints(&self) -> Vec<String> {
        let entries = fs::read_dir(self.catalog("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> =
            names.filter(|name| name.contains("checkpoint") || name.starts_with('.')).collect();
        names.sort();
        names
    }

    fn forget_catalog(&self) {
        fs::remove_file(self.catalog("CURRENT")).unwrap();
    }

    /// Opens, compares every row with the plain fold of the feeds, and returns what was replayed and loaded.
    fn check_rebuilds(&self, versions: u32) -> (u64, u64) {
        let node = self.open();
        assert_eq!(node.report.rebuilt, Some(Cause::Absent));
        let local: Vec<LocalChange> = (1..=versions)
            .flat_map(|number| {
                let text = format!("content of {number}");
                let contents = [("a.abc", text.as_bytes()), ("b.abc", &b"shared"[..])];
                self.local_changes(&toy::manifest(number, &contents))
            })
            .collect();
        node.check_rows(&node.expected_rows(&local));
        assert!(node.ledger.verify().catalog.is_none());
        (node.report.replayed_records, node.report.checkpoint_records)
    }
}

fn change_file(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::File::create(path).unwrap().write_all(&bytes).unwrap();
}

#[test]
fn a_rebuild_replays_only_what_came_after_the_newest_checkpoint_and_two_are_kept() {
    let world = world(4);
    filled(&world, 1..=14);
    assert_eq!(world.checkpoints(), ["checkpoint-12", "checkpoint-8"]);
    world.forget_catalog();
    assert_eq!(world.check_rebuilds(14), (3, 12));
    let node = world.open();
    let told = Arc::new(Mutex::new(Vec::new()));
    let progress = Arc::clone(&told);
    let built = node.ledger.rebuild(Box::new(move |state| progress.lock().unwrap().push(state))).unwrap();
    assert_eq!(built, Rebuilt { replayed_records: 3, loaded_records: 12 });
    let last = *told.lock().unwrap().last().unwrap();
    assert_eq!(last, RebuildProgress { records: 15, total_records: 15, files: 28 });
}

#[test]
fn a_checkpoint_that_was_due_is_written_at_the_next_start() {
    let world = world(1000);
    filled(&world, 1..=6);
    assert!(world.checkpoints().is_empty());
    let world = World { care: CatalogCare { checkpoint_records: 5, ..world.care }, ..world };
    let node = world.open();
    node.ledger.sync().unwrap();
    assert_eq!(world.checkpoints(), ["checkpoint-7"]);
    world.publish(&node.ledger, 7);
    node.ledger.sync().unwrap();
    assert_eq!(world.checkpoints(), ["checkpoint-7"], "counted from there");
}

#[test]
fn a_damaged_checkpoint_costs_a_longer_replay_and_is_put_aside() {
    let world = world(4);
    filled(&world, 1..=14);
    let newest = fs::read(world.catalog("checkpoint-12")).unwrap();
    for at in (0..newest.len()).step_by(newest.len() / 12) {
        let damaged = world.crash_copy();
        damaged.forget_catalog();
        change_file(&damaged.catalog("checkpoint-12"), |bytes| bytes[at] ^= 1);
        assert_eq!(damaged.check_rebuilds(14), (7, 8), "byte {at}");
        assert_eq!(damaged.checkpoints(), ["bad-checkpoint-12", "checkpoint-8"]);
    }
    for end in [0, 7, 39, 40, newest.len() / 2, newest.len() - 1] {
        let damaged = world.crash_copy();
        damaged.forget_catalog();
        change_file(&damaged.catalog("checkpoint-12"), |bytes| bytes.truncate(end));
        fs::copy(damaged.catalog("checkpoint-12"), damaged.catalog("checkpoint-8")).unwrap();
        assert_eq!(damaged.check_rebuilds(14), (15, 0), "cut at {end}");
        assert_eq!(damaged.checkpoints(), ["bad-checkpoint-8"]);
    }
}

#[test]
fn a_checkpoint_of_a_newer_version_or_another_layout_is_not_read() {
    let world = world(12);
    filled(&world, 1..=12);
    world.forget_catalog();
    let seal = |bytes: &mut Vec<u8>| {
        bytes.truncate(bytes.len() - 32);
        bytes.extend(blake3::hash(bytes).as_bytes());
    };
    change_file(&world.catalog("checkpoint-12"), |bytes| {
        bytes[4] = 2;
        seal(bytes);
    });
    assert_eq!(world.check_rebuilds(12), (13, 0));
    assert_eq!(world.checkpoints(), ["bad-checkpoint-12", "checkpoint-13"]);
    world.forget_catalog();
    change_file(&world.catalog("checkpoint-13"), |bytes| {
        let mut stream = zstd::decode_all(&bytes[8..bytes.len() - 32]).unwrap();
        stream[4] += 1;
        bytes.truncate(8);
        bytes.extend(zstd::encode_all(&stream[..], 1).unwrap());
        bytes.extend([0; 32]);
        seal(bytes);
    });
    assert_eq!(world.check_rebuilds(12), (13, 0));
}

#[test]
fn rows_that_do_not_add_up_are_refused_whatever_the_hash_says() {
    let world = world(12);
    filled(&world, 1..=12);
    world.forget_catalog();
    change_file(&world.catalog("checkpoint-12"), |bytes| {
        let mut stream = zstd::decode_all(&bytes[8..bytes.len() - 32]).unwrap();
        let end = stream.len() - 2;
        stream[end] ^= 1;
        bytes.truncate(8);
        bytes.extend(zstd::encode_all(&stream[..], 1).unwrap());
        let hash = blake3::hash(bytes);
        bytes.extend(hash.as_bytes());
    });
    assert_eq!(world.check_rebuilds(12), (13, 0));
}

#[test]
fn a_checkpoint_newer_than_the_feeds_is_refused() {
    let world = world(12);
    filled(&world, 1..=5);
    let backup = world.crash_copy();
    filled(&world, 6..=12);
    assert_eq!(world.checkpoints(), ["checkpoint-12"]);
    // A backup of the feeds under the catalog of today.
    let feeds = world.state_path().join("feeds");
    fs::remove_dir_all(&feeds).unwrap();
    copy_tree(&backup.state_path().join("feeds"), &feeds);
    let node = world.open();
    assert!(matches!(node.report.rebuilt, Some(Cause::Cursor { .. })), "{:?}", node.report);
    assert_eq!((node.report.replayed_records, node.report.checkpoint_records), (6, 0));
    assert_eq!(world.checkpoints(), ["bad-checkpoint-12"]);
}

#[test]
fn a_checkpoint_beside_the_feeds_is_refused() {
    let world = world(6);
    let node = world.open();
    let other = World { care: world.care, ..World::new() };
    let there = other.open();
    for number in 1..=8 {
        world.publish(&node.ledger, number);
        there.ledger.commit_wait(&project(), vec![placed(number, 7)], vec![], 1).unwrap();
    }
    node.ledger.close().unwrap();
    there.ledger.close().unwrap();
    drop((node.report, node._state, there._state));
    // As many records, other ones.
    fs::copy(other.catalog("checkpoint-6"), world.catalog("checkpoint-6")).unwrap();
    world.forget_catalog();
    assert_eq!(world.check_rebuilds(8), (9, 0));
    assert_eq!(world.checkpoints(), ["bad-checkpoint-6", "checkpoint-9"]);
}

#[test]
fn what_a_crash_left_of_a_checkpoint_does_no_harm_and_is_removed() {
    let world = world(4);
    filled(&world, 1..=14);
    // Before the rename there is a part of it under another name; between rename and pruning there are three.
    let whole = fs::read(world.catalog("checkpoint-12")).unwrap();
    fs::File::create(world.catalog(".avalon-tmp-1-1")).unwrap().write_all(&whole[..whole.len() / 2]).unwrap();
    fs::copy(world.catalog("checkpoint-8"), world.catalog("checkpoint-4")).unwrap();
    world.forget_catalog();
    assert_eq!(world.check_rebuilds(14), (3, 12));
    assert_eq!(world.checkpoints(), ["checkpoint-12", "checkpoint-4", "checkpoint-8"]);
    filled(&world, 15..=16);
    assert_eq!(world.checkpoints(), ["checkpoint-12", "checkpoint-16"]);
}

#[test]
fn files_that_changed_since_the_checkpoint_are_learned_from_the_tree() {
    let world = world(6);
    filled(&world, 1..=6);
    fs::remove_file(world.tree.path().join("robot/v002/a.abc")).unwrap();
    world.forget_catalog();
    let node = world.open();
    assert_eq!(node.report.checkpoint_records, 6);
    let file = |path: &str| node.ledger.local_file(&project(), &path.parse().unwrap()).unwrap();
    assert_eq!(file("robot/v002/a.abc"), None);
    assert!(file("robot/v002/b.abc").is_some());
}

#[test]
fn a_checkpoint_that_cannot_be_written_hinders_nothing() {
    let world = world(4);
    let node = world.open();
    fs::create_dir(world.catalog("checkpoint-4")).unwrap();
    (1..=6).for_each(|number| drop(world.publish(&node.ledger, number)));
    node.ledger.sync().unwrap();
    assert_eq!(world.checkpoints(), ["checkpoint-4"]);
    assert_eq!(node.ledger.stats().versions, 6);
}
