//! Placing: what becomes visible, in which order, and what is never touched.

use std::{
    collections::BTreeMap,
    fs,
    mem::MaybeUninit,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
    sync::Arc,
};

use avalon_protocol::{
    hash::ObjectHash,
    id::VersionSlot,
    manifest::{Manifest, Renumbered},
};
use rustix::fs::inotify;

use super::{
    PlaceError, PlaceOptions, PlacedFile, Placement, ReadOnly, RenumberFailed, Replaces, place, renumber,
};
use crate::{
    fs::{WriteMode, path_of},
    object::{
        fixture::{BLOCK, Studio, VERSION_DIR, bytes},
        incoming::Incoming,
    },
};

const HERO_DIR: &str = "assets/robot/publish/model/hero";

fn receive_and_place(studio: &Studio, manifest: &Arc<Manifest>) -> Result<Placement, PlaceError> {
    place(studio.receive(manifest), &PlaceOptions::default())
}

/// Reads all files beneath a directory.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(dir).into_iter().map(|entry| entry.unwrap());
    files
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| {
            let path = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            (path, fs::read(entry.path()).unwrap_or_default())
        })
        .collect()
}

fn expect(files: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, data)| ((*path).to_owned(), data.to_vec())).collect()
}

fn write(studio: &Studio, path: &str, data: &[u8]) {
    let path = path_of(path);
    if let Some(parent) = path.parent() {
        studio.project.create_dirs(&parent).unwrap();
    }
    studio.project.write_atomic(&path, data, WriteMode::Replace).unwrap();
}

#[test]
fn a_new_version_appears_whole_and_leaves_no_area_behind() {
    let mut studio = Studio::new();
    let large = bytes(BLOCK + 3, 1);
    let files: [(&str, &[u8]); 3] = [("model.abc", &large), ("tex/a.exr", b"a"), ("tex/b.exr", b"")];
    let manifest = studio.version(&files);
    let version = studio.receive(&manifest);
    assert!(!studio.path().join("assets").exists(), "nothing is visible before");
    let placement = place(version, &PlaceOptions::default()).unwrap();
    assert_eq!(content(&studio.path().join(VERSION_DIR)), expect(&files));
    assert!(!studio.area(&manifest).exists());
    assert_eq!(placement.manifest().id(), manifest.id());
    for (placed, file) in placement.files().iter().zip(manifest.files()) {
        assert_eq!(placed.path.as_str(), format!("{VERSION_DIR}/{}", file.path));
        assert_eq!(placed.object, file.hash);
        assert_eq!(studio.project.stat(&placed.path).unwrap(), Some(placed.stat));
        assert_eq!(placed.stat.mtime_ns, file.mtime_ns);
    }
}

#[test]
fn a_version_that_grew_needs_only_the_new_frames_and_leaves_the_old_alone() {
    let mut studio = Studio::new();
    let first: [(&str, &[u8]); 2] = [("f.1001", b"one"), ("f.1002", b"two")];
    let old = studio.version(&first);
    receive_and_place(&studio, &old).unwrap();
    let inode = |name: &str| studio.path().join(VERSION_DIR).join(name).metadata().unwrap().ino();
    let before = [inode("f.1001"), inode("f.1002")];
    let files: [(&str, &[u8]); 4] =
        [("f.1001", b"one"), ("f.1002", b"two"), ("f.1003", b"three"), ("f.1004", b"two")];
    let slot = VersionSlot::Number(1);
    let grown = studio.manifest(slot, VERSION_DIR, &files, Some(&old));
    let incoming = studio.open(&grown);
    let needs: Vec<_> = incoming.needs().iter().map(|need| need.object).collect();
    assert_eq!(needs, [ObjectHash::of(b"three")], "f.1004 comes from its twin in place");
    studio.deliver(&incoming);
    let placement = place(incoming.finish().unwrap(), &PlaceOptions::default()).unwrap();
    let inode = |name: &str| studio.path().join(VERSION_DIR).join(name).metadata().unwrap().ino();
    assert_eq!([inode("f.1001"), inode("f.1002")], before);
    assert_eq!(content(&studio.path().join(VERSION_DIR)), expect(&files));
    assert!(!studio.area(&grown).exists());
    assert!(Incoming::list(&studio.project).unwrap().is_empty());
    assert_eq!(placement.files().len(), 4);
    for placed in placement.files() {
        assert_eq!(studio.project.stat(&placed.path).unwrap(), Some(placed.stat));
    }
}

