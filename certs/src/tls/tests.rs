//! Handshakes, allowed and refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avalon_protocol::access::Seed;
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
    join::{JOIN_SERVER, SeedKeyHash, join_client_config, joiner},
    revocation::Revoked,
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
    let mut server = quic::ServerConnection::new(Arc::new(server), quic::Version::V1, Vec::new()).unwrap();
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
fn a_chain_is_one_or_two_certificates() {
    let studio = Studio::new("a");
    let identity = studio.identity("ws12@london");
    let one = identity.certificate_chain()[0].clone();
    assert_eq!(peer_node(&[]), Err(CertificateError::Absent));
    assert_eq!(peer_node(&vec![one; 3]), Err(CertificateError::Chain { found: 3 }));
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

/// Both configurations, at the time of issue.
fn fixed(mut client: ClientConfig, mut server: ServerConfig) -> (ClientConfig, ServerConfig) {
    client.time_provider = Arc::new(Fixed(day_one()));
    server.time_provider = Arc::new(Fixed(day_one()));
    (client, server)
}

/// The invites whose seeds these are.
#[derive(Debug)]
struct Open(Vec<SeedKeyHash>);

impl OpenInvites for Open {
    fn is_open(&self, key: &SeedKeyHash) -> bool {
        self.0.contains(key)
    }
}

#[test]
fn nodes_that_issuing_nodes_certified_connect_with_those_of_the_authority() {
    let studio = Studio::new("a");
    let (one, two) = (studio.delegate("srv@london"), studio.delegate("srv@montreal"));
    let nodes = [
        studio.identity("ws1@london"),
        studio.delegated_identity(&one, "ws2@london"),
        studio.delegated_identity(&two, "ws3@montreal"),
    ];
    for client in &nodes {
        for server in &nodes {
            let (client_tls, server_tls) =
                fixed(client_config(client).unwrap(), server_config(server).unwrap());
            let name = crate::certificate::dns_name(server.node());
            let pair = handshake(&client_tls, &server_tls, &name).unwrap();
            assert_eq!(peer_node(pair.0.peer_certificates().unwrap()).unwrap(), *server.node());
            let facts = peer_certificate(pair.1.peer_certificates().unwrap()).unwrap();
            assert_eq!((&facts.node, facts.role), (client.node(), client.role()));
        }
    }
}

#[test]
fn what_an_issuing_node_certified_ends_with_its_right_to_issue() {
    let studio = Studio::new("a");
    let issuer = studio.delegate("srv@london");
    let late = issuer.expires_at() - Duration::from_secs(60);
    let (good, node) = (studio.identity("ws1@london"), studio.delegated_identity(&issuer, "ws2@london"));
    let (mut client, mut server) = (client_config(&node).unwrap(), server_config(&good).unwrap());
    for (now, is_good) in [(day_one(), true), (late, false)] {
        client.time_provider = Arc::new(Fixed(day_one()));
        server.time_provider = Arc::new(Fixed(now));
        assert_eq!(handshake(&client, &server, ANY_NODE).is_ok(), is_good);
    }
}

#[test]
fn who_is_revoked_is_refused_by_both_sides_in_the_next_handshake() {
    let studio = Studio::new("a");
    let issuer = studio.delegate("srv@london");
    let (good, bad) = (studio.identity("ws1@london"), studio.delegated_identity(&issuer, "ws2@london"));
    let revocations = Revocations::default();
    let admission = Admission { revocations: revocations.clone(), invites: None };
    let as_client = fixed(client_config(&bad).unwrap(), server_config_for(&good, &admission).unwrap());
    let as_server = fixed(client_config_for(&good, &revocations).unwrap(), server_config(&bad).unwrap());
    let pairs = [(&as_client, Side::Server), (&as_server, Side::Client)];
    for name in ["ws2@london", "srv@london"] {
        revocations.replace(Revoked::default());
        for ((client, server), _) in pairs {
            assert!(handshake(client, server, ANY_NODE).is_ok());
        }
        let mut revoked = Revoked::default();
        revoked.add_node(node(name));
        revocations.replace(revoked);
        for ((client, server), side) in pairs {
            let error = handshake(client, server, ANY_NODE).unwrap_err();
            assert_eq!(error, (side, Error::InvalidCertificate(rustls::CertificateError::Revoked)));
        }
    }
}

#[test]
fn the_holder_of_an_open_invite_joins_and_nobody_else() {
    let studio = Studio::new("a");
    let server = studio.identity("srv@london");
    let (mine, old) = (Seed::from_bytes([1; 32]), Seed::from_bytes([2; 32]));
    let hash = SeedKeyHash::of(&mine).unwrap();
    let admission = Admission { invites: Some(Arc::new(Open(vec![hash]))), ..Admission::default() };
    let dial = |seed: &Seed, server: &ServerConfig| {
        let (client, server) = fixed(join_client_config(seed).unwrap(), server.clone());
        handshake(&client, &server, JOIN_SERVER)
    };
    let open = server_config_for(&server, &admission).unwrap();
    let pair = dial(&mine, &open).unwrap();
    assert_eq!(pair.1.alpn_protocol(), Some(JOIN_ALPN));
    assert_eq!(joiner(pair.1.peer_certificates().unwrap()), Some(hash));
    assert!(peer_node(pair.1.peer_certificates().unwrap()).is_err());

    assert_eq!(dial(&old, &open).unwrap_err().0, Side::Server, "no invite has that seed");
    let closed = server_config(&server).unwrap();
    assert_eq!(dial(&mine, &closed).unwrap_err(), (Side::Server, Error::NoApplicationProtocol));
    // Peers go on as before on the endpoint that takes invites.
    let (client, _) = configs(&studio, &studio);
    let (_, open) = fixed(client.clone(), open);
    let pair = handshake(&client, &open, ANY_NODE).unwrap();
    assert_eq!(pair.1.alpn_protocol(), Some(ALPN));
    assert_eq!(joiner(pair.1.peer_certificates().unwrap()), None);
}
