use std::collections::BTreeMap;

use super::*;
use crate::{
    hash::ObjectHash,
    manifest::{Completeness, FileEntry, ManifestDraft, Representation},
    settle::EndMark,
};

const PUBLISHED_MS: u64 = 1_763_800_000_000;

fn draft(files: &[(&str, u64)]) -> ManifestDraft {
    let mut files: Vec<FileEntry> = files
        .iter()
        .map(|(path, size)| FileEntry {
            path: path.parse().unwrap(),
            size: *size,
            hash: ObjectHash::of(path.as_bytes()),
            mtime_ns: i64::try_from(PUBLISHED_MS).unwrap() * 1_000_000,
            representation: 0,
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    ManifestDraft {
        version: crate::id::VersionId {
            project: "lantern".parse().unwrap(),
            asset: "sh010".parse().unwrap(),
            subset: "beauty".parse().unwrap(),
            slot: "v001".parse().unwrap(),
        },
        silo: None,
        generation: 1,
        predecessor: None,
        dir: "film/sh010/publish/beauty/v001".parse().unwrap(),
        representations: vec![Representation {
            name: "exr".parse().unwrap(),
            entry: files.first().unwrap().path.clone(),
        }],
        files,
        completeness: Completeness::Explicit,
        author: "anna".into(),
        comment: String::new(),
        published_at_ms: PUBLISHED_MS,
        inputs: Vec::new(),
        metadata: BTreeMap::new(),
    }
}

fn told(draft: ManifestDraft) -> Vec<String> {
    let manifest = draft.finish().unwrap();
    problems(&manifest, &BTreeSet::new(), &|_| false).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(files: &[(&str, u64)], expected: &[&str]) {
    assert_eq!(told(draft(files)), expected);
}

/// Frames of 10 kB.
fn frames(name: &str, numbers: impl IntoIterator<Item = u32>) -> Vec<(String, u64)> {
    numbers.into_iter().map(|frame| (name.replace('#', &format!("{frame:04}")), 10_000)).collect()
}

fn borrowed(files: &[(String, u64)]) -> Vec<(&str, u64)> {
    files.iter().map(|(name, size)| (name.as_str(), *size)).collect()
}

#[test]
fn a_whole_sequence_and_tiles_with_holes_are_well() {
    check(&borrowed(&frames("beauty.exr/beauty.#.exr", 1001..=1024)), &[]);
    check(&borrowed(&frames("tex/skin.#.exr", [1001, 1002, 1011, 1012])), &[]);
    // Tiles by the family: the rule for numbers alone would take them for frames.
    let mut tiles = draft(&borrowed(&frames("tex/skin.#.exr", [1001, 1003, 1012])));
    assert_eq!(told(tiles.clone()).len(), 1);
    tiles.metadata = [("families".into(), "look, textures".into())].into();
    assert_eq!(told(tiles), [""; 0]);
}

#[test]
fn frames_that_are_missing_are_named() {
    let files = frames("beauty.#.exr", (1001..=1003).chain(1006..=1010));
    check(
        &borrowed(&files),
        &["warning[missing-frames]: frames 1004-1005 of beauty.[1001-1010].exr are missing"],
    );
}

#[test]
fn frames_are_compared_with_what_the_pipeline_says_there_are() {
    for (first, last) in [("startFrame", "endFrame"), ("frameStart", "frameEnd")] {
        let mut short = draft(&borrowed(&frames("beauty.#.exr", 1001..=1009)));
        short.metadata = [(first.into(), "1001".into()), (last.into(), "1010.0".into())].into();
        let said = "warning[missing-frames]: beauty.[1001-1009].exr has frames 1001 to 1009; the version is said to have 1001 to 1010";
        assert_eq!(told(short.clone()), [said]);
        short.metadata.insert(last.into(), "1009".into());
        assert_eq!(told(short), [""; 0]);
    }
    // On twos, the last of the range need not be there; handles go beyond.
    let mut twos = draft(&borrowed(&frames("beauty.#.exr", (999..=1009).step_by(2))));
    twos.metadata = [("startFrame".into(), "1001".into()), ("endFrame".into(), "1010".into())].into();
    assert_eq!(told(twos), [""; 0]);
}

#[test]
fn layers_that_end_early_are_told() {
    let mut files = frames("z/beauty.#.exr", 1001..=1010);
    files.extend(frames("z/depth.#.exr", 1001..=1009));
    files.extend(frames("other/small.#.exr", 1..=3));
    check(
        &borrowed(&files),
        &[
            "warning[frames-differ]: z/depth.[1001-1009].exr has other frames than z/beauty.[1001-1010].exr beside it",
        ],
    );
}

#[test]
fn a_frame_that_is_far_smaller_is_odd_and_a_fade_is_not() {
    let mut files = frames("beauty.#.exr", 1001..=1010);
    files[3].1 = 999;
    let said = "warning[odd-size]: beauty.1004.exr is far smaller than the other frames, 999 bytes where half of them \
                have 10000 or more: likely broken";
    check(&borrowed(&files), &[said]);
    files[3].1 = 1000;
    check(&borrowed(&files), &[]);
    files[..3].iter_mut().for_each(|file| file.1 = 10);
    check(&borrowed(&files), &[]);
}

#[test]
fn files_without_bytes_are_told_and_markers_are_not() {
    check(
        &[("a.abc", 0), ("b.abc", 0), ("c.abc", 5), ("__init__.py", 0), (".done", 0)],
        &["error[empty-file]: a.abc and 1 more have no bytes: nobody can open them"],
    );
}

#[test]
fn names_that_break_elsewhere_are_told() {
    check(
        &[("a file.abc", 5), ("b.abc", 5)],
        &[
            "note[name-characters]: a file.abc has characters that shells, farms and scene files may read as something else",
        ],
    );
    check(
        &[("-rf.abc", 5)],
        &[
            "note[name-characters]: -rf.abc has characters that shells, farms and scene files may read as something else",
        ],
    );
    check(
        &borrowed(&[frames("Beauty.#.exr", 1001..=1002), frames("beauty.#.exr", 1003..=1004)].concat()),
        &[
            "warning[name-case]: Beauty.####.exr and beauty.####.exr differ only in case: Linux takes them for two sequences, \
           Windows and macOS for one",
        ],
    );
    let mixed = [("fx.1.vdb", 5), ("fx.0002.vdb", 5)];
    let padding = told(draft(&mixed));
    assert!(padding.len() == 1 && padding[0].starts_with("warning[frame-padding]: "), "{padding:?}");
    let long = "x".repeat(190);
    let said = told(draft(&[(long.as_str(), 5)]));
    assert!(said.len() == 1 && said[0].starts_with("warning[long-path]: "), "{said:?}");
    check(&[("x".repeat(170).as_str(), 5)], &[]);
}

#[test]
fn times_after_the_publish_are_told_beyond_what_clocks_differ_by() {
    let mut late = draft(&[("a.abc", 5), ("b.abc", 5)]);
    late.files[1].mtime_ns += 5 * 60 * 1_000_000_000;
    assert_eq!(told(late.clone()), [""; 0]);
    late.files[1].mtime_ns += 3600 * 1_000_000_000;
    let said = "warning[future-time]: b.abc was changed 65 minutes after the version was published: whoever compares times \
                takes the file for new";
    assert_eq!(told(late), [said]);
}

#[test]
fn inputs_that_nobody_published_are_told_until_somebody_does() {
    let mut made = draft(&[("a.ma", 5)]);
    made.inputs = vec!["robot/rig@v001".into(), "/mnt/wood.exr".into(), "robot/ghost@v003".into()];
    let mut note = Note::default();
    note.add("robot/ghost@v003");
    note.put(MISSING_INPUT, &mut made.metadata);
    let manifest = made.finish().unwrap();
    let told = |known: bool| -> Vec<String> {
        problems(&manifest, &BTreeSet::new(), &|_| known).iter().map(ToString::to_string).collect()
    };
    let path = "warning[missing-input]: it was made from /mnt/wood.exr, which is not published: others cannot fetch that";
    let reference = "warning[missing-input]: it was made from robot/ghost@v003, which nobody has published";
    assert_eq!(told(false), [path, reference]);
    assert_eq!(told(true), [path]);
}

#[test]
fn what_the_publisher_noted_is_told_and_a_note_from_elsewhere_is_nothing() {
    let mut noted = draft(&[("a.jpg", 5)]);
    let mut note = Note::default();
    (0..20).for_each(|index| note.add(&format!("{index}.jpg{}", "x".repeat(2000))));
    note.put(TRUNCATED_FILE, &mut noted.metadata);
    note.put(NAME_OFF_TEMPLATE, &mut noted.metadata);
    let said = told(noted.clone());
    assert!(
        said[0].starts_with("error[truncated-file]: 0.jpg") && said[0].contains("and 19 more"),
        "{said:?}"
    );
    assert!(said[1].starts_with("note[name-off-template]: 0.jpg"), "{said:?}");
    for hostile in [
        "",
        "[]",
        "{\"count\":0,\"first\":[]}",
        "{\"count\":0,\"first\":[\"a\"]}",
        "{\"count\":9,\"first\":[]}",
    ] {
        for check in ALL {
            noted.metadata.insert(format!("{PREFIX}{}", check.code), hostile.into());
        }
        assert_eq!(told(noted.clone()), [""; 0], "{hostile}");
    }
}

#[test]
fn checks_that_are_off_find_nothing_and_many_finds_are_counted() {
    let manifest = draft(&[("a.abc", 0)]).finish().unwrap();
    assert_eq!(problems(&manifest, &["empty-file"].into(), &|_| false), []);
    let names: Vec<String> = (0..12).map(|layer| format!("layer{layer}_.#.exr")).collect();
    let files: Vec<(String, u64)> = names.iter().flat_map(|name| frames(name, [1, 2, 4])).collect();
    let said = told(draft(&borrowed(&files)));
    assert_eq!(said.len(), MAX_FOUND);
    assert!(said[7].ends_with("; and 4 more like it"), "{said:?}");
}

#[test]
fn codes_are_words_and_unique() {
    let codes: BTreeSet<&str> = ALL.iter().map(|check| check.code).collect();
    assert_eq!(codes.len(), ALL.len());
    assert!(codes.iter().all(|code| code.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
}

#[track_caller]
fn mark(name: &str, whole: &[u8], cut: usize) {
    let read = |bytes: &[u8]| length_mark(name, bytes.len() as u64, bytes, bytes);
    assert_eq!(read(whole), EndMark::Closed, "{name}");
    assert_eq!(read(&whole[..whole.len() - cut]), EndMark::Open, "{name}, {cut} bytes less");
    assert_eq!(read(b"(anything else)"), EndMark::Unknown, "{name}");
    for end in 0..whole.len() {
        read(&whole[..end]);
    }
}

#[test]
fn formats_that_say_how_long_they_are_show_when_they_are_cut() {
    mark("a.jpg", &[&[0xff, 0xd8, 0xff, 0xe0][..], &[0; 60], &[0xff, 0xd9], b"behind"].concat(), 7);
    let dpx = |magic: &[u8], length: [u8; 4]| [magic, &[0; 12], &length, &[0; 80]].concat();
    mark("a.dpx", &dpx(b"SDPX", 100u32.to_be_bytes()), 1);
    mark("a.DPX", &dpx(b"XPDS", 100u32.to_le_bytes()), 1);
    mark("a.tif", &[b"II*\0", &50u32.to_le_bytes()[..], &[0; 43]].concat(), 1);
    mark("a.tx", &[b"MM\0+\0\x08\0\0", &50u64.to_be_bytes()[..], &[0; 35]].concat(), 1);
    mark("a.wav", &[b"RIFF", &50u32.to_le_bytes()[..], &[0; 50]].concat(), 1);
    mark("a.usdz", &[b"PK\x03\x04".as_slice(), &[0; 50], b"PK\x05\x06", &[0; 18]].concat(), 19);
    let boxed = |name: &[u8], length: usize| {
        [&u32::try_from(length).unwrap().to_be_bytes()[..], name, &vec![0; length - 8]].concat()
    };
    mark("a.mov", &[boxed(b"ftyp", 20), boxed(b"mdat", 60), boxed(b"moov", 30)].concat(), 1);
    let large = [&1u32.to_be_bytes()[..], b"mdat", &40u64.to_be_bytes(), &[0; 24]].concat();
    mark("a.mp4", &[boxed(b"ftyp", 20), large].concat(), 1);
    assert!(!has_length_mark("a.abc") && has_length_mark("a.jpeg"));
}
