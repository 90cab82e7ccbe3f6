//! Incoming areas: killed anywhere, fed with anything.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt as _, MetadataExt as _, symlink},
    sync::atomic::Ordering,
};

use avalon_protocol::{
    hash::{ManifestId, ObjectHash},
    id::VersionSlot,
    manifest::FileEntry,
};

use super::{BlockWritten, Incoming, IncomingError, LocalCopy, Progress, area::part_name};
use crate::{
    fs::{DIRECT_ALIGN_BYTES, Dir, path_of},
    object::fixture::{BLOCK, Studio, VERSION_DIR, block_of, bytes, list_of},
    place::{PlaceOptions, place},
};

#[test]
fn a_cut_transfer_needs_exactly_what_is_not_there() {
    let mut studio = Studio::new();
    let (large, small) = (bytes(3 * BLOCK + 7, 1), bytes(100, 2));
    let manifest = studio.version(&[("a.abc", &large), ("b.mtl", &small), ("c.log", b"")]);
    let object = ObjectHash::of(&large);
    {
        let incoming = studio.open(&manifest);
        let needs = incoming.needs();
        assert_eq!(needs.len(), 2, "nobody has to send the empty object");
        assert!(needs[0].blocks.is_none() && needs[1].blocks.is_some());
        incoming.set_blocks(list_of(&large)).unwrap();
        for index in [3, 0] {
            let written = incoming.write_block(&object, index, block_of(&large, index)).unwrap();
            assert_eq!(written, BlockWritten::ObjectIncomplete);
        }
    }
    let incoming = studio.open(&manifest);
    let needs = incoming.needs();
    assert_eq!(needs[0].blocks.as_deref(), Some(&list_of(&large)), "the list is kept");
    assert_eq!((needs[0].missing.clone(), needs[0].bytes_missing), (vec![1..3], 2 * BLOCK as u64));
    assert_eq!((needs[1].missing.clone(), needs[1].bytes_missing), (vec![0..1], 100));
    let progress = Progress {
        files_total: 3,
        files_present: 1,
        bytes_total: large.len() as u64 + 100,
        bytes_present: BLOCK as u64 + 7,
    };
    assert_eq!(incoming.progress(), progress);
    studio.deliver(&incoming);
    assert!(incoming.needs().is_empty());
    assert_eq!(incoming.progress().bytes_present, progress.bytes_total);
}

#[test]
fn what_rotted_or_was_torn_meanwhile_is_needed_again() {
    let mut studio = Studio::new();
    let (large, small) = (bytes(2 * BLOCK + 1, 1), bytes(100, 2));
    let manifest = studio.version(&[("a", &large), ("b", &small)]);
    studio.deliver(&studio.open(&manifest));
    let flip = |data: &[u8], at: u64| {
        let file = OpenOptions::new().write(true).open(studio.part(&manifest, data)).unwrap();
        file.write_all_at(b"!", at).unwrap();
    };
    flip(&large, BLOCK as u64 + 5);
    flip(&small, 99);
    let needs = studio.open(&manifest).needs();
    assert_eq!(needs[0].missing, [1..2]);
    assert_eq!(needs[1].missing, [0..1]);
    fs::File::create(studio.part(&manifest, &large)).unwrap();
    assert_eq!(studio.open(&manifest).needs()[0].missing, [0..3], "a part of another length is none");
}

#[test]
fn a_lost_block_list_costs_the_list_and_not_the_blocks() {
    let mut studio = Studio::new();
    let large = bytes(3 * BLOCK, 1);
    let object = ObjectHash::of(&large);
    let manifest = studio.version(&[("a", &large)]);
    let list_file = studio.part(&manifest, &large).with_extension("blocks");
    {
        let incoming = studio.open(&manifest);
        incoming.set_blocks(list_of(&large)).unwrap();
        incoming.write_block(&object, 2, block_of(&large, 2)).unwrap();
    }
    let mut damaged = fs::read(&list_file).unwrap();
    damaged[40] ^= 1;
    OpenOptions::new().write(true).open(&list_file).unwrap().write_all_at(&damaged, 0).unwrap();
    {
        let incoming = studio.open(&manifest);
        let need = incoming.need(&object).unwrap();
        assert!(need.blocks.is_none());
        assert_eq!(need.missing, [0..3]);
        incoming.set_blocks(list_of(&large)).unwrap();
        assert_eq!(incoming.need(&object).unwrap().missing, [0..2]);
        studio.deliver(&incoming);
    }
    fs::remove_file(&list_file).unwrap();
    assert!(studio.open(&manifest).needs().is_empty(), "a whole part needs no list");
}

