//! The command line of the harnesses.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use nix::libc;

use super::{
    crash_points::{self, Way},
    kills,
    report::Report,
    scenario::Scenario,
    trace::{FOLLOW, Kind, LAUNCH, follow, launch},
    volume::FileSystem,
};
use crate::daemons::Programs;

const USAGE: &str = "\
usage: reliability HARNESS [--scenario NAME] [--every N] [--most N] [--runs N] [--seed N]
harnesses: kills          daemons are killed at random moments; --runs says how often
           crash-points   killed at each system call that changes the disk; --every N tries each N-th
           power-cuts     as crash-points, and the volume loses what was not synced: --fs ext4|xfs
           io-errors      calls fail with EIO: --kind write, ...; --every, --most
           no-space       calls fail with ENOSPC from the n-th on
scenarios: publish receive drop rebuild lifetime; all without the option
It needs Linux on x86_64, and for power cuts root, perl, mkfs.ext4 and mkfs.xfs.";

/// What the command line asks for.
struct Options {
    harness: String,
    scenarios: Vec<Scenario>,
    systems: Vec<FileSystem>,
    kinds: Vec<Kind>,
    every: u64,
    most: u64,
    runs: u64,
    seed: u64,
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
        runs: 100,
        seed: 1,
    };
    for pair in rest.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--scenario" => options.scenarios.retain(|scenario| scenario.name() == value),
            "--fs" => options.systems.retain(|system| format!("{system:?}").to_lowercase() == *value),
            "--kind" => options.kinds.retain(|kind| format!("{kind:?}").to_lowercase() == *value),
            "--every" => options.every = value.parse().ok().filter(|every| *every > 0)?,
            "--most" => options.most = value.parse().ok()?,
            "--runs" => options.runs = value.parse().ok()?,
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
    if options.harness == "power-cuts" && env::var_os(ALONE).is_none() {
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
        println!("{}", serde_json::to_string(&report).expect("plain data"));
        reports.push(report);
    };
    let each = |ways: &[Way], add: &mut dyn FnMut(Report)| {
        for scenario in &options.scenarios {
            for way in ways {
                add(crash_points::enumerate(programs, me, *scenario, *way, every, most));
            }
        }
    };
    match options.harness.as_str() {
        "kills" => add(kills::kills(programs, runs, seed)),
        "crash-points" => each(&[Way::Kill], &mut add),
        "power-cuts" => {
            for scenario in &options.scenarios {
                for system in &options.systems {
                    add(crash_points::sample(programs, me, *scenario, Way::Cut(*system), runs, seed));
                }
            }
        }
        "io-errors" => each(&failing(options, 1, libc::EIO), &mut add),
        "no-space" => each(&failing(options, u64::MAX, libc::ENOSPC), &mut add),
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
