//! What a certificate says, read from bytes that may be hostile.
//!
//! Certificates come from peers and from their feeds, so reading one never panics, never allocates more than a
//! constant, and refuses everything that the studio's authority would not have written. Times are read here and judged
//! elsewhere: a handshake needs a valid certificate now, an old record does not.

use std::{
    panic::catch_unwind,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use avalon_protocol::{
    id::{InvalidId, NodeId, StudioName},
    signing::PublicKey,
};
use ring::{digest, signature};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_SIG_ED25519,
    time::ASN1Time,
    x509::SubjectPublicKeyInfo,
};

/// The largest certificate that is read. Ours are below 1 KiB; nothing that a peer sends may cost more than this.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// The scheme of the name in a certificate.
const SCHEME: &str = "avalon://";

/// What is wrong with a certificate, whatever the time.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The peer sent none.
    #[error("there is no certificate")]
    Absent,
    /// The peer sent more than its own; the studio's authority issues directly.
    #[error("{found} certificates came where exactly one belongs")]
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

/// Reads whom a certificate names: exactly one `avalon://<studio>/<site>/<node>`.
///
/// This is a claim until the certificate has been checked against the studio's CA.
///
/// # Errors
/// [`CertificateError`] for anything that a studio CA would not have issued to a node.
pub fn node_of_certificate(der: &[u8]) -> Result<(StudioName, NodeId), CertificateError> {
    let certificate = NodeCertificate::parse(der)?;
    Ok((certificate.studio, certificate.node))
}

/// Returns the DNS name that stands in a node's certificate, `<node>.<site>.avalon.internal`.
///
/// It is a name for TLS, never looked up.
pub fn dns_name(node: &NodeId) -> String {
    format!("{}.{}{DNS_SUFFIX}", node.node, node.site)
}

/// What follows node and site in the DNS name; `.internal` is reserved for private use.
pub(crate) const DNS_SUFFIX: &str = ".avalon.internal";

/// Returns the name that stands in a node's certificate, `avalon://<studio>/<site>/<node>`.
pub(crate) fn node_uri(studio: &StudioName, node: &NodeId) -> String {
    format!("{SCHEME}{studio}/{}/{}", node.site, node.node)
}

/// Returns the name that stands in the authority's certificate, `avalon://<studio>`.
pub(crate) fn studio_uri(studio: &StudioName) -> String {
    format!("{SCHEME}{studio}")
}

/// The statements of a node's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeCertificate {
    pub(crate) studio: StudioName,
    pub(crate) node: NodeId,
    pub(crate) public_key: PublicKey,
    pub(crate) valid_from: SystemTime,
    pub(crate) expires_at: SystemTime,
}

impl NodeCertificate {
    /// Reads a certificate; says nothing about who issued it.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        read(der, Self::from_x509)
    }

    fn from_x509(certificate: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        let names = Names::of(certificate)?;
        let uri = names.avalon_uri()?;
        let (studio, node) = parse_node_uri(uri).map_err(|source| CertificateError::InvalidName {
            uri: uri.chars().take(80).collect(),
            source,
        })?;
        let expected = dns_name(&node);
        if names.dns != [expected.as_str()] {
            return Err(CertificateError::WrongDnsName { expected });
        }
        if is_authority(certificate)? {
            return Err(CertificateError::WrongKind { expected: "a node's" });
        }
        // webpki takes a certificate without usages for any use; here both must be said.
        let usage = certificate.extended_key_usage().map_err(unreadable)?;
        if !usage.is_some_and(|usage| usage.value.server_auth && usage.value.client_auth) {
            return Err(CertificateError::WrongUsage);
        }
        Ok(Self {
            studio,
            node,
            public_key: ed25519_key(certificate.public_key())?,
            valid_from: system_time(certificate.validity().not_before),
            expires_at: system_time(certificate.validity().not_after),
        })
    }
}

/// The certificate of a studio's authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityCertificate {
    der: CertificateDer<'static>,
    studio: StudioName,
    /// The name in DER, as it stands in the issuer field of what it issued.
    subject: Vec<u8>,
    public_key: PublicKey,
    expires_at: SystemTime,
}