#[test]
fn what_does_not_verify_is_refused_and_not_written() {
    let mut studio = Studio::new();
    let (large, small) = (bytes(BLOCK + 9, 1), bytes(10, 2));
    let manifest = studio.version(&[("a", &large), ("b", &small)]);
    let incoming = studio.open(&manifest);
    let (large_object, small_object) = (ObjectHash::of(&large), ObjectHash::of(&small));
    let early = incoming.write_block(&large_object, 0, block_of(&large, 0));
    assert!(matches!(early, Err(IncomingError::NoBlockList { .. })));
    incoming.set_blocks(list_of(&large)).unwrap();
    let mut flipped = block_of(&large, 0).to_vec();
    flipped[77] ^= 1;
    for (object, index, bytes) in [
        (large_object, 0, flipped.as_slice()),
        (large_object, 1, block_of(&large, 0)),
        (large_object, 1, &block_of(&large, 1)[..8]),
        (large_object, 2, b""),
        (small_object, 0, b"other text"),
        (small_object, 1, &small),
    ] {
        let error = incoming.write_block(&object, index, bytes).unwrap_err();
        assert!(matches!(error, IncomingError::BadBlock { .. }) && error.is_senders_fault(), "{error}");
    }
    assert!(!studio.part(&manifest, &small).exists());
    let stranger = ObjectHash::of(b"not in it");
    assert!(matches!(incoming.write_block(&stranger, 0, b"not in it"), Err(IncomingError::NotNeeded { .. })));
    assert_eq!(incoming.needs().len(), 2);
    assert!(matches!(incoming.finish(), Err(IncomingError::Incomplete { objects: 2 })));
}

#[test]
fn a_large_object_is_whole_whatever_way_its_blocks_took_to_the_disk() {
    let mut studio = Studio::new();
    let large = bytes(66 * BLOCK + 5, 1);
    let object = ObjectHash::of(&large);
    let manifest = studio.version(&[("a", &large)]);
    let incoming = studio.open(&manifest);
    incoming.set_blocks(list_of(&large)).unwrap();
    let mut room = vec![0; BLOCK + 2 * DIRECT_ALIGN_BYTES];
    let page = room.as_ptr().align_offset(DIRECT_ALIGN_BYTES);
    for index in 0..67 {
        let block = block_of(&large, index);
        // Only every second one begins at a page, and the last one is short.
        let start = page + usize::try_from(index % 2).unwrap();
        room[start..start + block.len()].copy_from_slice(block);
        incoming.write_block(&object, index, &room[start..start + block.len()]).unwrap();
        if index == 40 {
            incoming.past_cache.store(false, Ordering::Relaxed);
        }
    }
    assert_eq!(fs::read(studio.part(&manifest, &large)).unwrap(), large);
    incoming.finish().unwrap();
    assert_eq!(fs::read(studio.area(&manifest).join("tree/a")).unwrap(), large);
}

#[test]
fn many_senders_may_send_the_same_blocks_at_once() {
    let mut studio = Studio::new();
    let large = bytes(9 * BLOCK + 1, 1);
    let object = ObjectHash::of(&large);
    let manifest = studio.version(&[("a", &large)]);
    let incoming = studio.open(&manifest);
    incoming.set_blocks(list_of(&large)).unwrap();
    std::thread::scope(|scope| {
        for sender in 0..4 {
            let (incoming, large) = (&incoming, &large);
            scope.spawn(move || {
                for step in 0..10 {
                    let index = (step + sender * 3) % 10;
                    incoming.write_block(&object, index, block_of(large, index)).unwrap();
                }
            });
        }
    });
    assert!(incoming.needs().is_empty());
    incoming.finish().unwrap();
    let late = incoming.write_block(&object, 0, block_of(&large, 0)).unwrap();
    assert_eq!(late, BlockWritten::ObjectComplete, "a late block is no error and touches nothing");
    let built = fs::read(studio.area(&manifest).join("tree/a")).unwrap();
    assert_eq!(ObjectHash::of(&built), object);
}

