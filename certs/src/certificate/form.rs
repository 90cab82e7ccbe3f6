//! The form that everything in DER must have here: bounded, canonical, signed with Ed25519, without surprises.

use std::panic::{UnwindSafe, catch_unwind};

use avalon_protocol::signing::PublicKey;
use ring::signature;
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::ParsedExtension,
    oid_registry::OID_SIG_ED25519,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

use super::{CertificateError, MAX_CERTIFICATE_BYTES};

/// Parses DER within the limits and hands the result to `read`; a panic in either is an error.
pub(crate) fn read<T>(
    der: &[u8],
    read: impl FnOnce(&X509Certificate<'_>) -> Result<T, CertificateError> + UnwindSafe,
) -> Result<T, CertificateError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::TooLarge { bytes: der.len() });
    }
    guarded(move || {
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
}

/// Turns a panic into an error: parsers of X.509 have panicked on crafted bytes (RUSTSEC-2026-0104), and that must cost one
/// connection, not the daemon.
pub(crate) fn guarded<T>(
    parse: impl FnOnce() -> Result<T, CertificateError> + UnwindSafe,
) -> Result<T, CertificateError> {
    catch_unwind(parse).unwrap_or(Err(CertificateError::ParserPanicked))
}

pub(crate) fn unreadable(source: X509Error) -> CertificateError {
    CertificateError::Unreadable { source }
}

/// Something signed: a certificate, a request for one, or a list of revoked ones. All have the same frame.
pub(crate) struct Signed<'a> {
    /// All of it.
    pub(crate) raw: &'a [u8],
    /// The part that is signed.
    pub(crate) content: &'a [u8],
    /// The algorithm beside the signature, and the one within the signed part if there is one.
    pub(crate) algorithm: &'a AlgorithmIdentifier<'a>,
    pub(crate) inner_algorithm: Option<&'a AlgorithmIdentifier<'a>>,
    /// The signature.
    pub(crate) signature: &'a [u8],
}

/// Says whether `key` signed it.
///
/// # Errors
/// [`CertificateError::NotEd25519`] for another algorithm, [`CertificateError::Form`] when other bytes than these would say
/// the same.
pub(crate) fn is_signed_by(signed: &Signed<'_>, key: &PublicKey) -> Result<bool, CertificateError> {
    let Signed { raw, content, algorithm, inner_algorithm, signature } = signed;
    if algorithm.algorithm != OID_SIG_ED25519
        || algorithm.parameters.is_some()
        || inner_algorithm.is_some_and(|inner| inner != *algorithm)
    {
        return Err(CertificateError::NotEd25519);
    }
    if !is_canonical(raw, content, signature) {
        return Err(CertificateError::Form { rule: "it is encoded as DER demands" });
    }
    let key = signature::UnparsedPublicKey::new(&signature::ED25519, key.as_bytes());
    Ok(key.verify(content, signature).is_ok())
}

/// Says whether the authority of that name and key issued a certificate, with no regard to time.
pub(super) fn is_issued_by(
    certificate: &X509Certificate<'_>,
    subject: &[u8],
    key: &PublicKey,
) -> Result<bool, CertificateError> {
    let signed = Signed {
        raw: certificate.as_raw(),
        content: certificate.tbs_certificate.as_ref(),
        algorithm: &certificate.signature_algorithm,
        inner_algorithm: Some(&certificate.tbs_certificate.signature),
        signature: &certificate.signature_value.data,
    };
    Ok(is_signed_by(&signed, key)? && certificate.issuer().as_raw() == subject)
}

/// Says whether the bytes around the signed part are the only ones that can stand there.
///
/// The parser takes some others too. Then one certificate would have several encodings, and its hash would name nothing.
fn is_canonical(raw: &[u8], content: &[u8], signature: &[u8]) -> bool {
    // The algorithm, Ed25519 without parameters, and the head of a bit string of 64 bytes.
    const BEFORE_SIGNATURE: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];
    let head = raw
        .strip_suffix(signature)
        .and_then(|rest| rest.strip_suffix(&BEFORE_SIGNATURE))
        .and_then(|rest| rest.strip_suffix(content));
    let Some([0x30, length @ ..]) = head else { return false };
    let bytes = content.len() + BEFORE_SIGNATURE.len() + signature.len();
    match length {
        [one] => bytes < 0x80 && usize::from(*one) == bytes,
        [0x81, one] => bytes >= 0x80 && usize::from(*one) == bytes,
        [0x82, a, b] => bytes >= 0x100 && usize::from(u16::from_be_bytes([*a, *b])) == bytes,
        [0x83, a, b, c] => {
            bytes >= 0x1_0000 && u32::try_from(bytes) == Ok(u32::from_be_bytes([0, *a, *b, *c]))
        }
        _ => false,
    }
}

pub(super) fn is_authority(certificate: &X509Certificate<'_>) -> Result<bool, CertificateError> {
    let constraints = certificate.basic_constraints().map_err(unreadable)?;
    Ok(constraints.is_some_and(|constraints| constraints.value.ca))
}

/// Returns how many issuing certificates may stand beneath an authority; none when it does not say.
pub(super) fn path_length(certificate: &X509Certificate<'_>) -> Result<Option<u32>, CertificateError> {
    let constraints = certificate.basic_constraints().map_err(unreadable)?;
    Ok(constraints.and_then(|constraints| constraints.value.path_len_constraint))
}

/// Says whether a certificate lets its key sign certificates or lists of revoked ones, and whether it lets it do nothing
/// else.
pub(super) fn may_issue(certificate: &X509Certificate<'_>) -> Result<(bool, bool), CertificateError> {
    /// RFC 5280, 4.2.1.3: keyCertSign is bit 5, cRLSign bit 6.
    const ISSUING: u16 = 1 << 5 | 1 << 6;
    let usage = certificate.key_usage().map_err(unreadable)?.map_or(0, |usage| usage.value.flags);
    Ok((usage & ISSUING != 0, usage == ISSUING))
}

pub(crate) fn ed25519_key(info: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, CertificateError> {
    if info.algorithm.algorithm != OID_SIG_ED25519
        || info.algorithm.parameters.is_some()
        || info.subject_public_key.unused_bits != 0
    {
        return Err(CertificateError::NotEd25519);
    }
    let bytes = info.subject_public_key.data.as_ref().try_into().map_err(|_| CertificateError::NotEd25519)?;
    Ok(PublicKey::from_bytes(bytes))
}
