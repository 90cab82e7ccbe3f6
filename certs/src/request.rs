//! A request for a certificate: a node's public key, and the proof that whoever asks has the private one.
//!
//! What it asks to be called is a wish. Name, role and validity are decided by whoever signs.

use avalon_protocol::{id::NodeId, signing::PublicKey};
use rcgen::{CertificateParams, DistinguishedName, DnType, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest, prelude::FromDer as _, x509::X509Version,
};

use crate::{
    certificate::{CertificateError, Signed, ed25519_key, guarded, is_signed_by, unreadable},
    key_file::PrivateKey,
};

/// The largest request that is read; ours have 200 bytes and the name.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Larger than [`MAX_REQUEST_BYTES`].
    #[error("it has {bytes} bytes, more than the limit of {MAX_REQUEST_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not one request in PEM.
    #[error("it is not one certificate request in PEM")]
    Pem,
    /// Not a request of the form that is made here.
    #[error("it cannot be read, or is not of the form that avalonctl writes")]
    Form {
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// Its signature is not by the key that it names.
    #[error("whoever made it does not have the key that it names")]
    NotProven,
    /// It asks for more than a key.
    #[error("it asks for extensions; whoever signs decides about those")]
    Attributes,
}

/// A checked request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    public_key: PublicKey,
    wished: Option<NodeId>,
}

impl CertificateRequest {
    /// Reads a request in DER and checks that it is Ed25519, signed by the key that it names, and asks for nothing else.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn parse(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge { bytes: der.len() });
        }
        let form = |source| RequestError::Form { source };
        let (public_key, wished, plain, proven) = guarded(|| {
            let (rest, request) =
                X509CertificationRequest::from_der(der).map_err(|source| unreadable(source.into()))?;
            let info = &request.certification_request_info;
            if !rest.is_empty() || info.version != X509Version(0) {
                return Err(CertificateError::Form { rule: "nothing follows it and its version is 1" });
            }
            let public_key = ed25519_key(&info.subject_pki)?;
            let signed = Signed {
                raw: request.as_raw(),
                content: info.raw,
                algorithm: &request.signature_algorithm,
                inner_algorithm: None,
                signature: &request.signature_value.data,
            };
            let proven = is_signed_by(&signed, &public_key)?;
            let mut names = info.subject.iter_common_name();
            let wished = match (names.next(), names.next()) {
                (Some(name), None) => name.as_str().ok().and_then(|name| name.parse().ok()),
                _ => None,
            };
            Ok((public_key, wished, info.attributes().is_empty(), proven))
        })
        .map_err(form)?;
        if !proven {
            return Err(RequestError::NotProven);
        }
        if !plain {
            return Err(RequestError::Attributes);
        }
        Ok(Self { public_key, wished })
    }

    /// Reads a request in PEM.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn parse_pem(text: &[u8]) -> Result<Self, RequestError> {
        // PEM is a third longer, and has lines.
        if text.len() > 2 * MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge { bytes: text.len() });
        }
        let mut found = CertificateSigningRequestDer::pem_slice_iter(text);
        match (found.next(), found.next()) {
            (Some(Ok(der)), None) => Self::parse(&der),
            _ => Err(RequestError::Pem),
        }
    }

    /// Returns the key to be certified.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Returns what the asking side would like to be called; none when that is no node's name.
    pub fn wished(&self) -> Option<&NodeId> {
        self.wished.as_ref()
    }
}

/// A request as it is made, not yet sent.
#[derive(Debug)]
pub struct NewRequest(rcgen::CertificateSigningRequest);

impl NewRequest {
    /// Makes a request for a key.
    pub(crate) fn make(key: &PrivateKey, wished: &NodeId) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, wished.to_string());
        Ok(Self(params.serialize_request(key.pair())?))
    }

    /// Returns the request in DER.
    pub fn der(&self) -> &[u8] {
        self.0.der()
    }

    /// Returns the request in PEM.
    ///
    /// # Errors
    /// What the library says; never for what `NewRequest::make` made.
    pub fn pem(&self) -> Result<String, rcgen::Error> {
        self.0.pem()
    }
}

/// A public key alone, as the library wants it.
pub(crate) struct KeyToCertify<'a>(pub(crate) &'a PublicKey);

impl PublicKeyData for KeyToCertify<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SanType};

    use super::*;
    use crate::fixture::node;

    fn made() -> (PrivateKey, NewRequest) {
        let key = PrivateKey::generate().unwrap();
        let request = NewRequest::make(&key, &node("ws12@home")).unwrap();
        (key, request)
    }

    #[test]
    fn a_request_names_its_key_and_a_wish() {
        let (key, request) = made();
        let read = CertificateRequest::parse(request.der()).unwrap();
        assert_eq!(*read.public_key(), key.public_key());
        assert_eq!(read.wished(), Some(&node("ws12@home")));
        assert_eq!(CertificateRequest::parse_pem(request.pem().unwrap().as_bytes()).unwrap(), read);
        let long = node(&format!("{0}@{0}", "n".repeat(63)));
        let request = NewRequest::make(&key, &long).unwrap();
        assert_eq!(CertificateRequest::parse(request.der()).unwrap().wished(), Some(&long));
    }

    #[test]
    fn no_bit_of_a_request_can_be_changed() {
        let good = made().1.der().to_vec();
        for position in 0..good.len() {
            assert!(CertificateRequest::parse(&good[..position]).is_err(), "cut at {position}");
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[position] ^= 1 << bit;
                assert!(CertificateRequest::parse(&bad).is_err(), "bit {bit} of byte {position}");
            }
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert!(matches!(CertificateRequest::parse(&longer), Err(RequestError::Form { .. })));
    }

    #[test]
    fn the_key_of_somebody_else_is_not_certified() {
        let (mine, theirs) = (made().1.der().to_vec(), made().0.public_key());
        let own = CertificateRequest::parse(&mine).unwrap().public_key().as_bytes().to_vec();
        let at = mine.windows(32).position(|window| window == own).unwrap();
        let mut stolen = mine;
        stolen[at..at + 32].copy_from_slice(theirs.as_bytes());
        assert_eq!(CertificateRequest::parse(&stolen), Err(RequestError::NotProven));
    }

    #[test]
    fn other_algorithms_wishes_for_more_and_what_is_no_request_are_refused() {
        let curve = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default().serialize_request(&curve).unwrap();
        let refused = CertificateRequest::parse(request.der());
        assert_eq!(refused, Err(RequestError::Form { source: CertificateError::NotEd25519 }));

        let key = PrivateKey::generate().unwrap();
        let mut more = CertificateParams::default();
        more.subject_alt_names = vec![SanType::URI("avalon-role:admin".try_into().unwrap())];
        let request = more.serialize_request(key.pair()).unwrap();
        assert_eq!(CertificateRequest::parse(request.der()), Err(RequestError::Attributes));

        let huge = vec![0x30; MAX_REQUEST_BYTES + 1];
        assert!(matches!(CertificateRequest::parse(&huge), Err(RequestError::TooLarge { .. })));
        let pem = made().1.pem().unwrap();
        for bad in [String::new(), pem.repeat(2), pem.replace("REQUEST", "BOGUS"), "x".repeat(20_000)] {
            assert!(CertificateRequest::parse_pem(bad.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_name_that_is_none_is_no_wish() {
        let key = PrivateKey::generate().unwrap();
        for name in ["", "ws12", "WS12@home", "a@b@c"] {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            let request = params.serialize_request(key.pair()).unwrap();
            assert_eq!(CertificateRequest::parse(request.der()).unwrap().wished(), None, "{name}");
        }
    }
}
