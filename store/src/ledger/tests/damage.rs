//! Damage: what can come back does, and what cannot is said.

use std::io::Write as _;

use rustix::io::Errno;

use crate::{catalog::Cause, fs::IoError, manifest_file::ManifestFileError};

use super::*;

/// A node with five versions of its own and a peer's feed.
pub(super) fn filled() -> (World, Vec<LocalChange>) {
    let world = World::new();
    let node = world.open();
    let manifests: Vec<Manifest> = (1..=5).map(|number| world.publish(&node.ledger, number)).collect();
    let mut reader = avalon_protocol::feed::FeedReader::new(toy::feed(PEER));
    let mut groups = Vec::new();
    for number in 0..60 {
        let record = placed(number % 7, u8::try_from(number).unwrap()).to_raw();
        let group = reader.seal(vec![record], 1, &Toy::of(PEER), &ToyTrust);
        reader.accept(&group, &ToyTrust).unwrap();
        groups.push(group);
    }
    node.ledger.ingest_wait(toy::feed(PEER), groups, vec![]).unwrap();
    let local = manifests.iter().flat_map(|manifest| world.local_changes(manifest)).collect();
    node.ledger.close().unwrap();
    (world, local)
}

/// Adds a peer with so many versions that the engine has several segments, and snapshots of them.
pub(super) fn grow(world: &World) {
    let mut reader = avalon_protocol::feed::FeedReader::new(toy::feed("farm@paris"));
    for round in 0..4 {
        let groups: Vec<SealedGroup> = (0..3)
            .map(|group| {
                let first = round * 750 + group * 250;
                let records = (first..first + 250).map(|number| placed(100 + number % 1200, 1).to_raw());
                let group = reader.seal(records.collect(), 1, &Toy::of("farm@paris"), &ToyTrust);
                reader.accept(&group, &ToyTrust).unwrap();
                group
            })
            .collect();
        let node = world.open();
        node.ledger.ingest_wait(toy::feed("farm@paris"), groups, vec![]).unwrap();
        node.ledger.close().unwrap();
    }
}

/// Files of the catalog's generations, largest first.
fn catalog_files(world: &World) -> Vec<std::path::PathBuf> {
    fn walk(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, files) } else { files.push(path) }
        }
    }
    let mut files = Vec::new();
    walk(&world.state_path().join("catalog"), &mut files);
    files.sort_by_key(|path| std::cmp::Reverse((path.metadata().unwrap().len(), path.clone())));
    files
}

fn change_file(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::File::create(path).unwrap().write_all(&bytes).unwrap();
}

/// Opens and compares every row with the plain fold of the feeds; returns what was reported.
fn check_opens_equal(world: &World) -> OpenReport {
    let node = world.open();
    let local: Vec<LocalChange> = (1..=5)
        .flat_map(|number| {
            let text = format!("content of {number}");
            let contents = [("a.abc", text.as_bytes()), ("b.abc", &b"shared"[..])];
            world.local_changes(&toy::manifest(number, &contents))
        })
        .collect();
    node.check_rows(&node.expected_rows(&local));
    let verified = node.ledger.verify();
    assert!(verified.catalog.is_none() && verified.feeds.is_empty() && verified.damaged_manifests.is_empty());
    assert_eq!((verified.rows, verified.manifests), (node.rows().len() as u64, 5));
    let Node { ledger, report, _state: state } = node;
    ledger.close().unwrap();
    drop(state);
    report
}

#[test]
fn an_intact_catalog_is_used_as_it_is() {
    let (world, _) = filled();
    let report = check_opens_equal(&world);
    assert_eq!((report.rebuilt, report.replayed_records), (None, 0));
}

#[test]
fn a_deleted_catalog_is_built_anew() {
    let (world, _) = filled();
    fs::remove_dir_all(world.state_path().join("catalog")).unwrap();
    let report = check_opens_equal(&world);
    assert_eq!((report.rebuilt, report.replayed_records), (Some(Cause::Absent), 6 + 61));
    assert_eq!(check_opens_equal(&world).rebuilt, None, "once");
}

#[test]
fn a_deleted_or_wrong_current_is_built_anew() {
    for text in [None, Some("77\n"), Some("\u{0}\u{0}"), Some("18446744073709551615\n")] {
        let (world, _) = filled();
        let current = world.state_path().join("catalog/CURRENT");
        match text {
            Some(text) => change_file(&current, |bytes| *bytes = text.into()),
            None => fs::remove_file(&current).unwrap(),
        }
        assert_eq!(check_opens_equal(&world).rebuilt, Some(Cause::Absent));
    }
}

