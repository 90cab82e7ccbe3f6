//! What all connections share.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use avalon_certs::{Admission, certificate::AuthorityCertificate};
use avalon_protocol::{
    access::{Action, Role},
    close_code::CloseCode,
    feed::{FeedHead, FeedId},
    id::{NodeId, ProjectName},
    wire::Hello,
};
use tokio::sync::{broadcast, watch};

use super::{
    channel::Channel,
    closed::Closed,
    guests::Guests,
    heads::PeerHeads,
    link::PeerLink,
    metrics::NetMetrics,
    peer,
    registry::Registry,
    seam::{Catalog, Issuer, Objects, Permissions},
    throttle::Throttle,
};
use crate::{clock::Clock, tasks::Tasks};

/// Shared by the listener, the dial loops and every connection.
pub(crate) struct Context {
    /// How this node greets; a change makes every connection greet again.
    pub(crate) hello: watch::Sender<Arc<Hello>>,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) objects: Arc<dyn Objects>,
    /// Who may do what in a project.
    pub(crate) permissions: Arc<dyn Permissions>,
    /// Says which feed goes further; the ledger speaks here after the fsync.
    pub(crate) advanced: broadcast::Sender<(FeedId, FeedHead)>,
    pub(crate) registry: Registry,
    /// What peers had of each feed.
    pub(crate) heads: PeerHeads,
    pub(crate) guests: Guests,
    pub(crate) metrics: Arc<NetMetrics>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) endpoint: quinn::Endpoint,
    /// How this node dials; exchanged when its certificate is renewed.
    pub(crate) client: RwLock<quinn::ClientConfig>,
    /// Whom it lets past the handshake.
    pub(crate) admission: Admission,
    /// The studio's authority, to which every chain leads.
    pub(crate) authority: Arc<AuthorityCertificate>,
    /// Issues for the studio, where this node may.
    pub(crate) issuer: Option<Arc<dyn Issuer>>,
    pub(crate) local: SocketAddr,
    /// The network's own tasks; they stop with the daemon's.
    pub(crate) tasks: Tasks,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Context {
    pub(crate) fn client(&self) -> quinn::ClientConfig {
        // An exchange leaves nothing half done.
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how this node greets a peer: with the projects that it serves and that the peer may see. What it does not name, it
    /// never speaks of.
    pub(crate) fn greeting(&self, node: &NodeId, role: Role) -> Hello {
        let mut hello = Hello::clone(&self.hello.borrow());
        hello.projects.retain(|project| self.may_see(node, role, &project.name));
        hello
    }

    /// Says why a connection cannot stay whose handshake is done, if anything in the chain that the peer showed is revoked by now.
    pub(crate) fn revoked(&self, channel: &Channel) -> Option<Closed> {
        let certificates = peer::certificates(channel.quinn());
        let checked = self.admission.revocations.now().check_chain(&certificates, &self.authority);
        checked.err().map(|why| Closed::by_us(CloseCode::Revoked, why.to_string()))
    }

    /// Says whether a node may know of a project.
    pub(crate) fn may_see(&self, node: &NodeId, role: Role, project: &ProjectName) -> bool {
        self.permissions.rights(node, role, project).allows(Action::See)
    }

    /// Says whether a peer may do something in a project now. A project that it was not told of at the greeting is none for it.
    pub(crate) fn allows(&self, link: &PeerLink, project: &ProjectName, action: Action) -> bool {
        link.shares(project) && self.permissions.rights(link.node(), link.role(), project).allows(action)
    }

    /// Waits until a peer may not do something any more.
    pub(crate) async fn until_taken(&self, link: &PeerLink, project: &ProjectName, action: Action) {
        let mut changed = self.permissions.changed();
        while self.allows(link, project, action) {
            if changed.changed().await.is_err() {
                // Nobody changes rights any more: the daemon stops.
                return std::future::pending().await;
            }
        }
    }
}