impl AuthorityCertificate {
    /// Reads a certificate and checks that it is a studio's authority, signed by itself with Ed25519.
    ///
    /// # Errors
    /// [`CertificateError`] when it is not.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, CertificateError> {
        let (studio, subject, public_key, expires_at) = read(&der, |certificate| {
            if !is_authority(certificate)? {
                return Err(CertificateError::WrongKind { expected: "that of a certificate authority" });
            }
            let names = Names::of(certificate)?;
            let uri = names.avalon_uri()?;
            let studio: StudioName = uri.strip_prefix(SCHEME).unwrap_or(uri).parse().map_err(|source| {
                CertificateError::InvalidName { uri: uri.chars().take(80).collect(), source }
            })?;
            let public_key = ed25519_key(certificate.public_key())?;
            let subject = certificate.subject().as_raw().to_vec();
            check_issuer(certificate, &studio, &subject, &public_key)?;
            Ok((studio, subject, public_key, system_time(certificate.validity().not_after)))
        })?;
        Ok(Self { der, studio, subject, public_key, expires_at })
    }

    /// Reads a certificate and checks that this authority issued it to a node of its studio, at whatever time.
    pub(crate) fn issued(&self, der: &[u8]) -> Result<NodeCertificate, CertificateError> {
        let certificate = read(der, |certificate| {
            // The signature first: what nobody vouches for is not worth interpreting.
            check_issuer(certificate, &self.studio, &self.subject, &self.public_key)?;
            NodeCertificate::from_x509(certificate)
        })?;
        if certificate.studio == self.studio {
            Ok(certificate)
        } else {
            Err(CertificateError::OtherStudio { found: certificate.studio, expected: self.studio.clone() })
        }
    }

    /// Returns the studio that it speaks for.
    pub fn studio(&self) -> &StudioName {
        &self.studio
    }

    /// Returns when it ends; it issues nothing that outlives it.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Returns the certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Returns the SHA-256 of the DER as 32 pairs of hex digits with colons, as `openssl x509 -fingerprint` prints it.
    pub fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.der);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

/// Parses DER within the limits and hands the result to `read`; a panic in either is an error.
fn read<T>(
    der: &[u8],
    read: impl FnOnce(&X509Certificate<'_>) -> Result<T, CertificateError> + std::panic::UnwindSafe,
) -> Result<T, CertificateError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::TooLarge { bytes: der.len() });
    }
    // Parsers of X.509 have panicked on crafted bytes (RUSTSEC-2026-0104): that must cost one connection, not the daemon.
    catch_unwind(move || {
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|source| unreadable(source.into()))?;
        if !rest.is_empty() {
            return Err(CertificateError::Form { rule: "nothing follows it" });
        }
        let unknown = certificate.iter_extensions().any(|extension| {
            let known = matches!(
                extension.parsed_extension(),
                ParsedExtension::BasicConstraints(_)
                    | ParsedExtension::KeyUsage(_)
                    | ParsedExtension::ExtendedKeyUsage(_)
                    | ParsedExtension::SubjectAlternativeName(_)
            );
            extension.critical && !known
        });
        if unknown {
            return Err(CertificateError::Form { rule: "its critical extensions are known here" });
        }
        read(&certificate)
    })
    .unwrap_or(Err(CertificateError::ParserPanicked))
}

fn unreadable(source: X509Error) -> CertificateError {
    CertificateError::Unreadable { source }
}

/// Checks name and signature of the issuer, with no regard to time.
fn check_issuer(
    certificate: &X509Certificate<'_>,
    studio: &StudioName,
    subject: &[u8],
    key: &PublicKey,
) -> Result<(), CertificateError> {
    let algorithm = &certificate.signature_algorithm;
    if algorithm.algorithm != OID_SIG_ED25519
        || algorithm.parameters.is_some()
        || *algorithm != certificate.tbs_certificate.signature
    {
        return Err(CertificateError::NotEd25519);
    }
    let value = &certificate.signature_value.data;
    if !is_canonical(certificate.as_raw(), certificate.tbs_certificate.as_ref(), value) {
        return Err(CertificateError::Form { rule: "it is encoded as DER demands" });
    }
    let signed = signature::UnparsedPublicKey::new(&signature::ED25519, key.as_bytes())
        .verify(certificate.tbs_certificate.as_ref(), value)
        .is_ok();
    if signed && certificate.issuer().as_raw() == subject {
        Ok(())
    } else {
        Err(CertificateError::Foreign { studio: studio.clone() })
    }
}

