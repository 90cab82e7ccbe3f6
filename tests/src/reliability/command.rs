//! The command line of the harnesses.

use std::{
    env,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use nix::libc;

use super::{
    bit_flips, catalog_damage,
    crash_points::{self, Way},
    full_disk::{self, Sizes},
    kills,
    report::Report,
    scenario::Scenario,
    scene::Mounted,
    soak::{self, soak},
    trace::{FOLLOW, Kind, LAUNCH, follow, launch},
    volume::FileSystem,
};
use crate::daemons::Programs;

const USAGE: &str = "\
usage: reliability HARNESS [--scenario NAME] [--every N] [--most N] [--runs N] [--seed N] [--ledger FILE]
harnesses: kills          daemons are killed at random moments: --runs kills
           crash-points   killed at each system call that changes the disk
           power-cuts     as crash-points, and the volume loses what was not synced: --fs ext4|xfs
           io-errors      each call fails once with EIO: --kind create|write|truncate|sync|rename|remove|attribute|read
           no-space       the volume, or that of the state alone, has less room than is needed: --runs sizes of each, --fs
           bit-flips      bits of published files, feeds, manifests, block lists and the catalog turn over: --runs flips
           catalog-damage the catalog is deleted, cut, overwritten, exchanged: --runs damages
           no-space-calls calls fail with ENOSPC from the n-th on: --kind create|write
           soak           three daemons work for --minutes N (60) while faults come and go; what they take is looked at: --cgroup MIB limits
                          the memory of all three (version 1, root), --samples FILE keeps each look
           Those that try each call in turn try each N-th with --every, the first with --most, some by chance with --runs,
           and one with --at N, as the message of a bad run names it; of bit-flips and catalog-damage a seed.
scenarios: publish receive drop rebuild lifetime; all without the option
Each prints a line of JSON, with its seed; --ledger adds it to a file too.
It needs Linux on x86_64; for power cuts, full disks and bit flips root, perl, filefrag, mkfs.ext4 and mkfs.xfs.";

/// How many runs a harness that cannot enumerate has, unless it is told.
const RUNS: u64 = 100;

/// What the command line asks for.
struct Options {
    harness: String,
    scenarios: Vec<Scenario>,
    systems: Vec<FileSystem>,
    kinds: Vec<Kind>,
    every: u64,
    most: u64,
    runs: Option<u64>,
    seed: u64,
    at: Option<u64>,
    ledger: Option<PathBuf>,
    minutes: f64,
    cgroup: Option<u64>,
    samples: Option<PathBuf>,
}

fn options(arguments: &[String]) -> Option<Options> {
    let (harness, rest) = arguments.split_first()?;
    let mut options = Options {
        harness: harness.clone(),
        scenarios: Scenario::ALL.to_vec(),
        systems: vec![FileSystem::Ext4, FileSystem::Xfs],
        kinds: Kind::ALL.to_vec(),
        every: 1,
        most: u64::MAX,
        runs: None,
        seed: 1,
        at: None,
        ledger: None,
        minutes: 60.0,
        cgroup: None,
        samples: None,
    };
    for pair in rest.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--scenario" => options.scenarios.retain(|scenario| scenario.name() == value),
            "--fs" => options.systems.retain(|system| format!("{system:?}").to_lowercase() == *value),
            "--kind" => options.kinds.retain(|kind| format!("{kind:?}").to_lowercase() == *value),
            "--every" => options.every = value.parse().ok().filter(|every| *every > 0)?,
            "--most" => options.most = value.parse().ok()?,
            "--runs" => options.runs = Some(value.parse().ok()?),
            "--at" => options.at = Some(value.parse().ok()?),
            "--minutes" => {
                options.minutes = value.parse().ok().filter(|minutes| (0.0..1e6).contains(minutes))?
            }
            "--cgroup" => options.cgroup = Some(value.parse().ok()?),
            "--samples" => options.samples = Some(value.into()),
            "--ledger" => options.ledger = Some(value.into()),
            "--seed" => options.seed = value.parse().ok()?,
            _ => return None,
        }
    }
    let is_empty = options.scenarios.is_empty() || options.systems.is_empty() || options.kinds.is_empty();
    (!is_empty).then_some(options)
}

