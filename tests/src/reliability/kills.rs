//! Three daemons that are killed at any moment, again and again, while versions are published, fetched, dropped and catalogs built.

use std::time::Duration;

use avalon_protocol::{control::Presence, mode::ProjectMode};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    report::{Outcome, Report},
    verifier::{Acknowledged, verify},
};
use crate::daemons::{Programs, Studio, daemon::Daemon, tree};

const NODES: [&str; 3] = ["srv@london", "srv@montreal", "ws1@home"];
const MODEL: &str = "assets/robot/publish/modelDefault";

/// How many kills one studio lives through before everything is verified.
const KILLS_PER_STUDIO: u64 = 40;

/// Kills at least so many times.
pub fn kills(programs: &Programs, wanted: u64, seed: u64) -> Report {
    let mut report = Report::new("random kills".to_owned(), seed);
    let mut done = 0;
    while done < wanted {
        let studio_seed = seed.wrapping_add(report.runs);
        let kills = KILLS_PER_STUDIO.min(wanted - done);
        report.run(&format!("seed {studio_seed}"), || play(programs, kills, studio_seed));
        done += kills;
    }
    report.faults.insert("kill".to_owned(), done);
    report
}

fn play(programs: &Programs, kills: u64, seed: u64) -> Result<Outcome, String> {
    let studio = Studio::new(programs.clone());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut nodes: Vec<Daemon> = NODES.map(|node| studio.node(node, ProjectMode::Mirror)).into();
    let mut addresses = Vec::new();
    for node in &mut nodes {
        node.config.peers = addresses.clone();
        node.start();
        addresses.push(node.listen());
    }
    let (mut published, mut acknowledged, mut killed) = (0u32, Vec::new(), 0);
    while killed < kills {
        let node = random.random_range(0..nodes.len());
        match random.random_range(0..10) {
            0..4 => {
                published += 1;
                acknowledged.extend(publish(&nodes[node], published, &mut random));
            }
            4 => drop(nodes[node].ctl(&["catalog", "rebuild"])),
            5 if published > 0 => {
                let version = random.random_range(1..=published);
                drop(nodes[node].ctl(&["drop", &reference(version), "--timeout", "2s"]));
            }
            _ => {
                wait_a_little(&nodes[node], random.random_range(0..600));
                nodes[node].kill9();
                killed += 1;
                nodes[node].start();
            }
        }
    }
    for node in &nodes {
        // What was dropped does not come back by itself.
        for version in 1..=published {
            node.until("it knows the version", |api| api.locate_one(&reference(version)));
            node.ctl(&["pull", &reference(version)]);
        }
        node.until("every version is here", |api| {
            let versions = api.list().versions;
            let whole = versions.iter().filter(|one| one.here == Presence::Complete && !one.conflict).count();
            (versions.len() == published as usize && whole == versions.len()).then_some(())
        });
    }
    nodes.iter_mut().for_each(Daemon::kill9);
    let configs: Vec<_> = nodes.iter().map(|node| &node.config).collect();
    let verified = verify(&studio, &configs, &acknowledged);
    for node in &nodes[1..] {
        tree::assert_equal(&nodes[0].path(""), &node.path(""));
    }
    if !verified.faults.is_empty() {
        return Err(verified.faults.join("; "));
    }
    Ok(Outcome { files: verified.files, records: verified.records, ..Outcome::default() })
}

/// Writes a version, and publishes it explicitly one time of two; else the daemon notices. Returns what it acknowledged.
fn publish(node: &Daemon, version: u32, random: &mut ChaCha8Rng) -> Vec<Acknowledged> {
    let inside = format!("{MODEL}/v{version:03}");
    let mut files = Vec::new();
    for file in 0..random.random_range(1..6u64) {
        let bytes = random.random_range(1..2_000_000);
        let content = tree::noise(u64::from(version) * 10 + file, bytes);
        let path = format!("{inside}/modelDefault.part{file}");
        tree::write(&node.path(&path), &content);
        files.push(Acknowledged {
            node: node.config.node.clone(),
            path: path.into(),
            hash: blake3::hash(&content),
        });
    }
    if random.random_bool(0.5) && node.api().publish(&node.path(&inside)).error.is_none() {
        files
    } else {
        Vec::new()
    }
}

/// Lets so many milliseconds of the daemon's life pass.
fn wait_a_little(node: &Daemon, milliseconds: u64) {
    let (mut events, begun) = (node.api().events(u64::MAX), std::time::Instant::now());
    let time = Duration::from_millis(milliseconds);
    while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        events.next_within(left);
    }
}

fn reference(version: u32) -> String {
    format!("lantern:robot/modelDefault@v{version:03}")
}
