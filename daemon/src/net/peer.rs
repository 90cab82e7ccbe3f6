//! One connection from its handshake to its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use avalon_certs::join::{self, SeedKeyHash};
use avalon_protocol::{access::Role, close_code::CloseCode, id::NodeId};
use quinn::{Connecting, Connection, RecvStream, SendStream, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    channel::Channel,
    closed::Closed,
    context::Context,
    control::{self, GREETING_DEADLINE, Seat},
    faults,
    table::{Direction, Full},
};
use crate::clock::sleep_awake;

/// How long a handshake may take: it survives the loss of its first three packets.
pub(crate) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// A connection whose handshake is done, with the node that its certificate names.
#[derive(Debug)]
pub(crate) struct Reached {
    channel: Channel,
    pub(crate) node: NodeId,
    role: Role,
}

impl Reached {
    pub(crate) fn remote(&self) -> SocketAddr {
        self.channel.remote()
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) closed: Closed,
    /// Whether both sides had accepted each other before.
    pub(crate) greeted: bool,
}

/// Finishes a handshake with a peer and reads who is there.
pub(crate) async fn shake_hands(connecting: Connecting) -> Result<Reached, Closed> {
    let connection = connect(connecting).await?;
    recognise(connection)
}

/// Finishes a handshake.
pub(crate) async fn connect(connecting: Connecting) -> Result<Connection, Closed> {
    let connected = timeout(HANDSHAKE_DEADLINE, connecting).await.map_err(|_| Closed::lost("no answer"))?;
    connected.map_err(Closed::from_quinn)
}

/// Reads which peer is at the other end. Whoever joins is none, whatever protocol it names.
pub(crate) fn recognise(connection: Connection) -> Result<Reached, Closed> {
    let known = match avalon_certs::peer_certificate(&certificates(&connection)) {
        Ok(_) if is_joining(&connection) => Err("a node of the studio has joined already".to_owned()),
        Ok(facts) => Ok((facts.node, facts.role)),
        Err(error) => Err(error.to_string()),
    };
    let channel = Channel::new(connection);
    match known {
        Ok((node, role)) => Ok(Reached { channel, node, role }),
        // The handshake excludes this; the peer hears of it all the same.
        Err(reason) => Err(channel.close(Closed::by_us(CloseCode::Identity, reason))),
    }
}

/// Returns whose invite the other end has: it names the protocol of joining and shows the key of an invite.
pub(crate) fn joiner(connection: &Connection) -> Option<SeedKeyHash> {
    is_joining(connection).then(|| join::joiner(&certificates(connection))).flatten()
}

fn is_joining(connection: &Connection) -> bool {
    let data = connection.handshake_data().and_then(|any| any.downcast::<HandshakeData>().ok());
    data.and_then(|data| data.protocol).as_deref() == Some(join::JOIN_ALPN)
}

/// Returns what the other end showed in the handshake.
pub(crate) fn certificates(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
    identity.map(|chain| *chain).unwrap_or_default()
}

/// Runs a connection to its end, or until `stop`. Must not be dropped before: it takes the connection off the list.
pub(crate) async fn run(
    context: Arc<Context>,
    reached: Reached,
    direction: Direction,
    stop: CancellationToken,
) -> Ended {
    let Reached { channel, node, role } = reached;
    let channel = Arc::new(channel);
    let now = context.clock.monotonic();
    if let Some(kept_off) = context.registry.kept_off(&node, now) {
        let closed = channel.close(Closed::by_us(CloseCode::Busy, kept_off.to_string()));
        return Ended { closed, greeted: false };
    }
    let key = match context.registry.enter(&node, direction, &channel) {
        Ok(key) => key,
        Err(full) => {
            let reason = match full {
                Full::Node => "too many connections with this node",
                Full::All => "too many connections",
            };
            let closed = channel.close(Closed::by_us(CloseCode::Busy, reason));
            return Ended { closed, greeted: false };
        }
    };
    let seat = Seat { channel, node, role, key, direction, stop };
    // Revoked since its handshake: whoever closes such connections may have looked before this one was on the list.
    let opened = match context.revoked(&seat.channel) {
        Some(revoked) => Err(revoked),
        None => control_stream(&context, &seat).await,
    };
    let (closed, greeted) = match opened {
        Ok(streams) => control::run(Arc::clone(&context), &seat, streams).await,
        Err(closed) => (closed, false),
    };
    // Closing what the peer closed does nothing.
    let closed = match closed {
        ours @ Closed::ByUs { .. } => seat.channel.close(ours),
        theirs => theirs,
    };
    log_end(&seat, &closed, greeted);
    if faults::is_fault(&closed) {
        let now = context.clock.monotonic();
        context.registry.fault(&seat.node, &closed.to_string(), now).await;
    }
    context.registry.leave(seat.key, &seat.node, closed.to_string()).await;
    Ended { closed, greeted }
}

/// The connection's first stream, which the side that dialled opens.
async fn control_stream(context: &Context, seat: &Seat) -> Result<(SendStream, RecvStream), Closed> {
    let connection = seat.channel.quinn();
    let opening = async {
        match seat.direction {
            Direction::Dialled => connection.open_bi().await,
            Direction::Accepted => connection.accept_bi().await,
        }
    };
    tokio::select! {
        biased;
        opened = opening => opened.map_err(|error| seat.channel.why(error)),
        () = sleep_awake(&context.clock, GREETING_DEADLINE) => {
            Err(Closed::by_us(CloseCode::Protocol, "no greeting in time"))
        }
    }
}

fn log_end(seat: &Seat, closed: &Closed, greeted: bool) {
    let (peer, address) = (&seat.node, seat.channel.remote());
    if greeted {
        tracing::info!(%peer, %address, reason = %closed, "peer connection ended");
    } else {
        tracing::debug!(%peer, %address, reason = %closed, "peer connection not taken into use");
    }
}