#[test]
fn an_object_is_taken_from_a_local_file_only_when_it_is_that_object() {
    let mut studio = Studio::new();
    let (large, small) = (bytes(2 * BLOCK + 5, 1), bytes(300, 2));
    let manifest = studio.version(&[("a", &large), ("b", &small)]);
    let source = tempfile::tempdir().unwrap();
    let source_dir = Dir::open(source.path()).unwrap();
    for (name, data) in [("large", &large), ("small", &small)] {
        source_dir.write_atomic(&path_of(name), data, crate::fs::WriteMode::CreateNew).unwrap();
    }
    let mut damaged = large.clone();
    damaged[BLOCK] ^= 1;
    source_dir.write_atomic(&path_of("damaged"), &damaged, crate::fs::WriteMode::CreateNew).unwrap();
    let incoming = studio.open(&manifest);
    let copy = |data: &[u8], name| incoming.copy_local(&ObjectHash::of(data), &source_dir, &path_of(name));
    for bad in ["damaged", "small"] {
        assert!(matches!(copy(&large, bad), Err(IncomingError::CopyMismatch { .. })), "{bad}");
    }
    assert!(matches!(copy(&large, "none"), Err(IncomingError::Io { .. })));
    assert_eq!(fs::read_dir(studio.area(&manifest).join("parts")).unwrap().count(), 0);
    for (data, name) in [(&large, "large"), (&small, "small")] {
        let bytes = data.len() as u64;
        let copied = copy(data, name).unwrap();
        assert!([LocalCopy::Reflinked { bytes }, LocalCopy::Copied { bytes }].contains(&copied));
        assert_eq!(copy(data, name).unwrap(), LocalCopy::AlreadyHere);
    }
    assert!(incoming.needs().is_empty());
    drop(incoming);
    assert!(studio.open(&manifest).needs().is_empty());
}

#[test]
fn the_tree_has_every_file_with_its_time_and_twins_are_files_of_their_own() {
    let mut studio = Studio::new();
    let (large, small) = (bytes(2 * BLOCK, 1), bytes(300, 2));
    let files: [(&str, &[u8]); 7] = [
        ("a.abc", &large),
        ("empty/one", b""),
        ("empty/two", b""),
        ("tex/deep/copy.abc", &large),
        ("tex/skin.exr", &small),
        ("tex/skin2.exr", &small),
        ("tex/skin3.exr", &small),
    ];
    let manifest = studio.version(&files);
    let incoming = studio.open(&manifest);
    assert_eq!(incoming.needs().len(), 2);
    studio.deliver(&incoming);
    for _ in 0..2 {
        incoming.finish().unwrap();
        let tree = studio.area(&manifest).join("tree");
        for (file, (path, data)) in manifest.files().iter().zip(&files) {
            assert_eq!(&fs::read(tree.join(path)).unwrap(), data, "{path}");
            let metadata = tree.join(path).metadata().unwrap();
            assert_eq!(metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(), file.mtime_ns);
            assert_eq!(metadata.nlink(), 1, "an in-place save of one must not change the other");
        }
        assert_eq!(fs::read_dir(studio.area(&manifest).join("parts")).unwrap().count(), 1, "the block list");
    }
    assert!(!studio.path().join("assets").exists(), "nothing is visible yet");
}

#[test]
fn a_tree_that_was_being_built_is_taken_up_wherever_it_was_cut() {
    let mut studio = Studio::new();
    let (large, small) = (bytes(BLOCK + 1, 1), bytes(300, 2));
    let files: [(&str, &[u8]); 4] = [("a", &large), ("b/twin", &large), ("c", &small), ("d", b"")];
    let manifest = studio.version(&files);
    studio.receive(&manifest);
    let tree = studio.area(&manifest).join("tree");
    fs::remove_file(tree.join("b/twin")).unwrap();
    fs::rename(tree.join("c"), studio.part(&manifest, &small)).unwrap();
    fs::File::create(studio.area(&manifest).join("parts/half.copy-0")).unwrap();
    {
        let incoming = studio.open(&manifest);
        assert!(incoming.needs().is_empty());
        incoming.finish().unwrap();
    }
    for (path, data) in files {
        assert_eq!(fs::read(tree.join(path)).unwrap(), data, "{path}");
    }
    OpenOptions::new().write(true).open(tree.join("c")).unwrap().write_all_at(b"rot", 9).unwrap();
    let needs = studio.open(&manifest).needs();
    assert_eq!(needs.iter().map(|need| need.object).collect::<Vec<_>>(), [ObjectHash::of(&small)]);
}

#[test]
fn an_object_that_rots_before_its_twin_is_made_is_needed_again() {
    let mut studio = Studio::new();
    let small = bytes(300, 2);
    let manifest = studio.version(&[("a", &small), ("b", &small), ("c", b"other")]);
    let incoming = studio.open(&manifest);
    studio.deliver(&incoming);
    let part = OpenOptions::new().write(true).open(studio.part(&manifest, &small)).unwrap();
    part.write_all_at(b"rot", 0).unwrap();
    assert!(matches!(incoming.finish(), Err(IncomingError::CopyMismatch { .. })));
    assert_eq!(incoming.needs().iter().map(|need| need.object).collect::<Vec<_>>(), [ObjectHash::of(&small)]);
    studio.deliver(&incoming);
    incoming.finish().unwrap();
    assert_eq!(fs::read(studio.area(&manifest).join("tree/a")).unwrap(), small);
}

