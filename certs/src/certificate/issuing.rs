//! The certificate by which a node may issue to other nodes.
//!
//! It names the node and is an authority's, so it never passes for the node's own; what it issues never issues again.

use std::time::SystemTime;

use avalon_protocol::{
    id::{NodeId, StudioName},
    signing::PublicKey,
};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use super::{
    CertificateError,
    form::{ed25519_key, is_authority, may_issue, path_length, unreadable},
    names::Names,
    time::system_time,
};

/// The statements of an issuing certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuingCertificate {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) studio: StudioName,
    /// The node that may issue.
    pub(crate) node: NodeId,
    /// The name in DER, as it stands in the issuer field of what it issued.
    pub(super) subject: Vec<u8>,
    pub(crate) public_key: PublicKey,
    pub(crate) serial: Vec<u8>,
    pub(crate) valid_from: SystemTime,
    pub(crate) expires_at: SystemTime,
}

impl IssuingCertificate {
    /// Reads it; that the studio's authority signed it is checked before.
    pub(super) fn from_x509(certificate: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        let wrong_kind = CertificateError::WrongKind { expected: "one that lets a node issue to others" };
        let names = Names::of(certificate)?;
        let (studio, node) = names.node()?;
        // A name for TLS, a role or a usage would make it half a node's.
        let half_a_nodes = !names.dns.is_empty()
            || names.has_role()
            || certificate.extended_key_usage().map_err(unreadable)?.is_some();
        if half_a_nodes
            || !is_authority(certificate)?
            || path_length(certificate)? != Some(0)
            || !may_issue(certificate)?.1
        {
            return Err(wrong_kind);
        }
        Ok(Self {
            der: CertificateDer::from(certificate.as_raw().to_vec()),
            studio,
            node,
            subject: certificate.subject().as_raw().to_vec(),
            public_key: ed25519_key(certificate.public_key())?,
            serial: certificate.raw_serial().to_vec(),
            valid_from: system_time(certificate.validity().not_before),
            expires_at: system_time(certificate.validity().not_after),
        })
    }

    pub(crate) fn subject(&self) -> &[u8] {
        &self.subject
    }
}
