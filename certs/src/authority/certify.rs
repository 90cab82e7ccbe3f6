//! Signing, by the studio's authority and by nodes that may: certificates of nodes, and lists of revoked ones.

use std::time::{Duration, SystemTime};

use avalon_protocol::{
    access::Role,
    id::{NodeId, StudioName},
};
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, PublicKeyData, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

use super::{
    AUTHORITY_VALIDITY, AuthorityError,
    params::{Period, node_params, since_epoch},
};
use crate::certificate::{Chain, NodeCertificate};

/// What a certificate is to say. Whoever signs decides it, never whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// The node that the certificate will name.
    pub node: NodeId,
    /// What kind of node it makes of it.
    pub role: Role,
    /// How long it is valid, [`NODE_VALIDITY`](super::NODE_VALIDITY) by default; never longer than its issuer.
    pub validity: Duration,
}

impl IssueRequest {
    /// For the usual time.
    pub fn new(node: NodeId, role: Role) -> Self {
        Self { node, role, validity: super::NODE_VALIDITY }
    }
}

/// A node's certificate, new and checked as every peer will check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate, with that of the node which issued it.
    pub chain: Chain,
    /// What it says.
    pub facts: NodeCertificate,
}

/// A certificate that is to be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToRevoke {
    /// Its number, in bytes.
    pub serial: Vec<u8>,
    /// Since when.
    pub since: SystemTime,
}

/// Which list this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListNumber {
    /// Its number; higher than that of every list that the same signer made before.
    pub number: u64,
    /// When the next list is due.
    pub next_at: SystemTime,
}

/// The key that signs, with what its own certificate allows it.
#[derive(Debug)]
pub(crate) struct Certifier<'a> {
    pub(crate) studio: &'a StudioName,
    pub(crate) issuer: &'a Issuer<'static, KeyPair>,
    /// No certificate begins before this.
    pub(crate) from: SystemTime,
    /// And none ends after this.
    pub(crate) ends: SystemTime,
}

impl Certifier<'_> {
    /// Certifies a public key for a node.
    pub(crate) fn certify(
        &self,
        request: &IssueRequest,
        key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<rcgen::Certificate, AuthorityError> {
        check_validity(request.validity)?;
        since_epoch(now)?;
        // TLS libraries ignore when a trust anchor ends, so nothing that it issues may outlive it.
        let to = now.checked_add(request.validity).ok_or(AuthorityError::Clock)?.min(self.ends);
        let mut period = Period::backdated(now, to);
        period.from = period.from.max(self.from);
        let params = node_params(self.studio, &request.node, request.role, period)?;
        params
            .signed_by(key, self.issuer)
            .map_err(|source| AuthorityError::Make { what: "node's certificate", source })
    }

    /// Makes a list of revoked certificates, in DER.
    pub(crate) fn list(
        &self,
        revoked: &[ToRevoke],
        list: ListNumber,
        now: SystemTime,
    ) -> Result<Vec<u8>, AuthorityError> {
        let epoch = date_time_ymd(1970, 1, 1);
        let revoked_certs = revoked.iter().map(|revoked| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&revoked.serial),
                revocation_time: epoch + since_epoch(revoked.since)?,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: epoch + since_epoch(now)?,
            next_update: epoch + since_epoch(list.next_at)?,
            crl_number: SerialNumber::from(list.number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect::<Result<_, AuthorityError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = params.signed_by(self.issuer);
        let signed =
            signed.map_err(|source| AuthorityError::Make { what: "list of revoked certificates", source })?;
        Ok(signed.der().to_vec())
    }
}

pub(super) fn check_validity(validity: Duration) -> Result<(), AuthorityError> {
    if validity < Duration::from_secs(1) || validity > AUTHORITY_VALIDITY {
        return Err(AuthorityError::Validity { validity });
    }
    Ok(())
}