#[test]
fn what_is_no_file_in_the_place_of_current_is_built_anew() {
    let (world, _) = filled();
    let current = world.state_path().join("catalog/CURRENT");
    fs::remove_file(&current).unwrap();
    fs::create_dir(&current).unwrap();
    assert_eq!(check_opens_equal(&world).rebuilt, Some(Cause::Absent));
    assert_eq!(check_opens_equal(&world).rebuilt, None, "once");
}

/// Damages the catalog in three places for each seed; returns how many were built anew, and how many caught up.
fn check_flips(seeds: std::ops::Range<u64>) -> (usize, usize) {
    let (world, _) = filled();
    grow(&world);
    let (mut rebuilt, mut caught_up) = (0, 0);
    for seed in seeds {
        let damaged = world.crash_copy();
        let db = catalog_files(&damaged).remove(0);
        change_file(&db, |bytes| {
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            for flip in 0..3u64 {
                let at = blake3::hash(&[seed.to_le_bytes(), flip.to_le_bytes()].concat());
                let at = u32::from_le_bytes(at.as_bytes()[..4].try_into().unwrap()) as usize % written;
                bytes[at] ^= 1 << (flip + seed % 5);
            }
        });
        let report = check_opens_equal(&damaged);
        rebuilt += usize::from(report.rebuilt.is_some());
        caught_up += usize::from(report.rebuilt.is_none() && report.replayed_records > 0);
    }
    (rebuilt, caught_up)
}

#[test]
fn flipped_bytes_in_the_catalog_never_change_an_answer() {
    let (rebuilt, caught_up) = check_flips(0..20);
    assert!(rebuilt >= 2, "{rebuilt} rebuilt, {caught_up} caught up of 20: the test does not test");
}

#[test]
fn other_flipped_bytes_do_not_either() {
    let (rebuilt, caught_up) = check_flips(20..40);
    assert!(rebuilt >= 2, "{rebuilt} rebuilt, {caught_up} caught up of 20: the test does not test");
}

#[test]
fn a_truncated_catalog_is_caught_up_or_built_anew() {
    let (world, _) = filled();
    let whole = fs::read(&catalog_files(&world)[0]).unwrap();
    let written = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for part in 0..10 {
        let damaged = world.crash_copy();
        let db = catalog_files(&damaged).remove(0);
        change_file(&db, |bytes| bytes.truncate(written * part / 10));
        let report = check_opens_equal(&damaged);
        assert!(report.rebuilt.is_some() || report.replayed_records > 0, "{part} tenths");
    }
}

#[test]
fn a_catalog_that_lacks_the_last_batches_is_caught_up_from_its_cursor() {
    let (world, _) = filled();
    let catalog = world.state_path().join("catalog");
    let earlier = world.temp.path().join("earlier");
    copy_tree(&catalog, &earlier);
    let node = world.open();
    let manifest = world.publish(&node.ledger, 6);
    let (rows, stats) = (node.rows(), node.ledger.stats());
    drop(node);
    fs::remove_dir_all(&catalog).unwrap();
    copy_tree(&earlier, &catalog);
    let node = world.open();
    assert_eq!((node.report.replayed_records, &node.report.rebuilt), (1, &None));
    node.check_rows(&rows);
    assert_eq!(node.ledger.stats().rows, stats.rows);
    let path = manifest.dir().join_str("a.abc").unwrap();
    assert!(node.ledger.local_file(&project(), &path).unwrap().is_some(), "files are learned again too");
}

#[test]
fn a_catalog_of_other_feeds_is_not_used() {
    let (world, _) = filled();
    fs::remove_dir_all(world.state_path().join("feeds/lantern").join(PEER)).unwrap();
    let report = check_opens_equal(&world);
    assert!(matches!(report.rebuilt, Some(Cause::Cursor { feed }) if feed == toy::feed(PEER)));
    let bad = fs::read_dir(world.state_path().join("catalog")).unwrap();
    let bad =
        bad.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("bad-gen-1-"));
    assert_eq!(bad.count(), 1, "the old one is kept for diagnosis");
}

#[test]
fn files_that_changed_are_not_learned_again() {
    let (world, _) = filled();
    let path = world.tree.path().join("robot/v002/a.abc");
    change_file(&path, |bytes| bytes[0] ^= 1);
    fs::remove_dir_all(world.state_path().join("catalog")).unwrap();
    let node = world.open();
    let file = |path: &str| node.ledger.local_file(&project(), &path.parse().unwrap()).unwrap();
    assert_eq!(file("robot/v002/a.abc"), None, "its time is another one");
    assert!(file("robot/v002/b.abc").is_some());
}

