//! A node's certificate and what links it to the studio's authority, as one value and as one run of bytes.
//!
//! In feeds a certificate that the authority issued stands alone, as DER. With the issuing certificate it is
//! `0x01 | length u16 BE | DER | length u16 BE | DER`: DER of a certificate starts with `0x30`, so nothing is taken for the
//! other, and what was written before there were issuing nodes stays as it is.

use std::path::Path;

use rustls_pki_types::CertificateDer;

use super::{CertificateError, MAX_CERTIFICATE_BYTES};
use crate::key_file::{CertificateFile, KeyFileError, MalformedFile, pem_of_certificate};

/// The first byte of the form with two certificates.
const TWO: u8 = 1;

/// The first byte of DER, a sequence.
const DER: u8 = 0x30;

/// A node's certificate, alone or with that of the node which issued it. Not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    leaf: CertificateDer<'static>,
    issuing: Option<CertificateDer<'static>>,
}

impl Chain {
    /// Joins a node's certificate and, if another node issued it, that one's issuing certificate.
    pub fn new(leaf: CertificateDer<'static>, issuing: Option<CertificateDer<'static>>) -> Self {
        Self { leaf, issuing }
    }

    /// Takes the certificates as TLS shows them, the node's own first.
    ///
    /// # Errors
    /// [`CertificateError::Absent`] and [`CertificateError::Chain`] when it is not one or two.
    pub fn from_certificates(certificates: &[CertificateDer<'_>]) -> Result<Self, CertificateError> {
        let owned = |der: &CertificateDer<'_>| der.clone().into_owned();
        match certificates {
            [] => Err(CertificateError::Absent),
            [leaf] => Ok(Self::new(owned(leaf), None)),
            [leaf, issuing] => Ok(Self::new(owned(leaf), Some(owned(issuing)))),
            more => Err(CertificateError::Chain { found: more.len() }),
        }
    }

    /// Returns the node's own certificate.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// Returns the certificate of the node that issued it.
    pub fn issuing(&self) -> Option<&CertificateDer<'static>> {
        self.issuing.as_ref()
    }

    /// Returns the certificates as TLS shows them.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(self.leaf.clone()).chain(self.issuing.clone()).collect()
    }

    /// Writes it as PEM, with the authority's certificate behind it: all that somebody needs who has the key.
    pub fn to_bundle(&self, authority: &CertificateDer<'_>) -> String {
        let own = self.certificates();
        own.iter().map(|der| pem_of_certificate(der)).chain([pem_of_certificate(authority)]).collect()
    }

    /// Reads what [`Chain::to_bundle`] wrote from a file: the chain, and the authority's certificate. Not checked.
    ///
    /// # Errors
    /// [`KeyFileError`] when the file cannot be read or does not hold two or three certificates.
    pub fn read_bundle(path: &Path) -> Result<(Self, CertificateDer<'static>), KeyFileError> {
        let mut found = CertificateFile::read_some(path)?;
        let count = found.len();
        let wrong = || KeyFileError::Malformed {
            path: path.to_owned(),
            source: MalformedFile::Count { found: count },
        };
        let authority = found.pop().ok_or_else(wrong)?;
        let chain = Self::from_certificates(&found).map_err(|_| wrong())?;
        Ok((chain, authority))
    }

    /// Writes it as it stands in feeds.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Some(issuing) = &self.issuing else { return self.leaf.to_vec() };
        let mut bytes = vec![TWO];
        for der in [&self.leaf, issuing] {
            // What is longer cannot be read back, and is refused there.
            let length = u16::try_from(der.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_be_bytes());
            bytes.extend_from_slice(der);
        }
        bytes
    }

    /// Reads what stands in a feed. Every value has one form.
    ///
    /// # Errors
    /// [`CertificateError::TooLarge`] and [`CertificateError::Concatenation`]; whether these are certificates is another
    /// question.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CertificateError> {
        match bytes {
            [TWO, rest @ ..] => {
                let (leaf, rest) = take(rest)?;
                let (issuing, rest) = take(rest)?;
                if rest.is_empty() {
                    Ok(Self::new(leaf, Some(issuing)))
                } else {
                    Err(CertificateError::Concatenation { rule: "nothing follows the second" })
                }
            }
            _ if bytes.len() > MAX_CERTIFICATE_BYTES => {
                Err(CertificateError::TooLarge { bytes: bytes.len() })
            }
            // Also what is no certificate at all: its reader says what is wrong with it.
            _ => Ok(Self::new(CertificateDer::from(bytes.to_vec()), None)),
        }
    }
}

fn take(bytes: &[u8]) -> Result<(CertificateDer<'static>, &[u8]), CertificateError> {
    let cut = CertificateError::Concatenation { rule: "both are there, each with its length" };
    let Some((length, rest)) = bytes.split_first_chunk() else { return Err(cut) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::TooLarge { bytes: length });
    }
    let (der, rest) = rest.split_at_checked(length).ok_or(cut)?;
    if der.first() == Some(&DER) {
        Ok((CertificateDer::from(der.to_vec()), rest))
    } else {
        Err(CertificateError::Concatenation { rule: "each is DER" })
    }
}
