//! The handshake of a machine that joins: it has no certificate of the studio yet, and mutual TLS all the same.
//!
//! Both sides hold the seed of an invite's token, or what follows from it. The joining side derives an Ed25519 key and
//! shows a certificate that it signed itself; the other side knows the hash of that key from the invite and lets nobody else
//! in. The joining side takes any server for the length of the handshake; before it says a word about itself it holds the
//! server's certificates to the authority whose fingerprint stands in the token ([`check_server`]).

use std::{fmt, sync::Arc, time::SystemTime};

use avalon_protocol::access::Seed;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error as ThisError;

use crate::{
    certificate::{
        AuthorityCertificate, CertificateError, Chain, Names, NodeCertificate, Signed, ed25519_key,
        fingerprint, fingerprint_text, is_signed_by, read, utc,
    },
    key_file::PrivateKey,
    tls,
};

/// The application protocol of joining.
pub const JOIN_ALPN: &[u8] = b"avalon-join/1";

/// The server name that a joining machine dials with; it is not sent.
pub const JOIN_SERVER: &str = "issuing-node.avalon.internal";

/// The one name in a joining machine's certificate. It says what it is, and is nobody's.
const JOINING_NAME: &str = "joining.avalon.internal";

/// What the key is derived for; the seed itself is never sent.
const KEY_CONTEXT: &[u8] = b"avalon 2026 join client key v1";

/// SHA-256 of the public key that follows from an invite's seed: what the inviting side keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeedKeyHash([u8; 32]);

impl SeedKeyHash {
    /// Takes the 32 bytes of a hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives what is kept of a seed.
    ///
    /// # Errors
    /// [`JoinTlsError::Key`], which is a defect.
    pub fn of(seed: &Seed) -> Result<Self, JoinTlsError> {
        Ok(Self(fingerprint(seed_key(seed)?.public_key().as_bytes())))
    }
}

/// Says which invites are open. It is asked in handshakes and must not wait.
pub trait OpenInvites: Send + Sync + fmt::Debug {
    /// Says whether an invite whose seed has this hash may be used now.
    fn is_open(&self, key: &SeedKeyHash) -> bool;
}

/// Why the TLS of joining could not be set up. None of these depends on the other side.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum JoinTlsError {
    /// The key or its certificate could not be made.
    #[error("could not make the key of the invite")]
    Key {
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// rustls refuses it.
    #[error("could not set up TLS for joining")]
    Config {
        /// What rustls said.
        #[source]
        source: Error,
    },
}

/// Why the server that answered is not the one that invited.
#[derive(Debug, Clone, PartialEq, ThisError)]
#[non_exhaustive]
pub enum UntrustedServer {
    /// It speaks for another authority than that of the token.
    #[error(
        "the server belongs to another studio CA than the token: {found}; ask for a new invite, and say that somebody answers at its address"
    )]
    OtherAuthority {
        /// The fingerprint of the authority that it sent.
        found: String,
    },
    /// What it sent is no authority, or its own certificate is not of it.
    #[error("the server cannot prove that it is of the studio")]
    Certificate {
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// Its certificate is not valid at the time of this machine.
    #[error("the certificate of {node} is valid from {} to {}, and here it is {}; check the clock of this machine", utc(*valid_from), utc(*expires_at), utc(*now))]
    NotNow {
        /// The server.
        node: avalon_protocol::id::NodeId,
        /// When its certificate begins.
        valid_from: SystemTime,
        /// When it ends.
        expires_at: SystemTime,
        /// The time here.
        now: SystemTime,
    },
}

/// Makes the configuration with which the holder of a token dials.
///
/// It takes any server; call [`check_server`] before sending anything.
///
/// # Errors
/// [`JoinTlsError`].
pub fn join_client_config(seed: &Seed) -> Result<ClientConfig, JoinTlsError> {
    let key = seed_key(seed)?;
    let certificate = joining_certificate(&key).map_err(|source| JoinTlsError::Key { source })?;
    let provider = tls::provider();
    let failed = |source| JoinTlsError::Config { source };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer { provider }))
        .with_client_auth_cert(vec![certificate], key.to_pkcs8().into())
        .map_err(failed)?;
    tls::finish_client(&mut config, JOIN_ALPN);
    Ok(config)
}

/// Checks that the server is of the studio whose authority the token names, and returns that authority and who it is.
///
/// `root` is what the server sent as the authority's certificate, `chain` what it showed in the handshake.
///
/// # Errors
/// [`UntrustedServer`]: say nothing to it.
pub fn check_server(
    root: &[u8],
    expected: &[u8; 32],
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(AuthorityCertificate, NodeCertificate), UntrustedServer> {
    let found = fingerprint(root);
    if found != *expected {
        return Err(UntrustedServer::OtherAuthority { found: fingerprint_text(&found) });
    }
    let certificate = |source| UntrustedServer::Certificate { source };
    let authority = AuthorityCertificate::parse(CertificateDer::from(root.to_vec())).map_err(certificate)?;
    let chain = Chain::from_certificates(chain).map_err(certificate)?;
    let node = authority.prove(&chain).map_err(certificate)?.node;
    let NodeCertificate { valid_from, expires_at, .. } = node;
    if now < valid_from || now > expires_at {
        return Err(UntrustedServer::NotNow { node: node.node, valid_from, expires_at, now });
    }
    Ok((authority, node))
}

/// Returns whose invite a verified connection's peer has, if it is one that joins.
///
/// Call it only with the certificates of a finished handshake.
pub fn joiner(chain: &[CertificateDer<'_>]) -> Option<SeedKeyHash> {
    match chain {
        [certificate] => read_joiner(certificate).ok(),
        _ => None,
    }
}

/// Reads a joining machine's certificate: signed by itself, with one name, and no claim to be anybody.
pub(crate) fn read_joiner(der: &[u8]) -> Result<SeedKeyHash, CertificateError> {
    read(der, |certificate| {
        let key = ed25519_key(certificate.public_key())?;
        let signed = Signed {
            raw: certificate.as_raw(),
            content: certificate.tbs_certificate.as_ref(),
            algorithm: &certificate.signature_algorithm,
            inner_algorithm: Some(&certificate.tbs_certificate.signature),
            signature: &certificate.signature_value.data,
        };
        let names = Names::of(certificate)?;
        if !names.claims_nothing() || names.dns != [JOINING_NAME] || certificate.is_ca() {
            return Err(CertificateError::WrongKind { expected: "that of a machine that joins" });
        }
        if is_signed_by(&signed, &key)? {
            Ok(SeedKeyHash(fingerprint(key.as_bytes())))
        } else {
            Err(CertificateError::WrongKind { expected: "signed by its own key" })
        }
    })
}

fn seed_key(seed: &Seed) -> Result<PrivateKey, JoinTlsError> {
    let salt = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, KEY_CONTEXT);
    let derived = ring::hmac::sign(&salt, seed.as_bytes());
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(derived.as_ref()).for_each(|(to, from)| *to = *from);
    PrivateKey::from_seed(&bytes).map_err(|source| JoinTlsError::Key { source })
}

fn joining_certificate(key: &PrivateKey) -> Result<CertificateDer<'static>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::DnsName(JOINING_NAME.try_into()?)];
    Ok(params.self_signed(key.pair())?.into())
}

/// Takes any server that has the key of the certificate that it shows.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // What does not even look like a node's is refused at once; whose it is, is asked when its authority is known.
        let reason = |error| rustls::CertificateError::Other(rustls::OtherError(Arc::new(error)));
        NodeCertificate::parse(end_entity).map_err(|error| Error::InvalidCertificate(reason(error)))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests;
