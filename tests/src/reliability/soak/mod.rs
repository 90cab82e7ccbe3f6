//! An hour of a studio's life: three daemons that publish, fetch, drop, retire and are asked all the time, while one of them is killed, stands still
//! or loses its line. What they take in memory, descriptors, threads, log and disk is looked at every few seconds: nothing may
//! grow without an end, and in the end everything lies where it belongs.
//!
//! Records are for ever, and so is the last copy of a version: feeds, manifests, and the tree of the node that mirrors grow with what is published. All
//! else is held steady, by dropping what is old.

mod churn;
mod faults;
mod figures;
mod questions;
mod relay;
mod sample;

use std::{
    collections::HashSet,
    fs::File,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use avalon_protocol::{
    access::Role,
    control::{CatalogStatsReply, Presence, route},
    mode::ProjectMode,
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use self::{
    churn::Churn,
    faults::Faults,
    questions::{Answers, Questions},
    relay::Relay,
    sample::{Messages, Sample, Sampler, descriptors},
};
use super::{
    report::{Outcome, Report},
    verifier::verify,
};
use crate::{
    cgroup::Cgroup,
    daemons::{Programs, Studio, daemon::Daemon},
};

/// The first mirrors, issues certificates and is never killed; the second is held to a quota; the third's certificate is renewed again and again.
const NODES: [&str; 3] = ["srv@london", "srv@montreal", "ws1@home"];
/// How long one thing takes to come to the next, with what is done.
const PACE: Duration = Duration::from_millis(400);
/// How often a sample is taken, at most.
const SAMPLES: Duration = Duration::from_secs(10);
/// How often something goes wrong, at most.
const FAULTS: Duration = Duration::from_secs(40);
/// How long a certificate is valid, at most: it is renewed when a third of that is left.
const CERTIFICATE: Duration = Duration::from_secs(360);
/// How long it may take until all is where it belongs, after the last fault.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long no record must have come for all to be where it belongs: longer than a version is quiet before it is published.
const REST: Duration = Duration::from_secs(5);
/// How many more descriptors there may be at rest than there were before: connections of the API that end just now, a file that is read.
const MORE_DESCRIPTORS: u64 = 16;

/// What is asked for.
#[derive(Debug)]
pub struct Plan {
    /// How long it lasts.
    pub time: Duration,
    /// How much memory all daemons have together, if that is limited.
    pub limit_mib: Option<u64>,
    /// Where each sample is written to, as a line of JSON.
    pub samples: Option<PathBuf>,
}

/// Soaks once.
pub fn soak(programs: &Programs, plan: &Plan, seed: u64) -> Report {
    let mut report = Report::new("soak".to_owned(), seed);
    let mut seen = None;
    report.run(&format!("seed {seed}"), || {
        let (outcome, figures, faults) = play(programs, plan, seed)?;
        seen = Some((figures, faults));
        Ok(outcome)
    });
    if let Some((figures, faults)) = seen {
        report.bad += faults.len() as u64;
        faults.iter().for_each(|fault| eprintln!("BAD soak seed {seed}: {fault}"));
        report.figures = Some(figures);
    }
    report
}

type Played = (Outcome, Value, Vec<String>);

fn play(programs: &Programs, plan: &Plan, seed: u64) -> Result<Played, String> {
    let limit = plan.limit_mib.map(Cgroup::new).transpose().map_err(|error| format!("no cgroup: {error}"))?;
    let studio = Studio::new(programs.clone());
    let (mut nodes, lines) = start(&studio, limit.as_ref(), plan.time)?;
    let at_rest = nodes[0].process().pid();
    let before = descriptors(at_rest);
    let configs = || nodes.iter().map(|node| node.config.clone()).collect::<Vec<_>>();
    let kept = plan.samples.as_ref().map(File::create).transpose();
    let kept = kept.map_err(|error| format!("the file of samples: {error}"))?;
    let sampler = Sampler::start(configs(), SAMPLES.min(plan.time / 50), kept);
    let questions = Questions::start(configs());
    for (number, node) in nodes.iter_mut().enumerate() {
        let process = node.process();
        sampler.is_up(number, process.pid(), process.log.clone());
    }
    let mut churn = Churn::new(ChaCha8Rng::seed_from_u64(seed), NODES.len());
    let mut faults = Faults::new(FAULTS.min(plan.time / 8));
    let (begun, mut told) = (Instant::now(), 0);
    let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(1));
    while begun.elapsed() < plan.time {
        let next = Instant::now() + PACE;
        faults.step(&mut random, &mut nodes, &lines, (&sampler, &questions));
        churn.step(&nodes, &faults.up(nodes.len()));
        if let Some(version) = churn.live.back() {
            questions.ask_for(&version.reference);
        }
        if begun.elapsed().as_secs() / 60 > told {
            told = begun.elapsed().as_secs() / 60;
            tell(told, &churn, &sampler);
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    faults.end(&mut nodes, &lines, &questions);
    churn.finish(&nodes);
    let mut wrong = until_whole(&nodes, &churn);
    wrong.extend(until_at_rest(at_rest, before));
    let answers = questions.stop();
    let (samples, messages) = sampler.stop();
    nodes.iter_mut().for_each(Daemon::kill9);
    let configs: Vec<_> = nodes.iter().map(|node| &node.config).collect();
    let verified = verify(&studio, &configs, &churn.acknowledged_at(NODES[0]));
    wrong.extend(verified.faults);
    wrong.extend(churn.unanswered.iter().chain(&answers.unanswered).map(|what| format!("no answer: {what}")));
    let warm_up = plan.time.as_secs_f64() / 12.0;
    for (number, name) in NODES.iter().enumerate() {
        wrong.extend(figures::faults(name, number, &samples, &messages, warm_up));
    }
    let figures = sum_up(&churn, &answers, &samples, &messages, warm_up, limit.as_ref());
    let outcome =
        Outcome { faults: faults.met, files: verified.files, records: verified.records, fault: None };
    Ok((outcome, figures, wrong))
}

/// Starts three daemons; whoever dials the first does it over a line of its own.
fn start(
    studio: &Studio,
    limit: Option<&Cgroup>,
    time: Duration,
) -> Result<(Vec<Daemon>, Vec<Relay>), String> {
    let validity = CERTIFICATE.min(time / 3).max(Duration::from_secs(20));
    let mut nodes: Vec<Daemon> = Vec::new();
    let mut lines = Vec::new();
    for (number, name) in NODES.iter().enumerate() {
        let role = [Role::Site, Role::Admin, Role::Workstation][number];
        let mode = if number == 0 { ProjectMode::Mirror } else { ProjectMode::OnDemand };
        let mut node = studio.node_as(name, role, mode);
        let identity = node.config.identity_dir();
        match number {
            0 => {
                studio.delegate(name, &identity);
                node.config.extra = format!("certificate_validity = \"{}s\"\n", validity.as_secs());
            }
            1 => node.config.project_extra = "quota = \"40MB\"\nevict_after = \"60s\"\n".into(),
            _ => {
                std::fs::remove_dir_all(&identity).map_err(|error| error.to_string())?;
                studio.issue_by_for(NODES[0], &nodes[0].config.identity_dir(), name, &identity, validity);
            }
        }
        node.config.project_extra.push_str("trash_grace = \"30s\"\n");
        if let Some(london) = nodes.first() {
            let line = Relay::to(&london.listen()).map_err(|error| error.to_string())?;
            node.config.peers = vec![line.address()];
            node.config.peers.extend(nodes.get(1).map(Daemon::listen));
            lines.push(line);
        }
        // As a service says it.
        node.set_env("AVALOND_LOG", "info");
        node.set_env("MALLOC_ARENA_MAX", "2");
        if let Some(limit) = limit {
            node.set_launcher(limit.launcher());
        }
        node.start();
        nodes.push(node);
    }
    for node in &nodes[1..] {
        node.until_connected(NODES[0]);
    }
    Ok((nodes, lines))
}

/// Waits until all that was ever written lies whole at the node that mirrors, and all nodes know the same and rest; returns what does not.
fn until_whole(nodes: &[Daemon], churn: &Churn) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    let (mut known, mut since) = (Vec::new(), Instant::now());
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = nodes.iter().map(records).collect::<Vec<_>>();
        if now != known {
            (known, since) = (now, Instant::now());
        }
        let missing = missing(&nodes[0], churn);
        let is_same = known.iter().all(|records| records.is_some() && *records == known[0]);
        if missing.is_empty() && is_same && since.elapsed() >= REST {
            return Vec::new();
        }
        if Instant::now() > deadline {
            let some = &missing[..missing.len().min(5)];
            let told = some.iter().flat_map(|reference| nodes.iter().map(|node| tell_of(node, reference)));
            return vec![format!(
                "{} versions are not at {}: {some:?}; records at each node: {known:?}\n{}",
                missing.len(),
                NODES[0],
                told.collect::<Vec<_>>().join("\n")
            )];
        }
    }
}

/// Returns what a node says of a version, what its versions wait for, and its log about it.
fn tell_of(node: &Daemon, reference: &str) -> String {
    let said = node.ctl(&["where", reference]);
    let pending: Vec<String> = node
        .api()
        .status()
        .projects
        .into_iter()
        .flat_map(|project| project.pending)
        .map(|waits| format!("{} waits for {}", waits.dir, waits.why.join(", ")))
        .collect();
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains(reference)).collect::<Vec<_>>();
    let (pending, lines) = (pending.join("\n"), lines.join("\n"));
    format!("{}:\n{}{}\n{pending}\n{lines}", node.config.node, said.stdout, said.stderr)
}

