//! What is measured of one size.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use avalon_protocol::{
    control::{CatalogStatsReply, route},
    mode::ProjectMode,
};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::generate::{Made, Plan, SLOTS, SUBSETS, version};
use crate::{
    cgroup::Cgroup,
    daemons::{
        PROJECT, Studio,
        api::{Api, ApiFailure},
        daemon::Daemon,
    },
};

/// Nothing takes so long; what does has failed.
pub(super) const LIMIT: Duration = Duration::from_secs(1800);
/// How often each question is asked.
const ASKED: u64 = 200;
/// How often the long ones are.
const ASKED_LONG: u64 = 5;
/// How long a daemon is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(10);

/// The figures of one size, in the order in which they are shown.
#[derive(Debug, Default)]
pub(super) struct Figures(Vec<(String, f64)>);

impl Figures {
    pub(super) fn note(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        eprintln!("  {name:<40} {value:>12.3}");
        self.0.push((name, value));
    }

    /// Returns all.
    pub(super) fn rows(&self) -> &[(String, f64)] {
        &self.0
    }

    /// Returns them by name.
    pub(super) fn json(&self) -> Value {
        self.0.iter().map(|(name, value)| (name.clone(), json!((value * 1e4).round() / 1e4))).collect()
    }

    /// Returns one line of JSON.
    pub(super) fn line(&self, plan: Plan) -> Value {
        let figures = self.json();
        json!({
            "schema": "avalon.bench/1", "shape": "scale", "versions": plan.versions, "files_per_version": plan.files,
            "records_per_group": plan.group, "held": plan.held, "figures": figures,
        })
    }
}

/// Measures a server whose state was made.
pub(super) fn measure(
    studio: &Studio,
    mut server: Daemon,
    plan: Plan,
    made: Made,
    limit: Option<&Cgroup>,
    syncs: bool,
) -> Figures {
    let mut figures = Figures::default();
    let versions = plan.versions as f64;
    figures.note("made: manifests and files, s", made.files.as_secs_f64());
    figures.note("made: records into the ledger, s", made.records.as_secs_f64());
    figures.note(
        "each record, us",
        made.records.as_secs_f64() * 1e6 / versions / if plan.held { 2.0 } else { 1.0 },
    );

    fs::remove_dir_all(server.config.state_dir.join("catalog")).unwrap();
    let start = Instant::now();
    begin(&mut server);
    figures.note("start without a catalog, s", start.elapsed().as_secs_f64());
    until_complete(&server.api(), plan);
    let built = start.elapsed().as_secs_f64();
    figures.note("catalog built, s", built);
    figures.note("each version, us", built * 1e6 / versions);
    memory(&mut server, &mut figures, "after building");

    thread::sleep(REST);
    server.kill9();
    let start = Instant::now();
    begin(&mut server);
    figures.note("restart after SIGKILL, s", start.elapsed().as_secs_f64());
    until_complete(&server.api(), plan);
    figures.note("catalog in use, s", start.elapsed().as_secs_f64());
    settled(&mut server);
    figures.note("at rest, s", start.elapsed().as_secs_f64());
    memory(&mut server, &mut figures, "at rest");
    let stats: CatalogStatsReply = server.api().get(route::CATALOG_STATS).unwrap();
    figures.note("rows of the catalog", stats.rows as f64);
    figures.note("files known", stats.local_files as f64);
    figures.note("catalog on disk, MiB", stats.disk_bytes as f64 / 1_048_576.0);
    figures.note("on disk over its rows", stats.disk_bytes as f64 / stats.live_bytes as f64);
    questions(&server.api(), &mut figures, plan);
    memory(&mut server, &mut figures, "after questions");
    if syncs {
        sync(studio, &mut server, &mut figures, plan, limit);
    }
    if let Some(limit) = limit {
        let (bytes, times) = limit.peak();
        figures.note("cgroup: most, MiB", bytes as f64 / 1_048_576.0);
        figures.note("cgroup: limit met", times as f64);
    }
    figures
}

/// Starts the daemon and waits until it is ready, however long that takes.
pub(super) fn begin(daemon: &mut Daemon) {
    let start = Instant::now();
    let process = daemon.launch();
    while !process.log.wait_for("avalond::app: ready") {
        assert!(process.is_running() && start.elapsed() < LIMIT, "not ready:\n{}", process.log.text());
    }
    daemon.config.listen = daemon.api().status().listen;
}

