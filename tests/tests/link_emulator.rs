//! The link emulator does what it is asked for, with real packets. Times are only held from below: a busy machine is late.

#![cfg(target_os = "linux")]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use avalon_tests::{
    daemons::tree::noise,
    netem::{
        Emulator, Pipe, Topology,
        command::{flood, round_trips},
        may_emulate, wan,
    },
};

const LAN: Pipe = Pipe::OPEN;

#[test]
fn a_packet_and_its_answer_take_the_round_trip_that_was_asked_for() {
    if !may_emulate() {
        return;
    }
    let link = Emulator::start(&wan(500, 30, 0.0)).unwrap();
    let times = round_trips(&link, 10);
    assert_eq!(times.len(), 10, "a link without loss loses nothing");
    let least = times.iter().min().unwrap();
    assert!(*least >= Duration::from_millis(30), "{times:?}");
    assert!(*least < Duration::from_millis(60), "{times:?}");
}

#[test]
fn no_more_arrives_than_the_link_carries_and_the_rest_is_dropped() {
    if !may_emulate() {
        return;
    }
    let link = Emulator::start(&wan(20, 10, 0.0)).unwrap();
    let (bytes, time) = flood(&link, 60.0, Duration::from_secs(1));
    let mbit = bytes as f64 * 8.0 / time.as_secs_f64() / 1e6;
    assert!(mbit < 20.5, "{mbit} Mbit/s");
    let up = link.counters("near").0;
    assert!(up.full > 0 && up.lost == 0, "{up:?}");
}

#[test]
fn kernel_tcp_brings_all_bytes_through_loss_and_between_any_two_leaves() {
    if !may_emulate() {
        return;
    }
    let lossy = Pipe::alike(100, Duration::from_millis(4), 0.01);
    let star = Topology::link("a", "b", lossy).with("c", lossy, LAN);
    let star = Emulator::start(&star).unwrap();
    let content = noise(7, 2_000_000);
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
        let address = (star.address(to), 0);
        let listener = star.within(to, || TcpListener::bind(address)).unwrap().unwrap();
        let target = listener.local_addr().unwrap();
        let received = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut stream = star.within(from, || TcpStream::connect(target)).unwrap().unwrap();
                stream.write_all(&content).unwrap();
            });
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            sender.join().unwrap();
            received
        });
        assert!(received == content, "{from} to {to}: {} bytes", received.len());
    }
    assert!(star.counters("a").0.lost > 0, "2 MB in packets of 1,500 bytes, and 1 % of them are lost");
}

#[test]
fn a_link_can_be_cut_and_mended() {
    if !may_emulate() {
        return;
    }
    let link = Emulator::start(&wan(100, 2, 0.0)).unwrap();
    assert_eq!(round_trips(&link, 1).len(), 1);
    link.change("near", Pipe { loss: 1.0, ..LAN }, LAN);
    thread::scope(|scope| {
        let cut = scope.spawn(|| round_trips(&link, 1).len());
        // The packet is lost; when that is seen the link is mended, so that the receiver's end comes through.
        while link.counters("near").0.lost == 0 {
            thread::yield_now();
        }
        link.change("near", LAN, LAN);
        assert_eq!(cut.join().unwrap(), 0);
    });
    assert_eq!(round_trips(&link, 1).len(), 1);
}

#[test]
fn nothing_is_left_of_a_link_that_was_dropped_by_a_panic() {
    if !may_emulate() {
        return;
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let panicked = thread::spawn(move || {
        let link = Emulator::start(&wan(100, 2, 0.0)).unwrap();
        let path = Path::new("/run/netns").join(link.namespace("near"));
        assert!(path.exists());
        sender.send(path).unwrap();
        panic!("as a test that fails");
    });
    let path = receiver.recv().unwrap();
    assert!(panicked.join().is_err());
    assert!(!path.exists(), "{}", path.display());
}
