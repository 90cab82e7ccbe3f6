//! Why a node's identity cannot be used, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use avalon_protocol::id::{NodeId, StudioName};
use thiserror::Error;

use super::AUTHORITY_FILE;
use crate::{
    certificate::{CertificateError, utc},
    key_file::{KeyFileError, MalformedFile},
};

/// Why a node's identity cannot be used, and what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no private key.
    #[error("there is no private key {}; issue one with `avalonctl ca issue --dir CA_DIR --node NODE --site SITE --out {}`", path.display(), dir_of(path).display())]
    MissingKey {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is no certificate.
    #[error("there is no certificate {}; issue one with `avalonctl ca issue --dir CA_DIR --node NODE --site SITE --out {}`", path.display(), dir_of(path).display())]
    MissingCertificate {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is no authority's certificate.
    #[error("there is no studio CA certificate {}; copy ca.pem from the directory of the studio CA", path.display())]
    MissingAuthority {
        /// Where it should be.
        path: PathBuf,
    },
    /// Others may read the private key.
    #[error("the private key {} can be read by other users (mode {mode:04o}); run `chmod 600 {}`, and issue a new identity if one of them may have", path.display(), path.display())]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file could not be read.
    #[error("could not read {}; check that the user of avalond may", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM of what it should be.
    #[error("{} is damaged; restore it, or issue a new identity with `avalonctl ca issue`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: MalformedFile,
    },
    /// The key or the certificate is of another algorithm.
    #[error("{} is not Ed25519; issue a new identity with `avalonctl ca issue`", path.display())]
    NotEd25519 {
        /// The file.
        path: PathBuf,
    },
    /// The last step of a renewal that a crash had interrupted could not be made.
    #[error("could not put {} in its place; check the disk and the permissions", path.display())]
    Unfinished {
        /// The key that waits.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate's key is another one.
    #[error("the key {} does not belong to the certificate beside it; issue a new identity with `avalonctl ca issue`", path.display())]
    KeyMismatch {
        /// The key's file.
        path: PathBuf,
    },
    /// The certificate names no node.
    #[error("the certificate {} names no node; issue one with `avalonctl ca issue`", path.display())]
    NoName {
        /// The certificate's file.
        path: PathBuf,
    },
    /// The certificate names more than one node.
    #[error("the certificate {} has {found} avalon:// names where exactly one belongs; issue one with `avalonctl ca issue`", path.display())]
    AmbiguousName {
        /// The certificate's file.
        path: PathBuf,
        /// How many names it has.
        found: usize,
    },
    /// Another authority issued the certificate.
    #[error("the certificate {} was not issued by the CA of studio {studio} in {AUTHORITY_FILE} beside it; take both from the same studio CA", path.display())]
    Foreign {
        /// The certificate's file.
        path: PathBuf,
        /// The studio whose authority is beside it.
        studio: StudioName,
    },
    /// The certificate has another defect.
    #[error("the certificate {} cannot be used; issue one with `avalonctl ca issue`", path.display())]
    Unsuitable {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The certificate beside it is not that of a studio's authority.
    #[error("{} is not the certificate of a studio CA; copy ca.pem from the directory of the studio CA", path.display())]
    NotAuthority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The certificate's time is over.
    #[error("the certificate of {node} expired on {}; renew it with `avalonctl ca issue --dir CA_DIR --node {} --site {} --out {}`", utc(*expired_at), node.node, node.site, dir.display())]
    Expired {
        /// The node that it names.
        node: NodeId,
        /// When it ended.
        expired_at: SystemTime,
        /// The identity's directory.
        dir: PathBuf,
    },
    /// The certificate's time has not come.
    #[error("the certificate of {node} is not valid before {}; check the clock of this machine and that of the studio CA", utc(*valid_from))]
    NotYetValid {
        /// The node that it names.
        node: NodeId,
        /// When it begins.
        valid_from: SystemTime,
    },
}

pub(super) fn from_file(
    error: KeyFileError,
    missing: impl FnOnce(PathBuf) -> IdentityError,
) -> IdentityError {
    match error {
        KeyFileError::Missing { path } => missing(path),
        KeyFileError::Exposed { path, mode } => IdentityError::KeyExposed { path, mode },
        KeyFileError::Unreadable { path, source } => IdentityError::Unreadable { path, source },
        KeyFileError::NotEd25519 { path } => IdentityError::NotEd25519 { path },
        KeyFileError::Malformed { path, source } => IdentityError::Malformed { path, source },
    }
}

pub(super) fn from_certificate(error: CertificateError, path: &Path) -> IdentityError {
    let path = path.to_owned();
    match error {
        CertificateError::NoName => IdentityError::NoName { path },
        CertificateError::AmbiguousName { found } => IdentityError::AmbiguousName { path, found },
        CertificateError::NotEd25519 => IdentityError::NotEd25519 { path },
        CertificateError::Foreign { studio } | CertificateError::OtherStudio { expected: studio, .. } => {
            IdentityError::Foreign { path, studio }
        }
        source => IdentityError::Unsuitable { path, source },
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
