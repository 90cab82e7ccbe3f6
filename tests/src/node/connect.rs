//! Keeps one connection with every peer: dials, gives up the surplus one, dials again when it is gone.

use std::time::Duration;

use avalon_protocol::{
    backoff::Backoff,
    close_code::CloseCode,
    id::ProjectName,
    session::Session,
    wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, ServedProject},
};
use rand::Rng as _;

use super::{SimNode, talk::Link};
use crate::{
    env::Env,
    event::{CloseNote, ConnectionId, NodeIndex, Note, Wake},
    link::DIAL_TIMEOUT_MS,
};

impl SimNode {
    fn hello(&self, instance: u64) -> Hello {
        let served = |(name, mode): (&ProjectName, &_)| ServedProject { name: name.clone(), mode: *mode };
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features: 0,
            build: "simulation".into(),
            studio: "northlight".parse().expect("a fixed name"),
            node: self.id.clone(),
            instance,
            projects: self.projects.iter().map(served).collect(),
        }
    }

    pub(super) fn dial(&mut self, peer: NodeIndex, env: &mut Env) {
        let Some(life) = self.life.as_mut() else { return };
        if life.links.values().any(|link| link.peer == peer) || !life.dialling.insert(peer) {
            return;
        }
        if env.network.reaches(self.who.node, peer) {
            env.connect(self.who.node, peer);
        } else {
            life.dialling.remove(&peer);
            self.dial_later(peer, DIAL_TIMEOUT_MS, env);
        }
    }

    fn dial_later(&mut self, peer: NodeIndex, timeout_ms: u64, env: &mut Env) {
        let Some(life) = self.life.as_mut().filter(|_| self.dials.contains(&peer)) else { return };
        let backoff = life.backoffs.entry(peer).or_insert_with(dial_backoff);
        let wait = backoff.failed(env.dice.random());
        let wait_ms = u64::try_from(wait.as_millis()).expect("a short wait");
        env.wake(self.who, timeout_ms + wait_ms, Wake::Dial(peer));
    }

    /// Hears that a connection is there.
    pub fn established(&mut self, id: ConnectionId, env: &mut Env) {
        let Some(connection) = env.network.connection(id) else { return };
        let (peer, dialled_here) = (connection.other(self.who.node), connection.dialler == self.who.node);
        let Some(instance) = self.life.as_ref().map(|life| life.instance) else { return };
        let hello = self.hello(instance);
        let (session, effects) = Session::new(hello, self.names[peer].clone(), self.disk.ledger.heads());
        let Some(life) = self.life.as_mut() else { return };
        if dialled_here {
            life.dialling.remove(&peer);
        }
        life.links.insert(id, Link::new(peer, dialled_here, session));
        self.carry_out(id, effects, env);
    }

    /// Hears that a connection with a peer is gone.
    pub fn ended(&mut self, id: ConnectionId, peer: NodeIndex, env: &mut Env) {
        let Some(life) = self.life.as_mut() else { return };
        life.dialling.remove(&peer);
        life.links.remove(&id);
        if !life.links.values().any(|link| link.peer == peer && link.ready) {
            life.own.gone(&self.names[peer], Duration::from_millis(env.now_ms));
        }
        if !life.links.values().any(|link| link.peer == peer) {
            self.dial_later(peer, 0, env);
        }
        self.ask_for_manifests(env);
        self.pump_all(env);
    }

    pub(super) fn close(&mut self, id: ConnectionId, code: CloseCode, env: &mut Env) {
        let Some(link) = self.life.as_mut().and_then(|life| life.links.remove(&id)) else { return };
        env.note(&Note::Closed(self.who.node, CloseNote(code)));
        env.close(id, self.who.node, code.code());
        self.ended(id, link.peer, env);
    }

    /// Of two connections with one peer, keeps the one dialled by the node that comes first in order; of two dialled by
    /// the same, the newer, because the older is then known to be dead on the other side.
    pub(super) fn greeted(&mut self, id: ConnectionId, env: &mut Env) {
        let Some(life) = self.life.as_mut() else { return };
        let Some(link) = life.links.get(&id) else { return };
        let peer = link.peer;
        life.backoffs.entry(peer).or_insert_with(dial_backoff).succeeded();
        let mine = self.id < self.names[peer];
        let mut rivals: Vec<(bool, ConnectionId)> = life
            .links
            .iter()
            .filter(|(_, link)| link.peer == peer && link.ready)
            .map(|(id, link)| (link.dialled_here == mine, *id))
            .collect();
        rivals.sort_unstable();
        rivals.pop();
        for (_, rival) in rivals {
            self.close(rival, CloseCode::DuplicateConnection, env);
        }
        self.ask_for_manifests(env);
        self.plan_all(env);
    }
}

/// The backoff of dials: shorter than the daemon's, as the seeds' stories are short.
fn dial_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(250), Duration::from_secs(5))
}
