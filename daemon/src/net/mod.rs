//! Peers: who is connected, what their feeds say, and the objects that move between them.
//!
//! [`Net`] is the face. Beneath it, in the order of a connection's life: [`endpoint`] is QUIC and its settings, `accept`
//! and `dial` make connections, `attempts` and `faults` know whom not to go into, `peer` carries one from handshake to end, [`congestion`] decides how much
//! is under way, `table` and `registry` know which there are and
//! which of two is kept, `control` drives the session over the control stream, `serve` answers requests and [`fetch`]
//! makes them, both at the pace of the [`throttle`]. What the network needs of the rest of the daemon is behind the traits of [`seam`].
//!
//! A peer is authenticated by TLS before it is listened to, and never trusted: each length is held against a limit before
//! memory is taken, each request against what the peer may do in the project at that moment, and a fault of a peer costs it
//! its connection. Absent on purpose: 0-RTT, resumption, datagrams, one-way streams.

mod accept;
mod attempts;
mod channel;
pub mod closed;
pub mod congestion;
mod context;
mod control;
mod dial;
pub mod endpoint;
pub mod event;
mod faults;
pub mod fetch;
mod guests;
pub mod handle;
mod heads;
pub mod link;
pub mod metrics;
mod paced;
mod peer;
mod piece_fit;
mod registry;
pub mod seam;
mod serve;
mod stream;
mod table;
pub mod throttle;

#[cfg(test)]
mod tests;

pub use self::{
    closed::Closed,
    endpoint::{NetError, UDP_BUFFER_BYTES, UdpBuffers},
    event::NetEvent,
    faults::FAULTS_REMEMBERED,
    fetch::{Begun, BlockSink, FetchError, FetchSummary, GATHERED_BYTES, Room, SinkStopped},
    handle::{Net, NetConfig},
    link::PeerLink,
    metrics::NetMetrics,
    seam::{
        Catalog, GroupsRead, Issuer, ObjectSource, Objects, OpenObject, Permissions, Piece, PieceSource,
        ReadFailed, Small, StoreRefused, Terms, Vouched,
    },
    throttle::Throttle,
};
