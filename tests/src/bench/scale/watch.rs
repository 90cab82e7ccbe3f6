//! How large a tree one daemon watches: what a scan of it costs against `find`, what the daemon takes while nothing happens, and
//! whether what happened while the system's queue overflowed is found.

use std::{
    fs,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use avalon_protocol::{exit_code, mode::ProjectMode};
use rustix::process::Signal;
use serde_json::json;

use super::{
    super::{cpu::Cpu, programs},
    generate::{Plan, generate},
    measure::{Figures, LIMIT, begin, memory, settled, until_complete},
    number,
};
use crate::daemons::{PROJECT, Studio, daemon::Daemon, tree};

const USAGE: &str = "\
usage: bench watch [--versions N] [--files-per-version N] [--events N] [--idle SECONDS]
A version is two directories. The events are new files in versions that are there, made while the daemon stands still.";

/// How many versions the files of the storm are in.
const STORM_VERSIONS: u64 = 100;

struct Options {
    versions: u64,
    files: u64,
    events: u64,
    idle: Duration,
}

impl Options {
    fn read(args: &[String]) -> Option<Self> {
        let mut options =
            Self { versions: 100_000, files: 10, events: 200_000, idle: Duration::from_secs(60) };
        for pair in args.chunks(2) {
            let value = number(pair.get(1))?;
            match pair.first()?.as_str() {
                "--versions" => options.versions = value,
                "--files-per-version" => options.files = value,
                "--events" => options.events = value,
                "--idle" => options.idle = Duration::from_secs(value),
                _ => return None,
            }
        }
        Some(options)
    }
}

/// Runs the shape and prints its figures.
pub fn run(args: &[String]) -> ExitCode {
    let Some(options) = Options::read(args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let plan = Plan { versions: options.versions, files: options.files, group: 64, held: true };
    let links = tempfile::tempdir().expect("a directory for links");
    let studio = Studio::new(programs(links.path()));
    let mut server = studio.node("srv@london", ProjectMode::OnDemand);
    server.config.extra = "[scrub]\nenabled = false\n".into();
    generate(&studio, &server, plan);
    let mut figures = Figures::default();
    for version in 1..=STORM_VERSIONS {
        fs::create_dir_all(server.path(&storm_dir(version))).expect("room for a directory");
    }
    // The one that was made with the records knows of no files.
    fs::remove_dir_all(server.config.state_dir.join("catalog")).expect("the catalog is there");
    let start = Instant::now();
    begin(&mut server);
    until_complete(&server.api(), plan);
    // Nobody else can know more of its feeds: they were made for it.
    for project in ["_studio", PROJECT] {
        server.ctl(&["feed", "release", project]).expect(exit_code::ExitCode::Ok);
    }
    until_logged(&mut server, "reason=Started", 1);
    figures.note("all that can be is watched, s", start.elapsed().as_secs_f64());
    settled(&mut server);
    let scans = |server: &Daemon| scan_seconds(&server.log());
    let find = find_seconds(&server);
    let scan = scans(&server).last().copied().unwrap_or(f64::NAN);
    figures.note("a scan, s", scan);
    figures.note("find with sizes and times, s", find);
    figures.note("a scan over find", scan / find);
    idle(&mut server, &mut figures, options.idle);
    memory(&mut server, &mut figures, "while nothing happens");
    let health = server.api().status().health;
    let limited = health.iter().find(|item| item.code.contains("watch"));
    figures.note("told that watches are missing", f64::from(u8::from(limited.is_some())));
    if let Some(item) = limited {
        eprintln!("  {}: {} ({:?})", item.code, item.message, item.hint);
    }
    storm(&mut server, &mut figures, options.events);
    memory(&mut server, &mut figures, "after the storm");
    println!(
        "{}",
        json!({
            "schema": "avalon.bench/1", "shape": "watch", "versions": plan.versions, "files_per_version": plan.files,
            "figures": figures.json(),
        })
    );
    ExitCode::SUCCESS
}

fn storm_dir(version: u64) -> String {
    format!("assets/storm/publish/cache/v{version:03}/cache.dat")
}

/// Waits until as many lines have this text.
fn until_logged(server: &mut Daemon, text: &str, times: usize) {
    let start = Instant::now();
    while server.log().matches(text).count() < times {
        assert!(start.elapsed() < LIMIT, "no line says {text}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Returns how long the scans took, from the log.
fn scan_seconds(log: &str) -> Vec<f64> {
    let lines = log.lines().filter(|line| line.contains("the project was scanned"));
    lines
        .filter_map(|line| line.split("took_ms=").nth(1)?.split(' ').next()?.parse::<f64>().ok())
        .map(|ms| ms / 1e3)
        .collect()
}

/// The same look at the tree by the tool that everybody has, after one that is not counted.
fn find_seconds(server: &Daemon) -> f64 {
    let find = || {
        let start = Instant::now();
        let status = Command::new("find")
            .arg(server.config.project_dir())
            .args(["-printf", "%s %T@ %C@ %i %p\\n"])
            .stdout(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "find works");
        start.elapsed().as_secs_f64()
    };
    find();
    find()
}

fn idle(server: &mut Daemon, figures: &mut Figures, time: Duration) {
    let pid = server.process().pid();
    let before = Cpu::read(&[pid]);
    thread::sleep(time);
    let taken = Cpu::read(&[pid]).since(&before).first().copied().unwrap_or_default();
    figures.note("of a core while nothing happens, %", taken.as_secs_f64() / time.as_secs_f64() * 100.0);
}

/// Makes files while the daemon stands still, so that the queue overflows, and waits until every one of them is published.
fn storm(server: &mut Daemon, figures: &mut Figures, events: u64) {
    let scanned = scan_seconds(&server.log()).len();
    let overflows = server.log().matches("reason=Overflow").count();
    server.process().signal(Signal::STOP);
    // Each file is made, written and closed.
    let files = (events / STORM_VERSIONS / 3).max(1);
    for version in 1..=STORM_VERSIONS {
        let dir = server.path(&storm_dir(version));
        (1..=files)
            .for_each(|file| tree::write(&dir.join(format!("cache.{file:05}.dat")), &file.to_le_bytes()));
    }
    server.process().signal(Signal::CONT);
    let start = Instant::now();
    let api = server.api();
    let is_whole = |version: u64| {
        let info = api.info(&format!("storm/cache@v{version:03}"));
        info.is_ok_and(|info| info.files.len() as u64 == files)
    };
    let mut missing: Vec<u64> = (1..=STORM_VERSIONS).collect();
    while !missing.is_empty() {
        assert!(start.elapsed() < LIMIT, "{missing:?} did not come");
        thread::sleep(Duration::from_millis(200));
        missing.retain(|version| !is_whole(*version));
    }
    figures.note("files made while it stood still", (files * STORM_VERSIONS) as f64);
    figures.note("all of them published, s", start.elapsed().as_secs_f64());
    figures.note("overflows", (server.log().matches("reason=Overflow").count() - overflows) as f64);
    figures.note("scans for that", (scan_seconds(&server.log()).len() - scanned) as f64);
}
