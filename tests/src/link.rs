//! The network: connections with ordered, reliable streams, as QUIC gives them, over lines that are slow, that break,
//! and that partitions silence.
//!
//! A broken connection loses everything in flight, and its two sides notice at different times. A partition first only
//! stalls: when it heals soon enough, everything arrives late; otherwise the connection ends by its idle timeout.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use crate::{
    env::Env,
    event::{ConnectionId, Event, NodeIndex, Note, Piece, StreamId},
};

/// How long a stalled connection lives, in milliseconds.
const IDLE_TIMEOUT_MS: u64 = 8000;
/// How long a dial waits for an answer, in milliseconds.
pub const DIAL_TIMEOUT_MS: u64 = 2000;

/// After this long a packet that is lost again and again gets through, in milliseconds: or the connection would be given up.
const MOST_RESENT_MS: u64 = 4000;

/// How good the line between two nodes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quality {
    /// The shortest delay in milliseconds.
    pub delay_ms: u64,
    /// How much longer it may be.
    pub jitter_ms: u64,
    /// The speed.
    pub bytes_per_ms: u64,
    /// Of a hundred packets so many are lost; each is sent again, which takes its time.
    pub loss_percent: u32,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// The side that dialled.
    pub dialler: NodeIndex,
    /// The other one.
    pub acceptor: NodeIndex,
    /// The sides that have not heard of its end.
    open: BTreeSet<NodeIndex>,
    /// Nothing passes any more; what was in flight is lost.
    broken: bool,
    stalled: bool,
    stalls: u32,
    /// What was due while it was stalled.
    held: Vec<Event>,
    /// What is on its way on each stream to each side.
    lanes: BTreeMap<(NodeIndex, StreamId), Lane>,
    /// The sides that have heard that it is there; nothing arrives at the others.
    established: BTreeSet<NodeIndex>,
}

/// One direction of a stream: it keeps its order.
#[derive(Debug, Default)]
struct Lane {
    last_ms: u64,
    pieces: VecDeque<(Piece, bool)>,
}

impl Connection {
    /// Returns the side opposite to `node`.
    pub fn other(&self, node: NodeIndex) -> NodeIndex {
        if node == self.dialler { self.acceptor } else { self.dialler }
    }
}

/// All lines and connections.
#[derive(Debug)]
pub struct Network {
    lines: BTreeMap<(NodeIndex, NodeIndex), Quality>,
    connections: BTreeMap<ConnectionId, Connection>,
    partitions: BTreeMap<usize, BTreeSet<NodeIndex>>,
    /// Nodes without power.
    pub down: BTreeSet<NodeIndex>,
    next_connection: ConnectionId,
    next_stream: u64,
}

impl Network {
    /// Lays the lines; there are no connections yet.
    pub fn new(lines: BTreeMap<(NodeIndex, NodeIndex), Quality>) -> Self {
        Self {
            lines,
            connections: BTreeMap::new(),
            partitions: BTreeMap::new(),
            down: BTreeSet::new(),
            next_connection: 0,
            next_stream: 0,
        }
    }

    /// Returns a connection that at least one side still believes in.
    pub fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// Returns the number for a new request stream.
    pub fn open_stream(&mut self) -> u64 {
        self.next_stream += 1;
        self.next_stream
    }

    /// Says whether both nodes have power and no partition lies between them.
    pub fn reaches(&self, one: NodeIndex, other: NodeIndex) -> bool {
        !self.down.contains(&one) && !self.down.contains(&other) && self.is_whole(one, other)
    }

    fn is_whole(&self, one: NodeIndex, other: NodeIndex) -> bool {
        self.partitions.values().all(|island| island.contains(&one) == island.contains(&other))
    }

    /// Says whether there is a line between two nodes.
    pub fn has_line(&self, one: NodeIndex, other: NodeIndex) -> bool {
        self.lines.contains_key(&(one.min(other), one.max(other)))
    }

    /// Returns the connections that still work.
    pub fn living(&self) -> Vec<ConnectionId> {
        self.connections.iter().filter(|(_, c)| !c.broken).map(|(id, _)| *id).collect()
    }

    fn quality(&self, one: NodeIndex, other: NodeIndex) -> Quality {
        self.lines[&(one.min(other), one.max(other))]
    }
}

impl Env {
    fn delay_ms(&mut self, one: NodeIndex, other: NodeIndex, bytes: usize) -> u64 {
        let quality = self.network.quality(one, other);
        let jitter_ms = self.between(0..=quality.jitter_ms);
        let mut resent_ms = 0;
        while quality.loss_percent > 0 && resent_ms < MOST_RESENT_MS && self.fault(quality.loss_percent) {
            resent_ms += (3 * quality.delay_ms).max(2 * resent_ms);
            self.note(&Note::Resent);
        }
        quality.delay_ms + jitter_ms + resent_ms + bytes as u64 / quality.bytes_per_ms
    }