#[test]
fn an_area_says_where_its_files_go_before_the_first_one_moves_and_until_all_have() {
    let mut studio = Studio::new();
    let old = studio.version(&[("f.1001", b"one")]);
    receive_and_place(&studio, &old).unwrap();
    assert_eq!(Incoming::place_of(&studio.project, old.id()).unwrap(), None, "it came whole");
    let files: [(&str, &[u8]); 2] = [("f.1001", b"one"), ("f.1002", b"two")];
    let grown = studio.manifest(VersionSlot::Number(1), VERSION_DIR, &files, Some(&old));
    let version = studio.receive(&grown);
    assert_eq!(Incoming::place_of(&studio.project, grown.id()).unwrap(), None, "nothing moved yet");
    // What is removed from the tree stops the placement where its first file would move.
    fs::remove_file(studio.area(&grown).join("tree/f.1002")).unwrap();
    place(version, &PlaceOptions::default()).unwrap_err();
    let place_of = || Incoming::place_of(&studio.project, grown.id()).unwrap();
    assert_eq!(place_of(), Some(path_of(VERSION_DIR)));
    let place = studio.area(&grown).strip_prefix(studio.path()).unwrap().join("place");
    write(&studio, place.to_str().unwrap(), b"\xff");
    assert_eq!(place_of(), None, "what is no path says nothing");
    receive_and_place(&studio, &grown).unwrap();
    assert_eq!(place_of(), None);
}

#[test]
fn a_known_file_in_place_is_not_read_again() {
    let mut studio = Studio::new();
    let old = studio.version(&[("a", b"one")]);
    receive_and_place(&studio, &old).unwrap();
    let asked = |path: &avalon_protocol::rel_path::RelPath, stat: &crate::fs::FileStat| {
        assert_eq!((path.as_str(), stat.size), ("assets/robot/publish/model/v001/a", 3));
        Some(ObjectHash::of(b"one"))
    };
    write(&studio, "assets/robot/publish/model/v001/a", b"ONE");
    let trusting = Incoming::open_knowing(&studio.project, old.clone(), &asked).unwrap();
    assert!(trusting.needs().is_empty());
    drop(trusting);
    assert_eq!(studio.open(&old).needs().len(), 1, "without a word for it, it is hashed");
}