#[test]
fn after_a_failed_sync_nothing_is_believed() {
    let mut studio = Studio::new();
    let (large, small) = (bytes(BLOCK + 1, 1), bytes(300, 2));
    let manifest = studio.version(&[("a", &large), ("b", &small), ("c", b"")]);
    let incoming = studio.open(&manifest);
    studio.deliver(&incoming);
    incoming.finish().unwrap();
    incoming.forget_everything();
    assert_eq!(incoming.needs().iter().map(|need| need.bytes_missing).sum::<u64>(), BLOCK as u64 + 301);
    assert!(!studio.area(&manifest).join("tree").exists());
    assert!(!studio.part(&manifest, &small).exists());
    studio.deliver(&incoming);
    incoming.finish().unwrap();
}

#[test]
fn a_file_in_place_that_somebody_takes_away_costs_nothing_of_what_came() {
    let mut studio = Studio::new();
    let old = studio.version(&[("f.1001", b"one")]);
    place(studio.receive(&old), &PlaceOptions::default()).unwrap();
    let files: [(&str, &[u8]); 2] = [("f.1001", b"one"), ("f.1002", b"two")];
    let grown = studio.manifest(VersionSlot::Number(1), VERSION_DIR, &files, Some(&old));
    let incoming = studio.open(&grown);
    studio.deliver(&incoming);
    fs::remove_file(studio.path().join(VERSION_DIR).join("f.1001")).unwrap();
    assert!(matches!(incoming.finish(), Err(IncomingError::Io { .. })));
    drop(incoming);
    let needs = studio.open(&grown).needs();
    assert_eq!(needs.iter().map(|need| need.object).collect::<Vec<_>>(), [ObjectHash::of(b"one")]);
}

#[test]
fn links_planted_in_the_area_are_refused_or_removed_and_what_they_point_to_is_untouched() {
    let mut studio = Studio::new();
    let (outside, small) = (tempfile::tempdir().unwrap(), bytes(300, 2));
    fs::create_dir_all(outside.path().join("parts")).unwrap();
    let canary = outside.path().join("canary");
    fs::File::create(&canary).unwrap().write_all_at(&bytes(300, 3), 0).unwrap();
    let manifest = studio.version(&[("a", &small)]);
    let area = studio.area(&manifest);
    for planted in [studio.path().join(".avalon"), studio.path().join(".avalon/incoming"), area.clone()] {
        fs::create_dir_all(planted.parent().unwrap()).unwrap();
        symlink(outside.path(), &planted).unwrap();
        let opened = Incoming::open(&studio.project, manifest.clone());
        assert!(matches!(opened, Err(IncomingError::Io { .. })), "{}", planted.display());
        fs::remove_file(&planted).unwrap();
    }
    drop(studio.open(&manifest));
    symlink(&canary, studio.part(&manifest, &small)).unwrap();
    symlink(outside.path(), area.join("parts/nonsense")).unwrap();
    symlink(outside.path(), area.join("tree")).unwrap();
    assert!(Incoming::open(&studio.project, manifest.clone()).is_err());
    fs::remove_file(area.join("tree")).unwrap();
    let incoming = studio.open(&manifest);
    symlink(&canary, studio.part(&manifest, &small)).unwrap();
    let written = incoming.write_block(&ObjectHash::of(&small), 0, &small);
    assert!(matches!(written, Err(IncomingError::Io { .. })), "{written:?}");
    assert_eq!(fs::read(&canary).unwrap(), bytes(300, 3));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
}

#[test]
fn a_version_that_cannot_fit_is_known_before_the_transfer() {
    let mut studio = Studio::new();
    let manifest = studio.version(&[("a", b"x")]);
    let mut draft = manifest.draft().clone();
    let dir = Dir::open(studio.path()).unwrap();
    let volume_bytes = dir.volume_bytes().unwrap();
    (draft.files[0].size, draft.files[0].hash) = (volume_bytes, ObjectHash::of(b"huge"));
    let incoming = studio.open(&std::sync::Arc::new(draft.finish().unwrap()));
    let error = incoming.reserve().unwrap_err();
    assert!(matches!(error, IncomingError::NoSpace { .. }) && error.is_no_space(), "{error}");
    studio.open(&manifest).reserve().unwrap();
}