#[test]
fn a_peers_damaged_feed_is_put_aside_and_comes_back_while_the_rest_goes_on() {
    let (world, _) = filled();
    let whole = world.crash_copy();
    let segment = world.state_path().join(format!("feeds/lantern/{PEER}/00000000.alog"));
    change_file(&segment, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let node = world.open();
    let quarantined = &node.report.quarantined[0];
    assert_eq!(quarantined.feed, toy::feed(PEER));
    assert!(quarantined.moved_to.join("00000000.alog").exists());
    assert_eq!(node.ledger.heads(&project()).len(), 1, "only our own");
    assert_eq!(node.ledger.stats().local_files, 10);
    let groups = whole.open().groups(PEER);
    node.ledger.ingest_wait(toy::feed(PEER), groups.clone(), vec![]).unwrap();
    assert_eq!(node.groups(PEER), groups);
    drop(node);
    assert!(check_opens_equal(&world).quarantined.is_empty());
}

#[test]
fn an_own_damaged_feed_stops_the_start_where_nobody_else_is_known_and_nothing_is_touched() {
    let (world, _) = filled();
    let intact = world.crash_copy();
    fs::remove_dir_all(world.state_path().join(format!("feeds/lantern/{PEER}"))).unwrap();
    let segment = format!("feeds/lantern/{ME}/00000000.alog");
    change_file(&world.state_path().join(&segment), |bytes| bytes[100] ^= 1);
    let damaged = fs::read(world.state_path().join(&segment)).unwrap();
    let error = world.try_open(ME).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::OwnFeed { feed, .. } if *feed == toy::feed(ME)), "{error:?}");
    assert!(error.to_string().contains("state directory of the peer that has most of it"));
    assert_eq!(fs::read(world.state_path().join(&segment)).unwrap(), damaged);
    fs::copy(intact.state_path().join(&segment), world.state_path().join(&segment)).unwrap();
    check_opens_equal(&world);
}

#[test]
fn an_own_damaged_feed_is_put_aside_with_its_length_and_comes_back_from_a_peer() {
    let (world, _) = filled();
    let intact = world.crash_copy();
    let segment = world.state_path().join(format!("feeds/lantern/{ME}/00000000.alog"));
    change_file(&segment, |bytes| bytes[100] ^= 1);
    let whole = intact.open();
    let groups = whole.groups(ME);
    let records = groups.last().and_then(SealedGroup::claimed_end).unwrap();
    let node = world.open();
    let [aside] = node.report.quarantined.as_slice() else { panic!("{:?}", node.report.quarantined) };
    assert_eq!(
        (&aside.feed, aside.own_records),
        (&toy::feed(ME), Some(records)),
        "what is behind the damage counts"
    );
    assert!(aside.moved_to.join("00000000.alog").exists());
    assert!(node.ledger.heads(&project()).iter().all(|(name, _)| name.to_string() != ME));
    node.ledger.ingest_wait(toy::feed(ME), groups.clone(), vec![]).unwrap();
    assert_eq!(node.groups(ME), groups);
    drop(node);
    assert!(check_opens_equal(&world).quarantined.is_empty());
}

#[test]
fn a_torn_tail_is_reported_and_the_catalog_agrees() {
    let (world, _) = filled();
    let segment = world.state_path().join(format!("feeds/lantern/{ME}/00000000.alog"));
    fs::OpenOptions::new().append(true).open(&segment).unwrap().write_all(&[0; 700]).unwrap();
    let report = check_opens_equal(&world);
    assert_eq!((report.torn_tails.len(), report.torn_tails[0].bytes), (1, 700));
    assert_eq!(report.rebuilt, None);
}

#[test]
fn damage_that_shows_while_running_is_repaired_and_loses_nothing() {
    let (world, local) = filled();
    let node = world.open();
    let generation = node.ledger.stats().generation;
    let error = CatalogError::damaged(generation, Cause::Row { table: Table::Versions });
    node.ledger.inner.note(&error);
    node.ledger.sync().unwrap();
    assert!(node.ledger.stats().generation > generation);
    node.check_rows(&node.expected_rows(&local));
    node.ledger.inner.note(&error);
    node.ledger.sync().unwrap();
    assert_eq!(node.ledger.stats().generation, generation + 1, "news of an old generation is no news");
    world.publish(&node.ledger, 6);
}

