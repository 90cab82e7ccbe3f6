//! The TLS that nodes speak: version 1.3, both sides proved by the studio's authority, nothing remembered.
//!
//! No 0-RTT, because it can be replayed. No tickets and no resumption, because a resumed connection is not verified
//! again and a revoked node could return. Peers are named by their certificates; addresses and host names prove nothing.
//! The configurations serve quinn, whose helpers would turn early data on.

use std::sync::Arc;

use avalon_protocol::id::{NodeId, StudioName};
use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    version::TLS13,
};
use rustls_pki_types::CertificateDer;
use thiserror::Error as ThisError;

use crate::{
    certificate::{CertificateError, NodeCertificate},
    identity::Identity,
    verifier::StudioVerifier,
};

/// The only application protocol; a peer that does not name it is refused.
pub const ALPN: &[u8] = b"avalon/1";

/// The server name to dial when only an address is known: any node of the studio may answer.
pub const ANY_NODE: &str = "any-node.avalon.internal";

/// Why a TLS configuration could not be made. None of these depends on a peer.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum TlsError {
    /// The authority's certificate does not serve as a trust anchor.
    #[error("the CA certificate of studio {studio} cannot be a trust anchor")]
    Anchor {
        /// The studio.
        studio: StudioName,
        /// What rustls said.
        #[source]
        source: Error,
    },
    /// The check of peers could not be made.
    #[error("could not set up the check of peers' certificates")]
    Verifier {
        /// What rustls said.
        #[source]
        source: VerifierBuilderError,
    },
    /// rustls refuses the version, the certificate or the key.
    #[error("could not set up TLS as {node}")]
    Config {
        /// The node that this is.
        node: NodeId,
        /// What rustls said.
        #[source]
        source: Error,
    },
}

/// Makes the configuration for accepting peers; a peer without a certificate of the studio is refused.
///
/// Time is rustls's own clock; tests replace `time_provider`.
///
/// # Errors
/// [`TlsError`] when the identity does not serve, which [`Identity::load`] should have found.
pub fn server_config(identity: &Identity) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let failed = |source| TlsError::Config { node: identity.node().clone(), source };
    let webpki = WebPkiClientVerifier::builder_with_provider(roots(identity)?, Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Verifier { source })?;
    let verifier: Arc<StudioVerifier<dyn ClientCertVerifier>> =
        Arc::new(StudioVerifier { authority: Arc::clone(identity.authority()), inner: webpki });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.certificate_chain().to_vec(), identity.private_key())
        .map_err(failed)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Makes the configuration for dialling peers.
///
/// Dial with [`dns_name`](crate::certificate::dns_name) of the node that must answer, or with [`ANY_NODE`]. A server
/// name of any other form, such as an IP address, expects nobody in particular either; ask [`peer_node`] who answered.
/// The name is not sent, so that an observer does not learn it.
///
/// # Errors
/// [`TlsError`] when the identity does not serve, which [`Identity::load`] should have found.
pub fn client_config(identity: &Identity) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let failed = |source| TlsError::Config { node: identity.node().clone(), source };
    let webpki = WebPkiServerVerifier::builder_with_provider(roots(identity)?, Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Verifier { source })?;
    let verifier: Arc<StudioVerifier<dyn ServerCertVerifier>> =
        Arc::new(StudioVerifier { authority: Arc::clone(identity.authority()), inner: webpki });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(identity.certificate_chain().to_vec(), identity.private_key())
        .map_err(failed)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Returns the node that a verified connection's certificates name, as from `quinn::Connection::peer_identity`.
