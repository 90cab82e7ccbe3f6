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

use crate::{
    certificate::{self, AuthorityCertificate, CertificateError, Chain, DNS_SUFFIX, NodeCertificate},
    join::{self, OpenInvites},
    revocation::Revocations,
};

/// Leaves the signatures of a handshake to the verifier in a field.
macro_rules! signatures_by {
    ($field:ident) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.$field.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.$field.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$field.supported_verify_schemes()
        }
    };
}

/// The studio's own rules around a webpki verifier.
pub(crate) struct StudioVerifier<V: ?Sized> {
    authority: Arc<AuthorityCertificate>,
    revocations: Revocations,
    inner: Arc<V>,
}

impl<V: ?Sized> StudioVerifier<V> {
    pub(crate) fn new(
        authority: &Arc<AuthorityCertificate>,
        inner: Arc<V>,
        revocations: &Revocations,
    ) -> Self {
        Self { authority: Arc::clone(authority), revocations: revocations.clone(), inner }
    }

    /// Checks all but the time: one of the two chains that lead to our authority, exactly one name, our studio, both usages,
    /// and nothing of it revoked.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<NodeCertificate, Error> {
        let issuing = match intermediates {
            [] => None,
            [issuing] => Some(issuing.clone().into_owned()),
            more => return Err(refused(CertificateError::Chain { found: more.len() + 1 })),
        };
        let chain = Chain::new(certificate.clone().into_owned(), issuing);
        let proven = self.authority.prove(&chain).map_err(refused)?;
        self.revocations.now().check(&proven, &self.authority).map_err(refused)?;
        Ok(proven.node)
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

    signatures_by!(inner);
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

    signatures_by!(inner);
}

/// Lets in who is of the studio, and who has the key of an open invite.
pub(crate) struct AdmittingVerifier {
    pub(crate) studio: StudioVerifier<dyn ClientCertVerifier>,
    pub(crate) invites: Arc<dyn OpenInvites>,
}

impl fmt::Debug for AdmittingVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmittingVerifier").field("studio", &self.studio).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for AdmittingVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.studio.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // A certificate that claims nothing is nobody's but a joiner's, so none of the studio is ever read as one.
        match join::read_joiner(end_entity) {
            Ok(joiner) if intermediates.is_empty() && self.invites.is_open(&joiner) => {
                Ok(ClientCertVerified::assertion())
            }
            _ => self.studio.verify_client_cert(end_entity, intermediates, now),
        }
    }

    signatures_by!(studio);
}

/// Returns the dialled name, in lower case, when it is that of one node: `<node>.<site>.avalon.internal`.
fn expected_name(server_name: &ServerName<'_>) -> Option<String> {
    let ServerName::DnsName(name) = server_name else { return None };
    let name = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
    let is_node = name.strip_suffix(DNS_SUFFIX).is_some_and(|labels| labels.contains('.'));
    is_node.then_some(name)
}

fn refused(source: CertificateError) -> Error {
    Error::InvalidCertificate(match source {
        // It has an alert of its own, so that whoever is revoked reads why.
        CertificateError::Revoked { .. } => rustls::CertificateError::Revoked,
        source => rustls::CertificateError::Other(OtherError(Arc::new(source))),
    })
}

/// Turns a panic over a peer's bytes into a refusal of that peer.
fn guarded<T>(verify: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(verify)).unwrap_or_else(|_| Err(refused(CertificateError::ParserPanicked)))
}

#[cfg(test)]
mod tests;
