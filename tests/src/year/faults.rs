//! What breaks: sites that are cut off, power, disks; and what nodes find when they start.

use std::collections::BTreeSet;

use avalon_protocol::{
    policy::Policy,
    record::{Held, Record},
    studio::PolicyFold,
    version_fold::{Standing, VersionFold},
};

use super::{
    book::{FileBytes, NodeIndex, VersionIndex},
    checker::LIMIT_MS,
    event::{Event, Fault, Message, Wake},
    fetch::RETRY_MS,
    node::{Cause, Entry, Life, Peer, Then},
    script::{DAY, HOUR},
    world::World,
};

/// How often people ask again for drops, when nothing breaks any more.
const ASK_AGAIN_MS: u64 = 6 * HOUR;
/// How long before the end they do so for the last time: a race is tried again after an hour or two.
const LAST_ASK_MS: u64 = 8 * HOUR;

impl World {
    /// Breaks or repairs something.
    pub(super) fn break_something(&mut self, fault: &Fault) {
        match fault {
            Fault::SiteOff(site) => *self.sites_off.entry(*site).or_default() += 1,
            Fault::SiteOn(site) => {
                if let Some(times) = self.sites_off.get_mut(site) {
                    *times = times.saturating_sub(1);
                }
            }
            Fault::Part(halves) => self.halves = Some(*halves),
            Fault::Heal => self.halves = None,
            Fault::Crash(n) => self.crash(*n),
            Fault::Start(n) => self.start(*n),
            Fault::Rot(n, random) => self.damage(*n, *random, false),
            Fault::Lose(n, random) => self.damage(*n, *random, true),
            Fault::End => {
                self.has_faults = false;
                self.sites_off.clear();
                self.halves = None;
                (0..self.nodes.len()).for_each(|n| self.start(n));
                for time_ms in
                    (HOUR..LIMIT_MS - LAST_ASK_MS).step_by(usize::try_from(ASK_AGAIN_MS).expect("hours"))
                {
                    self.after(time_ms, Event::AskAgain);
                }
                self.after(LIMIT_MS - LAST_ASK_MS, Event::AskAgain);
                self.after(LIMIT_MS - RETRY_MS - HOUR, Event::LookAround);
                self.after(LIMIT_MS, Event::Judge);
            }
        }
        self.connect();
    }

    fn is_reachable(&self, a: NodeIndex, b: NodeIndex) -> bool {
        let (one, other) = (self.book.nodes[a].site, self.book.nodes[b].site);
        let is_off = |site| self.sites_off.get(&site).is_some_and(|times| *times > 0);
        let half = |site: usize| self.halves.map(|halves| halves >> site & 1);
        let joined = one == other || (!is_off(one) && !is_off(other) && half(one) == half(other));
        joined && self.nodes[a].life.is_some() && self.nodes[b].life.is_some()
    }

    /// Makes and breaks connections; new ones begin with greetings.
    fn connect(&mut self) {
        for b in 0..self.nodes.len() {
            for a in 0..b {
                let boots = (self.nodes[a].boot, self.nodes[b].boot);
                let before = self.links.get(&(a, b)).copied();
                let now = self.is_reachable(a, b).then_some(boots);
                if before == now {
                    continue;
                }
                for (n, peer) in [(a, b), (b, a)] {
                    if let Some(peer) = self.nodes[n].life().and_then(|life| life.peers.get_mut(peer)) {
                        *peer = Peer { heads: None, is_armed: peer.is_armed };
                    }
                }
                match now {
                    None => drop(self.links.remove(&(a, b))),
                    Some(boots) => {
                        self.links.insert((a, b), boots);
                        for (from, to) in [(a, b), (b, a)] {
                            let (heads, delay_ms) =
                                (self.nodes[from].known.clone(), self.between(10, 30_000));
                            self.after(delay_ms, Event::Deliver(from, to, Message::Hello(heads)));
                        }
                    }
                }
            }
        }
    }

    /// A node loses power. What was on its way to the disk may be there or not; the last that came from others too.
    fn crash(&mut self, n: NodeIndex) {
        let Some(life) = self.nodes[n].life.take() else { return };
        self.did("crashed", n, 0);
        if let Some((v, _)) = life.drops.iter().find(|(v, _)| life.locked.contains(v)) {
            self.did("crashed_amid_drop", n, *v);
        }
        for transaction in life.syncing {
            if self.between(0, 1) == 0 {
                break;
            }
            self.did("survived_crash", n, 0);
            self.append(n, transaction.feed, transaction.entries);
        }
        if self.fault(30) {
            let feed = self.index(self.feeds.len());
            if feed / 2 != n && self.nodes[n].known[feed] > 0 {
                let lost = u32::try_from(self.between(1, 3)).expect("few");
                let known = &mut self.nodes[n].known[feed];
                *known = known.saturating_sub(lost);
                self.did("lost_tail", n, 0);
            }
        }
    }

