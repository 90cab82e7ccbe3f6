//! [`Net`]: the network side as the rest of the daemon sees it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use avalon_certs::{Admission, Identity};
use avalon_protocol::{
    close_code::CloseCode,
    control::PeerStatus,
    feed::{FeedHead, FeedId},
    id::NodeId,
    wire::Hello,
};
use quinn::VarInt;
use tokio::sync::{broadcast, mpsc, watch};

use super::{
    accept,
    context::Context,
    dial,
    endpoint::{self, Bound, NetError, UdpBuffers},
    event::NetEvent,
    heads::PeerHeads,
    link::PeerLink,
    metrics::NetMetrics,
    registry::Registry,
    seam::{Catalog, Issuer, Objects, Permissions},
    throttle::Throttle,
};
use crate::{clock::Clock, tasks::Tasks};

/// How long a farewell takes at least, beside the round trips: a busy machine sends it late.
const FAREWELL: Duration = Duration::from_millis(200);

/// What the network side is told at its start.
#[derive(Clone)]
pub struct NetConfig {
    /// Where peers are accepted; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Addresses that are dialled and kept connected, as `host:port`.
    pub peers: Vec<String>,
    /// How this node greets; node and studio must be those of the identity.
    pub hello: Hello,
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// Whom it lets past the handshake beside its studio, and whom not any more.
    pub admission: Admission,
    /// Says what peers may do once they are past it.
    pub permissions: Arc<dyn Permissions>,
    /// Issues for the studio, where this node may.
    pub issuer: Option<Arc<dyn Issuer>>,
    /// Keeps content within limits.
    pub throttle: Arc<Throttle>,
}

impl fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetConfig").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// The connections with all peers. Clones are the same.
#[derive(Clone)]
pub struct Net {
    pub(super) context: Arc<Context>,
    buffers: UdpBuffers,
}

impl Net {
    /// Listens, accepts and dials. Call it within a tokio runtime.
    ///
    /// `advanced` is where the ledger says, after the fsync, that a feed goes further; events are to be taken from the
    /// other end of `events`, or connections wait. Everything stops with `tasks`; [`Net::shutdown`] is the orderly way.
    ///
    /// # Errors
    /// [`NetError`] when the address cannot be listened on or the identity does not serve.
    pub fn start(
        config: NetConfig,
        catalog: Arc<dyn Catalog>,
        objects: Arc<dyn Objects>,
        advanced: broadcast::Sender<(FeedId, FeedHead)>,
        events: mpsc::Sender<NetEvent>,
        tasks: &Tasks,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NetError> {
        let Bound { endpoint, client, local, buffers } =
            endpoint::bind(config.listen, &config.identity, &config.admission)?;
        let tasks = tasks.child();
        let registry = Registry::new(config.hello.node.clone(), events, tasks.token());
        let context = Arc::new(Context {
            hello: watch::Sender::new(Arc::new(config.hello)),
            catalog,
            objects,
            permissions: config.permissions,
            advanced,
            registry,
            heads: PeerHeads::default(),
            guests: Default::default(),
            metrics: Arc::default(),
            throttle: config.throttle,
            endpoint,
            client: RwLock::new(client),
            admission: config.admission,
            authority: Arc::clone(config.identity.authority()),
            issuer: config.issuer,
            local,
            tasks: tasks.clone(),
            clock,
        });
        tasks.spawn("accept peers", accept::accept(Arc::clone(&context)));
        let net = Self { context, buffers };
        net.set_peers(config.peers);
        Ok(net)
    }

    /// Returns the address that is listened on, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.context.local
    }

    /// Returns the kernel's buffers, for a warning when they are small.
    pub fn udp_buffers(&self) -> UdpBuffers {
        self.buffers
    }

    /// Returns the counters.
    pub fn metrics(&self) -> &Arc<NetMetrics> {
        &self.context.metrics
    }

    /// Describes every address that is dialled, and every other node that is connected or kept off.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.context.registry.statuses(self.context.clock.monotonic())
    }

    /// Returns the connection with a node that is up.
    pub fn link(&self, node: &NodeId) -> Option<PeerLink> {
        self.context.registry.link(node)
    }

    /// Returns a connection with each node that is up, in the order of their names.
    pub fn links(&self) -> Vec<PeerLink> {
        self.context.registry.links()
    }

    /// Dials these addresses and no others. A connection that was dialled to an address that is gone is closed; one that
    /// the peer dialled stays.
    pub fn set_peers(&self, addresses: Vec<String>) {
        let context = &self.context;
        context.registry.retain_dials(&addresses);
        for address in addresses {
            let stop = context.tasks.token().child_token();
            if context.registry.add_dial(&address, stop.clone()) {
                let name = format!("dial {address}");
                context.tasks.spawn(name, dial::dial(Arc::clone(context), address, stop));
            }
        }
    }

    /// Changes how this node greets, such as the projects that it serves or their modes. Every connection is closed and
    /// made again, because a greeting is said once; nothing happens when the greeting is the same.
    pub fn set_hello(&self, hello: Hello) {
        self.context.hello.send_if_modified(|current| {
            let is_new = **current != hello;
            if is_new {
                *current = Arc::new(hello);
            }
            is_new
        });
    }

    /// Goes on as the same node with another key and certificate: in every handshake from now on. Connections that stand
    /// stay as they are.
    ///
    /// # Errors
    /// [`NetError::Tls`] when the identity does not serve; the old one stays then.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), NetError> {
        let (server, client) = endpoint::configs(identity, &self.context.admission)?;
        *self.context.client.write().unwrap_or_else(PoisonError::into_inner) = client;
        self.context.endpoint.set_server_config(Some(server));
        Ok(())
    }

    /// Closes every connection whose peer is revoked by now, greeted or not, with what goes over it: it is itself, its certificate is,
    /// or whoever issued that. Returns how many it closed. Those whose handshake ends meanwhile see to it themselves.
    pub fn close_revoked(&self) -> usize {
        let channels = self.context.registry.channels();
        let revoked = channels.iter().filter_map(|channel| Some((channel, self.context.revoked(channel)?)));
        revoked.fold(0, |closed, (channel, why)| {
            channel.close(why);
            closed + 1
        })
    }

    /// Stops accepting and dialling, tells every peer that this daemon stops, gives that the time to arrive, and waits for
    /// the network's tasks, all at most until `deadline`. Returns the names of tasks that had to be aborted.
    pub async fn shutdown(&self, deadline: Duration) -> Vec<String> {
        let context = &self.context;
        let end = context.clock.monotonic().saturating_add(deadline);
        // QUIC keeps closed connections for three round trips, and half-made ones for seconds: those are not waited for.
        let slowest = self.links().iter().map(PeerLink::rtt).max().unwrap_or_default();
        let farewell = slowest.saturating_mul(3).saturating_add(FAREWELL).min(deadline);
        context.tasks.cancel();
        context.endpoint.close(VarInt::from_u32(CloseCode::Shutdown.code()), b"the daemon there stops");
        tokio::select! {
            () = context.endpoint.wait_idle() => {}
            () = context.clock.sleep(farewell) => {}
        }
        let rest = end.saturating_sub(context.clock.monotonic());
        context.tasks.shutdown(rest, &*context.clock).await
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("local", &self.context.local).finish_non_exhaustive()
    }
}
