//! The local API: HTTP with JSON over a Unix socket, for `avalonctl`, scripts and the dashboard.
//!
//! This part only speaks HTTP. What the answers are is behind [`LocalApi`]; who may connect is decided by the mode and
//! the group of the socket, whoever is connected is known by [`Caller`], and what they may ask by the [`Gate`]. It is on a
//! TCP port only where that is configured: on a loopback address, with a token.

mod caller;
mod error;
mod events;
mod extract;
mod gate;
mod local;
mod openapi;
mod roles;
mod routes;
mod rules;
mod server;
mod socket;
mod tcp;

pub use self::{
    caller::Caller,
    gate::Gate,
    local::{
        AuditQuery, ByteStream, DestinationQuery, InputsQuery, Lifetime, LocalApi, PolicyQuery, RefQuery,
        ReportQuery, WhyQuery,
    },
    openapi::openapi_json,
    roles::{ApiRole, ApiRoles},
    server::{Stop, serve, serve_tcp},
    socket::{SocketError, SocketGuard, bind},
    tcp::{TOKEN_FILE, Token, TokenError},
};

#[cfg(test)]
mod tests;