#[test]
fn a_rebuild_that_is_asked_for_tells_how_far_it_is() {
    let (world, local) = filled();
    let node = world.open();
    let told = Arc::new(Mutex::new(Vec::new()));
    let progress = Arc::clone(&told);
    node.ledger.rebuild(Box::new(move |state| progress.lock().unwrap().push(state))).unwrap();
    let last = *told.lock().unwrap().last().unwrap();
    assert_eq!(last, RebuildProgress { records: 67, total_records: 67, files: 10 });
    node.check_rows(&node.expected_rows(&local));
}

#[test]
fn a_rebuild_that_fails_leaves_the_old_catalog_and_no_rest_and_is_tried_again() {
    let (world, _) = filled();
    let node = world.open();
    let generations = || {
        let entries = fs::read_dir(world.state_path().join("catalog")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let current = world.state_path().join("catalog/CURRENT");
    fs::remove_file(&current).unwrap();
    fs::create_dir(&current).unwrap();
    let error = node.ledger.rebuild(Box::new(|_| {})).unwrap_err();
    assert!(matches!(error, LedgerError::Rebuild { .. }), "{error:?}");
    assert_eq!(generations(), ["CURRENT", "gen-1"]);
    world.publish(&node.ledger, 6);
    fs::remove_dir(&current).unwrap();
    node.ledger.rebuild(Box::new(|_| {})).unwrap();
    assert_eq!(node.ledger.stats().local_files, 12);
    let names = generations();
    assert_eq!((names.len(), &*names[0], &*names[2]), (3, "CURRENT", "gen-2"), "{names:?}");
}

#[test]
fn a_damaged_manifest_counts_as_missing_until_it_comes_again() {
    let (world, _) = filled();
    let node = world.open();
    let contents = [("a.abc", &b"content of 1"[..]), ("b.abc", &b"shared"[..])];
    let manifest = toy::manifest(1, &contents);
    let name = manifest.id().to_string();
    let file = world.state_path().join("manifests").join(&name[..2]).join(&name);
    change_file(&file, |bytes| bytes[30] ^= 1);
    assert!(node.ledger.manifest(manifest.id()).is_err());
    assert_eq!(node.ledger.missing_manifests(&project(), 5), [(manifest.id(), toy::version(1))]);
    assert_eq!(node.ledger.verify().damaged_manifests, [manifest.id()]);
    node.ledger.put_manifest(&manifest).unwrap();
    assert!(node.ledger.missing_manifests(&project(), 5).is_empty());
    assert_eq!(node.ledger.manifest(manifest.id()).unwrap(), Some(manifest));
}

#[test]
fn a_manifest_on_a_bad_sector_or_gone_counts_as_missing_and_one_that_only_cannot_be_opened_does_not() {
    let (world, _) = filled();
    let node = world.open();
    let manifest = toy::manifest(1, &[("a.abc", &b"content of 1"[..]), ("b.abc", &b"shared"[..])]);
    let id = manifest.id();
    let missing = || node.ledger.missing_manifests(&project(), 5);
    let read = |errno| {
        let source = IoError::new("read", "a/b", errno);
        node.ledger.noting_missing::<()>(id, Err(ManifestFileError::Io { id, source })).unwrap_err();
    };
    let before = node.ledger.manifests_went_missing();
    for errno in [Errno::MFILE, Errno::ACCESS, Errno::NOMEM] {
        read(errno);
        assert_eq!(missing(), [], "{errno}");
    }
    read(Errno::IO);
    read(Errno::IO);
    assert_eq!(missing(), [(id, toy::version(1))]);
    assert_eq!(node.ledger.manifests_went_missing(), before + 1, "it is known by then");
    node.ledger.put_manifest(&manifest).unwrap();
    assert_eq!(missing(), []);
    let name = id.to_string();
    fs::remove_file(world.state_path().join("manifests").join(&name[..2]).join(&name)).unwrap();
    assert_eq!(node.ledger.manifest(id).unwrap(), None);
    assert_eq!(missing(), [(id, toy::version(1))]);
    assert_eq!(node.ledger.manifests_went_missing(), before + 2);
}

/// A generation that is to be judged anew comes into use with that note: nobody may see the old one as mended in between.
#[test]
fn who_waits_for_the_catalog_is_not_let_go_between_the_note_about_the_next_generation_and_the_switch() {
    let world = World::new();
    let node = world.open();
    let shared = &node.ledger.inner.shared;
    let current = shared.store().generation();
    assert!(shared.note_damage(&CatalogError::damaged(current, Cause::Asked)));
    assert!(shared.note_damage(&CatalogError::damaged(current + 1, Cause::Rights)));
    assert_eq!(shared.damage(), Some(Cause::Rights));
    assert!(!node.ledger.is_ready());
}