    /// Connects two nodes that reach each other; both hear of it, the acceptor later.
    pub fn connect(&mut self, dialler: NodeIndex, acceptor: NodeIndex) -> ConnectionId {
        let id = self.network.next_connection;
        self.network.next_connection += 1;
        let dialler_ms = self.now_ms + 2 * self.delay_ms(dialler, acceptor, 0);
        let acceptor_ms = dialler_ms + self.delay_ms(dialler, acceptor, 0);
        self.network.connections.insert(
            id,
            Connection {
                dialler,
                acceptor,
                open: [dialler, acceptor].into(),
                broken: false,
                stalled: false,
                stalls: 0,
                held: Vec::new(),
                lanes: BTreeMap::new(),
                established: BTreeSet::new(),
            },
        );
        self.at(dialler_ms, Event::Established { connection: id, node: dialler });
        self.at(acceptor_ms, Event::Established { connection: id, node: acceptor });
        id
    }

    /// Sends bytes; on a broken connection they vanish.
    pub fn send(&mut self, id: ConnectionId, from: NodeIndex, stream: StreamId, bytes: Vec<u8>, last: bool) {
        let Some(connection) = self.network.connections.get(&id) else { return };
        if connection.broken || !connection.open.contains(&from) {
            return;
        }
        let node = connection.other(from);
        let earliest_ms = self.now_ms + self.delay_ms(from, node, bytes.len());
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let lane = connection.lanes.entry((node, stream)).or_default();
        lane.last_ms = earliest_ms.max(lane.last_ms);
        lane.pieces.push_back((Piece(bytes), last));
        let at_ms = lane.last_ms;
        self.at(at_ms, Event::Due { connection: id, node, stream });
    }

    /// Turns what is due on a connection into what happens there; `None` when it is lost, or held until a partition is
    /// over. Other events pass.
    pub fn admit(&mut self, event: Event) -> Option<Event> {
        let (id, node) = match event {
            Event::Established { connection, node } | Event::Due { connection, node, .. } => {
                (connection, node)
            }
            event => return Some(event),
        };
        let connection = self.network.connections.get_mut(&id)?;
        if connection.broken || !connection.open.contains(&node) {
            return None;
        }
        if connection.stalled {
            connection.held.push(event);
            return None;
        }
        let Event::Due { stream, .. } = event else {
            connection.established.insert(node);
            return Some(event);
        };
        if !connection.established.contains(&node) {
            self.after(1, event);
            return None;
        }
        let lane = connection.lanes.get_mut(&(node, stream))?;
        let (piece, last) = lane.pieces.pop_front()?;
        if last {
            connection.lanes.remove(&(node, stream));
        }
        Some(Event::Arrived { connection: id, node, stream, piece, last })
    }

