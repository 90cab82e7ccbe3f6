//! From `avalonctl publish` to loadable at the mirror, on loopback, for a version of 10 MB.
//!
//! Measured from the start of the `avalonctl` process to the moment when the version's entry can be opened at the mirror; by
//! then it is verified and durable at both ends. The baseline writes the same bytes twice to the same disk, each with fsync:
//! what a perfect replication would pay for the disks alone.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use avalon_protocol::mode::ProjectMode;
use serde_json::json;

use super::{programs, spread};
use crate::daemons::{Studio, tree};

/// Decimal, as the issue says it.
const VERSION_BYTES: u64 = 10_000_000;
const ROUNDS: usize = 21;
/// A round that takes longer than this has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs the shape and prints its figures.
pub fn run() -> ExitCode {
    let links = tempfile::tempdir().expect("a directory for links");
    let studio = Studio::new(programs(links.path()));
    let mut london = studio.node("ws1@london", ProjectMode::OnDemand);
    london.start();
    let montreal = studio.mirror("srv@montreal", &[&london]);
    montreal.until_connected("ws1@london");

    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        baseline.push(write_twice(studio.dir(), round));
        let inside = format!("assets/robot/publish/model/v{round:03}");
        tree::write_noise(&london.path(&inside).join("model.abc"), round as u64, VERSION_BYTES);
        let entry = montreal.path(&inside).join("model.abc");
        let start = Instant::now();
        let mut publish = Command::new(&studio.programs().avalonctl)
            .arg("--socket")
            .arg(&london.config.socket)
            .args(["--quiet", "publish"])
            .arg(london.path(&inside))
            .spawn()
            .expect("avalonctl starts");
        while File::open(&entry).is_err() {
            assert!(start.elapsed() < LIMIT, "the version did not come; montreal says:\n{}", montreal.log());
            std::thread::yield_now();
        }
        ours.push(start.elapsed());
        assert!(publish.wait().expect("avalonctl ends").success());
    }
    print(&ours, &baseline);
    ExitCode::SUCCESS
}

fn write_twice(dir: &Path, round: usize) -> Duration {
    let bytes = tree::noise(round as u64, VERSION_BYTES as usize);
    let start = Instant::now();
    for copy in ["one", "two"] {
        let path = dir.join(format!("baseline-{round}-{copy}"));
        let mut file = File::create(path).expect("the disk has room");
        file.write_all(&bytes).and_then(|()| file.sync_all()).expect("the disk has room");
    }
    start.elapsed()
}

fn print(ours: &[Duration], baseline: &[Duration]) {
    let (median, least, most) = spread(ours);
    let (base, base_least, base_most) = spread(baseline);
    println!("publish to loadable at the mirror, 10 MB, loopback, {ROUNDS} rounds");
    println!("{:<34} {:>9} {:>9} {:>9}", "", "median ms", "least", "most");
    let row = |name: &str, a: f64, b: f64, c: f64| {
        println!("{name:<34} {:>9.1} {:>9.1} {:>9.1}", a * 1e3, b * 1e3, c * 1e3);
    };
    row("avalonctl publish -> loadable", median, least, most);
    row("10 MB written twice, fsync each", base, base_least, base_most);
    let line = json!({
        "schema": "avalon.bench/1",
        "shape": "latency",
        "ours": { "seconds": median, "least": least, "most": most },
        "baselines": { "write-twice": { "seconds": base, "least": base_least, "most": base_most } },
        "ratio": { "write-twice": median / base },
    });
    println!("{line}");
}
