//! [`Caller`]: who is at the other end of the socket.

use avalon_protocol::control::{ApiError, ErrorCode};
use axum::{
    extract::{ConnectInfo, FromRequestParts, connect_info::Connected},
    http::request::Parts,
    serve::IncomingStream,
};
use tokio::net::UnixListener;

use super::error::Failure;

/// The process that a request comes from, as the kernel knows it; it cannot be forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its process id when it connected, where the system tells.
    pub pid: Option<i32>,
}

/// The caller of a connection; none when the kernel did not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(Option<Caller>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let caller =
            |peer: tokio::net::unix::UCred| Caller { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() };
        Self(stream.io().peer_cred().ok().map(caller))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().and_then(|info| info.0.0);
        peer.ok_or_else(|| ApiError::new(ErrorCode::Denied, "the system does not say who is calling").into())
    }
}
