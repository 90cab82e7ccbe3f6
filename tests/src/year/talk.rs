//! What nodes tell each other: records of feeds in their order, kept until the peer says that it has them. Simpler than the
//! daemon's session, which the other simulation runs as it is.

use std::collections::BTreeSet;

use avalon_protocol::record::Record;

use super::{
    book::{GenIndex, NodeIndex, VersionIndex},
    event::{Event, Heads, Message, Wake},
    node::{Cause, Entry, Then, Transaction},
    script::{DAY, HOUR, MINUTE},
    world::World,
};

/// How long a node waits for a peer to say that it has what was sent.
const RESEND_MS: u64 = 10 * MINUTE;
/// How long after it came something is passed on to those whom its author does not reach.
const PASS_ON_MS: u64 = 30_000;

impl World {
    /// Sends a message: mostly it arrives soon, sometimes late, twice or not at all.
    pub(super) fn send(&mut self, from: NodeIndex, to: NodeIndex, message: Message) {
        let times = match () {
            () if self.fault(2) => 0,
            () if self.fault(2) => 2,
            () => 1,
        };
        for _ in 0..times {
            if !self.is_linked(from, to) {
                return;
            }
            let delay_ms = match () {
                () if self.fault(1) => self.between(MINUTE, DAY),
                () if self.fault(4) => self.between(1000, 10 * MINUTE),
                () => self.between(1, 150),
            };
            self.after(delay_ms, Event::Deliver(from, to, message.clone()));
        }
    }

    /// Says whether two nodes reach each other.
    pub(super) fn is_linked(&self, a: NodeIndex, b: NodeIndex) -> bool {
        self.links.contains_key(&(a.min(b), a.max(b)))
    }

    /// Hands records to the disk.
    pub(super) fn commit(&mut self, n: NodeIndex, feed: usize, entries: Vec<Entry>, then: Then) {
        let id = self.number();
        let sync_ms = if self.fault(12) { self.between(100, 3000) } else { self.between(1, 30) };
        let (now_ms, boot) = (self.now_ms, self.nodes[n].boot);
        let Some(life) = self.nodes[n].life() else { return };
        life.syncing.push_back(Transaction { id, feed, entries, then });
        // One after the other.
        life.synced_at_ms = life.synced_at_ms.max(now_ms) + sync_ms;
        let delay_ms = life.synced_at_ms - now_ms;
        self.after(delay_ms, Event::Synced(n, boot, id));
    }

    /// A transaction is durable.
    pub(super) fn synced(&mut self, n: NodeIndex, id: u64) {
        let Some(transaction) = self.nodes[n].life().and_then(|life| life.syncing.pop_front()) else {
            return;
        };
        assert_eq!(transaction.id, id, "transactions are synced in their order");
        let (versions, is_new) = self.append(n, transaction.feed, transaction.entries);
        match transaction.then {
            Then::Nothing => {}
            Then::Dropped(v, number) => self.recorded(n, v, number),
            Then::Placed(v) => self.placed(n, v),
        }
        let any = !versions.is_empty();
        self.follow(n, versions, is_new);
        if any {
            self.room_soon(n);
        }
        for peer in 0..self.nodes.len() {
            self.push_soon(n, peer, 5);
        }
    }

    /// Adds records to a node's own feed for good; returns what [`World::take`] does.
    pub(super) fn append(
        &mut self,
        n: NodeIndex,
        feed: usize,
        entries: Vec<Entry>,
    ) -> (BTreeSet<VersionIndex>, bool) {
        for entry in entries {
            match (&entry.record, entry.version, entry.cause) {
                (Record::Dropped(held), Some(v), Cause::Drop(attempt)) => {
                    self.asked.remove(&(n, v));
                    self.checker.dropped((n, attempt), v, &held.manifest, &self.nodes, &self.book);
                }
                (Record::Published(published), Some(v), _) => {
                    let g = self.book.generation(&published.manifest).expect("it was made here");
                    let files = &self.book.generations[g].files;
                    self.checker.published(n, v, files);
                    let is_left = self.checker.has_unpublished(n, v);
                    if let Some(life) = self.nodes[n].life().filter(|_| !is_left) {
                        life.pending.remove(&v);
                    }
                }
                _ => {}
            }
            self.feeds[feed].push(Entry { at_ms: self.now_ms, ..entry });
        }
        let upto = u32::try_from(self.feeds[feed].len()).expect("few records");
        self.take(n, feed, upto)
    }

    /// Takes a feed up to a number into the folds; returns which versions it spoke of, and whether one is new.
    pub(super) fn take(&mut self, n: NodeIndex, feed: usize, upto: u32) -> (BTreeSet<VersionIndex>, bool) {
        let (mut versions, mut is_new) = (BTreeSet::new(), false);
        let author = self.book.nodes[feed / 2].id.clone();
        let node = &mut self.nodes[n];
        while node.known[feed] < upto {
            let seq = node.known[feed];
            node.known[feed] += 1;
            let entry = &self.feeds[feed][usize::try_from(seq).expect("an index")];
            match (&entry.record, entry.version) {
                (Record::Policy(applied), _) => {
                    node.policy.apply((author.clone(), seq.into()), seq.into(), applied, true);
                }
                (record, Some(v)) => {
                    node.folds[v].apply(&author, seq.into(), record);
                    is_new |= matches!(record, Record::Published(_));
                    versions.insert(v);
                }
                _ => {}
            }
        }
        versions.iter().for_each(|v| node.derive(&self.book, *v));
        (versions, is_new)
    }

