//! The local API: HTTP with JSON over a Unix socket, for `avalonctl`, scripts and the dashboard.
//!
//! This part only speaks HTTP. What the answers are is behind [`LocalApi`]; who may connect is decided by the mode and
//! the group of the socket, and whoever is connected is known by [`Caller`]. It is never on a TCP port.

mod caller;
mod error;
mod events;
mod extract;
mod local;
mod openapi;
mod routes;
mod server;
mod socket;

pub use self::{
    caller::Caller,
    local::{
        ByteStream, DestinationQuery, InputsQuery, Lifetime, LocalApi, PolicyQuery, RefQuery, ReportQuery,
        WhyQuery,
    },
    openapi::openapi_json,
    server::{Stop, serve},
    socket::{SocketError, SocketGuard, bind},
};

#[cfg(test)]
mod tests;
