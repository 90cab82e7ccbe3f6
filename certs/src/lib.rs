//! Who belongs to the studio: its certificate authority, the identity of a node, and the TLS that proves both.
//!
//! A studio is one certificate authority. It gives each daemon one Ed25519 key and one certificate that names it as
//! `avalon://<studio>/<site>/<node>`. That name, and never an address, is who a peer is. The same key signs the node's
//! feeds; [`Signer`] and [`StudioTrust`] are the faces that `store` sees of it, so `store` knows no certificate.
//!
//! In the order of use: [`authority`] makes and issues, [`identity`] loads what was issued, [`tls`] proves it to peers
//! and checks theirs, [`trust`] checks what they signed long ago. Absent on purpose: a system trust store, RSA, TLS 1.2,
//! session resumption and 0-RTT. Private keys are not wiped from memory when they are dropped.

pub mod certificate;
pub mod key_file;
pub mod authority;
pub mod identity;
pub mod trust;
pub mod tls;
mod verifier;

#[cfg(test)]
mod fixture;

pub use authority::{Authority, AuthorityError, IssueRequest, IssuedIdentity, NODE_VALIDITY};
pub use certificate::{CertificateError, dns_name, node_of_certificate};
pub use identity::{Identity, IdentityError, Signer};
pub use tls::{ALPN, ANY_NODE, TlsError, client_config, peer_node, server_config};
pub use trust::StudioTrust;
