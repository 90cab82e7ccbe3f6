use std::{fs, path::PathBuf, sync::Arc};

use avalon_protocol::{id::VersionSlot, manifest::Manifest};

use super::{discard::Discarding, *};
use crate::{
    fs::{FileStat, WriteMode},
    object::fixture::{Studio, VERSION_DIR},
};

const FILES: [(&str, &[u8]); 3] = [("a", b"entry"), ("b/one", b"first"), ("b/two", b"second")];

/// Writes a file of the version, or beside it.
fn write(studio: &Studio, name: &str, content: &[u8]) {
    write_at(studio, &format!("{VERSION_DIR}/{name}"), content);
}

fn write_at(studio: &Studio, path: &str, content: &[u8]) {
    let path: RelPath = path.parse().unwrap();
    studio.project.create_dirs(&path.parent().unwrap()).unwrap();
    studio.project.write_atomic(&path, content, WriteMode::Replace).unwrap();
}

/// A version that lies in its place, with what is known of its files.
fn placed(studio: &mut Studio) -> (Arc<Manifest>, Vec<FileStat>) {
    let manifest = studio.manifest(VersionSlot::Number(1), VERSION_DIR, &FILES, None);
    for (name, content) in FILES {
        write(studio, name, content);
    }
    let stat = |file: &avalon_protocol::manifest::FileEntry| {
        studio.project.stat(&manifest.dir().join(&file.path).unwrap()).unwrap().unwrap()
    };
    let known = manifest.files().iter().map(stat).collect();
    (manifest, known)
}

fn trash(studio: &Studio) -> Vec<String> {
    let mut found = Vec::new();
    let at = studio.path().join(TRASH);
    let mut dirs: Vec<PathBuf> = vec![at.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { found.push(path) }
        }
    }
    let mut names: Vec<String> =
        found.iter().map(|path| path.strip_prefix(&at).unwrap().display().to_string()).collect();
    names.sort();
    names
}

fn inside(manifest: &Manifest, ms: u64, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{}.{ms}/{name}", manifest.id())).collect()
}

#[test]
fn a_directory_with_nothing_else_in_it_goes_at_once() {
    let mut studio = Studio::new();
    let (manifest, known) = placed(&mut studio);
    prepare(&studio.project, &manifest).unwrap();
    let moved = discard(&studio.project, &manifest, &known, 1000).unwrap();
    assert_eq!((moved.files, moved.bytes, moved.left.len()), (3, 16, 0));
    assert!(!studio.path().join(VERSION_DIR).exists());
    assert_eq!(trash(&studio), inside(&manifest, 1000, &["a", "b/one", "b/two"]));
    let all = entries(&studio.project).unwrap();
    assert_eq!((all.len(), all[0].came_ms, all[0].cause), (1, 1000, Cause::Dropped));
    assert_eq!(all[0].bytes(&studio.project).unwrap(), 16);
    let again = discard(&studio.project, &manifest, &known, 1000).unwrap();
    assert_eq!(again, Discarded::default(), "there is nothing any more");
}

#[test]
fn what_the_manifest_does_not_name_and_what_changed_stays() {
    let mut studio = Studio::new();
    let (manifest, known) = placed(&mut studio);
    let at = studio.path().join(VERSION_DIR);
    write(&studio, "b/mine.psd", b"weeks of work");
    write(&studio, "b/two", b"another second");
    let moved = discard(&studio.project, &manifest, &known, 1000).unwrap();
    assert_eq!((moved.files, moved.left), (2, vec!["b/two".parse().unwrap()]));
    assert_eq!(fs::read(at.join("b/mine.psd")).unwrap(), b"weeks of work");
    assert_eq!(fs::read(at.join("b/two")).unwrap(), b"another second");
    assert!(!at.join("a").exists() && !at.join("b/one").exists());
    assert_eq!(trash(&studio), inside(&manifest, 1000, &["a", "b/one"]));
}

#[test]
fn empty_directories_go_and_links_are_nobodys_version() {
    let mut studio = Studio::new();
    let (manifest, known) = placed(&mut studio);
    let at = studio.path().join(VERSION_DIR);
    std::os::unix::fs::symlink("b/one", at.join("link")).unwrap();
    discard(&studio.project, &manifest, &known, 1000).unwrap();
    assert!(at.join("link").symlink_metadata().is_ok() && !at.join("b").exists());
    fs::remove_file(at.join("link")).unwrap();
    let (manifest, known) = placed(&mut studio);
    fs::create_dir(at.join("empty")).unwrap();
    discard(&studio.project, &manifest, &known, 1000).unwrap();
    assert!(!at.join("a").exists());
    assert_eq!(entries(&studio.project).unwrap().len(), 2, "the second drop has a name of its own");
}

#[test]
fn a_file_that_came_into_the_directory_as_it_went_is_put_back() {
    let mut studio = Studio::new();
    let (manifest, known) = placed(&mut studio);
    let (project, at) = (studio.project.clone(), studio.path().join(VERSION_DIR));
    let name: RelPath = path_of(&format!("{TRASH}/{}.7", manifest.id()));
    project.create_dirs(&path_of(TRASH)).unwrap();
    write(&studio, "b/late", b"late");
    fs::rename(&at, studio.path().join(name.as_str())).unwrap();
    let discarding = Discarding { project: &project, manifest: &manifest, known: &known };
    assert!(discarding.put_back(&name).unwrap().is_empty());
    assert_eq!(fs::read(at.join("b/late")).unwrap(), b"late");
    assert!(!at.join("a").exists());
}

#[test]
fn the_trash_of_a_hero_tells_its_age_by_its_directories() {
    let studio = Studio::new();
    let id = "7".repeat(64);
    write_at(&studio, &format!("{TRASH}/{id}/sub/old.abc"), b"old");
    studio.project.set_mtime(&path_of(&format!("{TRASH}/{id}/sub/old.abc")), 5).unwrap();
    fs::create_dir_all(studio.path().join(TRASH).join("notes")).unwrap();
    let all = entries(&studio.project).unwrap();
    assert_eq!((all.len(), all[0].cause), (1, Cause::Replaced));
    let dir = studio.project.stat(&path_of(&format!("{TRASH}/{id}/sub"))).unwrap().unwrap();
    assert_eq!(i128::from(all[0].came_ms), i128::from(dir.mtime_ns / 1_000_000), "not the file's own time");
    all[0].remove(&studio.project).unwrap();
    assert!(entries(&studio.project).unwrap().is_empty());
    assert!(studio.path().join(TRASH).join("notes").exists());
}