    /// A node starts: it reads its feeds, looks at its files and goes on.
    pub(super) fn start(&mut self, n: NodeIndex) {
        if self.nodes[n].life.is_some() {
            return;
        }
        let (versions, count) = (self.book.versions.len(), self.nodes.len());
        let node = &mut self.nodes[n];
        node.boot += 1;
        node.folds = vec![VersionFold::default(); versions];
        node.standing = vec![Standing::Unknown; versions];
        node.held = vec![None; versions];
        node.policy = PolicyFold::default();
        node.in_effect = None::<std::sync::Arc<Policy>>;
        node.life = Some(Life { peers: vec![Peer::default(); count], ..Life::default() });
        let known = std::mem::replace(&mut node.known, vec![0; 2 * count]);
        for (feed, upto) in known.into_iter().enumerate() {
            self.take(n, feed, upto);
        }
        self.found(n);
        self.follow(n, BTreeSet::new(), false);
        self.consider_all(n);
        self.room_soon(n);
        self.connect();
    }

    /// Looks at all directories: what is not published waits, what is whole and not recorded is found.
    fn found(&mut self, n: NodeIndex) {
        let dirs: Vec<VersionIndex> = self.nodes[n].dirs.keys().copied().collect();
        for v in dirs {
            if self.checker.has_unpublished(n, v) {
                if let Some(life) = self.nodes[n].life() {
                    life.pending.insert(v);
                }
                continue;
            }
            let node = &self.nodes[n];
            let Some(head) = node.head(&self.book, v) else { continue };
            let generation = &self.book.generations[head];
            let is_here = node.has_whole(generation) && node.dirs[&v].len() == generation.files.len();
            if is_here && node.held[v].is_none() && node.manifests.contains(&head) {
                let held = Held { version: self.book.versions[v].id.clone(), manifest: generation.manifest };
                let entry = Entry::about(v, Record::Placed(held), Cause::Usual);
                self.did("found", n, v);
                self.nodes[n].life().map(|life| life.locked.insert(v));
                self.commit(n, 2 * n, vec![entry], Then::Placed(v));
            }
        }
        let manifests = (0..self.book.generations.len()).filter(|g| {
            let generation = &self.book.generations[*g];
            self.nodes[n].folds[generation.version].generation(&generation.manifest).is_some()
                && !self.nodes[n].manifests.contains(g)
        });
        for g in manifests.collect::<Vec<_>>() {
            self.wake(n, HOUR, Wake::Manifest(g));
        }
    }

    /// A file of a version that is held, and not in anybody's hands, rots or is lost.
    fn damage(&mut self, n: NodeIndex, random: u64, is_lost: bool) {
        let node = &mut self.nodes[n];
        let held =
            (0..self.book.versions.len()).filter(|v| node.folds[*v].held_by(&node.id).next().is_some());
        let held: Vec<VersionIndex> = held.collect();
        let is_touched = |v: &VersionIndex| node.life.as_ref().is_some_and(|life| life.locked.contains(v));
        let chosen = usize::try_from(random % 1_000_003).expect("an index");
        let Some(v) = held.get(chosen % held.len().max(1)).copied().filter(|v| !is_touched(v)) else {
            return;
        };
        let published: BTreeSet<u8> = self
            .book
            .generations
            .iter()
            .filter(|generation| generation.version == v)
            .flat_map(|generation| generation.files.keys().copied())
            .collect();
        let Some(dir) = node.dirs.get_mut(&v) else { return };
        let Some((place, bytes)) = dir.iter().find(|(place, _)| published.contains(place)) else { return };
        let place = *place;
        if self.checker.is_unpublished(n, v, place) {
            return;
        }
        if is_lost {
            dir.remove(&place);
        } else {
            let mut rotten = bytes.to_vec();
            rotten[chosen % bytes.len()] ^= u8::try_from(1 + random % 255).expect("a byte");
            dir.insert(place, FileBytes::from(rotten));
        }
        self.checker.damaged(n, v, self.now_ms);
        self.did(if is_lost { "lost" } else { "rotten" }, n, v);
        if is_lost {
            let delay_ms = self.between(DAY, 3 * DAY);
            self.wake(n, delay_ms, Wake::Scan(v));
        }
    }

    /// Notices that files are lost: the node does not hold the version any more.
    pub(super) fn scan(&mut self, n: NodeIndex, v: VersionIndex) {
        let node = &self.nodes[n];
        let is_busy =
            node.life.as_ref().is_none_or(|life| life.locked.contains(&v) || life.drops.contains_key(&v));
        let Some(held) = node.held[v].filter(|_| !is_busy) else { return };
        if node
            .dirs
            .get(&v)
            .is_some_and(|dir| self.book.generations[held].files.keys().all(|p| dir.contains_key(p)))
        {
            return;
        }
        let id = self.book.versions[v].id.clone();
        let dropped =
            |manifest| Entry::about(v, Record::Dropped(Held { version: id.clone(), manifest }), Cause::Lost);
        let entries = node.folds[v].held_by(&node.id).map(dropped).collect();
        self.did("loss_noticed", n, v);
        self.commit(n, 2 * n, entries, Then::Nothing);
    }
}
