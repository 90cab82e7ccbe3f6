//! An attacked node: how much an honest peer still gets of it, how much memory it takes, and whether anything is written where
//! it must not be.
//!
//! Two real daemons on loopback. The honest one pulls a large file of the attacked one, in turns without and with the attack, so
//! that the machine's other business falls on both. The attack is a process of its own ([`attack`]) at the lowest priority and
//! paced: what it makes the daemons do is to be measured, not what it takes of two cores itself.

#![expect(clippy::disallowed_methods, reason = "real processes live in real time")]

pub mod attack;
mod half_open;
mod peers;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use avalon_protocol::hash::ObjectHash;
use serde::Serialize;

use self::attack::Plan;
use crate::{
    bench::{
        contender::{Contender as _, Load, Round},
        cpu::peak_bytes,
        ends::{Ends, settle_disk, until},
        ours::{Ours, publish, write_version},
    },
    daemons::{PATIENCE, PROJECT, Programs, Studio, now, tree},
};

/// How much of its throughput the honest peer must keep.
pub const LEAST_SHARE: f64 = 0.8;
/// The most memory that the attacked daemon may have, in MiB: what it has without an attack, and 128 for one connection's window.
pub const MOST_RSS_MIB: u64 = 400;

/// How long the attack is under way before something is measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// How much is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often the honest peer pulls without and with the attack.
    pub rounds: usize,
    /// What it pulls each time, in MiB.
    pub mib: u64,
    /// Connections that are left half open.
    pub half_open: usize,
    /// Keep the log of the attack, for people.
    pub verbose: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The honest peer's medians, in MiB/s.
    pub alone_mib_s: f64,
    /// With the attack.
    pub attacked_mib_s: f64,
    /// One by the other.
    pub share: f64,
    /// The most memory of the attacked daemon, in MiB, before the first attack.
    pub rss_before_mib: u64,
    /// At the end.
    pub rss_mib: u64,
    /// The most memory of the honest peer's daemon, on whose tree links were raced, in MiB.
    pub honest_rss_mib: u64,
    /// How often a directory was exchanged for a link while files were written into it.
    pub flips: u64,
    /// Pulls into those directories that were tried.
    pub raced_pulls: usize,
    /// What the attack did, as it counted it.
    pub attack: attack::Counts,
    /// Whether all that lies beside the roots is as it was.
    pub canary_unchanged: bool,
    /// Nodes that the attacked daemon kept off at the end.
    pub kept_off: usize,
}

impl Report {
    /// Returns what is not as it must be; `with_share` says whether throughput counts.
    pub fn faults(&self, with_share: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if with_share && self.share < LEAST_SHARE {
            faults.push(format!("the honest peer kept {:.2} of its throughput", self.share));
        }
        for (whose, mib) in [("attacked", self.rss_mib), ("honest", self.honest_rss_mib)] {
            if mib > MOST_RSS_MIB {
                faults.push(format!("the {whose} daemon had {mib} MiB"));
            }
        }
        if !self.canary_unchanged {
            faults.push("something was written beside the roots".into());
        }
        faults
    }
}

/// The attack's process; it ends with this.
struct Attack {
    child: Child,
    counts: PathBuf,
}

impl Attack {
    fn start(program: &Path, dir: &Path, plan: &Plan, verbose: bool) -> Self {
        let (plan_file, counts) = (dir.join("plan.json"), dir.join("counts.json"));
        fs::write(&plan_file, serde_json::to_string(plan).unwrap()).unwrap();
        fs::remove_file(&counts).ok();
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program).arg("attack").arg(plan_file).arg(&counts);
        let out = if verbose { Stdio::inherit() } else { Stdio::null() };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).spawn().unwrap();
        Self { child, counts }
    }

    fn counts(&self) -> attack::Counts {
        let text = fs::read_to_string(&self.counts).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs all; `program` is the one that has the command `attack`.
///
/// # Panics
/// When an honest pull does not come to its end.
pub fn run(programs: Programs, program: &Path, options: &Options) -> Report {
    let (studio, ends) = (Studio::new(programs), Ends::loopback());
    let mut ours = Ours::start(&studio, &ends);
    let canary = Canary::plant(&ours);
    let load = Load { files: 1, bytes_each: options.mib << 20 };
    let mut plan = plan(&studio, &mut ours, options);
    let rss = |ours: &mut Ours<'_>| {
        let servers = ours.servers();
        [peak_bytes(servers[0]).unwrap_or(0) >> 20, peak_bytes(servers[1]).unwrap_or(0) >> 20]
    };
    let (mut alone, mut attacked, mut total) = (Vec::new(), Vec::new(), attack::Counts::default());
    let (mut before, mut raced_pulls) = (0, 0);
    for round in 0..2 * options.rounds {
        let number = round + 1;
        let source = ours.prepare(number, number as u64, load);
        settle_disk();
        let is_attacked = round % 2 == 1;
        if round == 1 {
            before = rss(&mut ours)[0];
        }
        let attack = is_attacked.then(|| {
            plan.flip = vec![race(&studio, &ours, number)];
            let attack = Attack::start(program, studio.dir(), &plan, options.verbose);
            assert!(until(PATIENCE, || attack.counts().half_open > 0), "the attack is under way");
            std::thread::sleep(WARM_UP);
            ours.near.api().pull(&format!("{PROJECT}:bomb/cache@v001")).ok();
            attack
        });
        let target = ours.far.path("unused");
        let fetch = Round { number, source: &source, target, load, limit: Duration::from_secs(300) };
        let time = ours.fetch(&fetch).expect("the honest pull comes to its end");
        if is_attacked {
            attacked.push(time)
        } else {
            alone.push(time)
        }
        if let Some(attack) = attack {
            raced_pulls += pull_while_it_flips(&ours, number);
            total.add(&attack.counts());
        }
    }
    let (alone, attacked) = (mib_s(load, &mut alone), mib_s(load, &mut attacked));
    let [rss_mib, honest_rss_mib] = rss(&mut ours);
    Report {
        alone_mib_s: alone,
        attacked_mib_s: attacked,
        share: attacked / alone,
        rss_before_mib: before,
        rss_mib,
        honest_rss_mib,
        flips: total.flips,
        raced_pulls,
        attack: total,
        canary_unchanged: canary.is_unchanged(),
        kept_off: ours.near.api().status().peers.iter().filter(|peer| peer.detail.is_some()).count(),
    }
}

