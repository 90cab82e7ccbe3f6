//! Congestion controllers on one stream over emulated links: the daemon's and quinn's own, alone, and beside kernel TCP.
//!
//! The controller is all that differs: TLS, windows and sockets are alike. Both ends run in this process, each in its
//! namespace, so that the machine's two cores are shared by sender, receiver and forwarder as in the other shapes.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use avalon_certs::{ANY_NODE, Authority, Identity, IssueRequest, client_config, server_config};
use avalon_protocol::access::Role;
use avalond::net::congestion::CongestionFactory;
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig},
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use crate::netem::{Emulator, Pipe, Topology, may_emulate};

const MBIT: u64 = 500;
/// What of an IP packet of 1,500 bytes is the stream's: UDP, IP, QUIC's header and tag, and the stream frame's.
const PAYLOAD: f64 = 0.953;
const CONTROLLERS: [&str; 4] = ["ours", "bbr", "cubic", "newreno"];
/// As in the daemon's endpoint.
const UDP_BUFFER_BYTES: usize = 7_500_000;
/// As in the daemon's endpoint.
const STREAM_WINDOW_BYTES: u32 = 64 << 20;
/// As in the daemon's endpoint, for both directions.
const WINDOW_BYTES: u32 = 128 << 20;

/// Runs what the arguments ask for: `grid`, `loopback` or `shares`, then rounds, and a controller to look at alone; or `one`,
/// rounds, a controller, the round trip in ms and the loss as a share.
pub fn run(args: &[String]) -> ExitCode {
    if !may_emulate() {
        return ExitCode::FAILURE;
    }
    let rounds = args.get(1).and_then(|text| text.parse().ok()).unwrap_or(3);
    let only = args.get(2).map(String::as_str);
    let controllers: Vec<_> =
        CONTROLLERS.into_iter().filter(|name| only.is_none_or(|only| only == *name)).collect();
    match args.first().map(String::as_str) {
        Some("grid") => grid(rounds, &controllers),
        Some("loopback") => loopback(rounds, &controllers),
        Some("shares") => {
            // What the kernel's own do to each other is the measure of what can be asked for.
            let kernel = ["tcp-cubic", "tcp-bbr"];
            let all: Vec<_> = CONTROLLERS.into_iter().chain(kernel).collect();
            shares(rounds, &only.map_or(all, |only| vec![only]));
        }
        Some("one") => {
            let number =
                |index: usize| args.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
            let pipe = Pipe::alike(MBIT, Duration::from_secs_f64(number(3) / 1000.0), number(4));
            for _ in 0..rounds {
                let ends = Ends::over(pipe);
                let (rate, stats) = ends.transfer(only.unwrap_or("ours"), bytes_for(pipe) * 2, LIMIT);
                println!("{rate:.1} MiB/s, {stats}");
            }
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// Whoever is slower than this has failed.
const LIMIT: Duration = Duration::from_secs(20);

fn factory(name: &str) -> Arc<dyn ControllerFactory + Send + Sync> {
    match name {
        "ours" => Arc::new(CongestionFactory::new(1)),
        "bbr" => Arc::new(BbrConfig::default()),
        "cubic" => Arc::new(CubicConfig::default()),
        _ => Arc::new(NewRenoConfig::default()),
    }
}

/// Enough for a rate that the start does not decide: about four seconds and twenty round trips.
fn bytes_for(pipe: Pipe) -> u64 {
    let seconds = 4.0 + 40.0 * pipe.delay.as_secs_f64();
    (MBIT as f64 * 125_000.0 * seconds) as u64
}

fn grid(rounds: usize, controllers: &[&str]) {
    println!("| RTT ms | loss % | {} | limit |", controllers.join(" | "));
    for rtt_ms in [1, 20, 80, 200] {
        for loss in [0.0, 0.001, 0.01] {
            let pipe = Pipe::alike(MBIT, Duration::from_millis(rtt_ms), loss);
            let mut rates = vec![Vec::new(); controllers.len()];
            for _ in 0..rounds {
                for (controller, rates) in controllers.iter().zip(&mut rates) {
                    let bytes = if matches!(*controller, "ours" | "bbr") || loss == 0.0 {
                        bytes_for(pipe)
                    } else {
                        16 << 20
                    };
                    let ends = Ends::over(pipe);
                    let (rate, stats) = ends.transfer(controller, bytes, LIMIT);
                    eprintln!("{rtt_ms} ms {loss} {controller}: {rate:.1} MiB/s, {stats}");
                    rates.push(rate);
                }
            }
            let limit = MBIT as f64 * 125_000.0 / 1_048_576.0 * PAYLOAD;
            let cells: Vec<_> = rates.iter_mut().map(|rates| format!("{:.1}", median(rates))).collect();
            println!("| {rtt_ms} | {} | {} | {limit:.1} |", loss * 100.0, cells.join(" | "));
        }
    }
}

fn loopback(rounds: usize, controllers: &[&str]) {
    let ends = Ends::loopback();
    let mut rates = vec![Vec::new(); controllers.len()];
    for _ in 0..rounds {
        for (controller, rates) in controllers.iter().zip(&mut rates) {
            let (rate, stats) = ends.transfer(controller, 1 << 30, LIMIT);
            eprintln!("{controller}: {rate:.1} MiB/s, {stats}");
            rates.push(rate);
        }
    }
    for (controller, rates) in controllers.iter().zip(&mut rates) {
        println!("| {controller} | {:.0} |", median(rates));
    }
}

/// One flow of each kind for a while over one bottleneck, and what each got after the first part.
fn shares(rounds: usize, controllers: &[&str]) {
    println!("| RTT ms | queue, BDP | controller | beside TCP | its MiB/s | TCP MiB/s | its share |");
    for (rtt_ms, queue_percent) in [(20, 100), (80, 50), (80, 100), (80, 200)] {
        for tcp in ["cubic", "bbr"] {
            for controller in controllers {
                let mut pipe = Pipe::alike(100, Duration::from_millis(rtt_ms), 0.0);
                pipe.queue = Some(100 * 125 * rtt_ms * queue_percent / 100);
                let mut all: Vec<(f64, f64)> =
                    (0..rounds).map(|_| Ends::over(pipe).beside(controller, tcp)).collect();
                all.sort_by(|a, b| (a.0 / (a.0 + a.1)).total_cmp(&(b.0 / (b.0 + b.1))));
                let (quic, other) = all[all.len() / 2];
                let share = quic / (quic + other);
                println!(
                    "| {rtt_ms} | {queue_percent} % | {controller} | {tcp} | {quic:.1} | {other:.1} | {share:.2} |"
                );
            }
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Two ends and an identity for TLS.
struct Ends {
    link: Option<Emulator>,
    identity: Identity,
}

impl Ends {
    fn over(pipe: Pipe) -> Self {
        let link = Emulator::start(&Topology::link("near", "far", pipe)).expect("may_emulate was asked");
        Self { link: Some(link), identity: identity() }
    }

    fn loopback() -> Self {
        Self { link: None, identity: identity() }
    }

    fn address(&self, end: &str) -> Ipv4Addr {
        self.link.as_ref().map_or(Ipv4Addr::LOCALHOST, |link| link.address(end))
    }

    fn within<T: Send>(&self, end: &str, work: impl FnOnce() -> T + Send) -> T {
        match &self.link {
            Some(link) => link.within(end, work).expect("the namespace is there"),
            None => work(),
        }
    }

    fn socket(&self, end: &str) -> UdpSocket {
        let address = self.address(end);
        self.within(end, || {
            let socket = UdpSocket::bind((address, 0)).expect("a port");
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, UDP_BUFFER_BYTES).ok();
            rustix::net::sockopt::set_socket_send_buffer_size(&socket, UDP_BUFFER_BYTES).ok();
            socket
        })
    }

    /// Sends from near to far until `bytes` have come or `limit` is over, and returns MiB/s at the receiver.
    fn transfer(&self, controller: &str, bytes: u64, limit: Duration) -> (f64, String) {
        let received = Arc::new(AtomicU64::new(0));
        let flow = Flow::start(self, controller, Arc::clone(&received), bytes);
        let began = Instant::now();
        while received.load(Ordering::Relaxed) < bytes && began.elapsed() < limit {
            thread::sleep(Duration::from_millis(2));
        }
        let rate = received.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64() / 1_048_576.0;
        (rate, flow.stop())
    }

    /// Starts a flow of kernel TCP from near to far; it ends with `stop`.
    fn tcp(
        &self,
        congestion: &str,
        stop: &Arc<AtomicBool>,
        received: &Arc<AtomicU64>,
    ) -> [JoinHandle<()>; 2] {
        let far = self.address("far");
        let listener = self.within("far", || TcpListener::bind((far, 0)).expect("a port"));
        let to = listener.local_addr().expect("an address");
        let sender = self.within("near", || {
            let socket = TcpStream::connect(to).expect("a connection from near");
            rustix::net::sockopt::set_tcp_congestion(&socket, congestion).expect("a kernel that has it");
            socket
        });
        let receiver = listener.accept().expect("a connection").0;
        let (stop, counted) = (Arc::clone(stop), Arc::clone(received));
        [thread::spawn(move || pour(sender, &stop)), thread::spawn(move || drain(receiver, &counted))]
    }

    /// Runs a QUIC flow, or one of TCP where it is named so, and a TCP flow side by side; returns MiB/s of both.
    fn beside(&self, controller: &str, tcp: &str) -> (f64, f64) {
        const BEFORE: Duration = Duration::from_secs(8);
        const MEASURED: Duration = Duration::from_secs(24);
        let stop = Arc::new(AtomicBool::new(false));
        let tcp_received = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::from(self.tcp(tcp, &stop, &tcp_received));
        let first_received = Arc::new(AtomicU64::new(0));
        let flow = match controller.strip_prefix("tcp-") {
            Some(other) => {
                threads.extend(self.tcp(other, &stop, &first_received));
                None
            }
            None => Some(Flow::start(self, controller, Arc::clone(&first_received), u64::MAX)),
        };
        thread::sleep(BEFORE);
        let read =
            || (first_received.load(Ordering::Relaxed) as f64, tcp_received.load(Ordering::Relaxed) as f64);
        let before = read();
        thread::sleep(MEASURED);
        let after = read();
        if let Some(flow) = flow {
            flow.stop();
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("a thread that does not panic");
        }
        let per_second = 1_048_576.0 * MEASURED.as_secs_f64();
        ((after.0 - before.0) / per_second, (after.1 - before.1) / per_second)
    }
}

fn pour(mut socket: TcpStream, stop: &AtomicBool) {
    let piece = vec![7; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        if socket.write_all(&piece).is_err() {
            break;
        }
    }
}

fn drain(mut socket: TcpStream, received: &AtomicU64) {
    let mut piece = vec![0; 1 << 18];
    while let Ok(length) = socket.read(&mut piece)
        && length > 0
    {
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
}

fn identity() -> Identity {
    let dir = tempfile::tempdir().expect("a directory");
    let now = SystemTime::now();
    let authority = Authority::create(&"northlight".parse().expect("a name"), &dir.path().join("ca"), now);
    let out = dir.path().join("node");
    let node = "raw@nowhere".parse().expect("a name");
    authority
        .expect("a CA")
        .issue_into(&IssueRequest::new(node, Role::Site), &out, now)
        .expect("an identity");
    Identity::load(&out, now).expect("an identity that was just issued")
}

/// A stream from near to far, in runtimes of their own.
struct Flow {
    runtimes: [tokio::runtime::Runtime; 2],
    sending: quinn::Connection,
}

impl Flow {
    fn start(ends: &Ends, controller: &str, received: Arc<AtomicU64>, bytes: u64) -> Self {
        let transport = Arc::new(transport(controller));
        let (near, far) = (ends.socket("near"), ends.socket("far"));
        let to: SocketAddr = near.local_addr().expect("an address");
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let [serving, fetching] = [runtime().expect("threads"), runtime().expect("threads")];
        let server = serving.block_on(async { server(&ends.identity, near, Arc::clone(&transport)) });
        let accepted = serving.spawn(async move {
            let connection = server.accept().await.expect("an attempt").await.expect("a connection");
            let (send, _receive) = connection.accept_bi().await.expect("a stream");
            tokio::spawn(send_all(send, bytes));
            connection
        });
        fetching.block_on(async {
            let connection = client(&ends.identity, far, transport, to).await;
            let (mut send, receive) = connection.open_bi().await.expect("a stream");
            send.write_all(b"all").await.expect("a stream");
            tokio::spawn(receive_all(connection, send, receive, received));
        });
        let sending = serving.block_on(accepted).expect("a task that does not panic");
        Self { runtimes: [serving, fetching], sending }
    }

    /// Ends it; returns what quinn counted.
    fn stop(self) -> String {
        let stats = self.sending.stats();
        self.sending.close(VarInt::from_u32(0), b"");
        for runtime in self.runtimes {
            runtime.shutdown_timeout(Duration::from_millis(200));
        }
        let path = stats.path;
        format!(
            "lost {:.2} %, rtt {:.1} ms, window {} KiB, {:.1} datagrams a call, mtu {}",
            path.lost_packets as f64 * 100.0 / path.sent_packets.max(1) as f64,
            path.rtt.as_secs_f64() * 1000.0,
            path.cwnd >> 10,
            stats.udp_tx.datagrams as f64 / stats.udp_tx.ios.max(1) as f64,
            path.current_mtu,
        )
    }
}

async fn send_all(mut send: quinn::SendStream, bytes: u64) {
    let piece = vec![7_u8; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(piece.len() as u64);
        if send.write_all(&piece[..length as usize]).await.is_err() {
            return;
        }
        left -= length;
    }
    send.finish().ok();
    send.stopped().await.ok();
}

async fn receive_all(
    connection: quinn::Connection,
    send: quinn::SendStream,
    mut receive: quinn::RecvStream,
    received: Arc<AtomicU64>,
) {
    while let Ok(Some(chunk)) = receive.read_chunk(1 << 20, true).await {
        received.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
    }
    connection.closed().await;
    drop(send);
}

fn transport(controller: &str) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(WINDOW_BYTES.into())
        .congestion_controller_factory(factory(controller));
    transport
}

fn server(identity: &Identity, socket: UdpSocket, transport: Arc<TransportConfig>) -> Endpoint {
    let tls = QuicServerConfig::try_from(Arc::new(server_config(identity).expect("TLS"))).expect("a cipher");
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport);
    Endpoint::new(endpoint(), Some(config), socket, Arc::new(TokioRuntime)).expect("QUIC")
}

async fn client(
    identity: &Identity,
    socket: UdpSocket,
    transport: Arc<TransportConfig>,
    to: SocketAddr,
) -> quinn::Connection {
    let tls = QuicClientConfig::try_from(Arc::new(client_config(identity).expect("TLS"))).expect("a cipher");
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport);
    let endpoint = Endpoint::new(endpoint(), None, socket, Arc::new(TokioRuntime)).expect("QUIC");
    endpoint.connect_with(config, to, ANY_NODE).expect("an address").await.expect("a connection")
}

fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(65_527).expect("what UDP admits");
    config
}
