//! Keeping an identity: a key that is made where it stays, and its certificate beside it, whole after any crash.
//!
//! The new key waits in `node.key.new` until the certificate is in its place, then takes that of the old one. Whoever loads
//! and finds that the key and the certificate do not belong together looks whether the one that waits does, and makes the
//! last step.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use avalon_protocol::{
    id::{NodeId, StudioName},
    signing::PublicKey,
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use super::{AUTHORITY_FILE, CERTIFICATE_FILE, IdentityError, KEY_FILE};
use crate::{
    certificate::{AuthorityCertificate, CertificateError, Chain, NodeCertificate, node_of_certificate, utc},
    key_file::{
        Access, CertificateFile, Existing, KeyFileError, PrivateKey, WriteError, create_private_directory,
        pem_of_certificate, sync_directory, write_durably,
    },
    request::NewRequest,
};

/// The key that waits for its certificate, within the identity directory.
const WAITING_KEY_FILE: &str = "node.key.new";

/// A node's private key, made where it is used. It is never printed.
#[derive(Debug)]
pub struct NodeKey(PrivateKey);

/// Why a certificate that came was not taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// It does not prove what it should.
    #[error("the certificate that came is refused")]
    Certificate {
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// It is for another key.
    #[error("the certificate that came is for another key than the one made here")]
    OtherKey,
    /// It names another node.
    #[error("the certificate that came is for {found}, not for {expected}")]
    OtherNode {
        /// The node that it names.
        found: NodeId,
        /// The node that was expected.
        expected: NodeId,
    },
    /// Its time has not come or is over, by the clock of this machine.
    #[error("the certificate that came is valid from {} to {}, and here it is {}; check the clock of this machine", utc(*valid_from), utc(*expires_at), utc(*now))]
    NotNow {
        /// When it begins.
        valid_from: SystemTime,
        /// When it ends.
        expires_at: SystemTime,
        /// The time here.
        now: SystemTime,
    },
    /// There is an identity already.
    #[error("{} holds the identity of {found} of studio {studio}; choose another state directory, or move it away", dir.display())]
    OtherIdentity {
        /// The identity's directory.
        dir: PathBuf,
        /// Whose identity it holds.
        found: NodeId,
        /// Of which studio.
        studio: StudioName,
    },
    /// There is something that is no identity.
    #[error("{} holds an identity whose owner cannot be read; move it away or choose another state directory", dir.display())]
    UnknownIdentity {
        /// The identity's directory.
        dir: PathBuf,
    },
    /// The key that waits could not be read.
    #[error("there is no key that waits for a certificate in {}; begin with `avalonctl join --request`", dir.display())]
    NoKey {
        /// The identity's directory.
        dir: PathBuf,
        /// Which file, and why.
        #[source]
        source: KeyFileError,
    },
    /// A file could not be written.
    #[error("could not save the node's identity")]
    Write {
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
}

impl NodeKey {
    /// Makes a key from the system's randomness.
    ///
    /// # Errors
    /// What the library says when there is no randomness.
    pub fn generate() -> Result<Self, rcgen::Error> {
        Ok(Self(PrivateKey::generate()?))
    }

    /// Makes the request that it be certified, with a wish for a name.
    ///
    /// # Errors
    /// What the library says; none is known for a key that it made.
    pub fn request(&self, wished: &NodeId) -> Result<NewRequest, rcgen::Error> {
        NewRequest::make(&self.0, wished)
    }

    /// Returns the public half.
    pub fn public_key(&self) -> PublicKey {
        self.0.public_key()
    }

    /// Lets the key wait in the identity directory `dir` for a certificate, durably and for its owner alone.
    ///
    /// # Errors
    /// [`InstallError::OtherIdentity`] and [`InstallError::UnknownIdentity`] when there is an identity already;
    /// [`InstallError::Write`].
    pub fn wait_in(&self, dir: &Path) -> Result<(), InstallError> {
        check_free(dir, None)?;
        let failed = |source| InstallError::Write { source };
        create_private_directory(dir).map_err(failed)?;
        self.write_waiting(dir).map_err(failed)
    }

    /// Reads the key that waits in the identity directory `dir`.
    ///
    /// # Errors
    /// [`InstallError::NoKey`].
    pub fn waiting_in(dir: &Path) -> Result<Self, InstallError> {
        let key = PrivateKey::read(&dir.join(WAITING_KEY_FILE));
        key.map(Self).map_err(|source| InstallError::NoKey { dir: dir.to_owned(), source })
    }

    pub(super) fn into_private(self) -> PrivateKey {
        self.0
    }

    fn write_waiting(&self, dir: &Path) -> Result<(), WriteError> {
        let pem = self.0.to_pem();
        write_durably(&dir.join(WAITING_KEY_FILE), pem.as_bytes(), Access::Private, Existing::Replace)
    }
}

/// Checks what an issuer answered and saves it as the identity in `dir`. Nothing is written before all is checked.
///
/// # Errors
/// [`InstallError`].
pub fn install(
    dir: &Path,
    key: &NodeKey,
    chain: &Chain,
    authority: CertificateDer<'static>,
    now: SystemTime,
) -> Result<NodeCertificate, InstallError> {
    let authority =
        AuthorityCertificate::parse(authority).map_err(|source| InstallError::Certificate { source })?;
    let facts = check(&authority, chain, key, None, now)?;
    check_free(dir, Some((authority.studio(), &facts.node)))?;
    save(dir, key, chain, &authority).map_err(|source| InstallError::Write { source })?;
    Ok(facts)
}

/// Checks a certificate that came for a key.
pub(super) fn check(
    authority: &AuthorityCertificate,
    chain: &Chain,
    key: &NodeKey,
    expected: Option<&NodeId>,
    now: SystemTime,
) -> Result<NodeCertificate, InstallError> {
    let facts = authority.prove(chain).map_err(|source| InstallError::Certificate { source })?.node;
    if facts.public_key != key.public_key() {
        return Err(InstallError::OtherKey);
    }
    if let Some(expected) = expected.filter(|expected| **expected != facts.node) {
        return Err(InstallError::OtherNode { found: facts.node, expected: expected.clone() });
    }
    let NodeCertificate { valid_from, expires_at, .. } = facts;
    if now < valid_from || now > expires_at {
        return Err(InstallError::NotNow { valid_from, expires_at, now });
    }
    Ok(facts)
}

/// Saves an identity durably in `dir`; after a crash there is the old or the new one.
///
/// # Errors
/// [`WriteError`].
pub fn save(
    dir: &Path,
    key: &NodeKey,
    chain: &Chain,
    authority: &AuthorityCertificate,
) -> Result<(), WriteError> {
    create_private_directory(dir)?;
    let write = |name: &str, content: &str| {
        write_durably(&dir.join(name), content.as_bytes(), Access::Public, Existing::Replace)
    };
    write(AUTHORITY_FILE, &pem_of_certificate(authority.der()))?;
    key.write_waiting(dir)?;
    write(CERTIFICATE_FILE, &chain.certificates().iter().map(pem_of_certificate).collect::<String>())?;
    take_place(dir)
}

pub(super) fn has_waiting(dir: &Path) -> bool {
    dir.join(WAITING_KEY_FILE).symlink_metadata().is_ok()
}

/// Makes the last step of saving, when the key that waits is that of the certificate.
pub(super) fn finish(dir: &Path, public_key: &PublicKey) -> Result<PrivateKey, IdentityError> {
    let waiting = PrivateKey::read(&dir.join(WAITING_KEY_FILE)).ok();
    let Some(key) = waiting.filter(|key| key.public_key() == *public_key) else {
        return Err(IdentityError::KeyMismatch { path: dir.join(KEY_FILE) });
    };
    take_place(dir).map_err(|error| IdentityError::Unfinished {
        path: dir.join(WAITING_KEY_FILE),
        source: error.source,
    })?;
    Ok(key)
}

fn take_place(dir: &Path) -> Result<(), WriteError> {
    let path = dir.join(KEY_FILE);
    fs::rename(dir.join(WAITING_KEY_FILE), &path).map_err(|source| rename_failed(path, source))?;
    sync_directory(dir)
}

fn rename_failed(path: PathBuf, source: io::Error) -> WriteError {
    WriteError { action: "rename", path, source }
}

/// Refuses a directory that holds an identity, unless it is of that node.
fn check_free(dir: &Path, node: Option<(&StudioName, &NodeId)>) -> Result<(), InstallError> {
    let unknown = || InstallError::UnknownIdentity { dir: dir.to_owned() };
    let chain = match CertificateFile::read_chain(&dir.join(CERTIFICATE_FILE)) {
        Ok(chain) => chain,
        Err(KeyFileError::Missing { .. }) if dir.join(KEY_FILE).symlink_metadata().is_err() => return Ok(()),
        Err(_) => return Err(unknown()),
    };
    let (studio, found) = node_of_certificate(chain.leaf()).map_err(|_| unknown())?;
    if node == Some((&studio, &found)) {
        Ok(())
    } else {
        Err(InstallError::OtherIdentity { dir: dir.to_owned(), found, studio })
    }
}

#[cfg(test)]
mod tests;
