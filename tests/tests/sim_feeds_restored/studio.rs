//! The nodes, what happens to them, and what must hold.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use avalon_protocol::{
    feed::FeedId,
    id::{NodeId, ProjectName},
    mode::ProjectMode,
    own_feed::{OwnFeeds, Signs, Writing},
    session::{Effect, Session},
    wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, ServedProject},
};
use avalon_tests::toy_trust::ToySigner;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::disk::{Disk, Taken};

/// What the studio is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whoever starts or writes meets all others at once.
    Near,
    /// The same, and nobody waits for anybody.
    NearWithoutRule,
    /// Nodes meet now and then, and connections break.
    Far,
    /// The same, and one machine was copied: two write under one name.
    Copied,
}

#[derive(Debug)]
struct Node {
    id: NodeId,
    instance: u64,
    disk: Disk,
    own: OwnFeeds,
    backup: Option<Disk>,
    /// Records that wait until they may be written.
    waiting: usize,
}

impl Node {
    fn own_feed(&self) -> FeedId {
        FeedId { project: project(), node: self.id.clone() }
    }
}

#[derive(Debug)]
pub(crate) struct Studio {
    kind: Kind,
    seed: u64,
    dice: ChaCha8Rng,
    now: Duration,
    nodes: Vec<Node>,
    words: u64,
    /// All groups that were ever written, by feed and first record: two in one place are a fork.
    written: BTreeMap<(FeedId, u64), BTreeSet<Vec<u8>>>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

fn project() -> ProjectName {
    "lantern".parse().unwrap()
}

impl Studio {
    pub(crate) fn new(seed: u64, kind: Kind) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let count = dice.random_range(2..=5);
        let mut studio = Self {
            kind,
            seed,
            dice,
            now: Duration::ZERO,
            nodes: Vec::new(),
            words: 0,
            written: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        for number in 0..count {
            studio.add(
                format!("ws{number}@site{}", number % 2).parse().unwrap(),
                Disk::default(),
                Signs::New,
            );
        }
        studio
    }

    fn add(&mut self, id: NodeId, disk: Disk, signs: Signs) {
        let instance = self.nodes.len() as u64 + 1;
        let own = OwnFeeds::new([(project(), 0)], Signs::New, false, self.now);
        self.nodes.push(Node { id, instance, disk: Disk::default(), own, backup: None, waiting: 0 });
        self.start(self.nodes.len() - 1, disk, signs);
    }

    fn note(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.dice.random_ratio(percent, 100)
    }

    fn any(&mut self) -> usize {
        self.dice.random_range(0..self.nodes.len())
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..self.dice.random_range(20..80) {
            self.step();
        }
        if self.kind == Kind::Copied {
            let one = self.any();
            let (id, disk) = (self.nodes[one].id.clone(), self.nodes[one].disk.clone());
            let signs = self.signs();
            self.add(id, disk, signs);
            for _ in 0..60 {
                self.step();
            }
        }
        self.settle();
        self.judge();
    }

    fn step(&mut self) {
        let one = self.any();
        match self.dice.random_range(0..100) {
            0..40 => self.publish(one),
            40..70 => {
                let other = self.any();
                self.meet(one, other);
            }
            70..80 => {
                let backup = self.nodes[one].disk.clone();
                self.nodes[one].backup = Some(backup);
            }
            80..86 => {
                let disk = self.nodes[one].disk.clone();
                self.start(one, disk, Signs::None);
            }
            86..92 => self.restore(one),
            _ => self.now += Duration::from_millis(self.dice.random_range(0..8000)),
        }
    }

    fn signs(&mut self) -> Signs {
        // A snapshot of the whole machine leaves none.
        if self.percent(30) { Signs::None } else { Signs::Restored { why: "other files".into() } }
    }

    fn restore(&mut self, one: usize) {
        let Some(backup) = self.nodes[one].backup.clone() else { return };
        let feed = self.nodes[one].own_feed();
        self.note("restored");
        if backup.records(&feed) < self.nodes[one].disk.records(&feed) {
            self.note("restored behind");
        }
        let signs = self.signs();
        self.start(one, backup, signs);
    }

