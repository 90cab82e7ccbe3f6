//! Who is connected and what became of each address that is dialled, and the events that say so in the order in which
//! it happened.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use avalon_protocol::{
    control::{PeerState, PeerStatus},
    id::NodeId,
    wire::Hello,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    channel::Channel,
    event::NetEvent,
    faults::{Faults, KeptOff},
    link::PeerLink,
    table::{Direction, Full, Key, Table, Verdict},
};

/// What is known about an address that is dialled.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    /// Ends its loop.
    pub(crate) stop: CancellationToken,
    pub(crate) state: PeerState,
    /// The node that answered there last.
    pub(crate) node: Option<NodeId>,
    pub(crate) detail: Option<String>,
}

#[derive(Debug)]
struct Known {
    table: Table<PeerLink>,
    dials: BTreeMap<String, Dial>,
    faults: Faults,
    /// Every connection whose handshake is done, greeted or not.
    channels: BTreeMap<Key, Arc<Channel>>,
}

/// The one owner of what is known about peers.
#[derive(Debug)]
pub(crate) struct Registry {
    known: Mutex<Known>,
    /// Held while a change is made and told, so that events come in the order of the changes.
    events: tokio::sync::Mutex<mpsc::Sender<NetEvent>>,
    changed: watch::Sender<()>,
    stop: CancellationToken,
}