///
/// Call it only with the certificates of a finished handshake: it reads and does not verify.
///
/// # Errors
/// [`CertificateError`], which a finished handshake of ours excludes.
pub fn peer_node(chain: &[CertificateDer<'_>]) -> Result<NodeId, CertificateError> {
    match chain {
        [] => Err(CertificateError::Absent),
        [certificate] => Ok(NodeCertificate::parse(certificate)?.node),
        more => Err(CertificateError::Chain { found: more.len() }),
    }
}

/// ring, with every TLS 1.3 suite that it has; quinn needs `TLS13_AES_128_GCM_SHA256` for its first packets.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(identity.authority().der().clone())
        .map_err(|source| TlsError::Anchor { studio: identity.studio().clone(), source })?;
    Ok(Arc::new(roots))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use rustls::{
        CipherSuite, ClientConnection, ConnectionCommon, HandshakeKind, OtherError, ProtocolVersion,
        ServerConnection, SideData, SignatureScheme, client::ResolvesClientCert, quic, sign::CertifiedKey,
        time_provider::TimeProvider,
    };
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::{
        authority::NODE_VALIDITY,
        fixture::{Studio, day_one, node},
    };

    #[test]
    fn two_nodes_of_a_studio_connect_and_know_each_other() {
        let studio = Studio::new("a");
        let (client, server) = configs(&studio, &studio);
        for name in [
            "x.avalon.internal",
            ANY_NODE,
            "nas.montreal.avalon.internal",
            "NAS.Montreal.avalon.internal.",
            "127.0.0.1",
        ] {
            let pair = handshake(&client, &server, name).unwrap();
            assert_eq!(peer_node(pair.0.peer_certificates().unwrap()).unwrap(), node("nas@montreal"));
            assert_eq!(peer_node(pair.1.peer_certificates().unwrap()).unwrap(), node("ws12@london"));
            assert_eq!(pair.0.protocol_version(), Some(ProtocolVersion::TLSv1_3));
            assert_eq!((pair.0.alpn_protocol(), pair.1.alpn_protocol()), (Some(ALPN), Some(ALPN)));
            assert_eq!(pair.1.server_name(), None, "the dialled name stays at home");
        }
    }

    #[test]
    fn a_node_that_was_expected_by_name_cannot_be_replaced_by_another() {
        let studio = Studio::new("a");
        let (client, server) = configs(&studio, &studio);
        for name in ["nas.london.avalon.internal", "other.montreal.avalon.internal", "A.B.AVALON.INTERNAL"] {
            let error = handshake(&client, &server, name).unwrap_err();
            let expected = Error::InvalidCertificate(rustls::CertificateError::NotValidForName);
            assert_eq!(error, (Side::Client, expected), "{name}");
        }
    }

    #[test]
    fn a_client_without_a_certificate_is_refused() {
        let studio = Studio::new("a");
        let (mut client, server) = configs(&studio, &studio);
        client.client_auth_cert_resolver = Arc::new(NoCertificate);
        let error = handshake(&client, &server, ANY_NODE).unwrap_err();
        assert_eq!(error, (Side::Server, Error::NoCertificatesPresented));
    }

    #[test]
    fn nodes_of_another_authority_are_refused_on_both_sides() {
        let studio = Studio::new("a");
        for name in ["a", "b"] {
            let foreign = Studio::new(name);
            let (mut client, server) = configs(&studio, &foreign);
            assert_foreign(handshake(&client, &server, ANY_NODE).unwrap_err(), Side::Client);
            // The same client trusts the server and shows a certificate of the other studio.
            let (foreign_client, _) = configs(&foreign, &foreign);
            client.client_auth_cert_resolver = foreign_client.client_auth_cert_resolver;
            let (_, server) = configs(&studio, &studio);
            assert_foreign(handshake(&client, &server, ANY_NODE).unwrap_err(), Side::Server);
        }
    }

    #[test]
    fn expired_certificates_are_refused_on_both_sides() {
        let studio = Studio::new("a");
        let late = day_one() + NODE_VALIDITY + Duration::from_secs(1);
        let early = day_one() - Duration::from_secs(2 * 3600);
        for wrong_time in [late, early] {
            let (mut client, mut server) = configs(&studio, &studio);
            client.time_provider = Arc::new(Fixed(wrong_time));
            assert_wrong_time(handshake(&client, &server, ANY_NODE).unwrap_err(), Side::Client);
            client.time_provider = Arc::new(Fixed(day_one()));
            server.time_provider = Arc::new(Fixed(wrong_time));
            assert_wrong_time(handshake(&client, &server, ANY_NODE).unwrap_err(), Side::Server);
        }
    }

    #[test]
    fn another_application_protocol_is_refused() {
        let studio = Studio::new("a");
        let (mut client, server) = configs(&studio, &studio);
        client.alpn_protocols = vec![b"avalon/2".to_vec(), b"h3".to_vec()];
        let error = handshake(&client, &server, ANY_NODE).unwrap_err();
        assert_eq!(error, (Side::Server, Error::NoApplicationProtocol));
    }

    #[test]
    fn over_quic_no_application_protocol_is_refused_too() {
        let studio = Studio::new("a");
        let (mut client, server) = configs(&studio, &studio);
        let mut server =
            quic::ServerConnection::new(Arc::new(server), quic::Version::V1, Vec::new()).unwrap();
        client.alpn_protocols.clear();
        let name = ServerName::try_from(ANY_NODE).unwrap();
        let mut client =
            quic::ClientConnection::new(Arc::new(client), quic::Version::V1, name, Vec::new()).unwrap();
        let mut hello = Vec::new();
        assert!(client.write_hs(&mut hello).is_none());
        assert_eq!(server.read_hs(&hello).unwrap_err(), Error::NoApplicationProtocol);
    }

    #[test]
    fn nothing_is_remembered_between_connections() {
        let studio = Studio::new("a");
        let (client, server) = configs(&studio, &studio);
        assert_eq!((server.max_early_data_size, server.send_tls13_tickets), (0, 0));
        assert!(!server.session_storage.can_cache());
        assert!(!server.ticketer.enabled());
        assert!(!client.enable_early_data);
        for _ in 0..2 {
            let (mut client, server) = handshake(&client, &server, ANY_NODE).unwrap();
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(client.tls13_tickets_received(), 0);
            assert!(client.early_data().is_none());
            assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn the_suite_that_quic_starts_with_is_there_and_all_are_of_tls_1_3() {
        let studio = Studio::new("a");
        let (client, server) = configs(&studio, &studio);
        for provider in [client.crypto_provider(), server.crypto_provider()] {
            let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| suite.suite()).collect();
            assert!(suites.contains(&CipherSuite::TLS13_AES_128_GCM_SHA256), "{suites:?}");
            assert!(provider.cipher_suites.iter().all(|suite| suite.tls13().is_some()), "{suites:?}");
        }
    }

    #[test]
    fn a_chain_is_one_certificate() {
        let studio = Studio::new("a");
        let identity = studio.identity("ws12@london");
        let one = identity.certificate_chain()[0].clone();
        assert_eq!(peer_node(&[]), Err(CertificateError::Absent));
        assert_eq!(peer_node(&[one.clone(), one.clone()]), Err(CertificateError::Chain { found: 2 }));
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Side {
        Client,
        Server,
    }

    #[derive(Debug)]
    struct Fixed(SystemTime);

    impl TimeProvider for Fixed {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(self.0.duration_since(UNIX_EPOCH).ok()?))
        }
    }

    #[derive(Debug)]
    struct NoCertificate;

    impl ResolvesClientCert for NoCertificate {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }

        fn has_certs(&self) -> bool {
            false
        }
    }

    /// `ws12@london` of one studio dials `nas@montreal` of another, both at the time of issue.
    fn configs(client: &Studio, server: &Studio) -> (ClientConfig, ServerConfig) {
        let mut client = client_config(&client.identity("ws12@london")).unwrap();
        let mut server = server_config(&server.identity("nas@montreal")).unwrap();
        client.time_provider = Arc::new(Fixed(day_one()));
        server.time_provider = Arc::new(Fixed(day_one()));
        (client, server)
    }

    /// Carries bytes until both sides are done, or returns the first that refuses.
    fn handshake(
        client: &ClientConfig,
        server: &ServerConfig,
        name: &str,
    ) -> Result<(ClientConnection, ServerConnection), (Side, Error)> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server.clone())).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let moved = carry(&mut client, &mut server).map_err(|error| (Side::Server, error))?
                + carry(&mut server, &mut client).map_err(|error| (Side::Client, error))?;
            assert!(moved > 0, "both sides wait");
        }
        Ok((client, server))
    }

    fn carry<A: SideData, B: SideData>(
        from: &mut ConnectionCommon<A>,
        to: &mut ConnectionCommon<B>,
    ) -> Result<usize, Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets()?;
        }
        Ok(bytes.len())
    }

    fn assert_foreign((side, error): (Side, Error), expected: Side) {
        assert_eq!(side, expected);
        let Error::InvalidCertificate(rustls::CertificateError::Other(OtherError(cause))) = error else {
            panic!("{error:?}");
        };
        let cause = cause.downcast_ref::<CertificateError>().unwrap();
        assert!(matches!(cause, CertificateError::Foreign { .. }), "{cause:?}");
    }

    fn assert_wrong_time((side, error): (Side, Error), expected: Side) {
        use rustls::CertificateError::{ExpiredContext, NotValidYetContext};
        assert_eq!(side, expected);
        let wrong_time =
            matches!(&error, Error::InvalidCertificate(ExpiredContext { .. } | NotValidYetContext { .. }));
        assert!(wrong_time, "{error:?}");
    }
}