    fn start(&mut self, one: usize, disk: Disk, signs: Signs) {
        // Who is alone and sees no sign asks nobody.
        let is_alone = self.kind == Kind::NearWithoutRule;
        let signs = if is_alone { Signs::None } else { signs };
        let feed = self.nodes[one].own_feed();
        let own = OwnFeeds::new([(project(), disk.records(&feed))], signs, is_alone, self.now);
        let node = &mut self.nodes[one];
        (node.disk, node.own, node.waiting) = (disk, own, 0);
        node.instance += 1000;
        if matches!(self.kind, Kind::Near | Kind::NearWithoutRule) {
            // The first record may come before the first peer.
            if self.percent(50) {
                self.publish(one);
            }
            self.meet_all(one);
        }
    }

    fn meet_all(&mut self, one: usize) {
        for other in 0..self.nodes.len() {
            self.connect(one, other, usize::MAX);
        }
    }

    fn publish(&mut self, one: usize) {
        let node = &self.nodes[one];
        let (feed, writing) = (node.own_feed(), node.own.writing(&project(), self.now));
        if node.disk.forks.contains_key(&feed) {
            return self.note("own stopped");
        }
        match writing {
            Writing::Refused => self.note("refused"),
            Writing::Waits => {
                self.nodes[one].waiting += 1;
                self.note("waited");
            }
            Writing::Free => {
                let waiting = std::mem::take(&mut self.nodes[one].waiting);
                for _ in 0..=waiting {
                    self.write(one, &feed);
                }
                if matches!(self.kind, Kind::Near | Kind::NearWithoutRule) {
                    // What nobody has heard of nobody can give back.
                    self.meet_all(one);
                }
            }
        }
    }

    fn write(&mut self, one: usize, feed: &FeedId) {
        self.words += 1;
        let count = self.dice.random_range(1..4);
        let signer = ToySigner::new(&self.nodes[one].id, 1);
        let node = &mut self.nodes[one];
        let first = node.disk.records(feed);
        node.disk.write(feed, &signer, (self.words, count));
        node.own.advanced(&project(), node.disk.records(feed));
        let group = node.disk.feeds[feed].groups.last().unwrap().body.clone();
        let here = self.written.entry((feed.clone(), first)).or_default();
        here.insert(group);
        if here.len() == 2 {
            self.note("forked");
        }
        self.note("written");
    }

    fn meet(&mut self, one: usize, other: usize) {
        let far = matches!(self.kind, Kind::Far | Kind::Copied);
        let most = if far && self.percent(40) { self.dice.random_range(0..12) } else { usize::MAX };
        self.connect(one, other, most);
    }

    /// Lets two nodes talk until both have said all, or so many messages have passed.
    fn connect(&mut self, one: usize, other: usize, most: usize) {
        if self.nodes[one].id == self.nodes[other].id {
            return;
        }
        let ends = [one, other];
        let mut sessions = Vec::new();
        let mut todo: VecDeque<(usize, Effect)> = VecDeque::new();
        for (end, peer) in [(0, other), (1, one)] {
            let node = &self.nodes[ends[end]];
            let peer = self.nodes[peer].id.clone();
            let (mut session, first) = Session::new(hello(node), peer, node.disk.heads());
            for (feed, proof) in &node.disk.forks {
                session.frozen(feed, proof.shown_from());
            }
            todo.extend(first.into_iter().map(|effect| (end, effect)));
            sessions.push(session);
        }
        let mut sent = 0;
        while let Some((end, effect)) = todo.pop_front() {
            if let Effect::Send(message) = effect {
                sent += 1;
                if sent > most {
                    break;
                }
                let to = 1 - end;
                todo.extend(sessions[to].received(message).into_iter().map(|effect| (to, effect)));
                continue;
            }
            let more = self.carry_out((ends[end], ends[1 - end]), &mut sessions[end], effect);
            todo.extend(more.into_iter().map(|effect| (end, effect)));
        }
        let (first, second) = (self.nodes[one].id.clone(), self.nodes[other].id.clone());
        self.nodes[one].own.gone(&second, self.now);
        self.nodes[other].own.gone(&first, self.now);
    }