/// Waits until the catalog has every version, and every file where the server holds them.
pub(super) fn until_complete(api: &Api, plan: Plan) {
    let start = Instant::now();
    let files = if plan.held { plan.versions * plan.files } else { 0 };
    loop {
        let stats: Result<CatalogStatsReply, ApiFailure> = api.get(route::CATALOG_STATS);
        // It counts what it is built of, too: only in use it answers.
        let answers = || api.locate_one(&version(plan.versions - 1).to_string()).is_some();
        if stats.is_ok_and(|stats| stats.versions == plan.versions && stats.local_files >= files) && answers()
        {
            return;
        }
        assert!(start.elapsed() < LIMIT, "the catalog is not built");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the daemon has looked at everything once: it takes no processor time to speak of.
pub(super) fn settled(daemon: &mut Daemon) {
    let pid = daemon.process().pid();
    let start = Instant::now();
    loop {
        let before = super::super::cpu::Cpu::read(&[pid]);
        thread::sleep(Duration::from_secs(2));
        let taken = super::super::cpu::Cpu::read(&[pid]).since(&before);
        if taken.first().is_some_and(|taken| *taken < Duration::from_millis(100)) || start.elapsed() > LIMIT {
            return;
        }
    }
}

pub(super) fn memory(daemon: &mut Daemon, figures: &mut Figures, when: &str) {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process().pid())).unwrap_or_default();
    for (field, name) in [("VmRSS:", "memory"), ("VmHWM:", "most memory")] {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        figures.note(format!("{name} {when}, MiB"), kib.unwrap_or(f64::NAN) / 1024.0);
    }
}

/// Asks what people and programs ask, at places all over the catalog.
fn questions(api: &Api, figures: &mut Figures, plan: Plan) {
    let each = plan.versions / ASKED.min(plan.versions);
    let asset = |number: u64| version(number * each).asset.to_string();
    let exact = |number: u64| version(number * each).to_string();
    let subset = |number: u64| {
        let version = version(number * each);
        format!("{}/{}", version.asset, version.subset)
    };
    ask(api, figures, "status", ASKED, |_| route::STATUS.to_owned());
    ask(api, figures, "ls of an asset", ASKED, |number| {
        format!("{}?project={PROJECT}&ref={}", route::VERSIONS, asset(number))
    });
    ask(api, figures, "where of a version", ASKED, |number| {
        format!("{}?ref={}", route::WHERE, exact(number))
    });
    ask(api, figures, "where of the latest", ASKED, |number| {
        format!("{}?project={PROJECT}&ref={}", route::WHERE, subset(number))
    });
    ask(api, figures, "info of a version", ASKED, |number| format!("{}?ref={}", route::INFO, exact(number)));
    ask(api, figures, "where of a name with a fault", ASKED_LONG * 4, |number| {
        format!("{}?project={PROJECT}&ref={}x/renderLayer1", route::WHERE, asset(number))
    });
    ask(api, figures, "ls, a page of 500", ASKED, |number| {
        let after = version(number * each);
        format!("{}?project={PROJECT}&limit=500&after={after}", route::VERSIONS)
    });
    ask(api, figures, "ls, the longest page", ASKED_LONG, |_| {
        format!("{}?project={PROJECT}", route::VERSIONS)
    });
    let of_asset = SUBSETS * SLOTS;
    eprintln!("  (an asset has {of_asset} versions)");
}

fn ask(api: &Api, figures: &mut Figures, name: &str, times: u64, target: impl Fn(u64) -> String) {
    let mut took: Vec<f64> = (0..times)
        .map(|number| {
            let target = target(number);
            let start = Instant::now();
            // A refusal is an answer, too.
            match api.get::<IgnoredAny>(&target) {
                Ok(_) | Err(ApiFailure::Refused(_)) => {}
                Err(error) => panic!("{target}: {error:?}"),
            }
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize];
    figures.note(format!("{name}, median ms"), at(0.5));
    figures.note(format!("{name}, p99 ms"), at(0.99));
}

/// A node that is new learns all records, and then all manifests, over loopback.
fn sync(studio: &Studio, server: &mut Daemon, figures: &mut Figures, plan: Plan, limit: Option<&Cgroup>) {
    let mut fresh = studio.node("new@montreal", ProjectMode::OnDemand);
    fresh.config.peers = vec![server.listen()];
    if let Some(limit) = limit {
        fresh.set_launcher(limit.launcher());
    }
    let start = Instant::now();
    begin(&mut fresh);
    until_complete(&fresh.api(), Plan { held: false, ..plan });
    let took = start.elapsed().as_secs_f64();
    figures.note("a new node knows every version, s", took);
    figures.note("each version there, us", took * 1e6 / plan.versions as f64);
    while manifests_in(&fresh.config.state_dir.join("manifests")) < plan.versions {
        assert!(start.elapsed() < LIMIT, "the manifests do not come");
        thread::sleep(Duration::from_millis(200));
    }
    figures.note("and has every manifest, s", start.elapsed().as_secs_f64());
    memory(&mut fresh, figures, "of the new node");
    memory(server, figures, "of the server then");
}

fn manifests_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| fs::read_dir(entry.path()).into_iter().flatten().count() as u64).sum()
}
