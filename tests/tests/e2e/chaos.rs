//! Three sites, publishes, and nodes that are killed at any moment. AVALON_SEEDS tries more.

use avalon_protocol::{control::Presence, mode::ProjectMode};
use avalon_tests::daemons::{daemon::Daemon, tree};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::support::{HOME, LONDON, MODEL, MONTREAL, studio};

const STEPS: u32 = 25;

#[test]
fn whatever_is_killed_whenever_every_version_is_whole_everywhere_in_the_end() {
    let seeds = std::env::var("AVALON_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1);
    for seed in 0..seeds {
        println!("seed {seed}");
        play(seed);
    }
}

fn play(seed: u64) {
    let studio = studio();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut nodes: Vec<Daemon> =
        [LONDON, MONTREAL, HOME].map(|node| studio.node(node, ProjectMode::Mirror)).into();
    for node in &mut nodes {
        node.start();
    }
    // Everybody dials everybody.
    let addresses: Vec<String> = nodes.iter().map(Daemon::listen).collect();
    for (number, node) in nodes.iter_mut().enumerate() {
        let others = addresses.iter().enumerate().filter(|(other, _)| *other != number);
        node.config.peers = others.map(|(_, address)| address.clone()).collect();
        node.restart();
    }
    let mut published = 0u32;
    for _ in 0..STEPS {
        let node = &mut nodes[random.random_range(0..3)];
        if random.random_bool(0.6) {
            published += 1;
            let dir = node.path(&format!("{MODEL}/v{published:03}"));
            for file in 0..random.random_range(1..6u64) {
                let bytes = random.random_range(0..3_000_000);
                let content = tree::noise(u64::from(published) * 10 + file, bytes.max(1));
                tree::write(&dir.join(format!("modelDefault.part{file}")), &content);
            }
            if random.random_bool(0.5) {
                assert_eq!(node.api().publish(&dir).error, None);
            }
        } else {
            let mut events = node.events();
            for _ in 0..random.random_range(0..30) {
                events.next_within(std::time::Duration::from_millis(20));
            }
            node.kill9();
            node.start();
        }
    }
    for node in &nodes {
        node.until("every version is here", |api| {
            let versions = api.list().versions;
            let whole =
                versions.iter().filter(|version| version.here == Presence::Complete && !version.conflict);
            (versions.len() == published as usize && whole.count() == versions.len()).then_some(())
        });
    }
    for node in &nodes {
        tree::assert_equal(&nodes[0].path(""), &node.path(""));
        assert!(node.api().list().versions.iter().all(|version| version.generation == 1));
        let verified = node.ctl(&["catalog", "verify", "--json"]).good();
        assert_eq!(verified["ok"], true, "{verified}");
        let health = node.api().status().health;
        assert!(health.is_empty(), "{health:#?}");
        let incoming = node.path(".avalon/incoming");
        let left = std::fs::read_dir(&incoming).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "nothing is left in {}", incoming.display());
    }
}