    fn carry_out(
        &mut self,
        (me, peer): (usize, usize),
        session: &mut Session,
        effect: Effect,
    ) -> Vec<Effect> {
        let (seed, now, most) = (self.seed, self.now, self.dice.random_range(1..5));
        let peer = self.nodes[peer].id.clone();
        let node = &mut self.nodes[me];
        match effect {
            // Here everybody may see everything.
            Effect::Extract(_) => Vec::new(),
            Effect::Ready(_) => {
                node.own.greeted(&peer);
                Vec::new()
            }
            Effect::ReadGroups { feed, from_seq } => {
                let (next_seq, groups) = node.disk.read(&feed, from_seq, most);
                session.groups_read(&feed, next_seq, groups, Vec::new())
            }
            Effect::ProveFork { feed, peer_has } => {
                session.proof_read(&feed, node.disk.to_show(&feed, peer_has))
            }
            Effect::OwnFeed { project, next_seq } => {
                node.own.heard(&project, &peer, next_seq, now);
                Vec::new()
            }
            Effect::StoreGroups(records) => {
                let (feed, before) = (records.feed.clone(), node.disk.clone());
                let taken = node.disk.take(&feed, &records.groups);
                assert!(before.agrees(&node.disk, &feed), "seed {seed}: what was taken before has changed");
                if before.forks.contains_key(&feed) {
                    assert_eq!(before.records(&feed), node.disk.records(&feed), "seed {seed}: it is frozen");
                }
                if feed.node == node.id && node.disk.records(&feed) > before.records(&feed) {
                    node.own.came(&feed.project, &peer, node.disk.records(&feed), now);
                    self.note("taken back");
                }
                self.answer(&feed, session, taken)
            }
            Effect::Close { code, reason } => panic!("seed {seed}: {code:?}: {reason}"),
            Effect::Fork(_) | Effect::PeerHead { .. } | Effect::Send(_) => Vec::new(),
        }
    }

    fn answer(&mut self, feed: &FeedId, session: &mut Session, taken: Taken) -> Vec<Effect> {
        match taken {
            Taken::Stored(head) => session.groups_stored(feed, head),
            Taken::Forked => {
                self.note("found");
                assert!(self.is_forked(feed), "seed {}: {feed} is accused of what it did not do", self.seed);
                session.groups_forked(feed)
            }
            Taken::Refused(reason) => panic!("seed {}: {feed}: {reason}", self.seed),
        }
    }

    fn is_forked(&self, feed: &FeedId) -> bool {
        self.written.iter().any(|((of, _), groups)| of == feed && groups.len() > 1)
    }

    /// All meet all, more often than any chain of nodes is long.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.now += Duration::from_secs(60);
            for one in 0..self.nodes.len() {
                for other in 0..one {
                    self.connect(one, other, usize::MAX);
                }
            }
        }
    }

    fn judge(&mut self) {
        let feeds: BTreeSet<FeedId> =
            self.nodes.iter().flat_map(|node| node.disk.feeds.keys().cloned()).collect();
        for feed in feeds {
            let frozen = self.nodes.iter().filter(|node| node.disk.forks.contains_key(&feed)).count();
            let agree = self
                .nodes
                .iter()
                .all(|one| self.nodes.iter().all(|other| one.disk.agrees(&other.disk, &feed)));
            let level =
                self.nodes.iter().all(|node| node.disk.records(&feed) == self.nodes[0].disk.records(&feed));
            assert!(
                frozen == 0 || frozen == self.nodes.len(),
                "seed {}: {frozen} of {} have frozen {feed}",
                self.seed,
                self.nodes.len()
            );
            assert!(frozen > 0 || (agree && level), "seed {}: {feed} differs and nobody knows", self.seed);
        }
        for one in 0..self.nodes.len() {
            let before = self.nodes[one].disk.records(&self.nodes[one].own_feed());
            let is_stopped = self.nodes[one].disk.forks.contains_key(&self.nodes[one].own_feed());
            self.publish(one);
            let after = self.nodes[one].disk.records(&self.nodes[one].own_feed());
            assert_eq!(
                is_stopped,
                after == before,
                "seed {}: {} writes unless its feed has two histories",
                self.seed,
                self.nodes[one].id
            );
        }
    }
}

fn hello(node: &Node) -> Hello {
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: 0,
        build: "sim".into(),
        studio: "northlight".parse().unwrap(),
        node: node.id.clone(),
        instance: node.instance,
        projects: vec![ServedProject { name: project(), mode: ProjectMode::OnDemand }],
    }
}
