//! [`serve`]: the API on a socket until the daemon stops.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use super::{
    Gate, LocalApi,
    caller::Peer,
    routes::{Shared, router},
};
use crate::clock::Clock;

/// How often a quiet stream of events shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How the API stops.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Says when.
    pub token: CancellationToken,
    /// How long requests that are under way may take from then.
    pub grace: Duration,
    /// Measures it.
    pub clock: Arc<dyn Clock>,
}

/// Answers requests on `listener` until told to stop.
///
/// Then nothing more is accepted, streams of events end, and requests that are under way are waited for as long as
/// [`Stop::grace`]; those that take longer end with the runtime.
///
/// # Errors
/// The listener failed for good.
pub async fn serve(listener: UnixListener, api: Arc<dyn LocalApi>, gate: Gate, stop: Stop) -> io::Result<()> {
    serve_router(listener, routes_of(api, gate, &stop), stop).await
}

/// As [`serve`], on a loopback address, for those who have the token.
///
/// # Errors
/// The listener failed for good.
pub async fn serve_tcp(
    listener: TcpListener,
    api: Arc<dyn LocalApi>,
    gate: Gate,
    stop: Stop,
) -> io::Result<()> {
    let service = routes_of(api, gate, &stop).into_make_service_with_connect_info::<Peer>();
    let stopping = stop.token.clone().cancelled_owned();
    until_stopped(axum::serve(listener, service).with_graceful_shutdown(stopping), stop).await
}

fn routes_of(api: Arc<dyn LocalApi>, gate: Gate, stop: &Stop) -> Router {
    router(Shared { api, stop: stop.token.clone(), keep_alive: KEEP_ALIVE }, gate)
}

pub(super) async fn serve_router(listener: UnixListener, router: Router, stop: Stop) -> io::Result<()> {
    let service = router.into_make_service_with_connect_info::<Peer>();
    let stopping = stop.token.clone().cancelled_owned();
    until_stopped(axum::serve(listener, service).with_graceful_shutdown(stopping), stop).await
}

async fn until_stopped(server: impl IntoFuture<Output = io::Result<()>>, stop: Stop) -> io::Result<()> {
    let mut server = std::pin::pin!(server.into_future());
    let too_late = async {
        stop.token.cancelled().await;
        stop.clock.sleep(stop.grace).await;
    };
    tokio::select! {
        ended = &mut server => ended,
        () = too_late => {
            tracing::warn!("requests of the local API are still under way; they are left");
            Ok(())
        }
    }
}