#[test]
fn the_entry_of_a_representation_comes_last() {
    let mut studio = Studio::new();
    studio.project.create_dirs(&path_of(VERSION_DIR)).unwrap();
    let files: [(&str, &[u8]); 3] = [("a.abc", b"entry"), ("b.mtl", b"b"), ("c.log", b"c")];
    let manifest = studio.version(&files);
    let version = studio.receive(&manifest);
    let events = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let dir = studio.path().join(VERSION_DIR);
    inotify::add_watch(&events, &dir, inotify::WatchFlags::MOVED_TO).unwrap();
    place(version, &PlaceOptions::default()).unwrap();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&events, &mut buffer);
    let mut order = Vec::new();
    while let Ok(event) = events.next() {
        order.push(event.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(order, ["b.mtl", "c.log", "a.abc"]);
}

#[test]
fn other_content_in_the_way_stops_everything_before_anything_moves() {
    let mut studio = Studio::new();
    let files: [(&str, &[u8]); 4] = [("a.abc", b"a"), ("b", b"b"), ("t/c", b"c"), ("z", b"z")];
    let manifest = studio.version(&files);
    for (taken, data) in [("z", b"X".as_slice()), ("z", b"longer"), ("t", b"a file"), ("b/dir", b"b")] {
        let version = studio.receive(&manifest);
        write(&studio, &format!("{VERSION_DIR}/{taken}"), data);
        let error = place(version, &PlaceOptions::default()).unwrap_err();
        assert!(matches!(error, PlaceError::Occupied { .. }), "{taken}: {error:?}");
        assert_eq!(content(&studio.path().join(VERSION_DIR)), expect(&[(taken, data)]));
        fs::remove_dir_all(studio.path().join(VERSION_DIR)).unwrap();
        assert!(studio.open(&manifest).needs().is_empty(), "the version stays in the area");
    }
    let version = studio.receive(&manifest);
    write(&studio, VERSION_DIR, b"a file where the directory belongs");
    let error = place(version, &PlaceOptions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{VERSION_DIR} is taken by other content; nothing is overwritten, somebody must decide")
    );
}

#[test]
fn what_an_artist_has_already_is_left_as_it_is() {
    let mut studio = Studio::new();
    let files: [(&str, &[u8]); 2] = [("a.abc", b"a"), ("b", b"b")];
    let manifest = studio.version(&files);
    let version = studio.receive(&manifest);
    write(&studio, &format!("{VERSION_DIR}/b"), b"b");
    write(&studio, &format!("{VERSION_DIR}/notes.txt"), b"mine");
    let before = studio.project.stat(&path_of(&format!("{VERSION_DIR}/b"))).unwrap().unwrap();
    let placement = place(version, &PlaceOptions::default()).unwrap();
    assert_eq!(placement.files()[1].stat, before);
    let expected = expect(&[("a.abc", b"a"), ("b", b"b"), ("notes.txt", b"mine")]);
    assert_eq!(content(&studio.path().join(VERSION_DIR)), expected);
}

#[test]
fn a_file_in_place_that_goes_or_changes_meanwhile_is_noticed() {
    let mut studio = Studio::new();
    let manifest = studio.version(&[("a", b"a"), ("b", b"b")]);
    let path = format!("{VERSION_DIR}/b");
    for spoil in ["remove", "change", "remove all"] {
        write(&studio, &path, b"b");
        let version = studio.receive(&manifest);
        match spoil {
            "remove" => studio.project.remove_file(&path_of(&path)).unwrap(),
            "change" => write(&studio, &path, b"B"),
            _ => studio.project.remove_tree(&path_of("assets")).unwrap(),
        }
        let error = place(version, &PlaceOptions::default()).unwrap_err();
        assert!(matches!(error, PlaceError::Vanished { .. }), "{spoil}: {error:?}");
    }
}

#[test]
fn a_placement_that_was_cut_between_two_files_is_taken_up() {
    let mut studio = Studio::new();
    studio.project.create_dirs(&path_of(VERSION_DIR)).unwrap();
    let files: [(&str, &[u8]); 3] = [("a.abc", b"entry"), ("b", b"b"), ("c", b"c")];
    let manifest = studio.version(&files);
    drop(studio.receive(&manifest));
    let moved = studio.path().join(VERSION_DIR).join("b");
    fs::rename(studio.area(&manifest).join("tree/b"), moved).unwrap();
    let incoming = studio.open(&manifest);
    assert!(incoming.needs().is_empty());
    assert_eq!(incoming.progress().files_present, 3);
    place(incoming.finish().unwrap(), &PlaceOptions::default()).unwrap();
    assert_eq!(content(&studio.path().join(VERSION_DIR)), expect(&files));
}

#[test]
fn hero_is_replaced_and_the_old_files_go_to_the_trash() {
    let mut studio = Studio::new();
    let old_files: [(&str, &[u8]); 4] =
        [("m.abc", b"one"), ("same", b"same"), ("t/old.exr", b"old"), ("t/x", b"x1")];
    let old = studio.manifest(VersionSlot::Hero, HERO_DIR, &old_files, None);
    receive_and_place(&studio, &old).unwrap();
    write(&studio, &format!("{HERO_DIR}/notes.txt"), b"mine");
    let files: [(&str, &[u8]); 4] = [("m.abc", b"two"), ("same", b"same"), ("t/new", b"n"), ("t/x", b"x2")];
    let new = studio.manifest(VersionSlot::Hero, HERO_DIR, &files, Some(&old));
    let options = PlaceOptions { replaces: Replaces::Hero(Some(&old)), ..PlaceOptions::default() };
    place(studio.receive(&new), &options).unwrap();
    let mut expected = expect(&files);
    expected.insert("notes.txt".into(), b"mine".to_vec());
    assert_eq!(content(&studio.path().join(HERO_DIR)), expected);
    let trash = studio.path().join(format!(".avalon/trash/{}", new.id()));
    assert_eq!(content(&trash), expect(&[("m.abc", b"one"), ("t/old.exr", b"old"), ("t/x", b"x1")]));
}

#[test]
fn an_artists_work_that_no_manifest_knows_is_never_lost_when_hero_is_replaced_again_and_again() {
    let mut studio = Studio::new();
    let long = "n".repeat(255);
    let mut hero = |data: &'static [u8]| {
        studio.manifest(VersionSlot::Hero, HERO_DIR, &[(&long, data), ("t/m.abc", data)], None)
    };
    let (x, y) = (hero(b"X"), hero(b"Y"));
    let replace = |new: &Arc<Manifest>, old| {
        let options = PlaceOptions { replaces: Replaces::Hero(Some(old)), ..PlaceOptions::default() };
        place(studio.receive(new), &options).unwrap();
    };
    let save = |data| {
        write(&studio, &format!("{HERO_DIR}/t/m.abc"), data);
        write(&studio, &format!("{HERO_DIR}/{long}"), data);
    };
    receive_and_place(&studio, &x).unwrap();
    replace(&y, &x);
    save(b"Z1");
    replace(&x, &y);
    for data in [b"Z2", b"Z3"] {
        save(data);
        replace(&y, &x);
    }
    assert_eq!(content(&studio.path().join(HERO_DIR)), expect(&[(&long, b"Y"), ("t/m.abc", b"Y")]));
    let trash = |id| content(&studio.path().join(format!(".avalon/trash/{id}")));
    assert_eq!(trash(x.id()), expect(&[(&long, b"Z1"), ("t/m.abc", b"Z1")]));
    let kept = expect(&[
        (&long, b"X"),
        ("long-name.1", b"Z2"),
        ("long-name.2", b"Z3"),
        ("t/m.abc", b"X"),
        ("t/m.abc.1", b"Z2"),
        ("t/m.abc.2", b"Z3"),
    ]);
    assert_eq!(trash(y.id()), kept);
}