/// Returns how many records a node knows.
fn records(node: &Daemon) -> Option<u64> {
    let stats: CatalogStatsReply = node.api().get(route::CATALOG_STATS).ok()?;
    Some(stats.records)
}

fn missing(london: &Daemon, churn: &Churn) -> Vec<String> {
    let versions = london.api().list().versions;
    let whole = versions.iter().filter(|one| one.here == Presence::Complete && !one.conflict);
    let whole: HashSet<&str> = whole.map(|one| one.reference.as_str()).collect();
    churn.written.iter().filter(|one| !whole.contains(one.as_str())).cloned().collect()
}

/// Waits until a process has no more descriptors than before; returns what stays.
fn until_at_rest(pid: u32, before: u64) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    while descriptors(pid) > before + MORE_DESCRIPTORS {
        if Instant::now() > deadline {
            return Some(format!("{} descriptors at rest, {before} before", descriptors(pid)));
        }
        thread::sleep(Duration::from_millis(500));
    }
    None
}

fn tell(minute: u64, churn: &Churn, sampler: &Sampler) {
    let done: u64 = churn.done.values().sum();
    eprint!("{minute} min: {done} things, {} versions;", churn.written.len());
    for (name, sample) in NODES.iter().zip(sampler.newest()) {
        eprint!(
            " {name} {:.1} MiB, {} descriptors, {} threads, {} lines;",
            sample.rss_bytes as f64 / 1_048_576.0,
            sample.descriptors,
            sample.threads,
            sample.log_lines
        );
    }
    eprintln!();
}

fn sum_up(
    churn: &Churn,
    answers: &Answers,
    samples: &[Sample],
    messages: &Messages,
    warm_up: f64,
    limit: Option<&Cgroup>,
) -> Value {
    let each = NODES.iter().enumerate();
    let nodes: Vec<_> =
        each.map(|(number, name)| figures::of_node(name, number, samples, messages, warm_up)).collect();
    let mut took = answers.took_ms.clone();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).or(took.last()).copied();
    json!({
        "nodes": nodes,
        "done": churn.done,
        "versions": churn.written.len(),
        "questions": { "asked": took.len(), "median_ms": at(0.5), "p99_ms": at(0.99), "most_ms": took.last() },
        "unanswered": churn.unanswered.len() + answers.unanswered.len(),
        "cgroup": limit.map(|limit| {
            let (bytes, times) = limit.peak();
            json!({ "most_mib": bytes >> 20, "limit_met": times })
        }),
    })
}