impl Registry {
    pub(crate) fn new(local: NodeId, events: mpsc::Sender<NetEvent>, stop: CancellationToken) -> Self {
        let known = Known {
            table: Table::new(local),
            dials: BTreeMap::new(),
            faults: Faults::default(),
            channels: BTreeMap::new(),
        };
        Self {
            known: Mutex::new(known),
            events: tokio::sync::Mutex::new(events),
            changed: watch::Sender::new(()),
            stop,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No change under the lock leaves anything half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event; when the daemon stops nobody may be listening any more.
    async fn tell(&self, events: &mpsc::Sender<NetEvent>, event: NetEvent) {
        tokio::select! {
            biased;
            sent = events.send(event) => sent.unwrap_or_default(),
            () = self.stop.cancelled() => {}
        }
    }

    pub(crate) async fn emit(&self, event: NetEvent) {
        let events = self.events.lock().await;
        self.tell(&events, event).await;
    }

    pub(crate) fn enter(
        &self,
        node: &NodeId,
        direction: Direction,
        channel: &Arc<Channel>,
    ) -> Result<Key, Full> {
        let mut known = self.known();
        let entered = known.table.enter(node, direction);
        if let Ok(key) = entered {
            known.channels.insert(key, Arc::clone(channel));
        }
        drop(known);
        self.changed.send_replace(());
        entered
    }

    /// Returns every connection whose handshake is done, greeted or not.
    pub(crate) fn channels(&self) -> Vec<Arc<Channel>> {
        self.known().channels.values().cloned().collect()
    }

    /// Returns how a node is kept off for what it did, if it is.
    pub(crate) fn kept_off(&self, node: &NodeId, now: Duration) -> Option<KeptOff> {
        self.known().faults.kept_off(node, now)
    }

    /// Keeps a node off for what it did, and tells so.
    pub(crate) async fn fault(&self, node: &NodeId, reason: &str, now: Duration) {
        let noted = self.known().faults.note(node, reason, now);
        let KeptOff { node, faults, left: kept_off, reason } = noted;
        self.emit(NetEvent::Faulty { node, reason, faults, kept_off }).await;
    }

    /// Decides about a connection that was greeted, and tells when it is kept.
    pub(crate) async fn greet(&self, key: Key, hello: &Hello, link: &PeerLink) -> Verdict<PeerLink> {
        let events = self.events.lock().await;
        let verdict = self.known().table.greet(key, link);
        if let Verdict::Kept { .. } = verdict {
            self.changed.send_replace(());
            let up = NetEvent::PeerUp { hello: hello.clone(), link: link.clone() };
            self.tell(&events, up).await;
        }
        verdict
    }

    /// Takes out a connection that ended, and tells when its node is down with it.
    pub(crate) async fn leave(&self, key: Key, node: &NodeId, reason: String) {
        let events = self.events.lock().await;
        let was_last = {
            let mut known = self.known();
            known.channels.remove(&key);
            known.table.leave(key)
        };
        self.changed.send_replace(());
        if was_last {
            self.tell(&events, NetEvent::PeerDown { node: node.clone(), reason }).await;
        }
    }

    /// Returns what changes with everything that is known about peers.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn link(&self, node: &NodeId) -> Option<PeerLink> {
        self.known().table.link(node)
    }

    /// Returns how many connections there are, greeted or not.
    #[cfg(test)]
    pub(crate) fn connections(&self) -> usize {
        self.known().table.len()
    }

    pub(crate) fn links(&self) -> Vec<PeerLink> {
        self.known().table.links().into_values().collect()
    }

    /// Waits until a node is not connected.
    pub(crate) async fn until_absent(&self, node: &NodeId) {
        let mut changed = self.subscribe();
        while let Some(link) = self.link(node) {
            tokio::select! {
                _ = link.closed() => {}
                // The sender lives as long as this registry.
                _ = changed.changed() => {}
            }
        }
    }

    /// Waits until a node is connected.
    pub(crate) async fn until_present(&self, node: &NodeId) {
        let mut changed = self.subscribe();
        while self.link(node).is_none() && changed.changed().await.is_ok() {}
    }

    /// Adds an address to dial; false when it is dialled already.
    pub(crate) fn add_dial(&self, address: &str, stop: CancellationToken) -> bool {
        let dial = Dial { stop, state: PeerState::Connecting, node: None, detail: None };
        let mut known = self.known();
        let is_new = !known.dials.contains_key(address);
        known.dials.entry(address.to_owned()).or_insert(dial);
        is_new
    }

    /// Ends the dial loops of all addresses but these.
    pub(crate) fn retain_dials(&self, addresses: &[String]) {
        self.known().dials.retain(|address, dial| {
            let stays = addresses.contains(address);
            if !stays {
                dial.stop.cancel();
            }
            stays
        });
    }

    pub(crate) fn dial(&self, address: &str) -> Option<Dial> {
        self.known().dials.get(address).cloned()
    }

    pub(crate) fn note_dial(&self, address: &str, note: impl FnOnce(&mut Dial)) {
        if let Some(dial) = self.known().dials.get_mut(address) {
            note(dial);
        }
        self.changed.send_replace(());
    }

    /// Describes every address that is dialled, and every other node that is connected or kept off.
    pub(crate) fn statuses(&self, now: Duration) -> Vec<PeerStatus> {
        let known = self.known();
        let mut links = known.table.links();
        let mut statuses = Vec::new();
        for (address, dial) in &known.dials {
            match dial.node.as_ref().and_then(|node| known.table.link(node)) {
                Some(link) => {
                    links.remove(link.node());
                    statuses.push(online(&link, address.clone()));
                }
                None => statuses.push(PeerStatus {
                    node: dial.node.as_ref().map(|node| node.node.to_string()).unwrap_or_default(),
                    site: dial.node.as_ref().map(|node| node.site.to_string()).unwrap_or_default(),
                    state: dial.state,
                    address: address.clone(),
                    rtt_ms: None,
                    detail: dial.detail.clone(),
                }),
            }
        }
        for kept_off in known.faults.all(now).iter().filter(|kept_off| !links.contains_key(&kept_off.node)) {
            let node = &kept_off.node;
            let is_shown = |status: &&mut PeerStatus| {
                status.node == node.node.as_str() && status.site == node.site.as_str()
            };
            match statuses.iter_mut().find(is_shown) {
                Some(status) if status.state == PeerState::Online => {}
                Some(status) => {
                    (status.state, status.detail) = (PeerState::Refused, Some(kept_off.to_string()));
                }
                None => statuses.push(refused(kept_off)),
            }
        }
        statuses.extend(links.values().map(|link| online(link, link.remote_address().to_string())));
        statuses
    }
}

fn refused(kept_off: &KeptOff) -> PeerStatus {
    PeerStatus {
        node: kept_off.node.node.to_string(),
        site: kept_off.node.site.to_string(),
        state: PeerState::Refused,
        address: String::new(),
        rtt_ms: None,
        detail: Some(kept_off.to_string()),
    }
}

fn online(link: &PeerLink, address: String) -> PeerStatus {
    PeerStatus {
        node: link.node().node.to_string(),
        site: link.node().site.to_string(),
        state: PeerState::Online,
        address,
        rtt_ms: Some(link.rtt().as_secs_f64() * 1000.0),
        detail: None,
    }
}