#[test]
fn stale_files_of_a_hero_overwrite_nothing_in_the_trash() {
    let mut studio = Studio::new();
    let mut hero = |files: &[(&str, &[u8])]| studio.manifest(VersionSlot::Hero, HERO_DIR, files, None);
    let (old, new) = (hero(&[("a", b"a"), ("gone", b"one")]), hero(&[("a", b"a")]));
    let options = PlaceOptions { replaces: Replaces::Hero(Some(&old)), ..PlaceOptions::default() };
    receive_and_place(&studio, &old).unwrap();
    place(studio.receive(&new), &options).unwrap();
    write(&studio, &format!("{HERO_DIR}/gone"), b"two");
    place(studio.receive(&new), &options).unwrap();
    let trash = studio.path().join(format!(".avalon/trash/{}", new.id()));
    assert_eq!(content(&trash), expect(&[("gone", b"one"), ("gone.1", b"two")]));
}

#[test]
fn a_replacement_that_was_cut_after_the_old_file_was_kept_keeps_it_once() {
    let mut studio = Studio::new();
    let mut hero = |data: &[u8]| studio.manifest(VersionSlot::Hero, HERO_DIR, &[("m.abc", data)], None);
    let (old, new) = (hero(b"one"), hero(b"two"));
    receive_and_place(&studio, &old).unwrap();
    let trash = studio.path().join(format!(".avalon/trash/{}", new.id()));
    fs::create_dir_all(&trash).unwrap();
    fs::hard_link(studio.path().join(HERO_DIR).join("m.abc"), trash.join("m.abc")).unwrap();
    let options = PlaceOptions { replaces: Replaces::Hero(None), ..PlaceOptions::default() };
    place(studio.receive(&new), &options).unwrap();
    assert_eq!(content(&trash), expect(&[("m.abc", b"one")]));
    assert_eq!(content(&studio.path().join(HERO_DIR)), expect(&[("m.abc", b"two")]));
}

/// Two generations of a version, the second one accepted over the first: `a.abc` changed, `gone` removed, `new` added.
fn accepted(studio: &mut Studio) -> (Arc<Manifest>, Arc<Manifest>) {
    let slot = VersionSlot::Number(1);
    let files: [(&str, &[u8]); 4] = [("a.abc", b"one"), ("gone", b"gone"), ("same", b"same"), ("t/x", b"x1")];
    let old = studio.manifest(slot, VERSION_DIR, &files, None);
    let files: [(&str, &[u8]); 4] =
        [("a.abc", b"two"), ("new", b"new"), ("same", b"same"), ("t/x", b"longer")];
    let new = studio.manifest(slot, VERSION_DIR, &files, Some(&old));
    (old, new)
}