/// Runs what the arguments ask for, without the program's own name.
pub fn main(arguments: &[String]) -> ExitCode {
    match arguments {
        [what, rest @ ..] if what == LAUNCH => return failed(&launch(rest)),
        [what, pid, plan, out] if what == FOLLOW => {
            return match follow(pid, Path::new(plan), Path::new(out)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error),
            };
        }
        _ => {}
    }
    let Some(options) = options(arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if matches!(options.harness.as_str(), "power-cuts" | "no-space" | "bit-flips")
        && env::var_os(ALONE).is_none()
    {
        return in_own_mounts(arguments);
    }
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir,
        Err(error) => return failed(&error.to_string()),
    };
    let me = env::current_exe().expect("this program has a path");
    let Some(reports) = run(&options, &programs(&me, dir.path()), &me) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if reports.iter().all(|report| report.bad == 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Set once the program is in a mount namespace of its own.
const ALONE: &str = "AVALON_RELIABILITY_ALONE";

/// Starts this program again where mounts are its own, so that nothing stays mounted however it ends.
fn in_own_mounts(arguments: &[String]) -> ExitCode {
    let me = env::current_exe().expect("this program has a path");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(me).args(arguments).env(ALONE, "1");
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => failed(&format!("unshare does not start: {error}")),
    }
}

/// Makes this program answer to the names of the daemon and the command line.
fn programs(me: &Path, dir: &Path) -> Programs {
    let named = |name: &str| -> PathBuf {
        let path = dir.join(name);
        std::os::unix::fs::symlink(me, &path).expect("a link in a fresh directory");
        path
    };
    Programs { avalond: named("avalond"), avalonctl: named("avalonctl") }
}

fn run(options: &Options, programs: &Programs, me: &Path) -> Option<Vec<Report>> {
    let Options { every, most, runs, seed, .. } = *options;
    let mut reports = Vec::new();
    let mut add = |report: Report| {
        let line = serde_json::to_string(&report).expect("plain data");
        println!("{line}");
        if let Some(ledger) = &options.ledger {
            let file = File::options().create(true).append(true).open(ledger);
            let written = file.and_then(|mut file| writeln!(file, "{line}"));
            written.unwrap_or_else(|error| eprintln!("{}: {error}", ledger.display()));
        }
        reports.push(report);
    };
    let each = |ways: &[Way], add: &mut dyn FnMut(Report)| {
        for scenario in &options.scenarios {
            for way in ways {
                add(match (options.at, runs) {
                    (Some(at), _) => crash_points::enumerate(programs, me, *scenario, *way, (at, every, at)),
                    (None, Some(runs)) => crash_points::sample(programs, me, *scenario, *way, runs, seed),
                    (None, None) => crash_points::enumerate(programs, me, *scenario, *way, (1, every, most)),
                });
            }
        }
    };
    match options.harness.as_str() {
        "kills" => add(kills::kills(programs, runs.unwrap_or(RUNS), seed)),
        "soak" => {
            let time = Duration::from_secs_f64(options.minutes * 60.0);
            let plan = soak::Plan { time, limit_mib: options.cgroup, samples: options.samples.clone() };
            add(soak(programs, &plan, seed));
        }
        "bit-flips" => add(bit_flips::bit_flips(programs, runs.unwrap_or(RUNS), seed, options.at)),
        "catalog-damage" => {
            add(catalog_damage::catalog_damage(programs, runs.unwrap_or(RUNS), seed, options.at))
        }
        "crash-points" => each(&[Way::Kill], &mut add),
        "power-cuts" => {
            let cuts: Vec<Way> = options.systems.iter().map(|system| Way::Cut(*system)).collect();
            each(&cuts, &mut add);
        }
        "io-errors" => each(&failing(options, 1, libc::EIO), &mut add),
        "no-space" => {
            for scenario in &options.scenarios {
                for mounted in options.systems.iter().flat_map(|on| [Mounted::All(*on), Mounted::State(*on)])
                {
                    let sizes = options.at.map_or(Sizes::Evenly(runs.unwrap_or(RUNS)), Sizes::Only);
                    add(full_disk::full_disk(programs, me, *scenario, mounted, sizes));
                }
            }
        }
        "no-space-calls" => each(&failing(options, u64::MAX, libc::ENOSPC), &mut add),
        _ => return None,
    }
    Some(reports)
}

/// Each kind of call that is asked for, as it fails; a full disk refuses what makes and what writes.
fn failing(options: &Options, count: u64, errno: i32) -> Vec<Way> {
    let takes_room = |kind: &Kind| matches!(kind, Kind::Create | Kind::Write);
    let kinds = options.kinds.iter().filter(|kind| errno != libc::ENOSPC || takes_room(kind));
    kinds.map(|kind| Way::Fail { kind: *kind, count, errno }).collect()
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("{reason}");
    ExitCode::FAILURE
}
