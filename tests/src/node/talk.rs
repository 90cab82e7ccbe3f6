//! Carries out what the sessions ask for: sends, reads groups, stores groups.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use avalon_protocol::{
    close_code::CloseCode,
    feed::{FeedError, FeedHead, FeedId, SealedGroup},
    hash::{ChainHash, ManifestId},
    id::ProjectName,
    limits::INLINE_MANIFEST_BYTES,
    manifest::Manifest,
    record::Record,
    session::{Effect, Session},
    wire::{Control, FRAME_HEADER_BYTES, FrameError, FrameHeader, Framed, Records},
};
use rand::Rng as _;

use super::{SimNode, fetch::Request};
use crate::{
    env::{Env, Said},
    event::{ConnectionId, Event, Fault, NodeIndex, Note, StreamId, Wake},
    ledger::{Ledger, StoredGroup},
    mutation::Mutation,
};

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}

/// A connection as its node sees it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: NodeIndex,
    pub(super) dialled_here: bool,
    pub(super) ready: bool,
    session: Session,
    /// How far the peer said that it has each feed, or was sent it: more it cannot be known to have.
    proved: BTreeMap<FeedId, u64>,
    /// What was asked for and is not answered yet, by stream.
    pub(super) requests: BTreeMap<u64, Request>,
}

impl Link {
    /// Takes over a connection and its session.
    pub(super) fn new(peer: NodeIndex, dialled_here: bool, session: Session) -> Self {
        let (proved, requests) = (BTreeMap::new(), BTreeMap::new());
        Self { peer, dialled_here, ready: false, session, proved, requests }
    }

    /// Says whether the peer serves a project.
    pub(super) fn shares(&self, project: &ProjectName) -> bool {
        let peer = self.session.peer();
        peer.is_some_and(|hello| hello.projects.iter().any(|served| served.name == *project))
    }

    /// Learns from a message, of either side, how far the peer has what.
    fn prove(&mut self, message: &Control, side: Side) {
        let mut proved = |feed: FeedId, next_seq: u64| {
            let known = self.proved.entry(feed).or_default();
            *known = next_seq.max(*known);
        };
        match message {
            Control::Heads(heads) if side == Side::Theirs => {
                for (node, head) in &heads.heads {
                    proved(FeedId { project: heads.project.clone(), node: node.clone() }, head.next_seq);
                }
            }
            Control::Records(records) => {
                let end = records.groups.last().and_then(SealedGroup::claimed_end);
                end.into_iter().for_each(|end| proved(records.feed.clone(), end));
            }
            _ => {}
        }
    }

    /// Says whether the session thinks that the peer has more of a feed than anything proves.
    fn overrates(&self, feed: &FeedId) -> bool {
        self.session.peer_has(feed).unwrap_or(0) > self.proved.get(feed).copied().unwrap_or(0)
    }

    /// Says in which of our projects the session does not know yet that the peer has everything, by its own account or
    /// by our ledger's.
    pub(super) fn behind<'a>(
        &'a self,
        ours: impl Iterator<Item = &'a ProjectName> + 'a,
        ledger: &'a Ledger,
    ) -> impl Iterator<Item = &'a ProjectName> + 'a {
        let lacks = move |project: &ProjectName| {
            let mut feeds = ledger.feeds().iter().filter(move |(feed, _)| feed.project == *project);
            feeds.any(|(feed, log)| self.session.peer_has(feed).unwrap_or(0) < log.head().next_seq)
        };
        ours.filter(move |project| {
            !self.ready || (self.shares(project) && (!self.session.is_level(project) || lacks(project)))
        })
    }
}

/// Reads a whole frame, as the daemon reads one from its stream.
pub(super) fn read_frame<T: Framed>(bytes: &[u8]) -> Result<T, FrameError> {
    let Some((header, payload)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(FrameError::Damaged { kind: 0 });
    };
    let header = FrameHeader::parse(*header)?;
    if header.payload_bytes != payload.len() {
        return Err(FrameError::Damaged { kind: header.kind });
    }
    T::from_payload(header.kind, payload)
}

