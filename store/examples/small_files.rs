//! What it costs to receive many small files: the ways to make them durable, and each step of a version from its area to
//! its place. `cargo run --release -p avalon-store --example small_files -- DIR FILES [receive]`, the last to leave out the
//! ways; medians of five rounds, alternating.
//!
//! A sync of a volume also writes what others left dirty on it: every round begins with one that is not counted.

#![expect(clippy::disallowed_methods, clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use avalon_protocol::{
    hash::ObjectHash,
    id::{VersionId, VersionSlot},
    manifest::{Completeness, FileEntry, Manifest, ManifestDraft, Representation},
};
use avalon_store::{
    fs::Dir,
    object::incoming::Incoming,
    place::{PlaceOptions, place},
};
use rayon::prelude::*;
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

const ROUNDS: usize = 5;
const BYTES_EACH: usize = 8 << 10;
/// As many as bring one version.
const STREAMS: usize = 4;

type Times = BTreeMap<(usize, &'static str), Vec<f64>>;

fn main() {
    let mut args = std::env::args().skip(1);
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let files = args.next().and_then(|files| files.parse().ok()).unwrap_or(2_000_u32);
    let ways = if args.next().is_some() { &[][..] } else { &WAYS };
    let contents: Vec<Vec<u8>> = (0..u64::from(files)).map(content).collect();
    let mut times = Times::new();
    // Removed at the end: ext4 creates files slowly, each after a search, where many were deleted in the last minutes.
    let mut kept = Vec::new();
    for _ in 0..ROUNDS {
        for (at, (name, sync)) in (0..).zip(ways) {
            kept.push(sync_round(&base, &contents, (at, name), *sync, &mut times));
        }
        kept.push(receive_round(&base, &contents, &mut times));
    }
    println!("{files} files of {BYTES_EACH} bytes: median s, files/s, ratio to the first");
    let median = |times: &[f64]| {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let first = times.values().next().map_or(f64::NAN, |times| median(times));
    for ((_, name), times) in &times {
        let seconds = median(times);
        println!("{name:36} {seconds:8.3} {:10.0} {:8.3}", f64::from(files) / seconds, seconds / first);
    }
}

fn content(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; BYTES_EACH];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

type Sync = fn(&Dir, &Path, usize);

/// The ways to make many files in one directory durable.
const WAYS: [(&str, Sync); 4] = [
    ("sync: fsync each, in turn", |dir, path, files| {
        (0..files).for_each(|file| open(path, file).sync_all().expect("fsync"));
        dir.sync().expect("fsync of a directory");
    }),
    ("sync: fsync each, on all threads", |dir, path, files| {
        (0..files).into_par_iter().for_each(|file| open(path, file).sync_all().expect("fsync"));
        dir.sync().expect("fsync of a directory");
    }),
    ("sync: begin writing all, fsync each", |dir, path, files| {
        // Begins to write what is dirty, as sync_file_range does.
        for file in 0..files {
            fadvise(open(path, file), 0, None, Advice::DontNeed).expect("fadvise");
        }
        (0..files).for_each(|file| open(path, file).sync_all().expect("fsync"));
        dir.sync().expect("fsync of a directory");
    }),
    ("sync: syncfs once", |dir, _, _| dir.sync_filesystem().expect("syncfs")),
];

fn open(path: &Path, file: usize) -> File {
    File::open(path.join(format!("{file}"))).expect("it was just made")
}

fn sync_round(
    base: &Path,
    contents: &[Vec<u8>],
    key: (usize, &'static str),
    sync: Sync,
    times: &mut Times,
) -> TempDir {
    let temp = tempfile::tempdir_in(base).expect("room");
    let dir = Dir::open(temp.path()).expect("it was just made");
    dir.sync_filesystem().expect("syncfs");
    for (file, content) in contents.iter().enumerate() {
        let mut made = File::create(temp.path().join(format!("{file}"))).expect("room");
        std::io::Write::write_all(&mut made, content).expect("room");
    }
    timed(times, key, || sync(&dir, temp.path(), contents.len()));
    temp
}

fn receive_round(base: &Path, contents: &[Vec<u8>], times: &mut Times) -> TempDir {
    let temp = tempfile::tempdir_in(base).expect("room");
    let project = Dir::open(temp.path()).expect("it was just made");
    let manifest = manifest(contents);
    project.sync_filesystem().expect("syncfs");
    let whole = Instant::now();
    let incoming = timed(times, (10, "open"), || Incoming::open(&project, manifest).expect("open"));
    timed(times, (11, "needs, reserve"), || {
        assert_eq!(incoming.needs().len(), contents.len());
        incoming.reserve().expect("room");
    });
    timed(times, (12, "write_block, 4 threads"), || {
        std::thread::scope(|scope| {
            for some in contents.chunks(contents.len().div_ceil(STREAMS)) {
                let incoming = &incoming;
                scope.spawn(move || {
                    for content in some {
                        incoming.write_block(&ObjectHash::of(content), 0, content).expect("it verifies");
                    }
                });
            }
        });
    });
    let verified = timed(times, (13, "finish, with its sync"), || incoming.finish().expect("finish"));
    timed(times, (14, "place"), || place(verified, &PlaceOptions::default()).expect("place"));
    times.entry((15, "receive, all steps")).or_default().push(whole.elapsed().as_secs_f64());
    temp
}

fn timed<T>(times: &mut Times, key: (usize, &'static str), work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let answer = work();
    times.entry(key).or_default().push(start.elapsed().as_secs_f64());
    answer
}

fn manifest(contents: &[Vec<u8>]) -> Arc<Manifest> {
    let entry = |(number, content): (usize, &Vec<u8>)| FileEntry {
        path: format!("model.{number:06}.exr").parse().expect("a path"),
        size: content.len() as u64,
        hash: ObjectHash::of(content),
        mtime_ns: 1_700_000_000_123_456_789,
        representation: 0,
    };
    let files: Vec<FileEntry> = contents.iter().enumerate().map(entry).collect();
    let draft = ManifestDraft {
        version: VersionId {
            project: "lantern".parse().expect("a name"),
            asset: "robot".parse().expect("a name"),
            subset: "model".parse().expect("a name"),
            slot: VersionSlot::Number(1),
        },
        silo: None,
        generation: 1,
        predecessor: None,
        dir: "assets/robot/publish/model/v001".parse().expect("a path"),
        representations: vec![Representation {
            name: "exr".parse().expect("a name"),
            entry: files.first().expect("there are some").path.clone(),
        }],
        files,
        completeness: Completeness::Explicit,
        author: "anna".into(),
        comment: String::new(),
        published_at_ms: 1,
        inputs: Vec::new(),
        metadata: BTreeMap::default(),
    };
    Arc::new(draft.finish().expect("a manifest"))
}
