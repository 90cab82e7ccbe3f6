//! What the people of a studio do all day: one thing after the other, at nodes that are up.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    path::Path,
};

use avalon_protocol::control::{
    LifetimeReply, LifetimeRequest, PublishReply, PublishRequest, VerifyRequest, VerifyStatus, route,
};
use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

use super::super::verifier::Acknowledged;
use crate::daemons::{api::ApiFailure, daemon::Daemon, tree};

/// So many versions are in work at a time; older ones are dropped wherever they may be.
const LIVE: usize = 60;
/// A version may grow while it is among the newest so many of its node.
const GROWING: usize = 6;
/// An asset has so many versions.
const SLOTS: u32 = 50;
/// The frames of a sequence.
const FRAMES: Range<u32> = 1001..1025;
/// So many heroes move at each node.
const HEROES: u32 = 2;

/// A version that somebody made.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// At which node, by its number.
    pub(super) node: usize,
    pub(super) reference: String,
    dir: String,
    is_dropped: bool,
}

/// All that was done, and what has to be there in the end.
#[derive(Debug)]
pub(super) struct Churn {
    pub(super) random: ChaCha8Rng,
    /// Those in work, oldest first.
    pub(super) live: VecDeque<Version>,
    /// References of all versions that were ever written.
    pub(super) written: Vec<String>,
    numbers: Vec<u32>,
    contents: u64,
    /// Which frame comes next where a version grew.
    next_frames: BTreeMap<String, u32>,
    /// Each with the node that said so: another one may not have heard of it yet, and has nothing to restore then.
    retired: Vec<(usize, String)>,
    /// What a daemon said is published: path and content.
    acknowledged: BTreeMap<String, blake3::Hash>,
    /// How often each thing was done.
    pub(super) done: BTreeMap<&'static str, u64>,
    /// Requests that got no answer though the daemon was up.
    pub(super) unanswered: Vec<String>,
}

impl Churn {
    pub(super) fn new(random: ChaCha8Rng, nodes: usize) -> Self {
        Self {
            random,
            live: VecDeque::new(),
            written: Vec::new(),
            numbers: vec![0; nodes],
            contents: 0,
            next_frames: BTreeMap::new(),
            retired: Vec::new(),
            acknowledged: BTreeMap::new(),
            done: BTreeMap::new(),
            unanswered: Vec::new(),
        }
    }

    /// Does one thing at one of the nodes that are up.
    pub(super) fn step(&mut self, nodes: &[Daemon], up: &[usize]) {
        let Some(node) = up.choose(&mut self.random).copied() else { return };
        let daemon = &nodes[node];
        let what = match self.random.random_range(0..100) {
            0..35 => self.publish(daemon, node),
            35..43 => self.grow(nodes, up),
            43..52 => self.hero(daemon, node),
            52..68 => self.pull(daemon, node),
            68..84 => self.drop_one(daemon, node),
            84..89 => self.retire(daemon, node),
            89..93 => self.restore(nodes, up),
            93..96 => self.publish_again(nodes, up),
            96..99 => self.verify(daemon),
            _ => self.look_after_catalog(daemon, node),
        };
        if let Some(what) = what {
            *self.done.entry(what).or_default() += 1;
        }
        while self.live.len() > LIVE {
            self.live.pop_front();
        }
    }

