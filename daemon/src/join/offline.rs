//! Joining without a line: a key that stays, a request that goes to who keeps the studio's CA, a certificate that comes back.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use avalon_certs::{
    AuthorityCertificate, CertificateError, Chain, InstallError, NodeCertificate, NodeKey, install, key_file,
};
use avalon_protocol::id::NodeId;
use thiserror::Error;

/// Why it went no further.
#[derive(Debug, Error)]
pub(super) enum OfflineError {
    /// The key could not be made or kept.
    #[error("the key was not made")]
    Key(#[source] InstallError),
    /// The request could not be made.
    #[error("the request could not be made")]
    Request,
    /// The request could not be written.
    #[error("the request could not be written")]
    Write(#[source] key_file::WriteError),
    /// The certificate could not be read.
    #[error("{} is not what `avalonctl ca sign` writes", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: key_file::KeyFileError,
    },
    /// The file has the certificate of an authority that cannot be read.
    #[error("the studio authority in {} cannot be read", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// The authority is not the one that was asked for.
    #[error(
        "the studio authority in {} has the fingerprint {found}, not the one that was given: the file is of somebody else",
        path.display()
    )]
    OtherAuthority {
        /// The file.
        path: PathBuf,
        /// Its fingerprint.
        found: String,
    },
    /// The certificate is not for here.
    #[error("the certificate was not taken")]
    Install(#[source] InstallError),
    /// A directory could not be made.
    #[error("could not make {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Lets a key wait in the identity directory, or takes the one that waits, and writes its request to `out`.
pub(super) fn request(identity_dir: &Path, wished: &NodeId, out: &Path) -> Result<(), OfflineError> {
    let key = waiting_key(identity_dir)?;
    let pem = key.request(wished).and_then(|request| request.pem()).map_err(|_| OfflineError::Request)?;
    key_file::write_public(out, pem.as_bytes()).map_err(OfflineError::Write)
}

/// Takes the key that waits for a certificate in an identity directory, or makes one: a second try is for the same key.
pub(super) fn waiting_key(identity_dir: &Path) -> Result<NodeKey, OfflineError> {
    if let Ok(key) = NodeKey::waiting_in(identity_dir) {
        return Ok(key);
    }
    if let Some(parent) = identity_dir.parent() {
        fs::create_dir_all(parent)
            .map_err(|source| OfflineError::Directory { path: parent.to_owned(), source })?;
    }
    let key = NodeKey::generate().map_err(|_| OfflineError::Request)?;
    key.wait_in(identity_dir).map_err(OfflineError::Key)?;
    Ok(key)
}

/// What was taken of a file.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) facts: NodeCertificate,
    /// That of the studio's authority, which nobody but the file vouched for.
    pub(super) fingerprint: String,
}

/// Makes an identity of the key that waits and the certificate in `file`, if the authority in it has the fingerprint `expected`, or
/// none is.
pub(super) fn take(
    identity_dir: &Path,
    file: &Path,
    expected: Option<&str>,
    now: SystemTime,
) -> Result<Taken, OfflineError> {
    let path = || file.to_owned();
    let key = NodeKey::waiting_in(identity_dir).map_err(OfflineError::Install)?;
    let (chain, authority) =
        Chain::read_bundle(file).map_err(|source| OfflineError::Bundle { path: path(), source })?;
    let read = AuthorityCertificate::parse(authority.clone());
    let fingerprint = read.map_err(|source| OfflineError::Authority { path: path(), source })?.fingerprint();
    if expected.is_some_and(|expected| digits(expected) != digits(&fingerprint)) {
        return Err(OfflineError::OtherAuthority { path: path(), found: fingerprint });
    }
    let facts = install(identity_dir, &key, &chain, authority, now).map_err(OfflineError::Install)?;
    Ok(Taken { facts, fingerprint })
}

/// A fingerprint is written with colons and in capitals, or not.
fn digits(fingerprint: &str) -> String {
    let wanted = |char: &char| !matches!(char, ':' | ' ');
    fingerprint.chars().filter(wanted).map(|char| char.to_ascii_uppercase()).collect()
}
