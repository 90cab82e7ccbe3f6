//! A node's identity: its key, its certificate and its studio's authority, as `avalonctl ca issue` or joining left them.
//!
//! Loading checks everything that can be checked without a peer, so that a wrong file is a message at start and not a
//! refused connection at night.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use avalon_protocol::{
    access::Role,
    id::{NodeId, StudioName},
    signing::{RecordSigner, Signature},
};
use ring::signature::Ed25519KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{
    certificate::{AuthorityCertificate, Chain, NodeCertificate},
    key_file::{CertificateFile, KeyFileError, PrivateKey},
    trust::StudioTrust,
};

mod error;
mod keep;

pub use self::{
    error::IdentityError,
    keep::{InstallError, NodeKey, install, save},
};

/// The node's private key, within the identity directory.
pub const KEY_FILE: &str = "node.key";
/// The node's certificate, within the identity directory.
pub const CERTIFICATE_FILE: &str = "node.pem";
/// The certificate of the studio's authority, within the identity directory.
pub const AUTHORITY_FILE: &str = "ca.pem";

/// A node's checked identity.
#[derive(Debug)]
pub struct Identity {
    facts: NodeCertificate,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
    authority: Arc<AuthorityCertificate>,
    signer: Arc<Signer>,
}

impl Identity {
    /// Loads the identity in `dir` and checks that it is whole, private, the studio's and valid at `now`.
    ///
    /// # Errors
    /// [`IdentityError`], whose text says what to do. Only [`IdentityError::NotYetValid`] may pass by waiting.
    pub fn load(dir: &Path, now: SystemTime) -> Result<Self, IdentityError> {
        let [certificate_path, authority_path] =
            [CERTIFICATE_FILE, AUTHORITY_FILE].map(|name| dir.join(name));
        // A key that waits may be all that there is, when a crash came before its last step.
        let key = match PrivateKey::read(&dir.join(KEY_FILE)) {
            Err(KeyFileError::Missing { path }) if !keep::has_waiting(dir) => {
                return Err(IdentityError::MissingKey { path });
            }
            Err(KeyFileError::Missing { .. }) => None,
            Err(error) => return Err(error::from_file(error, |path| IdentityError::MissingKey { path })),
            Ok(key) => Some(key),
        };
        let chain = CertificateFile::read_chain(&certificate_path)
            .map_err(|error| error::from_file(error, |path| IdentityError::MissingCertificate { path }))?;
        let authority = CertificateFile::read(&authority_path)
            .map_err(|error| error::from_file(error, |path| IdentityError::MissingAuthority { path }))?
            .der;
        let authority = AuthorityCertificate::parse(authority)
            .map_err(|source| IdentityError::NotAuthority { path: authority_path, source })?;
        let facts = authority.prove(&chain);
        let facts = facts.map_err(|source| error::from_certificate(source, &certificate_path))?.node;
        let key = match key {
            Some(key) if key.public_key() == facts.public_key => key,
            _ => keep::finish(dir, &facts.public_key)?,
        };
        check_time(&facts, dir, now)?;
        Ok(Self::from_checked(facts, &chain, key, Arc::new(authority)))
    }

    fn from_checked(
        facts: NodeCertificate,
        chain: &Chain,
        key: PrivateKey,
        authority: Arc<AuthorityCertificate>,
    ) -> Self {
        let signer = Arc::new(Signer { key: key.to_ring(), certificate: chain.to_bytes() });
        Self { facts, chain: chain.certificates(), key, authority, signer }
    }

    /// Returns the identity with another key and certificate of the same node, as its issuer answered; durable in `dir`
    /// when this returns. After a crash there is the old or the new one.
    ///
    /// # Errors
    /// [`InstallError`], after which the old one holds.
    pub fn renewed(
        &self,
        dir: &Path,
        key: NodeKey,
        chain: &Chain,
        now: SystemTime,
    ) -> Result<Self, InstallError> {
        let facts = keep::check(&self.authority, chain, &key, Some(self.node()), now)?;
        save(dir, &key, chain, &self.authority).map_err(|source| InstallError::Write { source })?;
        Ok(Self::from_checked(facts, chain, key.into_private(), Arc::clone(&self.authority)))
    }

    /// Returns the node that this is.
    pub fn node(&self) -> &NodeId {
        &self.facts.node
    }

    /// Returns the studio that it belongs to.
    pub fn studio(&self) -> &StudioName {
        &self.facts.studio
    }

    /// Returns what kind of node its certificate makes of it.
    pub fn role(&self) -> Role {
        self.facts.role
    }

    /// Returns when the certificate begins.
    pub fn valid_from(&self) -> SystemTime {
        self.facts.valid_from
    }

    /// Returns when the certificate ends.
    pub fn expires_at(&self) -> SystemTime {
        self.facts.expires_at
    }

    /// Returns what is shown to peers: the node's certificate, and that of the node which issued it if the authority did
    /// not.
    pub fn certificate_chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Returns the certificate of the studio's authority.
    pub fn authority(&self) -> &Arc<AuthorityCertificate> {
        &self.authority
    }

    /// Returns the signer of this node's feeds.
    pub fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.signer)
    }

    /// Returns the check of other nodes' feeds.
    pub fn trust(&self) -> StudioTrust {
        StudioTrust::new(Arc::clone(&self.authority))
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key.to_pkcs8().into()
    }
}

/// Signs feeds with the node's own key. Its `Debug` does not show the key.
pub struct Signer {
    key: Ed25519KeyPair,
    /// As it stands in feeds; see [`Chain::to_bytes`].
    certificate: Vec<u8>,
}

impl RecordSigner for Signer {
    #[expect(clippy::expect_used, reason = "an Ed25519 signature has 64 bytes (RFC 8032)")]
    fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.key.sign(message);
        Signature::from_bytes(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }

    fn certificate(&self) -> &[u8] {
        &self.certificate
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

fn check_time(facts: &NodeCertificate, dir: &Path, now: SystemTime) -> Result<(), IdentityError> {
    let NodeCertificate { node, valid_from, expires_at, .. } = facts;
    if now < *valid_from {
        return Err(IdentityError::NotYetValid { node: node.clone(), valid_from: *valid_from });
    }
    if now > *expires_at {
        let (node, expired_at) = (node.clone(), *expires_at);
        return Err(IdentityError::Expired { node, expired_at, dir: dir.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