#[test]
fn a_version_larger_than_the_volume_costs_neither_memory_nor_an_area() {
    let mut studio = Studio::new();
    let manifest = studio.version(&[("a", b"x")]);
    let mut draft = manifest.draft().clone();
    let file = draft.files[0].clone();
    draft.files.extend((0..1000u32).map(|number| FileEntry {
        path: format!("huge{number:04}").parse().unwrap(),
        size: 8 << 40,
        hash: ObjectHash::of(&number.to_le_bytes()),
        ..file.clone()
    }));
    let manifest = std::sync::Arc::new(draft.finish().unwrap());
    let dir = Dir::open(studio.path()).unwrap();
    let error = Incoming::open(&dir, std::sync::Arc::clone(&manifest)).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(Incoming::list(&dir).unwrap().is_empty());
}

#[test]
fn an_object_of_two_sizes_is_refused_and_a_false_empty_one_never_completes() {
    let mut studio = Studio::new();
    let manifest = studio.version(&[("a", b"x"), ("b", b"y")]);
    let mut draft = manifest.draft().clone();
    (draft.files[0].size, draft.files[0].hash) = (9, draft.files[1].hash);
    let two_sizes = Incoming::open(&studio.project, std::sync::Arc::new(draft.clone().finish().unwrap()));
    assert!(matches!(two_sizes, Err(IncomingError::SizeConflict { .. })));
    (draft.files[0].size, draft.files[0].hash) = (0, ObjectHash::of(b"x"));
    let incoming = studio.open(&std::sync::Arc::new(draft.finish().unwrap()));
    assert_eq!(incoming.needs().len(), 2);
    assert!(incoming.write_block(&ObjectHash::of(b"x"), 0, b"").is_err());
}

#[test]
fn areas_are_listed_and_removed() {
    let mut studio = Studio::new();
    assert!(Incoming::list(&studio.project).unwrap().is_empty());
    Incoming::remove(&studio.project, ManifestId::from_bytes([7; 32])).unwrap();
    let (one, two) = (studio.version(&[("a", b"x")]), studio.version(&[("a", b"y")]));
    studio.deliver(&studio.open(&one));
    let incoming = studio.open(&two);
    fs::create_dir(studio.path().join(".avalon/incoming/not-an-id")).unwrap();
    let foreign = ManifestId::from_bytes([7; 32]).to_string();
    for name in [&foreign, ".DS_Store", "not-a-manifest"] {
        fs::File::create(studio.path().join(".avalon/incoming").join(name)).unwrap();
    }
    fs::create_dir(studio.path().join(".avalon/incoming").join("AB".repeat(32))).unwrap();
    let mut expected = [one.id(), two.id()];
    expected.sort();
    assert_eq!(Incoming::list(&studio.project).unwrap(), expected);
    incoming.abandon().unwrap();
    assert_eq!(Incoming::list(&studio.project).unwrap(), [one.id()]);
    Incoming::remove(&studio.project, one.id()).unwrap();
    Incoming::remove(&studio.project, one.id()).unwrap();
    assert!(Incoming::list(&studio.project).unwrap().is_empty());
}

#[test]
fn room_for_what_is_missing_is_given_back_and_taken_again_and_what_is_here_stays() {
    let mut studio = Studio::new();
    let large = bytes(8 * BLOCK + 7, 1);
    let manifest = studio.version(&[("a.abc", &large)]);
    let object = ObjectHash::of(&large);
    let incoming = studio.open(&manifest);
    incoming.set_blocks(list_of(&large)).unwrap();
    incoming.reserve().unwrap();
    for index in [2, 8] {
        incoming.write_block(&object, index, block_of(&large, index)).unwrap();
    }
    let part = incoming.parts.path().join(part_name(object).as_str());
    let taken = || part.metadata().unwrap().blocks() * 512;
    let all = taken();
    if all < 8 * BLOCK as u64 {
        println!("SKIPPED: this volume takes no room in advance");
        return;
    }
    incoming.release_room();
    assert!(taken() < 3 * BLOCK as u64, "{} of {all} bytes are still taken", taken());
    assert_eq!(part.metadata().unwrap().len(), large.len() as u64);
    assert_eq!(incoming.needs()[0].missing, [0..2, 3..8]);
    incoming.reserve().unwrap();
    assert!(taken() >= all);
    for index in [0, 1, 3, 4, 5, 6, 7] {
        incoming.write_block(&object, index, block_of(&large, index)).unwrap();
    }
    incoming.finish().unwrap();
    incoming.release_room();
}