impl SimNode {
    /// Says which peers are thought to have more of a feed than they ever said or were sent.
    pub fn overrated_peers(&self, feed: &FeedId) -> impl Iterator<Item = NodeIndex> {
        let links = self.life.iter().flat_map(|life| life.links.values());
        links.filter(|link| link.overrates(feed)).map(|link| link.peer)
    }

    pub(super) fn control_arrived(&mut self, id: ConnectionId, frame: &[u8], env: &mut Env) {
        let message = read_frame::<Control>(frame);
        let Some(link) = self.life.as_mut().and_then(|life| life.links.get_mut(&id)) else { return };
        match message {
            Ok(message) => {
                link.prove(&message, Side::Theirs);
                let effects = link.session.received(message);
                self.carry_out(id, effects, env);
            }
            Err(error) => {
                let (from, peer) = (self.who.node, link.peer);
                env.said.push(Said::Accused { from, peer, reason: error.to_string() });
                self.close(id, CloseCode::Protocol, env);
            }
        }
    }

    pub(super) fn carry_out(&mut self, id: ConnectionId, effects: Vec<Effect>, env: &mut Env) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let Some(link) = self.life.as_mut().and_then(|life| life.links.get_mut(&id)) else { return };
            match effect {
                Effect::Send(message) => self.say(id, message, env),
                Effect::Ready(_) => {
                    link.ready = true;
                    let peer = link.peer;
                    if let Some(life) = self.life.as_mut() {
                        life.own.greeted(&self.names[peer]);
                    }
                    self.greeted(id, env);
                }
                Effect::ReadGroups { feed, from_seq } => {
                    let delay_ms = env.between(0..=4);
                    env.wake(self.who, delay_ms, Wake::GroupsRead { connection: id, feed, from_seq });
                }
                Effect::StoreGroups(records) => effects.extend(self.store(id, records, env)),
                Effect::OwnFeed { project, next_seq } => {
                    let (peer, now) = (link.peer, Duration::from_millis(env.now_ms));
                    if let Some(life) = self.life.as_mut() {
                        life.own.heard(&project, &self.names[peer], next_seq, now);
                    }
                }
                // No feed here has two histories.
                Effect::ProveFork { .. } | Effect::PeerHead { .. } => {}
                // Here everybody may see everything.
                Effect::Extract(_) => {}
                Effect::Fork(feed) => env.said.push(Said::Fork { from: self.who.node, feed }),
                Effect::Close { code: CloseCode::Feed, .. } => self.close(id, CloseCode::Feed, env),
                Effect::Close { code, reason } => {
                    env.said.push(Said::Accused { from: self.who.node, peer: link.peer, reason });
                    self.close(id, code, env);
                }
            }
        }
    }

    fn say(&mut self, id: ConnectionId, mut message: Control, env: &mut Env) {
        let Some(link) = self.life.as_mut().and_then(|life| life.links.get_mut(&id)) else { return };
        link.prove(&message, Side::Ours);
        let (from, to) = (self.who.node, link.peer);
        let said = |feed, head| Said::Head { from, to, feed, head };
        match &mut message {
            Control::Hello(_) | Control::Extract(_) => {}
            Control::Heads(heads) => {
                env.said.push(Said::Project { from, to, project: heads.project.clone() });
                let feed = |node: &_| FeedId { project: heads.project.clone(), node: Clone::clone(node) };
                env.said.extend(heads.heads.iter().map(|(node, head)| said(feed(node), *head)));
            }
            Control::Records(records) => {
                let groups = self.disk.ledger.feeds().get(&records.feed).map(|log| log.synced());
                let last = records.groups.last().map(|group| group.chain());
                let known = groups.into_iter().flatten().find(|known| Some(known.head.chain) == last);
                // Groups that are not synced here have a head that nobody knows: the invariant will say so.
                let unknown = FeedHead { next_seq: u64::MAX, chain: last.unwrap_or(FeedHead::EMPTY.chain) };
                env.said.push(said(records.feed.clone(), known.map_or(unknown, |group| group.head)));
                if self.liar && env.fault(4) {
                    damage(records, env);
                }
            }
        }
        env.send(id, from, StreamId::Control, message.to_frame(), false);
    }

    fn store(&mut self, id: ConnectionId, records: Records, env: &mut Env) -> Vec<Effect> {
        for bytes in &records.manifests {
            self.keep_manifest(&records.feed.project, bytes);
        }
        let feed = records.feed;
        if self.life.is_none() {
            return vec![];
        }
        if self.disk.full || self.disk.ledger.is_closed(&feed) {
            env.note(&Note::NoRoom(self.who.node));
            self.close(id, CloseCode::Busy, env);
            return vec![];
        }
        let future_ms = env.clock_ms(self.ahead_ms) + 300_000;
        if env.is_wrong(Mutation::RefusesTheFuture)
            && records.groups.iter().any(|g| written_ms(g) > future_ms)
        {
            return vec![];
        }
        let stored = self.disk.ledger.store(&feed, &records.groups);
        let groups = self.disk.ledger.written(&feed);
        let stored_for = stored.is_ok().then_some(id);
        let delay_ms = env.sync_ms(12);
        env.wake(self.who, delay_ms, Wake::FeedSynced { feed: feed.clone(), groups, stored_for });
        let Some(link) = self.life.as_mut().and_then(|life| life.links.get_mut(&id)) else { return vec![] };
        match stored {
            Ok(()) => vec![],
            Err(FeedError::Fork { .. }) => link.session.groups_forked(&feed),
            Err(error) => {
                env.note(&Note::BadGroups(self.who.node, link.peer));
                let reason = error.to_string();
                env.said.push(Said::Accused { from: self.who.node, peer: link.peer, reason: reason.clone() });
                vec![Effect::Close { code: CloseCode::Feed, reason }]
            }
        }
    }

    /// Keeps a manifest of a project, if it is one; says whether it did.
    pub(super) fn keep_manifest(&mut self, project: &ProjectName, bytes: &[u8]) -> bool {
        let id = ManifestId::from_bytes(*blake3::hash(bytes).as_bytes());
        if self.disk.full || self.disk.manifests.get(&id).is_some_and(|known| known.project() == project) {
            return true;
        }
        let manifest = Manifest::decode(bytes).ok().filter(|manifest| manifest.project() == project);
        let kept = manifest.is_some();
        let new = manifest.map(|manifest| (manifest.id(), manifest.into()));
        self.disk.manifests.extend(new);
        kept
    }

    pub(super) fn feed_synced(
        &mut self,
        feed: &FeedId,
        groups: usize,
        stored_for: Option<ConnectionId>,
        env: &mut Env,
    ) {
        if self.disk.ledger.is_closed(feed) {
            return;
        }
        if std::mem::take(&mut self.disk.bad_sync) {
            return self.feed_sync_failed(feed, (groups, stored_for), env);
        }
        let before = self.disk.ledger.head(feed);
        let versions = self.disk.ledger.sync(feed, groups);
        let head = self.disk.ledger.head(feed);
        self.touched.feeds.insert(feed.clone());
        self.touched.versions.extend(versions.iter().cloned());
        self.publishes_recorded(&versions, env);
        if let Some(from) = stored_for.filter(|_| feed.node == self.id && head != before) {
            self.came_back(feed, from, env);
        }
        let Some(life) = self.life.as_mut() else { return };
        if let Some(connection) = stored_for.filter(|id| life.links.contains_key(id)) {
            // The answer may come late, when the feed goes further already.
            if env.chance(12) {
                let delay_ms = env.between(1..=10);
                env.wake(self.who, delay_ms, Wake::Stored { connection, feed: feed.clone(), head });
            } else {
                self.stored(connection, feed, head, env);
            }
        }
        if head == before {
            return;
        }
        let links: Vec<ConnectionId> = self.life.iter().flat_map(|life| life.links.keys().copied()).collect();
        for connection in links {
            // Sessions hear of it in any order, some of them late.
            if env.chance(12) {
                let delay_ms = env.between(1..=10);
                env.wake(self.who, delay_ms, Wake::Advanced { connection, feed: feed.clone(), head });
            } else {
                self.advanced(connection, feed, head, env);
            }
        }
        if feed.project.is_studio() {
            self.note_rivals(env);
        }
        self.ask_for_manifests(env);
        for version in versions {
            self.plan(&version, env);
        }
    }

    /// Own records came from a peer, and the catalog has them: before that nobody hears of it.
    fn came_back(&mut self, feed: &FeedId, from: ConnectionId, env: &mut Env) {
        let (now, next_seq) = (Duration::from_millis(env.now_ms), self.disk.ledger.head(feed).next_seq);
        let Some(life) = self.life.as_mut() else { return };
        *life.came_back.entry(feed.project.clone()).or_default() += 1;
        match life.links.get(&from) {
            Some(link) => life.own.came(&feed.project, &self.names[link.peer], next_seq, now),
            None => life.own.advanced(&feed.project, next_seq),
        }
        env.note(&Note::TakenBack(self.who.node));
    }

    /// The feed is closed; people start the daemon again soon.
    fn feed_sync_failed(
        &mut self,
        feed: &FeedId,
        (groups, stored_for): (usize, Option<ConnectionId>),
        env: &mut Env,
    ) {
        let node = self.who.node;
        env.note(&Note::FeedSyncFailed(node));
        self.disk.ledger.sync_failed(feed, env.wrong);
        if env.is_wrong(Mutation::BelievesSecondSync) {
            env.wake(self.who, 10, Wake::FeedSynced { feed: feed.clone(), groups, stored_for });
            return;
        }
        let (off_ms, on_ms) = (env.between(0..=1000), env.between(1001..=3000));
        env.after(off_ms, Event::Fault(Fault::Kill { node }));
        env.after(on_ms, Event::Fault(Fault::Restart { node }));
    }

    pub(super) fn stored(&mut self, id: ConnectionId, feed: &FeedId, head: FeedHead, env: &mut Env) {
        let Some(link) = self.life.as_mut().and_then(|life| life.links.get_mut(&id)) else { return };
        let effects = link.session.groups_stored(feed, head);
        self.carry_out(id, effects, env);
    }

    pub(super) fn advanced(&mut self, id: ConnectionId, feed: &FeedId, head: FeedHead, env: &mut Env) {
        let Some(link) = self.life.as_mut().and_then(|life| life.links.get_mut(&id)) else { return };
        let effects = link.session.advanced(feed, head);
        self.carry_out(id, effects, env);
    }

    pub(super) fn groups_read(&mut self, id: ConnectionId, feed: &FeedId, from_seq: u64, env: &mut Env) {
        let limit = usize::try_from(env.between(1..=6)).expect("small");
        let Some(link) = self.life.as_mut().and_then(|life| life.links.get_mut(&id)) else { return };
        let (next_seq, groups) = self.disk.ledger.read(feed, from_seq, limit);
        let mut manifests = Vec::new();
        for manifest in groups.iter().flat_map(published) {
            let known = self.disk.manifests.get(&manifest).filter(|_| env.chance(70));
            manifests.extend(known.map(|manifest| manifest.encode()));
        }
        manifests.retain(|bytes| bytes.len() <= INLINE_MANIFEST_BYTES);
        let groups = groups.iter().map(|group| group.sealed.clone()).collect();
        let effects = link.session.groups_read(feed, next_seq, groups, manifests);
        self.carry_out(id, effects, env);
    }
}

fn published(group: &StoredGroup) -> impl Iterator<Item = ManifestId> + '_ {
    group.records.iter().filter_map(|record| match record {
        Record::Published(published) => Some(published.manifest),
        _ => None,
    })
}

/// When a group was written, by the clock of its node, in milliseconds since 1970.
fn written_ms(group: &SealedGroup) -> u64 {
    let start = postcard::take_from_bytes::<(u16, FeedId, u64, ChainHash, u64)>(&group.body);
    start.map_or(0, |((_, _, _, _, written_ms), _)| written_ms)
}

/// What a liar does to the records of others that it passes on.
fn damage(records: &mut Records, env: &mut Env) {
    let Some(group) = records.groups.first_mut() else { return };
    let bytes = if env.chance(50) { &mut group.body } else { &mut group.signature };
    let at = usize::try_from(env.dice.random_range(0..bytes.len() as u64)).expect("small");
    bytes[at] ^= 1;
}
