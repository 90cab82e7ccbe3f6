//! The certificate of a studio's authority, and what it proves about others.

use std::time::SystemTime;

use avalon_protocol::{access::Role, id::StudioName, signing::PublicKey};
use ring::digest;
use rustls_pki_types::CertificateDer;

use super::{
    CertificateError, Chain, IssuingCertificate, NodeCertificate, Proven,
    form::{ed25519_key, is_authority, is_issued_by, path_length, read},
    names::Names,
    time::system_time,
};

/// The certificate of a studio's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityCertificate {
    der: CertificateDer<'static>,
    studio: StudioName,
    /// The name in DER, as it stands in the issuer field of what it issued.
    subject: Vec<u8>,
    public_key: PublicKey,
    valid_from: SystemTime,
    expires_at: SystemTime,
    delegates: bool,
}

impl AuthorityCertificate {
    /// Reads a certificate and checks that it is a studio's authority, signed by itself with Ed25519.
    ///
    /// # Errors
    /// [`CertificateError`] when it is not.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, CertificateError> {
        let read = read(&der, |certificate| {
            if !is_authority(certificate)? {
                return Err(CertificateError::WrongKind { expected: "that of a certificate authority" });
            }
            let studio = Names::of(certificate)?.studio()?;
            let public_key = ed25519_key(certificate.public_key())?;
            let subject = certificate.subject().as_raw().to_vec();
            if !is_issued_by(certificate, &subject, &public_key)? {
                return Err(CertificateError::Foreign { studio });
            }
            let delegates = path_length(certificate)?.is_none_or(|length| length > 0);
            let validity = certificate.validity();
            let period = (system_time(validity.not_before), system_time(validity.not_after));
            Ok((studio, subject, public_key, period, delegates))
        })?;
        let (studio, subject, public_key, (valid_from, expires_at), delegates) = read;
        Ok(Self { der, studio, subject, public_key, valid_from, expires_at, delegates })
    }

    /// Reads a certificate and checks that this authority itself issued it to a node of its studio, at whatever time.
    pub(crate) fn issued(&self, der: &[u8]) -> Result<NodeCertificate, CertificateError> {
        let certificate = read(der, |certificate| {
            // The signature first: what nobody vouches for is not worth interpreting.
            if !is_issued_by(certificate, &self.subject, &self.public_key)? {
                return Err(CertificateError::Foreign { studio: self.studio.clone() });
            }
            NodeCertificate::from_x509(certificate)
        })?;
        self.check_studio(&certificate.studio)?;
        Ok(certificate)
    }

    /// Reads a certificate and checks that this authority lets a node of its studio issue by it, at whatever time.
    pub(crate) fn issuing(&self, der: &[u8]) -> Result<IssuingCertificate, CertificateError> {
        let certificate = read(der, |certificate| {
            if !is_issued_by(certificate, &self.subject, &self.public_key)? {
                return Err(CertificateError::Foreign { studio: self.studio.clone() });
            }
            IssuingCertificate::from_x509(certificate)
        })?;
        self.check_studio(&certificate.studio)?;
        if self.delegates {
            Ok(certificate)
        } else {
            Err(CertificateError::NotDelegated { studio: self.studio.clone() })
        }
    }

    /// Traces a node's certificate back to this authority, at whatever time.
    ///
    /// # Errors
    /// [`CertificateError`] for everything but the two chains that there are.
    pub(crate) fn prove(&self, chain: &Chain) -> Result<Proven, CertificateError> {
        let Some(issuing) = chain.issuing() else {
            let node = self.issued(chain.leaf())?;
            return Ok(Proven { node, issuing: None, issuer_key: self.public_key });
        };
        let issuing = self.issuing(issuing)?;
        let node = read(chain.leaf(), |certificate| {
            if !is_issued_by(certificate, &issuing.subject, &issuing.public_key)? {
                return Err(CertificateError::NotByIssuer { issuer: issuing.node.clone() });
            }
            NodeCertificate::from_x509(certificate)
        })?;
        self.check_studio(&node.studio)?;
        if node.role == Role::Admin {
            return Err(CertificateError::AdminByDelegate { issuer: issuing.node });
        }
        // The issuer cannot lend times that it does not have.
        if node.valid_from < issuing.valid_from || node.expires_at > issuing.expires_at {
            return Err(CertificateError::OutlivesIssuer);
        }
        let issuer_key = issuing.public_key;
        Ok(Proven { node, issuing: Some(issuing), issuer_key })
    }

    fn check_studio(&self, found: &StudioName) -> Result<(), CertificateError> {
        if *found == self.studio {
            Ok(())
        } else {
            Err(CertificateError::OtherStudio { found: found.clone(), expected: self.studio.clone() })
        }
    }

    /// Returns the studio that it speaks for.
    pub fn studio(&self) -> &StudioName {
        &self.studio
    }

    /// Returns from when on it is valid.
    pub fn valid_from(&self) -> SystemTime {
        self.valid_from
    }

    /// Returns when it ends; it issues nothing that outlives it.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Says whether it lets nodes issue. Those that were made before there were issuing nodes do not.
    pub fn delegates(&self) -> bool {
        self.delegates
    }

    /// Returns the certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Returns the SHA-256 of the DER: 32 bytes that name this authority and no other.
    pub fn fingerprint_bytes(&self) -> [u8; 32] {
        fingerprint(&self.der)
    }

    /// Returns the SHA-256 of the DER as 32 pairs of hex digits with colons, as `openssl x509 -fingerprint` prints it.
    pub fn fingerprint(&self) -> String {
        fingerprint_text(&self.fingerprint_bytes())
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    pub(crate) fn subject(&self) -> &[u8] {
        &self.subject
    }
}

/// Writes a fingerprint for people: pairs of hex digits with colons.
pub(crate) fn fingerprint_text(fingerprint: &[u8; 32]) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Returns SHA-256 of bytes.
#[expect(clippy::expect_used, reason = "SHA-256 has 32 bytes (FIPS 180-4)")]
pub(crate) fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
