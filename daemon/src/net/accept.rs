//! Accepting peers.

use std::sync::Arc;

use avalon_protocol::close_code::CloseCode;
use quinn::{Connecting, Incoming, VarInt};
use tokio::sync::Semaphore;

use super::{
    closed::{Closed, Retry},
    context::Context,
    event::NetEvent,
    peer::{self, Reached},
    table::{Direction, MAX_CONNECTIONS},
};

/// Handshakes that are worked on at once; each costs two signatures.
const MAX_HANDSHAKES: usize = 128;

/// From so many on, an address must first prove that it is there: a forged one costs no signature then.
const RETRY_FROM: usize = 16;

/// Accepts until the network stops.
pub(crate) async fn accept(context: Arc<Context>) {
    let stop = context.tasks.token();
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => break,
            incoming = context.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        if context.endpoint.open_connections() >= MAX_CONNECTIONS {
            incoming.refuse();
            continue;
        }
        let busy = MAX_HANDSHAKES - slots.available_permits() >= RETRY_FROM;
        if busy && incoming.may_retry() && !incoming.remote_address_validated() {
            // It fails only where a retry is not allowed, which was asked.
            incoming.retry().ok();
            continue;
        }
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let Some(connecting) = start(incoming) else { continue };
        let shared = Arc::clone(&context);
        context.tasks.spawn("peer that dialled", async move {
            let connected = peer::connect(connecting).await;
            drop(slot);
            let connection = match connected {
                Ok(connection) => connection,
                // A stranger's attempt is no news: anybody can make any number of them.
                Err(closed) => return tracing::debug!(reason = %closed, "handshake with a peer failed"),
            };
            match (peer::joiner(&connection), &shared.issuer) {
                (Some(key), Some(issuer)) => issuer.admit(connection, key).await,
                _ => match peer::recognise(connection) {
                    Ok(reached) => run(shared, reached).await,
                    Err(closed) => tracing::debug!(reason = %closed, "who dialled is no peer"),
                },
            }
        });
    }
    // Also those that are in no task's hands yet, and whatever comes still.
    context.endpoint.close(VarInt::from_u32(CloseCode::Shutdown.code()), b"the daemon there stops");
}

fn start(incoming: Incoming) -> Option<Connecting> {
    let address = incoming.remote_address();
    match incoming.accept() {
        Ok(connecting) => Some(connecting),
        Err(error) => {
            tracing::debug!(%address, error = %error, "connection attempt not accepted");
            None
        }
    }
}

async fn run(context: Arc<Context>, reached: Reached) {
    let (node, address) = (reached.node.clone(), reached.remote());
    let stop = context.tasks.token();
    let ended = peer::run(Arc::clone(&context), reached, Direction::Accepted, stop).await;
    // What a peer that dials is refused for, it shows at its own end; here it is for who looks after both.
    let Closed::ByUs { code, reason } = ended.closed else { return };
    let is_fault = Closed::by_us(code, "").retry() == Retry::Slow && code != CloseCode::SelfDial;
    if !ended.greeted && is_fault {
        let refused =
            NetEvent::Refused { address: address.to_string(), node: Some(node), reason, code: Some(code) };
        context.registry.emit(refused).await;
    }
}
