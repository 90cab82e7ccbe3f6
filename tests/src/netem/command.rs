//! `bench netem`: a link for programs that are started by hand, until the end of stdin.

use std::{
    io::Read as _,
    net::{Ipv4Addr, UdpSocket},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use super::{Emulator, may_emulate, wan};

/// Starts a link between two namespaces and says their names; with `--check` measures how true it is instead.
///
/// Arguments: `--mbit 500 --rtt-ms 80 --loss 0.001 [--check]`.
pub fn run(args: &[String]) -> ExitCode {
    if !may_emulate() {
        return ExitCode::from(2);
    }
    let value = |name: &str, default: f64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)).and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let (mbit, rtt_ms, loss) = (value("--mbit", 500.0), value("--rtt-ms", 80.0), value("--loss", 0.001));
    let link = Emulator::start(&wan(mbit as u64, rtt_ms as u64, loss)).expect("root may emulate links");
    if args.iter().any(|arg| arg == "--check") {
        check(&link, mbit, rtt_ms, loss);
        return ExitCode::SUCCESS;
    }
    for leaf in ["near", "far"] {
        let (name, address) = (link.namespace(leaf), link.address(leaf));
        println!("{leaf}: {address}; ip netns exec {name} PROGRAM");
    }
    println!("it ends with stdin");
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
    for leaf in ["near", "far"] {
        println!("{leaf}: {:?}", link.counters(leaf));
    }
    ExitCode::SUCCESS
}

fn check(link: &Emulator, mbit: f64, rtt_ms: f64, loss: f64) {
    let mut times = round_trips(link, 50);
    times.sort();
    println!(
        "round trip: asked for {rtt_ms} ms; median {:?}, most {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    let before = link.counters("near").0;
    let (bytes, time) = flood(link, mbit * 1.2, Duration::from_secs(5));
    let rate = bytes as f64 * 8.0 / time.as_secs_f64() / 1e6;
    println!("rate: asked for {mbit} Mbit/s of IP packets and sent 1.2 times that; {rate:.2} arrived");
    let after = link.counters("near").0;
    let (sent, lost) = (after.offered_packets - before.offered_packets, after.lost - before.lost);
    let full = after.full - before.full;
    let share = lost as f64 / (sent - full) as f64;
    println!("loss: asked for {loss}; {share:.5} by chance, {full} of {sent} found the buffer full");
}

/// Measures round trips of small UDP packets from near to far, one after the other.
pub fn round_trips(link: &Emulator, count: usize) -> Vec<Duration> {
    let near = socket(link, "near");
    let far = socket(link, "far");
    near.connect(far.local_addr().expect("bound")).expect("a route");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = [0; 16];
            while let Ok((length, from)) = far.recv_from(&mut bytes) {
                if length == 0 {
                    break;
                }
                far.send_to(&bytes[..length], from).ok();
            }
        });
        near.set_read_timeout(Some(Duration::from_secs(3))).expect("a time");
        let mut times = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            near.send(b"ping").expect("sent");
            // A lost one counts for nothing.
            if near.recv(&mut [0; 16]).is_ok() {
                times.push(start.elapsed());
            }
        }
        // The end may be lost as well.
        (0..20).for_each(|_| drop(near.send(&[])));
        times
    })
}

/// Sends UDP at `mbit` from near to far for `time`; returns how many bytes of IP packets arrived, from the first to the last.
pub fn flood(link: &Emulator, mbit: f64, time: Duration) -> (u64, Duration) {
    /// So that packets are full: 1,500 bytes with the headers.
    const PAYLOAD: usize = 1472;
    let (near, far) = (socket(link, "near"), socket(link, "far"));
    near.connect(far.local_addr().expect("bound")).expect("a route");
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            far.set_read_timeout(Some(Duration::from_secs(1))).expect("a time");
            let (mut bytes, mut first, mut last) = (0, None, Instant::now());
            while let Ok(length) = far.recv(&mut [0; 2000]) {
                last = Instant::now();
                // The first opens the interval.
                match first {
                    None => first = Some(last),
                    Some(_) => bytes += length as u64 + 28,
                }
            }
            (bytes, last - first.unwrap_or(last))
        });
        let start = Instant::now();
        let mut sent = 0_u64;
        while start.elapsed() < time {
            let due = (start.elapsed().as_secs_f64() * mbit * 1e6 / 8.0 / 1500.0) as u64;
            while sent < due {
                near.send(&[0; PAYLOAD]).ok();
                sent += 1;
            }
            thread::sleep(Duration::from_micros(500));
        }
        receiver.join().expect("the receiver ends")
    })
}

/// Opens a UDP socket at a leaf, with room for the bursts of a busy machine.
fn socket(link: &Emulator, leaf: &str) -> UdpSocket {
    let address: Ipv4Addr = link.address(leaf);
    let socket =
        link.within(leaf, || UdpSocket::bind((address, 0))).expect("the namespace is there").expect("a port");
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20).ok();
    socket
}