    /// Looks at versions about which something new is known, and at all when the policy changed.
    pub(super) fn follow(&mut self, n: NodeIndex, versions: BTreeSet<VersionIndex>, is_new: bool) {
        let node = &mut self.nodes[n];
        let text =
            node.policy.in_effect().map(|stands| (stands.id.serial, std::sync::Arc::clone(&stands.document)));
        let policy = text.and_then(|(serial, text)| {
            let (_, policy) = self.book.policies.iter().find(|(known, _)| **known == *text)?;
            Some((serial, std::sync::Arc::clone(policy)))
        });
        if let Some((serial, policy)) = policy
            && node.in_effect.as_ref() != Some(&policy)
        {
            node.in_effect = Some(policy);
            self.in_effect(n, serial);
            return self.policy_came(n);
        }
        let subsets: BTreeSet<usize> = versions.iter().map(|v| self.book.versions[*v].subset).collect();
        for v in 0..self.book.versions.len() {
            if versions.contains(&v) || (is_new && subsets.contains(&self.book.versions[v].subset)) {
                self.consider(n, v);
            }
        }
    }

    /// A peer is there.
    pub(super) fn greeted(&mut self, n: NodeIndex, from: NodeIndex, heads: Heads) {
        let Some(peer) = self.nodes[n].life().and_then(|life| life.peers.get_mut(from)) else { return };
        peer.heads = Some(heads);
        self.push(n, from);
        self.consider_all(n);
        self.room_again(n);
    }

    /// A peer says what it has.
    pub(super) fn acknowledged(&mut self, n: NodeIndex, from: NodeIndex, heads: Heads) {
        let Some(peer) = self.nodes[n].life().and_then(|life| life.peers.get_mut(from)) else { return };
        let Some(known) = peer.heads.as_mut() else { return };
        known.iter_mut().zip(heads).for_each(|(known, head)| *known = (*known).max(head));
    }

    fn push_soon(&mut self, n: NodeIndex, to: NodeIndex, delay_ms: u64) {
        let Some(peer) = self.nodes[n].life().and_then(|life| life.peers.get_mut(to)) else { return };
        if peer.heads.is_some() && !std::mem::replace(&mut peer.is_armed, true) {
            self.wake(n, delay_ms, Wake::Push(to));
        }
    }

    /// Sends a peer what it lacks: what this node says, and what others say whom the peer does not reach.
    pub(super) fn push(&mut self, n: NodeIndex, to: NodeIndex) {
        let node = &self.nodes[n];
        let Some(peer) = node.life.as_ref().and_then(|life| life.peers.get(to)) else { return };
        let Some(heads) = peer.heads.clone().filter(|_| self.is_linked(n, to)) else { return };
        let lacking = (0..self.feeds.len()).filter(|feed| {
            let author = feed / 2;
            heads[*feed] < node.known[*feed] && (author == n || (author != to && !self.is_linked(author, to)))
        });
        let ranges: Vec<(usize, u32, u32)> =
            lacking.map(|feed| (feed, heads[feed], node.known[feed])).collect();
        if let Some(peer) = self.nodes[n].life().and_then(|life| life.peers.get_mut(to)) {
            peer.is_armed = false;
        }
        if !ranges.is_empty() {
            self.send(n, to, Message::Records(ranges));
            self.push_soon(n, to, RESEND_MS);
        }
    }

    /// Records come from a peer.
    pub(super) fn records_came(&mut self, n: NodeIndex, from: NodeIndex, ranges: &[(usize, u32, u32)]) {
        let (mut versions, mut is_new, mut any) = (BTreeSet::new(), false, false);
        for (feed, first, end) in ranges {
            let known = self.nodes[n].known[*feed];
            // They join what is here, or they are of no use.
            if feed / 2 == n || *first > known || *end <= known {
                continue;
            }
            any = true;
            for entry in known..*end {
                let entry = &self.feeds[*feed][usize::try_from(entry).expect("an index")];
                if let Record::Published(published) = &entry.record {
                    let g = self.book.generation(&published.manifest).expect("it was published");
                    // Small manifests come along, others later.
                    if self.fault(15) {
                        let delay_ms = self.between(MINUTE, DAY);
                        self.wake(n, delay_ms, Wake::Manifest(g));
                    } else {
                        self.nodes[n].manifests.insert(g);
                    }
                }
            }
            let (spoken_of, has_new) = self.take(n, *feed, *end);
            versions.extend(spoken_of);
            is_new |= has_new;
        }
        let heads = self.nodes[n].known.clone();
        self.send(n, from, Message::Ack(heads));
        if any {
            self.follow(n, versions, is_new);
            self.room_again(n);
            if let Some(life) = self.nodes[n].life().filter(|life| !life.passes_on) {
                life.passes_on = true;
                self.wake(n, PASS_ON_MS, Wake::PassOn);
            }
        }
    }

    /// Passes on what came to those who do not hear it from its author.
    pub(super) fn pass_on(&mut self, n: NodeIndex) {
        if let Some(life) = self.nodes[n].life() {
            life.passes_on = false;
        }
        for peer in 0..self.nodes.len() {
            self.push_soon(n, peer, 5);
        }
    }

    /// A manifest that was late has come, if anybody who has it is reached.
    pub(super) fn manifest_came(&mut self, n: NodeIndex, g: GenIndex) {
        let has = |m: &NodeIndex| self.nodes[*m].manifests.contains(&g) && self.is_linked(n, *m);
        if self.nodes[n].manifests.contains(&g) {
            return;
        }
        if !(0..self.nodes.len()).any(|m| has(&m)) {
            return self.wake(n, HOUR, Wake::Manifest(g));
        }
        self.nodes[n].manifests.insert(g);
        self.did("manifest_late", n, self.book.generations[g].version);
        self.consider(n, self.book.generations[g].version);
        self.room_again(n);
    }
}
