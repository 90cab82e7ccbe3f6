//! A node that issues for its studio, by the key and certificate that the authority gave it.
//!
//! It certifies nodes of every role but admin, for no longer than it may itself, and revokes what it issued.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use avalon_protocol::{access::Role, id::NodeId};
use rcgen::{Issuer, KeyPair};

use crate::{
    authority::{AuthorityError, Certifier, IssueRequest, IssuedCertificate, ListNumber, ToRevoke},
    certificate::{AuthorityCertificate, Chain, IssuingCertificate},
    identity::AUTHORITY_FILE,
    key_file::{CertificateFile, KeyFileError, PrivateKey},
    request::{CertificateRequest, KeyToCertify},
};

/// The key by which a node issues, within the identity directory.
pub const ISSUING_KEY_FILE: &str = "issuing.key";
/// The certificate by which it may, within the identity directory.
pub const ISSUING_CERTIFICATE_FILE: &str = "issuing.pem";

/// What lets a node issue.
pub struct IssuingAuthority {
    authority: Arc<AuthorityCertificate>,
    certificate: IssuingCertificate,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for IssuingAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuingAuthority").field("node", self.node()).finish_non_exhaustive()
    }
}

impl IssuingAuthority {
    /// Opens what lets the node with this identity directory issue; none when nothing does.
    ///
    /// That its time has not come or is over is no error here: it may be the reason why somebody looks.
    ///
    /// # Errors
    /// [`AuthorityError::Open`] when one of the files is missing, damaged or open to other users;
    /// [`AuthorityError::NotAuthority`] and [`AuthorityError::KeyMismatch`] when they do not belong together.
    pub fn open(identity_dir: &Path) -> Result<Option<Self>, AuthorityError> {
        let dir = || identity_dir.to_owned();
        let failed = |source| AuthorityError::Open { dir: dir(), source };
        let certificate_path = identity_dir.join(ISSUING_CERTIFICATE_FILE);
        let file = match CertificateFile::read(&certificate_path) {
            Ok(file) => file,
            Err(KeyFileError::Missing { .. }) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let key = PrivateKey::read(&identity_dir.join(ISSUING_KEY_FILE)).map_err(failed)?;
        let authority_path = identity_dir.join(AUTHORITY_FILE);
        let authority = CertificateFile::read(&authority_path).map_err(failed)?;
        let authority = AuthorityCertificate::parse(authority.der)
            .map_err(|source| AuthorityError::NotAuthority { path: authority_path, source })?;
        let certificate = authority
            .issuing(&file.der)
            .map_err(|source| AuthorityError::NotAuthority { path: certificate_path, source })?;
        if certificate.public_key != key.public_key() {
            return Err(AuthorityError::KeyMismatch { dir: dir() });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key.into_pair())
            .map_err(|source| AuthorityError::Make { what: "issuer from the issuing certificate", source })?;
        Ok(Some(Self { authority: Arc::new(authority), certificate, issuer }))
    }

    /// Returns the node that may issue.
    pub fn node(&self) -> &NodeId {
        &self.certificate.node
    }

    /// Returns from when on it may.
    pub fn valid_from(&self) -> SystemTime {
        self.certificate.valid_from
    }

    /// Returns when it no longer may.
    pub fn expires_at(&self) -> SystemTime {
        self.certificate.expires_at
    }

    /// Returns the certificate of the studio's authority.
    pub fn authority(&self) -> &Arc<AuthorityCertificate> {
        &self.authority
    }

    /// Returns the certificate by which it may issue, in DER; lists that it signs are verified with it.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate.der
    }

    /// Certifies the key of a checked request. Its wish for a name does not count; `what` says it all.
    ///
    /// # Errors
    /// [`AuthorityError::AdminByDelegate`], [`AuthorityError::NotIssuing`] when it may not issue at `now`, and as
    /// [`Authority::sign`](crate::authority::Authority::sign).
    pub fn sign(
        &self,
        request: &CertificateRequest,
        what: &IssueRequest,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        if what.role == Role::Admin {
            return Err(AuthorityError::AdminByDelegate { node: what.node.clone() });
        }
        let made = self.certifier(now)?.certify(what, &KeyToCertify(request.public_key()), now)?;
        let chain = Chain::new(made.der().clone(), Some(self.certificate.der.clone()));
        let facts = self
            .authority
            .prove(&chain)
            .map_err(|source| AuthorityError::SelfCheck { node: what.node.clone(), source })?
            .node;
        Ok(IssuedCertificate { chain, facts })
    }

    /// Makes a list of what this node issued and is revoked, in DER.
    ///
    /// # Errors
    /// [`AuthorityError::NotIssuing`], [`AuthorityError::Clock`] and [`AuthorityError::Make`].
    pub fn revocation_list(
        &self,
        revoked: &[ToRevoke],
        list: ListNumber,
        now: SystemTime,
    ) -> Result<Vec<u8>, AuthorityError> {
        self.certifier(now)?.list(revoked, list, now)
    }

    fn certifier(&self, now: SystemTime) -> Result<Certifier<'_>, AuthorityError> {
        let IssuingCertificate { node, studio, valid_from, expires_at, .. } = &self.certificate;
        if now < *valid_from || now >= *expires_at {
            let (valid_from, expires_at) = (*valid_from, *expires_at);
            return Err(AuthorityError::NotIssuing { node: node.clone(), valid_from, expires_at });
        }
        // The clock of the authority may have been ahead of this machine's.
        Ok(Certifier { studio, issuer: &self.issuer, from: *valid_from, ends: *expires_at })
    }
}

#[cfg(test)]
mod tests;
