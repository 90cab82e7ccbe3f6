//! What one peer can take of this node: time, memory, places. And what it is remembered for.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use avalon_protocol::{
    close_code::CloseCode,
    control::PeerState,
    limits::MAX_FRAME_BYTES,
    wire::{Control, FetchManifests, Framed as _, Request},
};
use bytes::Bytes;

use super::{
    hostile::{Puppet, no_heads},
    studio::{Studio, hello, node_id, project, within},
};
use crate::{
    clock::ManualClock,
    net::{
        NetEvent, endpoint,
        endpoint::UNASKED_WINDOW_BYTES,
        stream::{LeastTaken, Outbound, StreamFault},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_broke_the_rules_is_kept_off_longer_each_time_and_shown() {
    let studio = Studio::new();
    let clock = ManualClock::new();
    let mut setup = studio.node("srv@montreal");
    setup.clock = Arc::new(clock.clone());
    let mut node = setup.start();
    for faults in 1..=3u32 {
        let mut puppet = Puppet::dial(&studio, &node).await;
        puppet.say(&[0, 0, 0, 0, 99, 0]).await;
        assert_eq!(puppet.closed().await.0, Some(CloseCode::Protocol));
        let told = node.event("the fault", |event| match event {
            NetEvent::Faulty { node, faults, kept_off, .. } => Some((node, faults, kept_off.as_secs())),
            _ => None,
        });
        assert_eq!(told.await, (node_id("puppet@london"), faults, 1 << (faults - 1)));

        let early = Puppet::dial(&studio, &node).await;
        let (code, reason) = early.closed().await;
        assert_eq!(code, Some(CloseCode::Busy), "{reason}");
        assert!(reason.starts_with("kept off for"), "{reason}");
        let shown = node.net.peers();
        assert_eq!((shown[0].node.as_str(), shown[0].state), ("puppet", PeerState::Refused), "{shown:?}");
        assert!(shown[0].detail.as_ref().unwrap().contains("not expected here"), "{shown:?}");
        clock.advance(Duration::from_secs(1 << (faults - 1)));
        assert!(node.net.peers().is_empty(), "its time is over");
    }
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.greet().await;
    node.peer_up("puppet@london").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_does_not_get_on_ends_the_connection() {
    let studio = Studio::new();
    let clock = ManualClock::new();
    let mut setup = studio.node("srv@montreal");
    setup.clock = Arc::new(clock.clone());
    let mut node = setup.start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.greet().await;
    node.peer_up("puppet@london").await;
    let length = u32::try_from(MAX_FRAME_BYTES).unwrap().to_le_bytes();
    puppet.say(&[&length[..], &[3, 0]].concat()).await;
    let (send, _) = puppet.control.as_mut().unwrap();
    let slowly = async {
        while send.write_all(&[7]).await.is_ok() {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    within("the close", slowly).await;
    let (code, reason) = puppet.closed().await;
    assert_eq!((code, reason.as_str()), (Some(CloseCode::Protocol), "a frame came too slowly"));
}

/// Has the node answer many times, so that it has looked at all else that is there.
async fn ask_often(puppet: &Puppet) {
    for _ in 0..50 {
        let fetch = FetchManifests { project: project("lantern"), manifests: vec![] };
        let (mut send, mut receive) = puppet.connection.open_bi().await.unwrap();
        send.write_all(&Request::Manifests(fetch).to_frame()).await.unwrap();
        send.finish().unwrap();
        within("an answer", receive.read_to_end(1 << 20)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_small_frames_is_slowed_down() {
    let studio = Studio::new();
    let clock = ManualClock::new();
    let mut setup = studio.node("srv@montreal");
    setup.clock = Arc::new(clock.clone());
    let mut node = setup.start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.greet().await;
    node.peer_up("puppet@london").await;
    let frame = Control::Heads(no_heads("lantern")).to_frame();
    // What is not allowed comes last, and shows how far the node has read.
    let flood = [frame.repeat(1500), vec![0, 0, 0, 0, 99, 0]].concat();
    puppet.say(&flood).await;
    ask_often(&puppet).await;
    assert!(puppet.connection.close_reason().is_none(), "they are not looked at yet, and nobody is blamed");
    let time = async {
        loop {
            clock.advance(Duration::from_millis(2));
            tokio::task::yield_now().await;
        }
    };
    let (code, _) = tokio::select! {
        closed = puppet.closed() => closed,
        () = time => unreachable!("time goes on"),
    };
    assert_eq!(code, Some(CloseCode::Protocol), "it goes on by itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_of_this_node_is_no_fault_of_its_peer() {
    let studio = Studio::new();
    let clock = ManualClock::new();
    let mut setup = studio.node("srv@montreal");
    setup.clock = Arc::new(clock.clone());
    let mut node = setup.start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    let greeting = Control::Hello(hello("puppet@london", 5, &["lantern"])).to_frame();
    let (first, rest) = greeting.split_at(1);
    // The greeting of the node shows that it waits for the peer's.
    puppet.say(first).await;
    puppet.hear().await;
    clock.advance(Duration::from_secs(600));
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    puppet.say(rest).await;
    node.peer_up("puppet@london").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_request_on_its_stream_is_not_taken() {
    let studio = Studio::new();
    let mut node = studio.node("srv@montreal").start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.greet().await;
    node.peer_up("puppet@london").await;
    let fetch = FetchManifests { project: project("lantern"), manifests: vec![] };
    let (mut send, _receive) = puppet.connection.open_bi().await.unwrap();
    send.write_all(&Request::Manifests(fetch).to_frame()).await.unwrap();
    let more = vec![0; 1 << 20];
    let pushing = async {
        loop {
            if let Err(error) = send.write_all(&more).await {
                return error;
            }
        }
    };
    let error = within("the stop", pushing).await;
    assert!(matches!(error, quinn::WriteError::Stopped(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_not_asked_for_content_can_send_little() {
    let studio = Studio::new();
    let mut node = studio.node("srv@montreal").start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.greet().await;
    node.peer_up("puppet@london").await;
    // Requests that never end, of which each may be as long as the longest frame.
    let head = [&u32::try_from(MAX_FRAME_BYTES).unwrap().to_le_bytes()[..], &[16, 0]].concat();
    for _ in 0..20 {
        let (mut send, receive) = puppet.connection.open_bi().await.unwrap();
        let head = head.clone();
        node.tasks.spawn("flood", async move {
            send.write_all(&head).await.ok();
            send.write_all(&vec![0; MAX_FRAME_BYTES - 1]).await.ok();
            let _kept = receive;
            std::future::pending::<()>().await;
        });
    }
    let blocked = async {
        while puppet.connection.stats().frame_tx.data_blocked == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("the limit", blocked).await;
    let sent = puppet.connection.stats().udp_tx.bytes;
    assert!(sent < 2 * u64::from(UNASKED_WINDOW_BYTES), "{sent} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_taken_byte_by_byte_is_given_up() {
    let studio = Studio::new();
    let bind = |name: &str| {
        endpoint::bind("127.0.0.1:0".parse().unwrap(), &studio.identity(name), &Default::default()).unwrap()
    };
    let (server, mut client) = (bind("srv@montreal"), bind("puppet@london"));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(2000u32.into());
    client.client.transport_config(Arc::new(transport));
    let connecting =
        client.endpoint.connect_with(client.client.clone(), server.local, avalon_certs::ANY_NODE).unwrap();
    let accepting = async { server.endpoint.accept().await.unwrap().await.unwrap() };
    let (here, there) = within("both ends", async { tokio::join!(accepting, connecting) }).await;
    let there = there.unwrap();
    let (send, _receive) = here.open_bi().await.unwrap();
    let least = LeastTaken { bytes: 64 << 10, within: Duration::from_millis(200) };
    let mut out = Outbound::new(send, Arc::new(AtomicU64::new(0)), least);
    let reading = async {
        let (_send, mut receive) = there.accept_bi().await.unwrap();
        let mut byte = [0; 1];
        // It always takes something, so that no single write waits for long.
        let mut pace = tokio::time::interval(Duration::from_millis(2));
        while receive.read_exact(&mut byte).await.is_ok() {
            pace.tick().await;
        }
    };
    let writing = async {
        loop {
            if let Err(fault) = out.push(Bytes::from(vec![0; 16 << 20])).await {
                return fault;
            }
        }
    };
    let fault = tokio::select! {
        fault = within("the end", writing) => fault,
        () = reading => panic!("it ended early"),
    };
    assert!(matches!(fault, StreamFault::Stalled), "{fault:?}");
}
