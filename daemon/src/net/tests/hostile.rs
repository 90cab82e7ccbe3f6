//! Peers with a good certificate and bad manners.

use std::{sync::Arc, time::Duration};

use avalon_certs::Identity;
use avalon_protocol::{
    block::{BLOCK_BYTES, BlockValue},
    close_code::CloseCode,
    feed::SealedGroup,
    hash::{ManifestId, ObjectHash},
    limits::{MAX_FRAME_BYTES, MAX_OBJECT_BYTES},
    wire::{
        Control, FRAME_HEADER_BYTES, FetchObjects, FrameHeader, Framed as _, ManifestReply, ObjectReply,
        ObjectStatus, ProjectHeads, Records, Request, Want,
    },
};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};

use super::{
    studio::{Node, Studio, feed, hello, project, within},
    toy::group,
};
use crate::{
    clock::ManualClock,
    net::{BlockSink, FetchError, PeerLink, SinkStopped, endpoint},
};

/// Takes whatever comes.
#[derive(Debug, Default)]
pub(super) struct Deaf;

impl BlockSink for Deaf {
    fn list(&mut self, _: ObjectHash, _: u64, _: Vec<BlockValue>) -> BoxFuture<'_, Result<(), SinkStopped>> {
        async { Ok(()) }.boxed()
    }

    fn block(&mut self, _: ObjectHash, _: u64, _: Bytes) -> BoxFuture<'_, Result<(), SinkStopped>> {
        async { Ok(()) }.boxed()
    }

    fn not_found(&mut self, _: ObjectHash) -> BoxFuture<'_, Result<(), SinkStopped>> {
        async { Ok(()) }.boxed()
    }
}

/// A peer that is driven by hand.
pub(super) struct Puppet {
    endpoint: Endpoint,
    pub(super) connection: Connection,
    /// Fails when the node closes at once.
    pub(super) control: Result<(SendStream, RecvStream), ConnectionError>,
}

impl Puppet {
    /// Dials a node and says nothing yet.
    pub(super) async fn dial(studio: &Studio, node: &Node) -> Self {
        Self::dial_with(studio, node, |_| {}).await
    }

    async fn dial_with(studio: &Studio, node: &Node, change: impl FnOnce(&mut quinn::ClientConfig)) -> Self {
        Self::dial_as(&studio.identity("puppet@london"), node, change).await
    }

    /// As whoever has this identity.
    pub(super) async fn dial_as(
        identity: &Identity,
        node: &Node,
        change: impl FnOnce(&mut quinn::ClientConfig),
    ) -> Self {
        let mut bound =
            endpoint::bind("127.0.0.1:0".parse().unwrap(), identity, &Default::default()).unwrap();
        change(&mut bound.client);
        let connecting =
            bound.endpoint.connect_with(bound.client, node.net.local_addr(), avalon_certs::ANY_NODE).unwrap();
        let connection = within("the handshake", connecting).await.unwrap();
        let control = connection.open_bi().await;
        Self { endpoint: bound.endpoint, connection, control }
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) {
        let (send, _) = self.control.as_mut().unwrap();
        send.write_all(bytes).await.unwrap();
    }

    pub(super) async fn greet(&mut self) {
        self.greet_with(&["lantern"]).await;
    }

    pub(super) async fn greet_with(&mut self, projects: &[&str]) {
        let hello = Control::Hello(hello("puppet@london", 5, projects));
        self.say(&hello.to_frame()).await;
    }

    /// Waits for a message of the node.
    pub(super) async fn hear(&mut self) -> Control {
        let (_, receive) = self.control.as_mut().unwrap();
        let mut header = [0; FRAME_HEADER_BYTES];
        within("a message", receive.read_exact(&mut header)).await.unwrap();
        let header = FrameHeader::parse(header).unwrap();
        let mut payload = vec![0; header.payload_bytes];
        within("a message", receive.read_exact(&mut payload)).await.unwrap();
        Control::from_payload(header.kind, &payload).unwrap()
    }

    /// Asks for something, and returns all bytes of the answer.
    pub(super) async fn ask(&self, request: &Request) -> Vec<u8> {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        send.write_all(&request.to_frame()).await.unwrap();
        send.finish().unwrap();
        within("an answer", receive.read_to_end(1 << 20)).await.unwrap()
    }

