//! What a revocation does here: it is asked in every handshake from now on, and every connection that stands is checked again.
//!
//! The studio's feeds say who is revoked; the ledger reads them. This is the one place that follows it. A connection is checked by
//! the whole chain that its peer showed: who is connected may be revoked, or whoever issued its certificate. The set is exchanged before the
//! connections are looked at, and a connection is on the list before it asks the set, so none slips between.

use std::sync::Arc;

use avalon_certs::Revoked;
use avalon_protocol::{control::EventKind, id::NodeId};
use avalon_store::ledger::LedgerEvent;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Core, blocking},
    net::Net,
    policy::studio_advances,
    tasks::Tasks,
};

/// What is new since it was looked last.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    nodes: Vec<NodeId>,
    /// The number of another list of revoked certificates, and how many it has.
    list: Option<(u64, usize)>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.list.is_none()
    }
}

impl Core {
    /// Brings what is asked in every handshake up to what the studio's feeds say; returns what is new.
    fn take_revoked(&self) -> News {
        let admission = self.ledger.admission();
        let before = self.revocations.now();
        let nodes: Vec<NodeId> =
            admission.revoked().keys().filter(|node| !before.has_node(node)).cloned().collect();
        let mut revoked = Revoked::clone(&before);
        nodes.iter().for_each(|node| revoked.add_node(node.clone()));
        // The newest list says it all; without one nothing is revoked by a list.
        let list = admission.listed().map(|listed| listed.list());
        revoked.set_certificates(list.into_iter().flat_map(|list| list.revoked.keys().copied()));
        let is_other_list = !revoked.has_certificates_of(&before);
        let list = list.filter(|_| is_other_list).map(|list| (list.number, list.revoked.len()));
        if is_other_list || !nodes.is_empty() {
            self.revocations.replace(revoked);
        }
        News { nodes, list }
    }
}

/// Makes known who is revoked before anybody is let in.
pub fn prepare(core: &Core) {
    core.take_revoked();
}

/// Starts what closes the connections of who is revoked. Whoever is revoked already is known before, by [`prepare`].
pub fn start(core: &Arc<Core>, net: &Net, ledger_events: &broadcast::Sender<LedgerEvent>, tasks: &Tasks) {
    let (core, net) = (Arc::clone(core), net.clone());
    tasks.spawn("revocations", follow(core, net, ledger_events.subscribe(), tasks.token()));
}

async fn follow(
    core: Arc<Core>,
    net: Net,
    mut ledger_events: broadcast::Receiver<LedgerEvent>,
    stop: CancellationToken,
) {
    loop {
        let news = core.take_revoked();
        for node in &news.nodes {
            tracing::warn!(%node, "node revoked");
            core.events.emit(EventKind::NodeRevoked { node: node.to_string() });
        }
        if let Some((number, certificates)) = news.list {
            tracing::warn!(number, certificates, "a list of revoked certificates counts");
        }
        if !news.is_empty() {
            let net = net.clone();
            let closed = blocking(move || net.close_revoked()).await;
            tracing::info!(closed, "connections of who is revoked are closed");
        }
        if !studio_advances(&mut ledger_events, &stop).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{access::Role, mode::ProjectMode, record::Note};

    use crate::fixture::Studio;

    #[test]
    fn who_is_revoked_is_news_once_and_known_to_every_handshake() {
        let studio = Studio::new();
        let london = studio.node("srv@london", ProjectMode::OnDemand);
        let home = studio.node_as("ws1@home", Role::Workstation, ProjectMode::OnDemand);
        let note = || Note::try_from("lost".to_owned()).unwrap();
        assert!(london.core.take_revoked().is_empty());
        london.core.revoke_node(&home.core.me, note(), note()).unwrap();
        assert_eq!(london.core.take_revoked().nodes, std::slice::from_ref(&home.core.me));
        assert!(london.core.take_revoked().is_empty());
        assert!(london.core.revocations.now().has_node(&home.core.me));
    }
}
