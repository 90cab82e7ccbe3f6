//! Why an authority could not be made, opened or used.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use avalon_protocol::id::{NodeId, StudioName};
use thiserror::Error;

use super::{AUTHORITY_VALIDITY, DAY_SECONDS};
use crate::{
    certificate::{CertificateError, utc},
    key_file::{KeyFileError, WriteError},
    passphrase::PassphraseError,
    request::RequestError,
    revocation::ListError,
};

/// Why an authority could not be made, opened or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The directory holds an authority; overwriting it would orphan every node that it issued to.
    #[error("{} exists already; keep it, or choose another directory for a new studio CA", path.display())]
    AlreadyExists {
        /// The file that is there.
        path: PathBuf,
    },
    /// The authority's files could not be read.
    #[error("could not open the studio CA in {}; create one with `avalonctl ca init`, or check the directory", dir.display())]
    Open {
        /// The authority's directory.
        dir: PathBuf,
        /// Which file, and why.
        #[source]
        source: KeyFileError,
    },
    /// The certificate is not that of a studio's authority.
    #[error("{} is not the certificate of a studio CA", path.display())]
    NotAuthority {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// Key and certificate are of two authorities.
    #[error("the key and the certificate in {} do not belong together; restore both from the same backup", dir.display())]
    KeyMismatch {
        /// The authority's directory.
        dir: PathBuf,
    },
    /// What lies beside the authority's key could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The newest list of revoked certificates is not this authority's.
    #[error("{} is no list of this studio CA; move it away if it came from elsewhere, or restore it", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ListError,
    },
    /// The book has no certificate of a node.
    #[error(
        "the studio CA in {} has not noted any certificate of {node}: issuing nodes issue without it, and so did earlier builds; \
         name the certificate by --serial (openssl x509 -in node.pem -noout -serial), or revoke the node by avalonctl node revoke",
        dir.display()
    )]
    NothingIssued {
        /// The authority's directory.
        dir: PathBuf,
        /// The node.
        node: NodeId,
    },
    /// All of it is revoked.
    #[error("list {number} has all of that already; publish it with `avalonctl node revoke --list`")]
    NothingNew {
        /// The newest list.
        number: u64,
    },
    /// It would fit into no record.
    #[error(
        "a list of {certificates} certificates is longer than a record holds; revoke nodes by name instead: avalonctl node revoke"
    )]
    ListTooLong {
        /// How many it would have.
        certificates: usize,
    },
    /// The authority has ended.
    #[error("the CA of studio {studio} expired on {}; create a new one with `avalonctl ca init`", utc(*expired_at))]
    Expired {
        /// The studio.
        studio: StudioName,
        /// When it ended.
        expired_at: SystemTime,
    },
    /// Asked for a validity of nothing, or beyond that of an authority.
    #[error("a certificate cannot be valid for {} seconds; ask for 1 second to {} days", validity.as_secs(), AUTHORITY_VALIDITY.as_secs() / DAY_SECONDS)]
    Validity {
        /// What was asked for.
        validity: Duration,
    },
    /// The time is before 1970 or near the end of the calendar of X.509.
    #[error("this machine's clock cannot be right; set it first")]
    Clock,
    /// The system has no randomness to give.
    #[error("the system's random number generator failed")]
    Random,
    /// A key or a certificate could not be made.
    #[error("could not make the {what}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// The authority's key lies under a passphrase, and none was given.
    #[error("the key of the studio CA in {} is encrypted; give its passphrase", dir.display())]
    NeedsPassphrase {
        /// The authority's directory.
        dir: PathBuf,
    },
    /// The passphrase opens nothing.
    #[error("the passphrase does not open the key of the studio CA in {}; try again", dir.display())]
    WrongPassphrase {
        /// The authority's directory.
        dir: PathBuf,
    },
    /// A key could not be encrypted or decrypted.
    #[error("the key of the studio CA in {} could not be encrypted or decrypted", dir.display())]
    Passphrase {
        /// The authority's directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: PassphraseError,
    },
    /// The studio's CA was made to issue to nodes alone.
    #[error(
        "the CA of studio {studio} was made before nodes could issue; it can go on issuing itself, and delegating needs a new CA"
    )]
    NotDelegating {
        /// The studio.
        studio: StudioName,
    },
    /// Only the studio's CA makes admins.
    #[error(
        "a node that issues for the studio cannot give the role admin; issue to {node} with the studio CA itself: `avalonctl ca issue --role admin`"
    )]
    AdminByDelegate {
        /// Who would be admin.
        node: NodeId,
    },
    /// The certificate by which this node issues has ended, or is not valid yet.
    #[error("the issuing certificate of {node} is valid from {} to {}, and not now; renew it with `avalonctl ca delegate`", utc(*valid_from), utc(*expires_at))]
    NotIssuing {
        /// The node that issues.
        node: NodeId,
        /// When it begins.
        valid_from: SystemTime,
        /// When it ends.
        expires_at: SystemTime,
    },
    /// The identity is of a studio with another authority.
    #[error("{} holds the identity of another studio CA; choose another directory", dir.display())]
    OtherAuthority {
        /// The identity's directory.
        dir: PathBuf,
    },
    /// A request for a certificate is not one.
    #[error("the request for a certificate is refused")]
    Request {
        /// What is wrong with it.
        #[source]
        source: RequestError,
    },
    /// What was made does not pass our own check; a defect of this program.
    #[error("the certificate just made for {node} is not valid; please report this")]
    SelfCheck {
        /// Whom it was for.
        node: NodeId,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The directory holds another node's identity.
    #[error("{} holds the identity of {found} of studio {studio}; move it away or choose another directory", dir.display())]
    OtherIdentity {
        /// The identity's directory.
        dir: PathBuf,
        /// Whose identity it holds.
        found: NodeId,
        /// Of which studio.
        studio: StudioName,
    },
    /// The directory holds a key, and nothing says whose.
    #[error("{} holds an identity whose owner cannot be read; move it away or choose another directory", dir.display())]
    UnknownIdentity {
        /// The identity's directory.
        dir: PathBuf,
    },
    /// A file could not be written.
    #[error("could not save {what}")]
    Write {
        /// What was to be saved.
        what: &'static str,
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
}
