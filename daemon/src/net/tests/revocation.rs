//! Connections that stand are closed when what their peers showed is revoked.

use avalon_certs::Revoked;
use avalon_protocol::close_code::CloseCode;
use tokio_util::sync::CancellationToken;

use super::{
    hostile::Puppet,
    studio::{Node, Studio, node_id, within},
};
use crate::net::{Closed, peer, table::Direction};

fn revoke(node: &Node, name: &str) {
    let mut revoked = Revoked::default();
    revoked.add_node(node_id(name));
    node.net.context.admission.revocations.replace(revoked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_is_closed_also_before_it_has_greeted_and_nobody_else_is() {
    let studio = Studio::new();
    let mut node = studio.node("srv@montreal").start();
    let mut other = studio.node("srv@rome").dialling(&[&node]).start();
    other.peer_up("srv@montreal").await;
    node.peer_up("srv@rome").await;
    let silent = Puppet::dial(&studio, &node).await;
    node.until("both", || node.net.context.registry.connections() == 2).await;
    assert_eq!(node.net.close_revoked(), 0);
    revoke(&node, "puppet@london");
    assert_eq!(node.net.close_revoked(), 1);
    let (code, reason) = silent.closed().await;
    assert_eq!((code, reason.as_str()), (Some(CloseCode::Revoked), "node puppet@london was revoked"));
    node.until("the other one alone", || node.net.context.registry.connections() == 1).await;
    assert!(node.net.link(&node_id("srv@rome")).is_some_and(|link| link.is_open()));
    // What has ended is not kept.
    assert_eq!(node.net.context.registry.channels().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_revoked_node_certified_is_closed_with_the_reason() {
    let studio = Studio::new();
    let mut node = studio.node("srv@montreal").start();
    let mut guest =
        Puppet::dial_as(&studio.delegated_identity("nas@paris", "puppet@london"), &node, |_| {}).await;
    guest.greet().await;
    let link = node.peer_up("puppet@london").await;
    revoke(&node, "nas@paris");
    assert_eq!(node.net.close_revoked(), 1);
    let (code, reason) = guest.closed().await;
    assert_eq!(code, Some(CloseCode::Revoked));
    assert_eq!(reason, "node nas@paris, which issued the certificate of puppet@london, was revoked");
    assert!(!link.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_between_its_handshake_and_the_list_of_connections_is_closed_too() {
    let studio = Studio::new();
    let (node, other) = (studio.node("srv@montreal").start(), studio.node("srv@rome").start());
    let context = &node.net.context;
    let connecting = context
        .endpoint
        .connect_with(context.client(), other.net.local_addr(), avalon_certs::ANY_NODE)
        .unwrap();
    let reached = within("the handshake", peer::shake_hands(connecting)).await.unwrap();
    revoke(&node, "srv@rome");
    assert_eq!(node.net.close_revoked(), 0, "it is on no list yet");
    let running = peer::run(context.clone(), reached, Direction::Dialled, CancellationToken::new());
    let ended = within("its end", running).await;
    assert!(matches!(ended.closed, Closed::ByUs { code: CloseCode::Revoked, .. }), "{:?}", ended.closed);
    assert!(!ended.greeted);
}