    /// Waits until the node ends the connection, and returns the code and the reason.
    pub(super) async fn closed(&self) -> (Option<CloseCode>, String) {
        match within("the close", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(frame) => {
                let reason = String::from_utf8(frame.reason.to_vec()).unwrap();
                (CloseCode::from_code(frame.error_code.into_inner()), reason)
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn no_heads(of: &str) -> ProjectHeads {
    ProjectHeads { project: project(of), heads: vec![] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_frames_that_are_not_allowed_close_with_protocol() {
    let studio = Studio::new();
    let mut too_long = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_le_bytes().to_vec();
    too_long.extend([1, 0]);
    let empty_heads = [2, 0, 0, 0, 2, 0, 0, 0];
    let cases: [(&str, Vec<u8>); 4] = [
        ("4194305 bytes", too_long),
        ("not expected here", vec![0, 0, 0, 0, 99, 0]),
        ("damaged", vec![1, 0, 0, 0, 1, 0, 255]),
        ("", empty_heads.to_vec()),
    ];
    for (expected, bytes) in cases {
        // A node that has not heard of it yet.
        let node = studio.node("srv@montreal").start();
        let mut puppet = Puppet::dial(&studio, &node).await;
        puppet.say(&bytes).await;
        let (code, reason) = puppet.closed().await;
        assert_eq!(code, Some(CloseCode::Protocol), "{reason}");
        assert!(reason.contains(expected), "{reason}");
        node.until("nobody", || node.net.context.registry.connections() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_of_another_name_closes_with_identity() {
    let studio = Studio::new();
    let node = studio.node("srv@montreal").start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.say(&Control::Hello(hello("boss@london", 5, &["lantern"])).to_frame()).await;
    let (code, reason) = puppet.closed().await;
    assert_eq!(code, Some(CloseCode::Identity));
    assert_eq!(reason, "the peer greets as boss@london and its certificate says puppet@london");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_greet_in_time_is_closed() {
    let studio = Studio::new();
    let clock = ManualClock::new();
    let mut setup = studio.node("srv@montreal");
    setup.clock = Arc::new(clock.clone());
    let node = setup.start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.say(&[1]).await;
    let time = async {
        loop {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    let (code, reason) = tokio::select! {
        closed = puppet.closed() => closed,
        () = time => unreachable!("time goes on"),
    };
    assert_eq!((code, reason.as_str()), (Some(CloseCode::Protocol), "no greeting in time"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_out_of_bounds_closes_and_one_before_the_greeting_waits() {
    let studio = Studio::new();
    let mut node = studio.node("srv@montreal").start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.greet().await;
    node.peer_up("puppet@london").await;
    let (mut send, _receive) = puppet.connection.open_bi().await.unwrap();
    send.write_all(&[255, 255, 255, 255, 16, 0]).await.unwrap();
    assert_eq!(puppet.closed().await.0, Some(CloseCode::Protocol));

    let node = studio.node("srv@montreal").start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.greet().await;
    let want =
        Want { object: ObjectHash::of(b""), size: 5, first_block: 1, blocks: u64::MAX, with_list: false };
    let fetch = FetchObjects { project: project("lantern"), wants: vec![want] };
    let request = Request::Objects(fetch);
    let (mut send, _receive) = puppet.connection.open_bi().await.unwrap();
    send.write_all(&request.to_frame()).await.unwrap();
    let (code, reason) = puppet.closed().await;
    assert_eq!(code, Some(CloseCode::Protocol), "{reason}");
    assert!(reason.contains("blocks that the object does not have"), "{reason}");
    assert!(node.setup.catalog.texts(&feed("lantern", "puppet@london")).is_empty());
    puppet.endpoint.wait_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_do_not_verify_close_with_feed() {
    let studio = Studio::new();
    let mut node = studio.node("srv@montreal").start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.greet().await;
    node.peer_up("puppet@london").await;
    let own = feed("lantern", "puppet@london");
    let forged = SealedGroup { signature: b"forged".to_vec(), ..group(&own, 0, "x") };
    let records = Records { feed: own, groups: vec![forged], manifests: vec![] };
    puppet.say(&Control::Records(records).to_frame()).await;
    let (code, reason) = puppet.closed().await;
    assert_eq!(code, Some(CloseCode::Feed), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_listen_is_still_listened_to() {
    let studio = Studio::new();
    let mut node = studio.node("srv@montreal").start();
    for _ in 0..100 {
        node.catalog().append(&feed("lantern", "srv@montreal"), &"x".repeat(10_000));
    }
    let mut puppet = Puppet::dial_with(&studio, &node, |client| {
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(20_000u32.into());
        client.transport_config(Arc::new(transport));
    })
    .await;
    puppet.greet().await;
    puppet.say(&Control::Heads(no_heads("lantern")).to_frame()).await;
    node.peer_up("puppet@london").await;
    let own = feed("lantern", "puppet@london");
    for seq in 0..200 {
        let groups = vec![group(&own, seq, "told")];
        let records = Records { feed: own.clone(), groups, manifests: vec![] };
        puppet.say(&Control::Records(records).to_frame()).await;
    }
    node.catalog().until(&own, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_one_node_are_capped() {
    let studio = Studio::new();
    let node = studio.node("srv@montreal").start();
    let mut puppets = Vec::new();
    for _ in 0..4 {
        let mut puppet = Puppet::dial(&studio, &node).await;
        // They begin a greeting and leave it at that.
        puppet.say(&[1]).await;
        puppets.push(puppet);
    }
    node.until("four", || node.net.context.registry.connections() == 4).await;
    let fifth = Puppet::dial(&studio, &node).await;
    let (code, reason) = fifth.closed().await;
    assert_eq!((code, reason.as_str()), (Some(CloseCode::Busy), "too many connections with this node"));
    assert!(puppets.iter().all(|puppet| puppet.connection.close_reason().is_none()));
}

/// Starts a node with a link to a puppet, which answers every request with `answer` and then ends the stream.
async fn lied_to(studio: &Studio, node: &mut Node, answer: Vec<u8>) -> (Puppet, PeerLink) {
    let mut puppet = Puppet::dial(studio, node).await;
    puppet.greet().await;
    let link = node.peer_up("puppet@london").await;
    let connection = puppet.connection.clone();
    node.tasks.spawn("liar", async move {
        while let Ok((mut send, _receive)) = connection.accept_bi().await {
            send.write_all(&answer).await.ok();
            send.finish().ok();
        }
    });
    (puppet, link)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_do_not_fit_are_typed_errors() {
    let good =
        ObjectReply { status: ObjectStatus::Found, list_values: 2, body_bytes: 2 * BLOCK_BYTES, encoding: 0 };
    let frame = |reply: ObjectReply| reply.to_frame();
    let truncated = [frame(good), vec![0; 64 + 100]].concat();
    let mut endless =
        frame(ObjectReply { status: ObjectStatus::NotFound, list_values: 0, body_bytes: 0, encoding: 0 });
    endless.push(0);
    let protocol = |error: &FetchError| matches!(error, FetchError::Protocol { .. });
    let framed = |error: &FetchError| matches!(error, FetchError::Frame { .. });
    let given_up = |error: &FetchError| matches!(error, FetchError::GivenUp { .. });
    let encoding = |error: &FetchError| matches!(error, FetchError::Encoding { encoding: 7, .. });
    type Check = fn(&FetchError) -> bool;
    let cases: Vec<(&str, Vec<u8>, Check)> = vec![
        ("longer list", frame(ObjectReply { list_values: 1 << 23, ..good }), protocol),
        ("absurd list", frame(ObjectReply { list_values: u64::MAX, ..good }), framed),
        ("shorter body", frame(ObjectReply { body_bytes: 1, ..good }), protocol),
        ("longer body", frame(ObjectReply { body_bytes: MAX_OBJECT_BYTES, ..good }), protocol),
        ("absurd body", frame(ObjectReply { body_bytes: u64::MAX, ..good }), framed),
        ("body of nothing", frame(ObjectReply { status: ObjectStatus::NotFound, ..good }), protocol),
        ("encoding", frame(ObjectReply { encoding: 7, ..good }), encoding),
        ("truncated", truncated, given_up),
        ("nothing", vec![], given_up),
        ("goes on", endless, protocol),
        ("other frame", ManifestReply { bytes: 5 }.to_frame(), framed),
        ("long frame", vec![255, 255, 255, 127, 18, 0], framed),
    ];
    let studio = Studio::new();
    let mut node = studio.node("srv@montreal").start();
    for (what, answer, expected) in cases {
        let (puppet, link) = lied_to(&studio, &mut node, answer).await;
        let want = Want {
            object: ObjectHash::of(b"x"),
            size: 2 * BLOCK_BYTES,
            first_block: 0,
            blocks: 2,
            with_list: true,
        };
        let mut sink = Deaf;
        let lantern = project("lantern");
        let fetching = link.fetch_objects(&lantern, vec![want], &mut sink);
        let error = within(what, fetching).await.unwrap_err();
        assert!(expected(&error), "{what}: {error:?}");
        puppet.connection.close(0u32.into(), b"");
        node.peer_down("puppet@london").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_that_are_too_long_are_refused_before_they_come() {
    let studio = Studio::new();
    let mut node = studio.node("srv@montreal").start();
    let answer = ManifestReply { bytes: u64::MAX }.to_frame();
    let (_puppet, link) = lied_to(&studio, &mut node, answer).await;
    let ids = vec![ManifestId::from_bytes([1; 32])];
    let lantern = project("lantern");
    let fetching = link.fetch_manifests(&lantern, ids);
    let error = within("the refusal", fetching).await.unwrap_err();
    assert!(matches!(error, FetchError::Frame { .. }), "{error:?}");
}
