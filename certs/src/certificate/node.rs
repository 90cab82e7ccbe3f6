//! A node's own certificate.

use std::time::SystemTime;

use avalon_protocol::{
    access::Role,
    id::{NodeId, StudioName},
    signing::PublicKey,
};
use x509_parser::certificate::X509Certificate;

use super::{
    CertificateError, IssuingCertificate, dns_name,
    form::{ed25519_key, is_authority, may_issue, read, unreadable},
    names::Names,
    time::system_time,
};

/// The statements of a node's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The studio.
    pub studio: StudioName,
    /// The node.
    pub node: NodeId,
    /// What kind of node it is.
    pub role: Role,
    /// The key of the node.
    pub public_key: PublicKey,
    /// The number that its issuer gave it, in bytes.
    pub serial: Vec<u8>,
    /// When it begins.
    pub valid_from: SystemTime,
    /// When it ends.
    pub expires_at: SystemTime,
}

/// A node's certificate that was traced back to the studio's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proven {
    pub(crate) node: NodeCertificate,
    /// The certificate of the node that issued it; none when the authority itself did.
    pub(crate) issuing: Option<IssuingCertificate>,
    /// The key of whoever issued it.
    pub(crate) issuer_key: PublicKey,
}

impl NodeCertificate {
    /// Reads a certificate; says nothing about who issued it.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        read(der, Self::from_x509)
    }

    pub(super) fn from_x509(certificate: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        if is_authority(certificate)? || may_issue(certificate)?.0 {
            return Err(CertificateError::WrongKind { expected: "a node's" });
        }
        let names = Names::of(certificate)?;
        let (studio, node) = names.node()?;
        let expected = dns_name(&node);
        if names.dns != [expected.as_str()] {
            return Err(CertificateError::WrongDnsName { expected });
        }
        // webpki takes a certificate without usages for any use; here both must be said.
        let usage = certificate.extended_key_usage().map_err(unreadable)?;
        if !usage.is_some_and(|usage| usage.value.server_auth && usage.value.client_auth) {
            return Err(CertificateError::WrongUsage);
        }
        Ok(Self {
            studio,
            node,
            role: names.role()?,
            public_key: ed25519_key(certificate.public_key())?,
            serial: certificate.raw_serial().to_vec(),
            valid_from: system_time(certificate.validity().not_before),
            expires_at: system_time(certificate.validity().not_after),
        })
    }
}