    /// Breaks a connection: nothing in flight arrives, and each side notices some time later.
    pub fn cut(&mut self, id: ConnectionId) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        if std::mem::replace(&mut connection.broken, true) {
            return;
        }
        for node in connection.open.clone() {
            let delay_ms = self.between(1..=6000);
            self.after(delay_ms, Event::Ended { connection: id, node, code: None });
        }
    }

    /// Breaks all connections of a node that went down.
    pub fn cut_all(&mut self, node: NodeIndex) {
        for id in self.network.living() {
            let Some(connection) = self.network.connections.get_mut(&id) else { continue };
            if connection.open.remove(&node) {
                self.cut(id);
            }
        }
        self.network.connections.retain(|_, connection| !connection.open.is_empty());
    }

    /// Closes a connection from one side; the other hears of it after what was sent before.
    pub fn close(&mut self, id: ConnectionId, from: NodeIndex, code: u32) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        connection.open.remove(&from);
        let node = connection.other(from);
        let stalled = connection.stalled;
        let lanes = connection.lanes.iter().filter(|((to, _), _)| *to == node);
        let last_ms = lanes.map(|(_, lane)| lane.last_ms).max();
        if connection.open.is_empty() {
            self.network.connections.remove(&id);
            return;
        }
        if connection.broken {
            return;
        }
        let delay_ms = if stalled { IDLE_TIMEOUT_MS } else { self.delay_ms(from, node, 0) };
        let at_ms = (self.now_ms + delay_ms).max(last_ms.unwrap_or(0));
        let code = (!stalled).then_some(code);
        self.at(at_ms, Event::Ended { connection: id, node, code });
    }

    /// Hears that a side has taken note of the end; returns false when it had before.
    pub fn ended(&mut self, id: ConnectionId, node: NodeIndex) -> bool {
        let Some(connection) = self.network.connections.get_mut(&id) else { return false };
        let first = connection.open.remove(&node);
        connection.broken = true;
        if connection.open.is_empty() {
            self.network.connections.remove(&id);
        }
        first
    }

    /// Starts a partition: connections across it break or stall.
    pub fn part(&mut self, partition: usize, island: &[NodeIndex]) {
        self.network.partitions.insert(partition, island.iter().copied().collect());
        for id in self.network.living() {
            let Some(connection) = self.network.connections.get(&id) else { continue };
            if connection.stalled || self.network.is_whole(connection.dialler, connection.acceptor) {
                continue;
            }
            if self.chance(30) {
                self.cut(id);
                continue;
            }
            let Some(connection) = self.network.connections.get_mut(&id) else { continue };
            connection.stalled = true;
            connection.stalls += 1;
            let stalls = connection.stalls;
            self.after(IDLE_TIMEOUT_MS, Event::Idle { connection: id, stalls });
        }
    }

    /// Ends a connection that has been stalled since the clock of `stalls` was set.
    pub fn idle(&mut self, id: ConnectionId, stalls: u32) {
        if self.network.connections.get(&id).is_some_and(|c| c.stalled && c.stalls == stalls) {
            self.cut(id);
        }
    }

    /// Ends a partition: what was held on stalled connections goes on.
    pub fn heal(&mut self, partition: usize) {
        self.network.partitions.remove(&partition);
        for id in self.network.living() {
            let Some(connection) = self.network.connections.get_mut(&id) else { continue };
            let (one, other) = (connection.dialler, connection.acceptor);
            if !connection.stalled || !self.network.is_whole(one, other) {
                continue;
            }
            let Some(connection) = self.network.connections.get_mut(&id) else { continue };
            connection.stalled = false;
            let held = std::mem::take(&mut connection.held);
            self.note(&Note::WokeUp(id));
            let at_ms = self.now_ms + self.delay_ms(one, other, 0);
            for event in held {
                self.at(at_ms, event);
            }
        }
    }

    /// Heals every partition.
    pub fn heal_all(&mut self) {
        let partitions: Vec<usize> = self.network.partitions.keys().copied().collect();
        partitions.into_iter().for_each(|partition| self.heal(partition));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::event_log::{EventLog, Recording};

    /// Two nodes with a connection, both sides established.
    fn connected(seed: u64) -> (Env, ConnectionId) {
        let quality = Quality { delay_ms: 10, jitter_ms: 200, bytes_per_ms: 100, loss_percent: 20 };
        let network = Network::new([((0, 1), quality)].into());
        let mut env = Env::new(ChaCha8Rng::seed_from_u64(seed), network, EventLog::new(Recording::HashOnly));
        let id = env.connect(0, 1);
        let established = [next(&mut env), next(&mut env)];
        assert!(established.iter().all(|event| matches!(event, Some(Event::Established { .. }))));
        (env, id)
    }

    fn next(env: &mut Env) -> Option<Event> {
        loop {
            let event = env.pop()?;
            if let Some(event) = env.admit(event) {
                return Some(event);
            }
        }
    }

    fn arrivals(env: &mut Env) -> Vec<u8> {
        std::iter::from_fn(|| next(env))
            .filter_map(|event| match event {
                Event::Arrived { piece, .. } => piece.0.first().copied(),
                _ => None,
            })
            .collect()
    }

    fn send_ten(env: &mut Env, id: ConnectionId) {
        (0..10).for_each(|byte| env.send(id, 0, StreamId::Control, vec![byte], false));
    }

    #[test]
    fn a_stream_keeps_its_order_whatever_the_delays() {
        for seed in 0..50 {
            let (mut env, id) = connected(seed);
            send_ten(&mut env, id);
            assert_eq!(arrivals(&mut env), (0..10).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn a_partition_that_heals_soon_delays_and_keeps_the_order() {
        for seed in 0..50 {
            let (mut env, id) = connected(seed);
            send_ten(&mut env, id);
            env.part(0, &[0]);
            if env.network.living().is_empty() {
                continue; // this one broke at once
            }
            let healed_ms = env.now_ms + IDLE_TIMEOUT_MS / 2;
            env.at(healed_ms, Event::Judge);
            let until =
                std::iter::from_fn(|| next(&mut env)).take_while(|event| !matches!(event, Event::Judge));
            assert_eq!(until.count(), 0, "nothing passes");
            env.heal(0);
            assert_eq!(arrivals(&mut env), (0..10).collect::<Vec<u8>>(), "seed {seed}");
        }
    }

    #[test]
    fn a_cut_loses_what_is_on_its_way_and_both_sides_hear_of_it() {
        let (mut env, id) = connected(1);
        send_ten(&mut env, id);
        env.cut(id);
        let ends: Vec<Event> = std::iter::from_fn(|| next(&mut env)).collect();
        assert_eq!(ends.len(), 2, "{ends:?}");
        assert!(ends.iter().all(|event| matches!(event, Event::Ended { .. })));
    }
}
