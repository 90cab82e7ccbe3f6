//! Accepting peers.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::close_code::CloseCode;
use quinn::{Connecting, Incoming, VarInt};

use super::{
    attempts::{Attempts, Verdict},
    closed::{Closed, Retry},
    context::Context,
    event::NetEvent,
    peer::{self, Reached},
    table::{Direction, MAX_CONNECTIONS},
};

/// Accepts until the network stops.
pub(crate) async fn accept(context: Arc<Context>) {
    let stop = context.tasks.token();
    let attempts = Arc::new(Mutex::new(Attempts::default()));
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
        let (address, validated) = (incoming.remote_address().ip(), incoming.remote_address_validated());
        match lock(&attempts).look_at(address, validated, context.clock.monotonic()) {
            Verdict::Accept => {}
            Verdict::Retry if incoming.may_retry() => {
                // It fails only where a retry is not allowed, which was asked.
                incoming.retry().ok();
                continue;
            }
            Verdict::Retry | Verdict::Refuse => {
                incoming.refuse();
                continue;
            }
        }
        let handshake = Handshake { attempts: Arc::clone(&attempts), address, validated };
        let Some(connecting) = start(incoming) else { continue };
        let shared = Arc::clone(&context);
        context.tasks.spawn("peer that dialled", async move {
            let connected = peer::connect(connecting).await;
            drop(handshake);
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

/// One that is under way, until it is dropped.
struct Handshake {
    attempts: Arc<Mutex<Attempts>>,
    address: IpAddr,
    validated: bool,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        lock(&self.attempts).ended(self.address, self.validated);
    }
}

fn lock(attempts: &Mutex<Attempts>) -> MutexGuard<'_, Attempts> {
    // Every change under the lock is whole.
    attempts.lock().unwrap_or_else(PoisonError::into_inner)
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