#[test]
fn an_accepted_generation_replaces_what_is_exactly_as_the_one_before_and_keeps_it_in_the_trash() {
    let mut studio = Studio::new();
    let (old, new) = accepted(&mut studio);
    receive_and_place(&studio, &old).unwrap();
    write(&studio, &format!("{VERSION_DIR}/notes.txt"), b"mine");
    let refused = place(studio.receive(&new), &PlaceOptions::default()).unwrap_err();
    assert!(matches!(refused, PlaceError::Occupied { .. }), "not without being told: {refused:?}");
    let old = [Manifest::clone(&old)];
    let options = PlaceOptions { replaces: Replaces::Followed(&old), ..PlaceOptions::default() };
    place(studio.receive(&new), &options).unwrap();
    assert_eq!(
        content(&studio.path().join(VERSION_DIR)),
        expect(&[
            ("a.abc", b"two"),
            ("new", b"new"),
            ("notes.txt", b"mine"),
            ("same", b"same"),
            ("t/x", b"longer")
        ])
    );
    let trash = studio.path().join(format!(".avalon/trash/{}", new.id()));
    assert_eq!(content(&trash), expect(&[("a.abc", b"one"), ("gone", b"gone"), ("t/x", b"x1")]));
}

#[test]
fn what_was_changed_here_as_well_stops_an_accepted_generation_before_anything_moves() {
    let mut studio = Studio::new();
    let (old, new) = accepted(&mut studio);
    let old = [Manifest::clone(&old)];
    let options = PlaceOptions { replaces: Replaces::Followed(&old), ..PlaceOptions::default() };
    // As long as the old one, as long as the new one, and of another length.
    for own in [b"ONE".as_slice(), b"TWO", b"another"] {
        place(studio.receive(&Arc::new(old[0].clone())), &PlaceOptions::default()).unwrap();
        write(&studio, &format!("{VERSION_DIR}/a.abc"), own);
        let error = place(studio.receive(&new), &options).unwrap_err();
        assert!(matches!(error, PlaceError::Occupied { .. }), "{error:?}");
        assert_eq!(
            content(&studio.path().join(VERSION_DIR)),
            expect(&[("a.abc", own), ("gone", b"gone"), ("same", b"same"), ("t/x", b"x1")])
        );
        fs::remove_dir_all(studio.path().join(VERSION_DIR)).unwrap();
    }
}

#[test]
fn a_file_that_an_accepted_generation_does_not_have_stays_where_it_was_changed() {
    let mut studio = Studio::new();
    let (old, new) = accepted(&mut studio);
    receive_and_place(&studio, &old).unwrap();
    write(&studio, &format!("{VERSION_DIR}/gone"), b"GONE");
    let old = [Manifest::clone(&old)];
    let options = PlaceOptions { replaces: Replaces::Followed(&old), ..PlaceOptions::default() };
    place(studio.receive(&new), &options).unwrap();
    assert_eq!(fs::read(studio.path().join(VERSION_DIR).join("gone")).unwrap(), b"GONE");
}

#[test]
fn what_stands_is_put_back_over_what_was_changed_and_that_is_kept_in_the_trash() {
    let mut studio = Studio::new();
    let (old, _) = accepted(&mut studio);
    receive_and_place(&studio, &old).unwrap();
    write(&studio, &format!("{VERSION_DIR}/a.abc"), b"changed");
    write(&studio, &format!("{VERSION_DIR}/notes.txt"), b"mine");
    let options = PlaceOptions { replaces: Replaces::Rewritten, ..PlaceOptions::default() };
    place(studio.receive(&old), &options).unwrap();
    let dir = content(&studio.path().join(VERSION_DIR));
    assert_eq!((&dir["a.abc"][..], &dir["notes.txt"][..]), (&b"one"[..], &b"mine"[..]));
    let trash = studio.path().join(format!(".avalon/trash/{}", old.id()));
    assert_eq!(content(&trash), expect(&[("a.abc", b"changed")]));
}

