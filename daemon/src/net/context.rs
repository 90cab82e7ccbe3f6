//! What all connections share.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use avalon_certs::Admission;
use avalon_protocol::{
    feed::{FeedHead, FeedId},
    wire::Hello,
};
use tokio::sync::{broadcast, watch};

use super::{
    guests::Guests,
    metrics::NetMetrics,
    registry::Registry,
    seam::{Catalog, Issuer, Objects},
    throttle::Throttle,
};
use crate::{clock::Clock, tasks::Tasks};

/// Shared by the listener, the dial loops and every connection.
pub(crate) struct Context {
    /// How this node greets; a change makes every connection greet again.
    pub(crate) hello: watch::Sender<Arc<Hello>>,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) objects: Arc<dyn Objects>,
    /// Says which feed goes further; the ledger speaks here after the fsync.
    pub(crate) advanced: broadcast::Sender<(FeedId, FeedHead)>,
    pub(crate) registry: Registry,
    pub(crate) guests: Guests,
    pub(crate) metrics: Arc<NetMetrics>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) endpoint: quinn::Endpoint,
    /// How this node dials; exchanged when its certificate is renewed.
    pub(crate) client: RwLock<quinn::ClientConfig>,
    /// Whom it lets past the handshake.
    pub(crate) admission: Admission,
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
}
