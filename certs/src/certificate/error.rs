//! What can be wrong with a certificate.

use avalon_protocol::id::{InvalidId, NodeId, StudioName};
use thiserror::Error;
use x509_parser::error::X509Error;

use super::MAX_CERTIFICATE_BYTES;

/// What is wrong with a certificate, whatever the time.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The peer sent none.
    #[error("there is no certificate")]
    Absent,
    /// More than a node's own and that of the node which issued it.
    #[error("{found} certificates came where one or two belong")]
    Chain {
        /// How many came.
        found: usize,
    },
    /// Larger than [`MAX_CERTIFICATE_BYTES`].
    #[error("the certificate has {bytes} bytes, more than the limit of {MAX_CERTIFICATE_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not X.509 in DER.
    #[error("the certificate cannot be read")]
    Unreadable {
        /// What the parser said.
        #[source]
        source: X509Error,
    },
    /// The parser panicked; the bytes were made to do that.
    #[error("the certificate breaks the parser and is refused")]
    ParserPanicked,
    /// Bytes follow the certificate, or it demands an extension that is not known here.
    #[error("the certificate is not of the form that a studio CA writes: {rule}")]
    Form {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// No `avalon://` name.
    #[error("the certificate has no name of the form avalon://STUDIO/SITE/NODE")]
    NoName,
    /// More than one `avalon://` name.
    #[error("the certificate has {found} avalon:// names where exactly one belongs")]
    AmbiguousName {
        /// How many it has.
        found: usize,
    },
    /// An `avalon://` name whose parts are not names.
    #[error("the certificate's name {uri:?} is not valid")]
    InvalidName {
        /// The name, shortened to 80 characters.
        uri: String,
        /// The part that is wrong.
        #[source]
        source: InvalidId,
    },
    /// The DNS name does not follow from the `avalon://` name.
    #[error("the certificate's only DNS name should be {expected}")]
    WrongDnsName {
        /// The name that follows.
        expected: String,
    },
    /// The key or the signature is of another algorithm.
    #[error("the certificate does not use Ed25519")]
    NotEd25519,
    /// Not meant for both sides of a connection.
    #[error("the certificate is not for both server and client authentication")]
    WrongUsage,
    /// A node's certificate that is an authority's, or the other way round.
    #[error("the certificate is not {expected}")]
    WrongKind {
        /// What it should be.
        expected: &'static str,
    },
    /// No role, or not exactly one, where there is a name for one.
    #[error("the certificate's role is not valid: {rule}")]
    InvalidRole {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// An issuing node made an admin of somebody, which only the studio's authority may.
    #[error(
        "the certificate has the role admin, which only the studio CA itself gives, and {issuer} issued it"
    )]
    AdminByDelegate {
        /// The node that issued it.
        issuer: NodeId,
    },
    /// The authority was made to issue to nodes alone.
    #[error("the CA of studio {studio} does not delegate issuing")]
    NotDelegated {
        /// The studio.
        studio: StudioName,
    },
    /// The certificate was not issued by the one that came with it.
    #[error("the certificate was not issued by {issuer}, whose issuing certificate came with it")]
    NotByIssuer {
        /// The node that the issuing certificate names.
        issuer: NodeId,
    },
    /// It is valid at a time at which its issuer is not.
    #[error("the certificate is valid at times when that of its issuer is not")]
    OutlivesIssuer,
    /// It was revoked, or its node was.
    #[error("{what} was revoked")]
    Revoked {
        /// What: a node, or a certificate of it.
        what: String,
    },
    /// The concatenation of certificates in a feed is damaged.
    #[error("the certificates do not stand one after the other as they should: {rule}")]
    Concatenation {
        /// The rule that is broken.
        rule: &'static str,
    },
    /// The signature is not by the studio's authority.
    #[error("the certificate was not issued by the CA of studio {studio}")]
    Foreign {
        /// The studio that was expected.
        studio: StudioName,
    },
    /// The studio's authority signed a certificate for another studio.
    #[error("the certificate names studio {found}, not {expected}")]
    OtherStudio {
        /// The studio that the certificate names.
        found: StudioName,
        /// The studio of the authority.
        expected: StudioName,
    },
}
