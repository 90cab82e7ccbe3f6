//! Which connections are made, kept, refused and made again.

use avalon_protocol::{close_code::CloseCode, control::PeerState};
use quinn::Side;
use tokio::runtime::{Builder, Runtime};

use super::studio::{Node, Studio, feed, node_id, within};
use crate::net::NetEvent;

fn refusal(event: NetEvent) -> Option<(String, Option<CloseCode>)> {
    match event {
        NetEvent::Refused { reason, code, .. } => Some((reason, code)),
        _ => None,
    }
}

fn duplicate(event: NetEvent) -> Option<String> {
    match event {
        NetEvent::DuplicateNode { node, .. } => Some(node.to_string()),
        _ => None,
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Waits until what two nodes know is as `condition` says.
async fn until_both(nodes: [&Node; 2], condition: impl Fn() -> bool) {
    let [mut one, mut two] = nodes.map(|node| node.net.context.registry.subscribe());
    let waiting = async {
        while !condition() {
            tokio::select! {
                changed = one.changed() => changed.unwrap(),
                changed = two.changed() => changed.unwrap(),
            }
        }
    };
    within("both nodes", waiting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_both_dial_each_other_one_connection_remains_at_both_ends() {
    let studio = Studio::new();
    for _ in 0..5 {
        let small = studio.node("a@london").start();
        let large = studio.node("b@london").dialling(&[&small]).start();
        small.net.set_peers(vec![large.address()]);
        let alone = |node: &Node| node.net.context.registry.connections() == 1 && node.net.links().len() == 1;
        // The loop that gave up shows its peer as online by the other connection, so its own note is looked at.
        let gave_up = |node: &Node, peer: &Node| {
            node.net.context.registry.dial(&peer.address()).is_some_and(|dial| dial.detail.is_some())
        };
        let settled =
            || (gave_up(&small, &large) || gave_up(&large, &small)) && alone(&small) && alone(&large);
        until_both([&small, &large], settled).await;
        let side = |node: &Node, peer: &str| node.net.link(&node_id(peer)).unwrap().channel().quinn().side();
        assert_eq!(side(&small, "b@london"), Side::Client, "the smaller name dialled what is kept");
        assert_eq!(side(&large, "a@london"), Side::Server);
        assert_eq!((small.online(), large.online()), (vec!["b".into()], vec!["a".into()]));

        large.catalog().append(&feed("lantern", "b@london"), "over what is kept");
        small.catalog().until(&feed("lantern", "b@london"), 1).await;
        small.shutdown().await;
        large.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_addresses_of_one_peer_make_one_connection() {
    let studio = Studio::new();
    let hub = studio.node("srv@montreal").start();
    let mut setup = studio.node("ws1@london");
    let port = hub.net.local_addr().port();
    setup.peers = vec![format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let one = setup.start();
    let known = |address: &str| one.net.context.registry.dial(address).unwrap();
    let settled = || {
        let dials: Vec<_> = setup.peers.iter().map(|address| known(address)).collect();
        dials.iter().all(|dial| dial.node.is_some())
            && dials.iter().any(|dial| dial.detail.is_some())
            && one.net.context.registry.connections() == 1
    };
    one.until("one connection", settled).await;
    hub.until("one connection", || hub.net.context.registry.connections() == 1).await;
    assert!(setup.peers.iter().all(|address| one.status(address).state == PeerState::Online));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_a_protocol_version_in_common_is_refused() {
    let studio = Studio::new();
    let mut hub = studio.node("srv@montreal").start();
    let mut setup = studio.node("ws1@london").dialling(&[&hub]);
    (setup.hello.protocol_min, setup.hello.protocol_max) = (7, 9);
    let mut one = setup.start();
    let (reason, code) = one.event("the refusal", refusal).await;
    assert_eq!(code, Some(CloseCode::Version), "{reason}");
    assert!(reason.contains("speaks protocol"), "{reason}");
    let status = one.status(&hub.address());
    assert_eq!((status.state, status.node.as_str()), (PeerState::Refused, "srv"));
    assert_eq!(status.detail, Some(reason));
    // Whether the hub refuses first or hears of it first is a matter of microseconds.
    hub.until("nobody", || hub.net.context.registry.connections() == 0).await;
    assert!(
        hub.events.try_recv().ok().and_then(refusal).is_none_or(|(_, code)| code == Some(CloseCode::Version))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_studio_ca_is_refused_and_the_status_says_so() {
    let (studio, foreign) = (Studio::new(), Studio::new());
    let hub = studio.node("srv@montreal").start();
    let mut one = foreign.node("ws1@london").dialling(&[&hub]).start();
    let (reason, code) = one.event("the refusal", refusal).await;
    assert_eq!(code, None);
    assert!(reason.ends_with("was not issued by this studio's CA for an avalond"), "{reason}");
    let status = one.status(&hub.address());
    assert_eq!((status.state, status.node.as_str()), (PeerState::Refused, ""));
    assert!(hub.net.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leads_back_is_refused() {
    let studio = Studio::new();
    let mut one = studio.node("ws1@london").start();
    one.net.set_peers(vec![one.address()]);
    let (reason, code) = one.event("the refusal", refusal).await;
    assert_eq!(code, Some(CloseCode::SelfDial), "{reason}");
    assert_eq!(one.status(&one.address()).state, PeerState::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_is_dialled_again_and_gets_the_rest() {
    let studio = Studio::new();
    let of_one = feed("lantern", "ws1@london");
    let mut hub = studio.node("srv@montreal").start();
    let mut one = studio.node("ws1@london").dialling(&[&hub]).start();
    one.catalog().append(&of_one, "before");
    hub.catalog().until(&of_one, 1).await;
    one.peer_up("srv@montreal").await;
    let mut again = hub.setup.clone().instance(2);
    again.listen = hub.net.local_addr();
    hub.shutdown().await;
    assert!(hub.peer_down("ws1@london").await.contains("stops"));
    assert!(one.peer_down("srv@montreal").await.contains("stops"));
    drop(hub);
    one.catalog().append(&of_one, "meanwhile");
    let hub = start_when_free(&again).await;
    one.peer_up("srv@montreal").await;
    hub.catalog().until(&of_one, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_crashed_is_known_to_have_forgotten_as_soon_as_it_is_back() {
    let studio = Studio::new();
    let crashing = runtime();
    let of_one = feed("lantern", "ws1@london");
    let hub = studio.node("srv@montreal").start_on(crashing.handle());
    let mut one = studio.node("ws1@london").dialling(&[&hub]).start();
    one.peer_up("srv@montreal").await;
    let mut again = hub.setup.clone().instance(2);
    again.listen = hub.net.local_addr();
    drop(hub);
    crashing.shutdown_background();
    let hub = start_when_free(&again).await;
    one.catalog().append(&of_one, "the packet that is answered by a reset");
    assert_eq!(one.peer_down("srv@montreal").await, "the peer was restarted");
    one.peer_up("srv@montreal").await;
    hub.catalog().until(&of_one, 1).await;
}

/// A socket closes a moment after the last of those that use it have let go.
async fn start_when_free(setup: &super::studio::Setup) -> Node {
    let free = async {
        while std::net::UdpSocket::bind(setup.listen).is_err() {
            tokio::task::yield_now().await;
        }
    };
    within("the port", free).await;
    setup.start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_peer_that_dials_again_replaces_its_dead_connection() {
    let studio = Studio::new();
    let crashing = runtime();
    let mut hub = studio.node("srv@montreal").start();
    let setup = studio.node("ws1@london").dialling(&[&hub]);
    let one = setup.start_on(crashing.handle());
    hub.peer_up("ws1@london").await;
    drop(one);
    crashing.shutdown_background();
    let _again = setup.instance(2).start();
    assert_eq!(hub.peer_up("ws1@london").await.hello().instance, 2);
    assert_eq!(hub.online(), ["ws1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_with_the_same_name_is_refused_and_told() {
    let studio = Studio::new();
    let mut hub = studio.node("srv@montreal").start();
    let first = studio.node("ws1@london").dialling(&[&hub]).start();
    hub.peer_up("ws1@london").await;
    let mut second = studio.node("ws1@london").instance(2).dialling(&[&hub]).start();
    assert_eq!(hub.event("the duplicate", duplicate).await, "ws1@london");
    let (reason, code) = second.event("the refusal", refusal).await;
    assert_eq!(code, Some(CloseCode::DuplicateNode), "{reason}");
    assert_eq!(hub.net.link(&node_id("ws1@london")).unwrap().hello().instance, 1);
    let of_first = feed("lantern", "ws1@london");
    first.catalog().append(&of_first, "not disturbed");
    hub.catalog().until(&of_first, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_daemon_with_our_own_name_is_told() {
    let studio = Studio::new();
    let mut hub = studio.node("srv@montreal").start();
    let _second = studio.node("srv@montreal").instance(2).dialling(&[&hub]).start();
    assert_eq!(hub.event("the duplicate", duplicate).await, "srv@montreal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_greeting_is_said_again() {
    let studio = Studio::new();
    let mut hub = studio.node("srv@montreal").start();
    let one = studio.node("ws1@london").dialling(&[&hub]).start();
    assert_eq!(hub.peer_up("ws1@london").await.hello().projects.len(), 1);
    let changed = super::studio::hello("ws1@london", 1, &["lantern", "comet"]);
    one.net.set_hello(changed.clone());
    assert_eq!(hub.peer_up("ws1@london").await.hello(), &changed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_taken_out_is_left_alone() {
    let studio = Studio::new();
    let mut hub = studio.node("srv@montreal").start();
    let mut one = studio.node("ws1@london").dialling(&[&hub]).start();
    one.peer_up("srv@montreal").await;
    hub.peer_up("ws1@london").await;
    one.net.set_peers(vec![]);
    one.peer_down("srv@montreal").await;
    hub.peer_down("ws1@london").await;
    assert!(one.net.peers().is_empty() && hub.net.peers().is_empty());
    one.net.set_peers(vec![hub.address()]);
    one.peer_up("srv@montreal").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_does_not_resolve_is_offline_with_the_reason() {
    let studio = Studio::new();
    let mut setup = studio.node("ws1@london");
    setup.peers = vec!["not-a-host.invalid:4700".into(), "127.0.0.1:not-a-port".into()];
    let one = setup.start();
    for address in &setup.peers {
        let offline = || one.status(address).state == PeerState::Offline;
        one.until("offline", offline).await;
        assert!(one.status(address).detail.unwrap().starts_with("the name does not resolve"));
    }
}
