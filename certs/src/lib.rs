//! Who belongs to the studio: its certificate authority, the identity of a node, and the TLS that proves both.
//!
//! A studio is one certificate authority. It gives each daemon one Ed25519 key and one certificate that names it as
//! `avalon://<studio>/<site>/<node>`. That name, and never an address, is who a peer is. The same key signs the node's
//! feeds; [`Signer`] and [`StudioTrust`] are the faces that `store` sees of it, so `store` knows no certificate.
//!
//! In the order of use: [`authority`] makes and issues, and lets nodes issue ([`issuing`]) what others ask for
//! ([`request`]); [`identity`] loads what was issued, [`tls`] proves it to peers and checks theirs, with what is revoked
//! ([`revocation`]); [`join`] lets in who has an invite; [`trust`] checks what was signed long ago. Absent on purpose: a system trust store, RSA, TLS 1.2,
//! session resumption and 0-RTT. Private keys are not wiped from memory when they are dropped.

pub mod certificate;
pub mod passphrase;
pub mod key_file;
pub mod request;
pub mod authority;
pub mod issuing;
pub mod identity;
pub mod trust;
pub mod revocation;
pub mod join;
pub mod tls;
mod verifier;

#[cfg(test)]
mod fixture;

pub use authority::{
    Authority, AuthorityError, ISSUING_VALIDITY, IssueRequest, IssuedCertificate, MadeList, NODE_VALIDITY,
    parse_serial,
};
pub use certificate::{
    AuthorityCertificate, CertificateError, Chain, NodeCertificate, dns_name, node_of_certificate,
};
pub use identity::{Identity, IdentityError, InstallError, NodeKey, Signer, install};
pub use issuing::IssuingAuthority;
pub use passphrase::{Passphrase, PassphraseError};
pub use request::{CertificateRequest, RequestError};
pub use revocation::{RevocationList, Revocations, Revoked};
pub use tls::{
    ALPN, ANY_NODE, Admission, TlsError, client_config, client_config_for, peer_certificate, peer_node,
    server_config, server_config_for,
};
pub use trust::StudioTrust;