/// Says whether the bytes around the signed part are the only ones that can stand there.
///
/// The parser takes some others too. Then one certificate would have several encodings, and its hash would name nothing.
fn is_canonical(raw: &[u8], signed: &[u8], signature: &[u8]) -> bool {
    // The algorithm, Ed25519 without parameters, and the head of a bit string of 64 bytes.
    const BEFORE_SIGNATURE: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];
    let head = raw
        .strip_suffix(signature)
        .and_then(|rest| rest.strip_suffix(&BEFORE_SIGNATURE))
        .and_then(|rest| rest.strip_suffix(signed));
    let Some([0x30, length @ ..]) = head else { return false };
    let content_bytes = signed.len() + BEFORE_SIGNATURE.len() + signature.len();
    match length {
        [one] => content_bytes < 0x80 && usize::from(*one) == content_bytes,
        [0x81, one] => content_bytes >= 0x80 && usize::from(*one) == content_bytes,
        [0x82, high, low] => {
            content_bytes >= 0x100 && usize::from(u16::from_be_bytes([*high, *low])) == content_bytes
        }
        _ => false,
    }
}

fn is_authority(certificate: &X509Certificate<'_>) -> Result<bool, CertificateError> {
    let constraints = certificate.basic_constraints().map_err(unreadable)?;
    Ok(constraints.is_some_and(|constraints| constraints.value.ca))
}

fn ed25519_key(info: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, CertificateError> {
    if info.algorithm.algorithm != OID_SIG_ED25519 || info.subject_public_key.unused_bits != 0 {
        return Err(CertificateError::NotEd25519);
    }
    let bytes = info.subject_public_key.data.as_ref().try_into().map_err(|_| CertificateError::NotEd25519)?;
    Ok(PublicKey::from_bytes(bytes))
}

/// The alternative names that matter here.
struct Names<'a> {
    avalon: Vec<&'a str>,
    dns: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn of(certificate: &'a X509Certificate<'_>) -> Result<Self, CertificateError> {
        let mut names = Self { avalon: Vec::new(), dns: Vec::new() };
        let Some(extension) = certificate.subject_alternative_name().map_err(unreadable)? else {
            return Ok(names);
        };
        for name in &extension.value.general_names {
            match name {
                // Counted in any case of letters, accepted in one: `AVALON://` must not hide a second name.
                GeneralName::URI(uri)
                    if uri.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME)) =>
                {
                    names.avalon.push(uri);
                }
                GeneralName::DNSName(dns) => names.dns.push(dns),
                GeneralName::Invalid(..) => {
                    return Err(CertificateError::Form { rule: "its names can be read" });
                }
                _ => {}
            }
        }
        Ok(names)
    }

    fn avalon_uri(&self) -> Result<&'a str, CertificateError> {
        match self.avalon.as_slice() {
            [] => Err(CertificateError::NoName),
            [uri] => Ok(uri),
            more => Err(CertificateError::AmbiguousName { found: more.len() }),
        }
    }
}

fn parse_node_uri(uri: &str) -> Result<(StudioName, NodeId), InvalidId> {
    let parts: Vec<&str> = uri.strip_prefix(SCHEME).unwrap_or_default().split('/').collect();
    let [studio, site, node] = parts.as_slice() else {
        return Err(InvalidId {
            what: "certificate name",
            text: uri.chars().take(80).collect(),
            rule: "written as avalon://studio/site/node",
        });
    };
    Ok((studio.parse()?, NodeId::new(node.parse()?, site.parse()?)))
}

fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let shifted =
        if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    shifted.unwrap_or(UNIX_EPOCH)
}

/// Writes a time for a message, such as `2027-01-15 08:00:00 UTC`.
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok());
    let Some(Ok(asn1)) = seconds.map(ASN1Time::from_timestamp) else {
        return "an unknown time".to_owned();
    };
    let date = asn1.to_datetime();
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        date.year(),
        u8::from(date.month()),
        date.day(),
        date.hour(),
        date.minute(),
        date.second()
    )
}

#[cfg(test)]
mod tests;
