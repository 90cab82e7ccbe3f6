//! The attack: all of it at once, from one process with one thread for the network and one for links, paced so that it takes
//! little of the processor itself.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{half_open, peers};

/// Where to go, and with whose keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The attacked daemon.
    pub address: SocketAddr,
    /// Its node.
    pub near: String,
    /// A stolen identity that takes and gives byte by byte.
    pub slow: PathBuf,
    /// Those that send what is not allowed, each with a lie of its own first.
    pub liars: Vec<PathBuf>,
    /// One that offers content.
    pub bomb: PathBuf,
    /// An identity of another studio.
    pub stranger: PathBuf,
    /// An object that the attacked daemon serves.
    pub bait: String,
    /// Its length.
    pub bait_bytes: u64,
    /// How many connections are begun and left.
    pub half_open: usize,
    /// Directories that are exchanged for links.
    pub flip: Vec<PathBuf>,
    /// Where the links lead.
    pub canary: PathBuf,
}

/// What was done so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Handshakes that were begun and left.
    pub half_open: u64,
    /// Handshakes with a certificate of another studio.
    pub strangers: u64,
    /// Answers that are read byte by byte.
    pub slow_reads: u64,
    /// Requests and frames that are written byte by byte.
    pub slow_writes: u64,
    /// Frames that are too long, cut, or of no type.
    pub bad_frames: u64,
    /// Records that nobody signed, replayed ones, and manifests with paths that escape.
    pub forged: u64,
    /// Pieces that are far longer than they say.
    pub bombs: u64,
    /// Bytes that nobody asked for.
    pub flooded_bytes: u64,
    /// A directory became a link or the reverse.
    pub flips: u64,
}

impl Counts {
    /// Adds those of another attack.
    pub fn add(&mut self, other: &Self) {
        self.half_open += other.half_open;
        self.strangers += other.strangers;
        self.slow_reads += other.slow_reads;
        self.slow_writes += other.slow_writes;
        self.bad_frames += other.bad_frames;
        self.forged += other.forged;
        self.bombs += other.bombs;
        self.flooded_bytes += other.flooded_bytes;
        self.flips += other.flips;
    }
}

/// [`Counts`] while they grow.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) half_open: AtomicU64,
    pub(super) strangers: AtomicU64,
    pub(super) slow_reads: AtomicU64,
    pub(super) slow_writes: AtomicU64,
    pub(super) bad_frames: AtomicU64,
    pub(super) forged: AtomicU64,
    pub(super) bombs: AtomicU64,
    pub(super) flooded_bytes: AtomicU64,
    flips: AtomicU64,
}

impl Tally {
    fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            half_open: of(&self.half_open),
            strangers: of(&self.strangers),
            slow_reads: of(&self.slow_reads),
            slow_writes: of(&self.slow_writes),
            bad_frames: of(&self.bad_frames),
            forged: of(&self.forged),
            bombs: of(&self.bombs),
            flooded_bytes: of(&self.flooded_bytes),
            flips: of(&self.flips),
        }
    }
}

/// Counts one more.
pub(super) fn one(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Runs until it is killed, and keeps writing down what it did.
///
/// # Errors
/// When the plan cannot be read.
pub fn main(plan: &Path, counts: &Path) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let plan: Plan = serde_json::from_str(&fs::read_to_string(plan)?)?;
    let tally = Arc::new(Tally::default());
    for dir in plan.flip.clone() {
        let (canary, tally) = (plan.canary.clone(), Arc::clone(&tally));
        std::thread::spawn(move || flip(&dir, &canary, &tally));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let plan = Arc::new(plan);
    runtime.block_on(async {
        let local = tokio::task::LocalSet::new();
        local.spawn_local(half_open::half_open(Arc::clone(&plan), Arc::clone(&tally)));
        local.spawn_local(half_open::strangers(Arc::clone(&plan), Arc::clone(&tally)));
        local.spawn_local(peers::slow(Arc::clone(&plan), Arc::clone(&tally)));
        for number in 0..plan.liars.len() {
            local.spawn_local(peers::liar(Arc::clone(&plan), Arc::clone(&tally), number));
        }
        local.spawn_local(peers::bomb(Arc::clone(&plan), Arc::clone(&tally)));
        local
            .run_until(async {
                loop {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    let next = counts.with_extension("next");
                    let text = serde_json::to_string(&tally.counts()).unwrap_or_default();
                    fs::write(&next, text).ok();
                    fs::rename(&next, counts).ok();
                }
            })
            .await;
    });
    Ok(ExitCode::SUCCESS)
}

/// Exchanges a directory for a link to the canary and back, as fast as a few hundred times a second.
fn flip(dir: &Path, canary: &Path, tally: &Tally) {
    static STOP: AtomicBool = AtomicBool::new(false);
    let aside = dir.with_extension("aside");
    fs::create_dir_all(dir).ok();
    while !STOP.load(Ordering::Relaxed) {
        if fs::rename(dir, &aside).is_ok() && std::os::unix::fs::symlink(canary, dir).is_ok() {
            one(&tally.flips);
        }
        std::thread::sleep(Duration::from_millis(1));
        if fs::symlink_metadata(dir).is_ok_and(|found| found.is_symlink()) {
            fs::remove_file(dir).ok();
        }
        if fs::symlink_metadata(dir).is_err() && fs::rename(&aside, dir).is_ok() {
            one(&tally.flips);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