#[test]
fn a_damaged_copy_is_replaced_and_kept_in_the_trash_and_what_somebody_wrote_is_not() {
    let mut studio = Studio::new();
    let (old, _) = accepted(&mut studio);
    receive_and_place(&studio, &old).unwrap();
    let damage = |name: &str, data: &[u8]| {
        let path = path_of(&format!("{VERSION_DIR}/{name}"));
        let before = studio.project.stat(&path).unwrap().unwrap().mtime_ns;
        write(&studio, path.as_str(), data);
        studio.project.set_mtime(&path, before).unwrap();
    };
    damage("a.abc", b"onf");
    damage("same", b"cut");
    let refused = place(studio.receive(&old), &PlaceOptions::default()).unwrap_err();
    assert!(matches!(refused, PlaceError::Occupied { .. }), "not without being told: {refused:?}");
    let found = |studio: &Studio| {
        let paths = ["a.abc", "same"].map(|name| path_of(&format!("{VERSION_DIR}/{name}")));
        paths.map(|path| (path.clone(), studio.project.stat(&path).unwrap().unwrap().identity())).into()
    };
    let damaged: BTreeMap<_, _> = found(&studio);
    damage("a.abc", b"ano");
    let options = PlaceOptions { damaged: Some(&damaged), ..PlaceOptions::default() };
    let refused = place(studio.receive(&old), &options).unwrap_err();
    assert!(matches!(refused, PlaceError::Occupied { .. }), "somebody wrote it since: {refused:?}");
    damage("a.abc", b"onf");
    let damaged = found(&studio);
    let options = PlaceOptions { damaged: Some(&damaged), ..PlaceOptions::default() };
    place(studio.receive(&old), &options).unwrap();
    let dir = content(&studio.path().join(VERSION_DIR));
    assert_eq!((&dir["a.abc"][..], &dir["same"][..]), (&b"one"[..], &b"same"[..]));
    let trash = studio.path().join(format!(".avalon/trash/{}", old.id()));
    assert_eq!(content(&trash), expect(&[("a.abc", b"onf"), ("same", b"cut")]));
    damage("a.abc", b"onf");
    write(&studio, &format!("{VERSION_DIR}/t/x"), b"by somebody");
    let damaged = found(&studio);
    let options = PlaceOptions { damaged: Some(&damaged), ..PlaceOptions::default() };
    let refused = place(studio.receive(&old), &options).unwrap_err();
    assert!(
        matches!(&refused, PlaceError::Occupied { path } if path.as_str().ends_with("t/x")),
        "{refused:?}"
    );
    assert_eq!(content(&studio.path().join(VERSION_DIR))["a.abc"], b"onf", "nothing moved");
}

#[test]
fn files_are_made_read_only_when_told() {
    let mut studio = Studio::new();
    let manifest = studio.version(&[("a", b"a"), ("t/b", b"b")]);
    let options = PlaceOptions { read_only: ReadOnly::Set, ..PlaceOptions::default() };
    let placement = place(studio.receive(&manifest), &options).unwrap();
    assert!(placement.files().iter().all(|file| !file.stat.is_writable()));
    let path = studio.path().join(VERSION_DIR).join("t/b");
    assert_eq!(path.metadata().unwrap().mode() & 0o222, 0);
}

#[test]
fn a_link_at_any_level_stops_the_placement_and_nothing_behind_it_is_touched() {
    let mut studio = Studio::new();
    let manifest = studio.version(&[("a", b"a"), ("t/b", b"b")]);
    let levels = ["assets", "assets/robot/publish", VERSION_DIR, "assets/robot/publish/model/v001/t"];
    for level in levels {
        let version = studio.receive(&manifest);
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(outside.path().join("robot/publish/model/v001/t")).unwrap();
        let link = studio.path().join(level);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(outside.path(), &link).unwrap();
        assert!(place(version, &PlaceOptions::default()).is_err(), "{level}");
        assert!(content(outside.path()).is_empty(), "{level}");
        let opened = Incoming::open(&studio.project, manifest.clone());
        assert!(opened.is_err(), "{level}: refused before a byte is fetched");
        studio.project.remove_tree(&path_of("assets")).unwrap();
    }
    let version = studio.receive(&manifest);
    let canary = tempfile::NamedTempFile::new().unwrap();
    fs::create_dir_all(studio.path().join(VERSION_DIR)).unwrap();
    symlink(canary.path(), studio.path().join(VERSION_DIR).join("a")).unwrap();
    let error = place(version, &PlaceOptions::default()).unwrap_err();
    assert!(matches!(error, PlaceError::Occupied { .. }), "{error:?}");
    assert_eq!(fs::read(canary.path()).unwrap(), b"");
}