    /// A single file, several, a sequence, now and then one that is large.
    fn publish(&mut self, daemon: &Daemon, node: usize) -> Option<&'static str> {
        let number = self.numbers[node];
        self.numbers[node] += 1;
        let (asset, slot) = (format!("prop{node}x{:03}", number / SLOTS), number % SLOTS + 1);
        let dir = format!("assets/{asset}/publish/modelDefault/v{slot:03}");
        let reference = format!("lantern:{asset}/modelDefault@v{slot:03}");
        let (what, files): (_, Vec<(String, usize)>) = match self.random.random_range(0..20) {
            0..9 => ("single file", vec![("usdc".to_owned(), self.random.random_range(1..200_000))]),
            9..14 => ("files", (0..5).map(|part| (format!("part{part}"), 20_000)).collect()),
            14..19 => ("sequence", FRAMES.map(|frame| (format!("frames/a.{frame}.exr"), 6_000)).collect()),
            _ => ("large file", vec![("abc".to_owned(), self.random.random_range(1_000_000..5_000_000))]),
        };
        let version = Version { node, reference: reference.clone(), dir: dir.clone(), is_dropped: false };
        self.live.push_back(version);
        self.written.push(reference);
        self.write(daemon, &dir, "modelDefault", &files);
        Some(what)
    }

    fn grow(&mut self, nodes: &[Daemon], up: &[usize]) -> Option<&'static str> {
        let version = self.newest_of(up)?;
        // They follow each other: the daemon waits for what is missing between frames until somebody says that it is whole.
        let next = self.next_frames.entry(version.reference.clone()).or_insert(FRAMES.end);
        let frames = *next..*next + 3;
        *next = frames.end;
        let files = frames.map(|frame| (format!("frames/a.{frame}.exr"), 6_000)).collect::<Vec<_>>();
        self.write(&nodes[version.node], &version.dir, "modelDefault", &files);
        Some("growth")
    }

    fn hero(&mut self, daemon: &Daemon, node: usize) -> Option<&'static str> {
        let hero = self.random.random_range(0..HEROES);
        self.write_hero(daemon, node, hero);
        Some("hero")
    }

    fn write_hero(&mut self, daemon: &Daemon, node: usize, hero: u32) {
        let reference = format!("lantern:hero{node}x{hero}/rigMain@hero");
        if !self.written.contains(&reference) {
            self.written.push(reference);
        }
        let dir = format!("assets/hero{node}x{hero}/publish/rigMain/hero");
        self.write(daemon, &dir, "rigMain", &[("usdc".to_owned(), 40_000)]);
    }

    /// Writes files, and says one time of two that they are whole; else the daemon notices.
    fn write(&mut self, daemon: &Daemon, dir: &str, subset: &str, files: &[(String, usize)]) {
        let mut written = Vec::new();
        for (name, bytes) in files {
            self.contents += 1;
            let content = tree::noise(self.contents, *bytes);
            let inside = format!("{dir}/{subset}.{name}");
            self.acknowledged.remove(&inside);
            tree::write(&daemon.path(&inside), &content);
            written.push((inside, blake3::hash(&content)));
        }
        if self.random.random_bool(0.5) && self.say_whole(daemon, dir) {
            self.acknowledged.extend(written);
        }
    }

    /// Publishes explicitly; says whether the daemon acknowledged it.
    fn say_whole(&mut self, daemon: &Daemon, dir: &str) -> bool {
        let request = PublishRequest {
            paths: vec![daemon.path(dir).to_str().expect("UTF-8").to_owned()],
            comment: String::new(),
            author: "anna".into(),
            inputs: Vec::new(),
            metadata: Default::default(),
        };
        let reply: Option<PublishReply> = self.answered(daemon, route::PUBLISH, &request);
        reply.is_some_and(|reply| reply.versions.iter().all(|version| version.error.is_none()))
    }

    fn answered<T: serde::de::DeserializeOwned>(
        &mut self,
        daemon: &Daemon,
        route: &str,
        request: &impl serde::Serialize,
    ) -> Option<T> {
        match daemon.api().post(route, request) {
            Ok(reply) => Some(reply),
            Err(ApiFailure::Refused(_)) => None,
            Err(ApiFailure::Unreachable(error)) => {
                self.unanswered.push(format!("{} {route}: {error}", daemon.config.node));
                None
            }
        }
    }

    fn pull(&mut self, daemon: &Daemon, node: usize) -> Option<&'static str> {
        let version = self.any(|version| version.node != node)?;
        if let Err(ApiFailure::Unreachable(error)) = daemon.api().pull(&version.reference) {
            self.unanswered.push(format!("{} pull: {error}", daemon.config.node));
        }
        Some("pull")
    }

    /// The oldest go where they may; who mirrors keeps them, and says so.
    fn drop_one(&mut self, daemon: &Daemon, node: usize) -> Option<&'static str> {
        let own = |version: &&mut Version| version.node == node && !version.is_dropped;
        let old = self.live.len().saturating_sub(LIVE / 3);
        let reference = match self.live.iter_mut().take(old).find(own) {
            Some(version) => {
                version.is_dropped = true;
                version.reference.clone()
            }
            None => self.any(|version| version.node != node)?.reference,
        };
        daemon.ctl(&["drop", &reference, "--timeout", "3s"]);
        Some("drop")
    }

    fn retire(&mut self, daemon: &Daemon, node: usize) -> Option<&'static str> {
        let reference = self.any(|_| true)?.reference;
        self.lifetime(daemon, route::RETIRE, &reference);
        self.retired.push((node, reference));
        Some("retire")
    }

    fn restore(&mut self, nodes: &[Daemon], up: &[usize]) -> Option<&'static str> {
        let newest = self.retired.iter().rposition(|(node, _)| up.contains(node))?;
        let (node, reference) = self.retired.remove(newest);
        self.lifetime(&nodes[node], route::RESTORE, &reference);
        Some("restore")
    }

    fn lifetime(&mut self, daemon: &Daemon, route: &str, reference: &str) {
        let request = LifetimeRequest {
            refs: vec![reference.to_owned()],
            comment: "of the soak".into(),
            author: "anna".into(),
            ..LifetimeRequest::default()
        };
        let _: Option<LifetimeReply> = self.answered(daemon, route, &request);
    }

    /// Says again what was said.
    fn publish_again(&mut self, nodes: &[Daemon], up: &[usize]) -> Option<&'static str> {
        let version = self.newest_of(up)?;
        self.say_whole(&nodes[version.node], &version.dir);
        Some("publish again")
    }

    fn verify(&mut self, daemon: &Daemon) -> Option<&'static str> {
        let request =
            VerifyRequest { refs: vec![self.any(|_| true)?.reference], project: None, repair: false };
        let _: Option<VerifyStatus> = self.answered(daemon, route::VERIFY, &request);
        Some("verify")
    }

    /// The first node's is never built anew: what it takes is compared over the whole time.
    fn look_after_catalog(&mut self, daemon: &Daemon, node: usize) -> Option<&'static str> {
        let (what, argument) = if node > 0 && self.random.random_bool(0.1) {
            ("rebuild", "rebuild")
        } else {
            ("catalog verify", "verify")
        };
        daemon.ctl(&["catalog", argument]);
        Some(what)
    }

    fn any(&mut self, wanted: impl Fn(&Version) -> bool) -> Option<Version> {
        let fitting: Vec<&Version> = self.live.iter().filter(|version| wanted(version)).collect();
        fitting.choose(&mut self.random).map(|version| (*version).clone())
    }

    /// One of the newest versions that lie where they were made, at a node that is up.
    fn newest_of(&mut self, up: &[usize]) -> Option<Version> {
        let newest = self.live.iter().rev().filter(|version| !version.is_dropped).take(GROWING);
        let fitting: Vec<&Version> = newest.filter(|version| up.contains(&version.node)).collect();
        fitting.choose(&mut self.random).map(|version| (*version).clone())
    }

    /// Does what is left to do when all nodes are up again: what is retired comes back, and the heroes have their last content.
    pub(super) fn finish(&mut self, nodes: &[Daemon]) {
        for (node, reference) in std::mem::take(&mut self.retired) {
            self.lifetime(&nodes[node], route::RESTORE, &reference);
        }
        for (node, daemon) in nodes.iter().enumerate() {
            for hero in 0..HEROES {
                self.write_hero(daemon, node, hero);
            }
        }
    }

    /// Returns all that was acknowledged anywhere, as what has to lie at a node that keeps everything.
    pub(super) fn acknowledged_at(&self, node: &str) -> Vec<Acknowledged> {
        let each = self.acknowledged.iter().map(|(path, hash)| Acknowledged {
            node: node.to_owned(),
            path: Path::new(path).to_owned(),
            hash: *hash,
        });
        each.collect()
    }
}
