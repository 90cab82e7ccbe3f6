//! What it costs to make durable what an artist's program wrote and did not sync: the time of an explicit publish, against one
//! of files that their writer has synced, where nothing is left to be written.
//!
//! All in one daemon, alternating. The volume is synced before each version is written, so that only its own files are dirty.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use avalon_protocol::mode::ProjectMode;
use serde_json::json;

use super::{Options, contender::Load, programs, spread};
use crate::daemons::{Studio, daemon::Daemon, tree};

const LOADS: [(&str, Load); 5] = [
    ("one file of 1 MiB", Load { files: 1, bytes_each: 1 << 20 }),
    ("one file of 256 MiB", Load { files: 1, bytes_each: 256 << 20 }),
    ("15 files of 1 MiB, one by one", Load { files: 15, bytes_each: 1 << 20 }),
    ("16 files of 1 MiB, together", Load { files: 16, bytes_each: 1 << 20 }),
    ("1,000 files of 64 KiB, together", Load { files: 1000, bytes_each: 64 << 10 }),
];

/// Runs the shape and prints its figures.
pub fn run(options: &Options) -> ExitCode {
    let links = tempfile::tempdir().expect("a directory for links");
    let studio = Studio::new(programs(links.path()));
    let mut node = studio.node("ws1@london", ProjectMode::OnDemand);
    node.start();
    println!("\npublish: files that their writer did not sync, against files that it did");
    println!("{:<34} {:>12} {:>12} {:>8}", "", "unsynced s", "synced s", "ratio");
    let (mut version, mut rows) = (0, Vec::new());
    for (name, load) in LOADS {
        let (mut unsynced, mut synced) = (Vec::new(), Vec::new());
        // The first round warms up and is not counted.
        for round in 0..=options.rounds {
            for (times, is_synced) in [(&mut unsynced, false), (&mut synced, true)] {
                version += 1;
                let time = publish(&node, version, load, is_synced);
                if round > 0 {
                    times.push(time);
                }
            }
        }
        let (unsynced, synced) = (spread(&unsynced).0, spread(&synced).0);
        println!("{name:<34} {unsynced:>12.4} {synced:>12.4} {:>8.2}", unsynced / synced);
        rows.push(json!({"load": name, "unsynced_seconds": unsynced, "synced_seconds": synced}));
    }
    println!("{}", json!({ "schema": "avalon.bench/1", "shape": "publish", "ours": rows, "baselines": {} }));
    ExitCode::SUCCESS
}

fn publish(node: &Daemon, version: u64, load: Load, is_synced: bool) -> Duration {
    rustix::fs::sync();
    let dir = node.path(&format!("assets/robot/publish/model/v{version:03}"));
    for file in 0..load.files {
        let path = dir.join(format!("model.frames/a.{:04}.exr", 1001 + file));
        tree::write_noise(&path, version * 10_000 + file, load.bytes_each);
    }
    if is_synced {
        rustix::fs::sync();
    }
    let start = Instant::now();
    let published = node.api().publish(&dir);
    let time = start.elapsed();
    assert!(published.error.is_none(), "{published:?}");
    time
}
