//! The local API: on its socket, and on TCP where that is configured.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use avalon_store::state_dir::StateDir;
use tokio::net::{TcpListener, UnixListener};

use crate::{
    api, clock::Clock, config::Config, core::blocking, daemon_api::DaemonApi, log::ErrorChain, tasks::Tasks,
};

/// Where the API is on TCP, with the token that is asked for there.
pub(super) type Tcp = (TcpListener, Arc<api::Token>);

/// Listens on TCP where that is configured; the token is made when there is none.
///
/// # Errors
/// What prevented it.
pub(super) async fn bind_tcp(config: &Config, state: &Arc<StateDir>) -> anyhow::Result<Option<Tcp>> {
    let Some(tcp) = config.api.tcp else { return Ok(None) };
    let listener = TcpListener::bind(tcp.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {} for the local API", tcp.listen))?;
    let state = Arc::clone(state);
    let token = blocking(move || api::Token::open(&state.root, tcp.role, tcp.listen)).await?;
    Ok(Some((listener, Arc::new(token))))
}

/// Answers until the daemon stops.
pub(super) fn serve(
    api: Arc<DaemonApi>,
    (listener, tcp): (UnixListener, Option<Tcp>),
    gate: api::Gate,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) {
    let stop = || api::Stop {
        token: tasks.child().token(),
        grace: Duration::from_secs(2),
        clock: Arc::clone(clock),
    };
    let log = |ended: std::io::Result<()>| {
        if let Err(error) = ended {
            tracing::error!(error = %ErrorChain(&error), "the local API ended");
        }
    };
    if let Some((listener, token)) = tcp {
        let gate = api::Gate { token: Some(token), ..gate.clone() };
        let api = Arc::clone(&api);
        let served = api::serve_tcp(listener, api, gate, stop());
        tasks.spawn("api on tcp", async move { log(served.await) });
    }
    let served = api::serve(listener, api, gate, stop());
    tasks.spawn("api", async move { log(served.await) });
}
