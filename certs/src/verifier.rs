//! The check of a peer's certificate in a handshake: the studio's own rules, then webpki's.
//!
//! webpki knows chains and times. It takes a certificate without usages for any use, ignores when a trust anchor ends, and
//! wants a host name; what a studio needs beyond that, or instead, is here.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::{self, AuthorityCertificate, CertificateError, DNS_SUFFIX, NodeCertificate};

/// The studio's own rules around a webpki verifier.
///
/// `inner` is the seam for revocation: an authority that has new lists puts a verifier here that holds them and can be
/// exchanged, and nothing else changes.
pub(crate) struct StudioVerifier<V: ?Sized> {
    pub(crate) authority: Arc<AuthorityCertificate>,
    pub(crate) inner: Arc<V>,
}

impl<V: ?Sized> StudioVerifier<V> {
    /// Checks all but the time: one certificate, issued by our authority, exactly one name, our studio, both usages.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<NodeCertificate, Error> {
        if !intermediates.is_empty() {
            return Err(refused(CertificateError::Chain { found: intermediates.len() + 1 }));
        }
        self.authority.issued(certificate).map_err(refused)
    }
}

impl<V: ?Sized> fmt::Debug for StudioVerifier<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StudioVerifier").field("studio", self.authority.studio()).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for StudioVerifier<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates)?;
        guarded(|| self.inner.verify_client_cert(end_entity, intermediates, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ServerCertVerifier for StudioVerifier<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let facts = self.check(end_entity, intermediates)?;
        let own_name = certificate::dns_name(&facts.node);
        if expected_name(server_name).is_some_and(|expected| expected != own_name) {
            return Err(Error::InvalidCertificate(rustls::CertificateError::NotValidForName));
        }
        // webpki wants a name to look for; the certificate's own has been derived from who it says it is.
        let own_name = ServerName::try_from(own_name)
            .map_err(|_| Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
        guarded(|| self.inner.verify_server_cert(end_entity, intermediates, &own_name, ocsp_response, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Returns the dialled name, in lower case, when it is that of one node: `<node>.<site>.avalon.internal`.
fn expected_name(server_name: &ServerName<'_>) -> Option<String> {
    let ServerName::DnsName(name) = server_name else { return None };
    let name = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
    let is_node = name.strip_suffix(DNS_SUFFIX).is_some_and(|labels| labels.contains('.'));
    is_node.then_some(name)
}

fn refused(source: CertificateError) -> Error {
    Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(Arc::new(source))))
}

/// Turns a panic over a peer's bytes into a refusal of that peer.
fn guarded<T>(verify: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(verify)).unwrap_or_else(|_| Err(refused(CertificateError::ParserPanicked)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Studio;

    #[test]
    fn a_peer_shows_one_certificate() {
        let studio = Studio::new("a");
        let identity = studio.identity("ws12@london");
        let verifier =
            StudioVerifier::<()> { authority: Arc::clone(identity.authority()), inner: Arc::new(()) };
        let [one] = identity.certificate_chain() else { panic!("one certificate is issued") };
        assert!(verifier.check(one, &[]).is_ok());
        assert!(verifier.check(one, std::slice::from_ref(one)).is_err());
    }

    #[test]
    fn a_verifier_that_panics_refuses_the_peer() {
        let error = guarded::<()>(|| panic!("a verifier that breaks")).unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(rustls::CertificateError::Other(_))), "{error:?}");
    }
}