fn mib_s(load: Load, times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let median = times.get(times.len() / 2).map_or(f64::NAN, Duration::as_secs_f64);
    (load.bytes() >> 20) as f64 / median
}

/// Makes stolen identities and says where to go with them.
fn plan(studio: &Studio, ours: &mut Ours<'_>, options: &Options) -> Plan {
    let issue = |node: &str| {
        let dir = studio.dir().join(node.replace('@', "-"));
        studio.issue(node, &dir, now());
        dir
    };
    let foreign = Studio::named(studio.programs().clone(), "strangers");
    let stranger = studio.dir().join("stranger");
    foreign.issue("nobody@nowhere", &stranger, now());
    // Something for those that take byte by byte.
    let load = Load { files: 1, bytes_each: 32 << 20 };
    let dir = write_version(&ours.near, "bait", 4711, load);
    publish(&ours.near, &ours.far, studio, "bait", "v001");
    let bait = fs::read(dir.join("bait.abc")).unwrap();
    Plan {
        address: ours.near.listen().parse().unwrap(),
        near: ours.near.config.node.clone(),
        slow: issue("slow@home"),
        liars: (0..peers::LIES).map(|number| issue(&format!("liar{number}@home"))).collect(),
        bomb: issue("bomb@home"),
        stranger,
        bait: ObjectHash::of(&bait).to_string(),
        bait_bytes: bait.len() as u64,
        half_open: options.half_open,
        flip: Vec::new(),
        canary: studio.dir().join("canary"),
    }
}

/// Publishes small files at the attacked node, and returns the directory at the honest one in which they will land.
fn race(studio: &Studio, ours: &Ours<'_>, number: usize) -> PathBuf {
    let subset = format!("race{number}");
    write_version(&ours.near, &subset, number as u64, Load { files: 200, bytes_each: 4000 });
    publish(&ours.near, &ours.far, studio, &subset, "v001");
    ours.far.path(&format!("assets/robot/publish/{subset}"))
}

/// Pulls into a directory that is exchanged for a link meanwhile; whether that succeeds does not matter.
fn pull_while_it_flips(ours: &Ours<'_>, number: usize) -> usize {
    let reference = format!("{PROJECT}:robot/race{number}@v001");
    let start = Instant::now();
    let mut pulls = 0;
    while start.elapsed() < WARM_UP && pulls < 20 {
        let Ok(_) = ours.far.api().pull(&reference) else { break };
        pulls += 1;
        let is_over = || {
            ours.far.api().jobs().iter().all(|job| job.state.is_final() || !job.reference.contains("race"))
        };
        until(Duration::from_secs(1), is_over);
    }
    pulls
}

/// Files beside the roots of both nodes, to which nobody may write.
struct Canary {
    dirs: Vec<PathBuf>,
    seen: Vec<Vec<(PathBuf, Option<blake3::Hash>)>>,
}

impl Canary {
    fn plant(ours: &Ours<'_>) -> Self {
        let shared = ours.near.config.dir.parent().unwrap().join("canary");
        let dirs = vec![shared, ours.near.config.dir.join("beside"), ours.far.config.dir.join("beside")];
        for dir in &dirs {
            tree::write(&dir.join("bird"), b"sings");
            tree::write(&dir.join("v001/cage.abc"), b"closed");
        }
        let seen = dirs.iter().map(|dir| everything(dir)).collect();
        Self { dirs, seen }
    }

    fn is_unchanged(&self) -> bool {
        self.dirs.iter().zip(&self.seen).all(|(dir, seen)| everything(dir) == *seen)
    }
}

/// Returns every name beneath a directory, with the hash of what is a file.
fn everything(dir: &Path) -> Vec<(PathBuf, Option<blake3::Hash>)> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().map(Result::unwrap);
    entries
        .map(|entry| {
            let content = entry.file_type().is_file().then(|| fs::read(entry.path()).unwrap());
            (entry.path().to_owned(), content.map(|content| blake3::hash(&content)))
        })
        .collect()
}
