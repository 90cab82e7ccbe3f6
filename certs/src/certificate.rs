//! What a certificate says, read from bytes that may be hostile.
//!
//! Certificates come from peers and from their feeds, so reading one never panics, never allocates more than a
//! constant, and refuses everything that the studio's authority would not have written. Times are read here and judged
//! elsewhere: a handshake needs a valid certificate now, an old record does not.
//!
//! Two chains are known: a node's certificate that the studio's authority issued, and one that an issuing node issued, with
//! the certificate by which the authority lets it. Nothing else links a node to a studio.

use avalon_protocol::id::{NodeId, StudioName};

mod authority;
mod chain;
mod error;
mod form;
mod issuing;
mod names;
mod node;
mod time;

pub use self::{
    authority::AuthorityCertificate, chain::Chain, error::CertificateError, node::NodeCertificate,
};
pub(crate) use self::{
    authority::{fingerprint, fingerprint_text},
    form::{Signed, ed25519_key, guarded, is_signed_by, read, unreadable},
    issuing::IssuingCertificate,
    names::{DNS_SUFFIX, Names, node_uri, role_uri, studio_uri},
    node::Proven,
    time::{system_time, utc},
};

/// The largest certificate that is read. Ours are below 1 KiB; nothing that a peer sends may cost more than this.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// Reads whom a certificate names: exactly one `avalon://<studio>/<site>/<node>`.
///
/// This is a claim until the certificate has been checked against the studio's CA.
///
/// # Errors
/// [`CertificateError`] for anything that a studio CA would not have issued to a node.
pub fn node_of_certificate(der: &[u8]) -> Result<(StudioName, NodeId), CertificateError> {
    let certificate = NodeCertificate::parse(der)?;
    Ok((certificate.studio, certificate.node))
}

/// Returns the DNS name that stands in a node's certificate, `<node>.<site>.avalon.internal`.
///
/// It is a name for TLS, never looked up.
pub fn dns_name(node: &NodeId) -> String {
    format!("{}.{}{DNS_SUFFIX}", node.node, node.site)
}

#[cfg(test)]
mod tests;
