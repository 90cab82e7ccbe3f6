//! [`serve`]: the API on a socket until the daemon stops.

use std::{future::IntoFuture as _, io, sync::Arc, time::Duration};

use axum::Router;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{
    LocalApi,
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
pub async fn serve(listener: UnixListener, api: Arc<dyn LocalApi>, stop: Stop) -> io::Result<()> {
    serve_router(listener, router(Shared { api, stop: stop.token.clone(), keep_alive: KEEP_ALIVE }), stop)
        .await
}

pub(super) async fn serve_router(listener: UnixListener, router: Router, stop: Stop) -> io::Result<()> {
    let service = router.into_make_service_with_connect_info::<Peer>();
    let stopping = stop.token.clone().cancelled_owned();
    let mut server = axum::serve(listener, service).with_graceful_shutdown(stopping).into_future();
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
