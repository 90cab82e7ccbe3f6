//! Peers that are not as they should be.

use avalon_certs::{ANY_NODE, Identity, client_config};
use avalon_protocol::{
    close_code::CloseCode,
    control::PeerState,
    id::NodeId,
    mode::ProjectMode,
    wire::{Control, Framed as _, Hello, ServedProject},
};
use avalon_tests::daemons::{PATIENCE, Studio, now};
use quinn::{ConnectionError, Endpoint, crypto::rustls::QuicClientConfig};

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, programs, publish_model, studio};

fn hello(node: &str, versions: (u16, u16)) -> Hello {
    Hello {
        protocol_min: versions.0,
        protocol_max: versions.1,
        features: 0,
        build: "9.9.9".into(),
        studio: "northlight".parse().unwrap(),
        node: node.parse::<NodeId>().unwrap(),
        instance: 42,
        projects: vec![ServedProject { name: "lantern".parse().unwrap(), mode: ProjectMode::OnDemand }],
    }
}

/// Dials a daemon by hand, greets, and returns how the daemon ends it.
fn greet(studio: &Studio, node: &str, listen: &str, hello: Hello) -> (CloseCode, String) {
    let dir = studio.dir().join("puppet");
    studio.issue(node, &dir, now());
    let identity = Identity::load(&dir, now()).unwrap();
    let tls = QuicClientConfig::try_from(std::sync::Arc::new(client_config(&identity).unwrap())).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(tls));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(config, listen.parse().unwrap(), ANY_NODE).unwrap();
        let connection = connecting.await.unwrap();
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        send.write_all(&Control::Hello(hello).to_frame()).await.unwrap();
        tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap()
    });
    match ended {
        ConnectionError::ApplicationClosed(frame) => {
            let reason = String::from_utf8(frame.reason.to_vec()).unwrap();
            (CloseCode::from_code(frame.error_code.into_inner()).unwrap(), reason)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_of_another_protocol_version_is_told_so() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut events = london.events();
    let (code, reason) = greet(&studio, "puppet@tokyo", &london.listen(), hello("puppet@tokyo", (7, 9)));
    assert_eq!(code, CloseCode::Version, "{reason}");
    assert!(reason.contains("7 to 9") && reason.contains("upgrade"), "{reason}");
    let detail = events.wait("the refusal", |kind| match kind {
        avalon_protocol::control::EventKind::Peer { state: PeerState::Refused, detail, .. } => detail.clone(),
        _ => None,
    });
    assert!(detail.contains("protocol"), "{detail}");
    // It goes on with those that it understands.
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
}

#[test]
fn a_peer_that_greets_by_another_name_is_refused() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let (code, reason) = greet(&studio, "puppet@tokyo", &london.listen(), hello("boss@tokyo", (1, 1)));
    assert_eq!(code, CloseCode::Identity, "{reason}");
}

#[test]
fn two_daemons_with_one_node_name_are_noticed_where_they_meet() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until_connected(LONDON);
    let double = studio.mirror(MONTREAL, &[&london]);
    london.until("somebody hears of it", |api| api.has_health("duplicate-node").then_some(()));
    let health = london.api().status().health;
    let item = health.iter().find(|item| item.code == "duplicate-node").unwrap();
    assert!(item.message.contains(MONTREAL) && item.hint.is_some(), "{item:?}");
    double.until("the second is refused", |api| {
        api.status().peers.iter().any(|peer| peer.state == PeerState::Refused).then_some(())
    });
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    assert!(!double.path(MODEL).exists());
}

#[test]
fn a_daemon_of_another_studio_gets_nothing() {
    let studio = studio();
    let other = Studio::named(programs(), "southlight");
    let london = studio.on_demand(LONDON, &[]);
    publish_model(&london, 1, b"secret");
    let mut stranger = other.node(HOME, ProjectMode::Mirror);
    stranger.config.peers = vec![london.listen()];
    stranger.start();
    let peer = stranger.until("it is refused", |api| {
        let peers = api.status().peers;
        peers.into_iter().find(|peer| peer.state != PeerState::Connecting && peer.detail.is_some())
    });
    assert_ne!(peer.state, PeerState::Online);
    assert!(stranger.api().list().versions.is_empty());
    assert!(london.api().status().peers.iter().all(|peer| peer.state != PeerState::Online));
}