/// A version that is placed, with what it becomes; `named` says what its file is called under the new number.
fn to_renumber(studio: &mut Studio, named: &str) -> (Arc<Manifest>, Renumbered) {
    let old = studio.version(&[("a.abc", b"a"), ("t/b", b"b")]);
    receive_and_place(studio, &old).unwrap();
    let files: [(&str, &[u8]); 2] = [(named, b"a"), ("t/b", b"b")];
    let manifest = studio.manifest(VersionSlot::Number(5), RENUMBERED_DIR, &files, None);
    let files = vec![(path_of("a.abc"), path_of(named)), (path_of("t/b"), path_of("t/b"))];
    (old, Renumbered { manifest: Manifest::clone(&manifest), files })
}

const RENUMBERED_DIR: &str = "assets/robot/publish/model/v005";

fn renumber_unknown(
    studio: &Studio,
    old: &Manifest,
    new: &Renumbered,
) -> Result<Vec<PlacedFile>, RenumberFailed> {
    renumber(&studio.project, old, new, &|_, _| None)
}

#[test]
fn a_version_gets_its_new_number_with_everything_in_its_directory() {
    for named in ["a.abc", "n/a_v005.abc"] {
        let mut studio = Studio::new();
        let (old, new) = to_renumber(&mut studio, named);
        write(&studio, &format!("{VERSION_DIR}/notes.txt"), b"mine");
        let placed = renumber_unknown(&studio, &old, &new).unwrap();
        assert!(!studio.path().join(VERSION_DIR).exists());
        let expected = expect(&[(named, b"a"), ("notes.txt", b"mine"), ("t/b", b"b")]);
        assert_eq!(content(&studio.path().join(RENUMBERED_DIR)), expected);
        assert_eq!(placed[0].path.as_str(), format!("{RENUMBERED_DIR}/{named}"));
        assert_eq!(studio.project.stat(&placed[0].path).unwrap(), Some(placed[0].stat));
        // A crash before that was recorded: it is found as it is.
        assert_eq!(renumber_unknown(&studio, &old, &new).unwrap(), placed);
    }
}

#[test]
fn a_renaming_that_was_cut_at_any_step_is_gone_on_with() {
    let between = |new: &Renumbered| format!(".avalon/renumber/{}", new.manifest.id());
    for step in 0..3 {
        let mut studio = Studio::new();
        let (old, new) = to_renumber(&mut studio, "a_v005.abc");
        fs::create_dir_all(studio.path().join(".avalon/renumber")).unwrap();
        fs::rename(studio.path().join(VERSION_DIR), studio.path().join(between(&new))).unwrap();
        if step > 0 {
            let dir = studio.path().join(between(&new));
            fs::rename(dir.join("a.abc"), dir.join("a_v005.abc")).unwrap();
        }
        if step > 1 {
            write(&studio, &format!("{VERSION_DIR}/a.abc"), b"what kept the number");
        }
        renumber_unknown(&studio, &old, &new).unwrap();
        assert_eq!(
            content(&studio.path().join(RENUMBERED_DIR)),
            expect(&[("a_v005.abc", b"a"), ("t/b", b"b")])
        );
        assert!(!studio.path().join(between(&new)).exists());
    }
}

#[test]
fn nothing_is_renamed_over_anything_nor_when_it_is_not_what_was_published() {
    for named in ["a.abc", "a_v005.abc"] {
        let mut studio = Studio::new();
        let (old, new) = to_renumber(&mut studio, named);
        write(&studio, &format!("{RENUMBERED_DIR}/other"), b"other");
        let error = renumber_unknown(&studio, &old, &new).unwrap_err();
        assert!(matches!(error, RenumberFailed::Taken { .. }), "{error:?}");
        assert_eq!(content(&studio.path().join(RENUMBERED_DIR)), expect(&[("other", b"other")]));
        assert_eq!(content(&studio.path().join(VERSION_DIR)), expect(&[("a.abc", b"a"), ("t/b", b"b")]));
        fs::remove_dir_all(studio.path().join(RENUMBERED_DIR)).unwrap();
        write(&studio, &format!("{VERSION_DIR}/t/b"), b"B");
        let error = renumber_unknown(&studio, &old, &new).unwrap_err();
        assert!(matches!(error, RenumberFailed::Changed { .. }), "{error:?}");
        assert!(!studio.path().join(RENUMBERED_DIR).exists());
        fs::remove_dir_all(studio.path().join(VERSION_DIR)).unwrap();
        let error = renumber_unknown(&studio, &old, &new).unwrap_err();
        assert!(matches!(error, RenumberFailed::Gone { .. }), "{error:?}");
    }
}
