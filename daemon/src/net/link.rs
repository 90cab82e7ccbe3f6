//! [`PeerLink`]: a connection with a peer that was greeted, to ask it for things.

use std::{collections::BTreeSet, fmt, net::SocketAddr, sync::Arc, time::Duration};

use avalon_protocol::{
    access::Role,
    close_code::CloseCode,
    id::{NodeId, ProjectName},
    wire::{FEATURE_ENCODED, FEATURE_NUMBERS, FEATURE_PROOF, Hello},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    channel::Channel, closed::Closed, endpoint::RECEIVE_WINDOW_BYTES, metrics::NetMetrics, table::Handle,
    throttle::Throttle,
};
use crate::buffers::Buffers;

/// A connection with a peer that was greeted. Clones are the same connection.
///
/// It may be replaced while the peer is up; take a new one from [`Net::link`](super::Net::link) for each piece of work.
#[derive(Clone)]
pub struct PeerLink {
    inner: Arc<Inner>,
}

struct Inner {
    hello: Hello,
    role: Role,
    shared: BTreeSet<ProjectName>,
    channel: Arc<Channel>,
    metrics: Arc<NetMetrics>,
    throttle: Arc<Throttle>,
    buffers: Buffers,
    /// A permit for each started MiB that was asked for and that nobody reads yet.
    ahead: Arc<Semaphore>,
}

/// How much may be asked for ahead of what is read, in MiB. That leaves half of the connection's window to the answers that
/// are read: else those could wait for room, and the room for their end.
const ASKED_AHEAD_MIB: usize = (RECEIVE_WINDOW_BYTES as usize / 2) >> 20;

impl PeerLink {
    /// `local` is how this node greeted the peer, `role` what the peer's certificate says.
    pub(crate) fn new(
        local: &Hello,
        (hello, role): (Hello, Role),
        channel: Arc<Channel>,
        metrics: Arc<NetMetrics>,
        throttle: Arc<Throttle>,
    ) -> Self {
        let ours: BTreeSet<&ProjectName> = local.projects.iter().map(|project| &project.name).collect();
        let theirs = hello.projects.iter().map(|project| &project.name);
        let shared = theirs.filter(|name| ours.contains(name)).cloned().collect();
        Self {
            inner: Arc::new(Inner {
                hello,
                role,
                shared,
                channel,
                metrics,
                throttle,
                buffers: Buffers::default(),
                ahead: Arc::new(Semaphore::new(ASKED_AHEAD_MIB)),
            }),
        }
    }

    /// Returns the peer.
    pub fn node(&self) -> &NodeId {
        &self.inner.hello.node
    }

    /// Returns the peer's greeting.
    pub fn hello(&self) -> &Hello {
        &self.inner.hello
    }

    /// Returns the role that stands in the peer's certificate.
    pub fn role(&self) -> Role {
        self.inner.role
    }

    /// Says whether the peer is one that has the studio's feeds whole, by its certificate and not by what it says of itself.
    pub fn may_know_rights(&self) -> bool {
        matches!(self.role(), Role::Admin | Role::Site)
    }

    /// Says whether everything that the peer has of the studio's feeds is here.
    pub fn has_studio_of(&self) -> bool {
        self.inner.channel.has_studio()
    }

    /// Says whether both sides serve a project and told each other so. Whoever may not see it was told nothing.
    pub fn shares(&self, project: &ProjectName) -> bool {
        self.inner.shared.contains(project)
    }

    /// Says whether the peer answers encoded requests.
    pub fn encodes(&self) -> bool {
        self.inner.hello.features & FEATURE_ENCODED != 0
    }

    /// Says whether the peer answers questions for a proof of possession.
    pub fn proves(&self) -> bool {
        self.inner.hello.features & FEATURE_PROOF != 0
    }

    /// Says whether the peer answers questions for numbers.
    pub fn promises_numbers(&self) -> bool {
        self.inner.hello.features & FEATURE_NUMBERS != 0
    }

    /// Returns where the peer is.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.channel.remote()
    }

    /// Returns the smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.inner.channel.quinn().rtt()
    }

    /// Says whether the connection still stands.
    pub fn is_open(&self) -> bool {
        self.inner.channel.is_open()
    }

    /// Waits until the connection has ended and says why.
    pub async fn closed(&self) -> Closed {
        let error = self.inner.channel.quinn().closed().await;
        self.inner.channel.why(error)
    }

    /// Closes the connection: with `CloseCode::Content` when the peer sent what does not hash to its name. The peer reads
    /// the reason. After a code that says that the peer is at fault it is not dialled again for a minute.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.channel.close(Closed::by_us(code, reason));
    }

    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.inner.channel
    }

    pub(crate) fn metrics(&self) -> &NetMetrics {
        &self.inner.metrics
    }

    /// Takes leave to ask for an answer of so many bytes before the last one has been read; nothing when others have.
    pub(crate) fn may_ask_ahead(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.div_ceil(1 << 20)).ok()?;
        Arc::clone(&self.inner.ahead).try_acquire_many_owned(permits).ok()
    }

    pub(crate) fn buffers(&self) -> &Buffers {
        &self.inner.buffers
    }

    pub(crate) fn throttle(&self) -> &Throttle {
        &self.inner.throttle
    }
}

impl Handle for PeerLink {
    fn is_open(&self) -> bool {
        self.inner.channel.is_open()
    }

    fn instance(&self) -> u64 {
        self.inner.hello.instance
    }
}

impl fmt::Debug for PeerLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerLink({} at {})", self.node(), self.remote_address())
    }
}
