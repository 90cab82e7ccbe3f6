//! Dialling: one loop for each address that is configured, for as long as it is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use avalon_protocol::{backoff::Backoff, control::PeerState, id::NodeId};
use tokio::{net::lookup_host, sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    closed::{Closed, Retry},
    context::Context,
    endpoint::random,
    event::NetEvent,
    peer::{self, Ended},
    table::Direction,
};

/// The waits between attempts: a restarted daemon is back soon, a machine that is off is not asked often.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A connection that lasted as long was a success; shorter ones count as failures, so that a peer that ends every
/// connection is not dialled in a circle.
const STABLE: Duration = Duration::from_secs(10);

/// How long a name may take to resolve.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);

/// Keeps an address connected until `stop`, which also ends the connection.
pub(crate) async fn dial(context: Arc<Context>, address: String, stop: CancellationToken) {
    let mut dialler = Dialler {
        context,
        address,
        stop: stop.clone(),
        backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
        again_at_once: true,
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = dialler.run() => {}
    }
}

struct Dialler {
    context: Arc<Context>,
    address: String,
    stop: CancellationToken,
    backoff: Backoff,
    /// Whether a peer that restarts is dialled at once: only the first time in a row.
    again_at_once: bool,
}

impl Dialler {
    async fn run(&mut self) {
        loop {
            self.leave_to_the_peer().await;
            self.context.registry.note_dial(&self.address, |dial| dial.state = PeerState::Connecting);
            let start = self.context.clock.monotonic();
            let ended = self.attempt().await;
            if ended.greeted && self.context.clock.monotonic() >= start + STABLE {
                self.succeeded();
            }
            self.note_end(&ended).await;
            let wait = self.wait(&ended.closed);
            tokio::select! {
                () = self.context.clock.sleep(wait) => {}
                () = self.until_connected() => {}
            }
        }
    }

    fn node(&self) -> Option<NodeId> {
        self.context.registry.dial(&self.address)?.node
    }

    /// Waits while the node that answers at this address is connected anyway.
    async fn leave_to_the_peer(&mut self) {
        let Some(node) = self.node().filter(|node| self.context.registry.link(node).is_some()) else {
            return;
        };
        self.context.registry.until_absent(&node).await;
        self.succeeded();
    }

    async fn until_connected(&self) {
        match self.node() {
            Some(node) => self.context.registry.until_present(&node).await,
            None => std::future::pending().await,
        }
    }

    fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.again_at_once = true;
    }

    fn wait(&mut self, closed: &Closed) -> Duration {
        match closed.retry() {
            Retry::Now if self.again_at_once => {
                self.again_at_once = false;
                Duration::ZERO
            }
            Retry::Now | Retry::Backoff => self.backoff.failed(random()),
            Retry::Slow => LONGEST_WAIT,
        }
    }

    /// Tries every address that the name has now, until one of them was a connection.
    async fn attempt(&self) -> Ended {
        let addresses = match self.resolve().await {
            Ok(addresses) => addresses,
            Err(closed) => return failed(closed),
        };
        let mut last = failed(Closed::lost("the name has no address that this node can reach"));
        for remote in addresses {
            last = self.connect(remote).await;
            if last.greeted {
                break;
            }
        }
        last
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, Closed> {
        let found = timeout(RESOLVE_DEADLINE, lookup_host(&self.address)).await;
        let found = found.map_err(|_| Closed::lost("the name does not resolve in time"))?;
        let found = found.map_err(|error| Closed::lost(format!("the name does not resolve: {error}")))?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in found.filter(|address| address.is_ipv4() || self.context.local.is_ipv6()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    async fn connect(&self, remote: SocketAddr) -> Ended {
        let context = Arc::clone(&self.context);
        let client = context.client();
        let connecting = match context.endpoint.connect_with(client, remote, avalon_certs::ANY_NODE) {
            Ok(connecting) => connecting,
            Err(error) => return failed(Closed::lost(error.to_string())),
        };
        let reached = match peer::shake_hands(connecting).await {
            Ok(reached) => reached,
            Err(closed) => return failed(closed),
        };
        let node = reached.node.clone();
        context.registry.note_dial(&self.address, |dial| dial.node = Some(node));
        // A task of its own, because this loop may be dropped at any time and the connection must end in order.
        let (report, ended) = oneshot::channel();
        let (tasks, stop) = (context.tasks.clone(), self.stop.clone());
        tasks.spawn("peer that was dialled", async move {
            // A loop that has stopped wants no report.
            report.send(peer::run(context, reached, Direction::Dialled, stop).await).ok();
        });
        ended.await.unwrap_or_else(|_| failed(Closed::lost("the connection's task ended")))
    }

    async fn note_end(&self, ended: &Ended) {
        let registry = &self.context.registry;
        let Some(before) = registry.dial(&self.address) else { return };
        let state = match ended.closed.retry() {
            Retry::Slow => PeerState::Refused,
            Retry::Now | Retry::Backoff => PeerState::Offline,
        };
        let reason = ended.closed.to_string();
        let is_news = state == PeerState::Refused && before.detail.as_ref() != Some(&reason);
        let detail = reason.clone();
        registry.note_dial(&self.address, |dial| {
            dial.state = state;
            dial.detail = Some(detail);
        });
        if is_news {
            let (address, node) = (self.address.clone(), before.node);
            registry.emit(NetEvent::Refused { address, node, reason, code: ended.closed.code() }).await;
        }
    }
}

fn failed(closed: Closed) -> Ended {
    Ended { closed, greeted: false }
}
