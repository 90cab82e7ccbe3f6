//! The two faces through which feeds are signed and checked, so that `store` never sees a key or a certificate.
//! `certs` implements them with the node's own Ed25519 key.

use std::{collections::BTreeMap, fmt};

use thiserror::Error;

use crate::{access::Role, id::NodeId};

/// An Ed25519 signature (RFC 8032), 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes the 64 bytes of a signature.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }
    /// Returns the 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// An Ed25519 public key (RFC 8032), 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes the 32 bytes of a key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Which certificate: BLAKE3 of the key that issued it and of its serial number, under a domain of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateId([u8; 32]);

impl CertificateId {
    /// Of the certificate with this serial number, without zeros in front, that this key issued.
    pub fn of(issuer: &PublicKey, serial: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("avalon 2026 certificate id v1");
        Self(*hasher.update(issuer.as_bytes()).update(serial).finalize().as_bytes())
    }
}

/// What a list of revoked certificates says that the studio's CA signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateList {
    /// Its number: a newer list has a higher one, and stands for all before it.
    pub number: u64,
    /// When it was made, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// Which certificates are revoked, and since when, in milliseconds since 1970.
    pub revoked: BTreeMap<CertificateId, u64>,
}

/// A list of revoked certificates that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the list of revoked certificates is not trusted: {reason}")]
pub struct UntrustedList {
    /// What is wrong with it.
    pub reason: String,
}

/// Under which certificate a record is signed: what decides about its author's rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signer {
    /// The role.
    pub role: Role,
    /// The certificate, and that of the node which issued it, if one did.
    pub certificates: [Option<CertificateId>; 2],
}

impl From<Role> for Signer {
    fn from(role: Role) -> Self {
        Self { role, certificates: [None; 2] }
    }
}

/// What a certificate says of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certified {
    /// The key that it signs with.
    pub key: PublicKey,
    /// Its role.
    pub role: Role,
    /// From when on it is valid, in seconds since 1970: of two of one node, the later is the newer one.
    pub valid_from_s: u64,
    /// Which certificate it is, and which that of the node that issued it, if one did.
    pub certificates: [Option<CertificateId>; 2],
}

impl Certified {
    /// Returns what decides about the rights of whoever signs under it.
    pub fn signer(&self) -> Signer {
        Signer { role: self.role, certificates: self.certificates }
    }
}

/// Signs with this node's key.
pub trait RecordSigner: Send + Sync + fmt::Debug {
    /// Signs a message.
    fn sign(&self, message: &[u8]) -> Signature;
    /// Returns this node's certificate in DER; peers check signatures by it.
    fn certificate(&self) -> &[u8];
}

/// Says whose signatures count.
pub trait RecordTrust: Send + Sync + fmt::Debug {
    /// Returns what a certificate says that the studio's CA issued to `owner`.
    ///
    /// Validity times are not checked: a record stays valid after the certificate that signed it has expired.
    ///
    /// # Errors
    /// [`UntrustedCertificate`] when the certificate is not the studio's or names another node.
    fn prove(&self, certificate: &[u8], owner: &NodeId) -> Result<Certified, UntrustedCertificate>;
    /// Says whether `signature` is that of `message` by `key`.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool;
    /// Reads a list of revoked certificates, in DER, that the studio's CA signed. Times are not judged.
    ///
    /// # Errors
    /// [`UntrustedList`] when anybody else signed it, or it has not the form that is made here.
    fn certificate_list(&self, der: &[u8]) -> Result<CertificateList, UntrustedList>;
}

/// A certificate in a feed that does not prove what it should.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the certificate of {owner} in its feed is not trusted: {reason}")]
pub struct UntrustedCertificate {
    /// The node whose feed it stands in.
    pub owner: NodeId,
    /// What is wrong with it.
    pub reason: String,
}
