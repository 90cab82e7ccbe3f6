//! The limit of QUIC: quinn itself, one stream from memory to nowhere, with the TLS and the windows of the daemon.
//!
//! `bench raw-quinn serve IDENTITY ADDRESS BYTES CONTROLLER` writes as much to everybody who connects;
//! `bench raw-quinn fetch IDENTITY ADDRESS BYTES CONTROLLER` reads it.

use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use avalon_certs::{ANY_NODE, Identity, client_config, server_config};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig,
    VarInt,
    congestion::{BbrConfig, CubicConfig},
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use super::{
    contender::{Contender, Round},
    ends::{Ends, FAR, NEAR, timed},
};
use crate::daemons::{Studio, now, process::Process};

/// As in the daemon's endpoint.
const UDP_BUFFER_BYTES: usize = 7_500_000;
/// As in the daemon's endpoint.
const DATAGRAM_MOST_BYTES: u16 = 6_550;
/// As in the daemon's endpoint.
const STREAM_WINDOW_BYTES: u32 = 64 << 20;
/// As in the daemon's endpoint, for both directions.
const WINDOW_BYTES: u32 = 128 << 20;

/// Runs the hidden subcommand.
pub fn command(args: &[String]) -> ExitCode {
    let [role, identity, address, bytes, controller] = args else { return ExitCode::from(2) };
    let identity = Identity::load(Path::new(identity), now()).expect("an identity that was just issued");
    let address: SocketAddr = address.parse().expect("an address");
    let bytes: u64 = bytes.parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let transport = Arc::new(transport(controller));
    match role.as_str() {
        "serve" => runtime.block_on(serve(&identity, address, bytes, transport)),
        _ => runtime.block_on(fetch(&identity, address, bytes, transport)),
    }
    ExitCode::SUCCESS
}

fn transport(controller: &str) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(WINDOW_BYTES.into());
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_MOST_BYTES);
    transport.mtu_discovery_config(Some(discovery));
    match controller {
        "bbr" => transport.congestion_controller_factory(Arc::new(BbrConfig::default())),
        _ => transport.congestion_controller_factory(Arc::new(CubicConfig::default())),
    };
    transport
}

fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(DATAGRAM_MOST_BYTES).expect("a size that is allowed");
    config
}

fn socket(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("a port");
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, UDP_BUFFER_BYTES).ok();
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, UDP_BUFFER_BYTES).ok();
    socket
}

async fn serve(identity: &Identity, address: SocketAddr, bytes: u64, transport: Arc<TransportConfig>) {
    let tls = QuicServerConfig::try_from(Arc::new(server_config(identity).expect("TLS"))).expect("a cipher");
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport);
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(endpoint(), Some(config), socket(address), runtime).expect("QUIC");
    eprintln!("ready");
    // Noise costs no more to send than zeros: TLS encrypts either.
    let piece = vec![7_u8; 1 << 20];
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        let Ok((mut send, _receive)) = connection.accept_bi().await else { continue };
        let mut left = bytes;
        while left > 0 {
            let length = left.min(piece.len() as u64);
            if send.write_all(&piece[..length as usize]).await.is_err() {
                break;
            }
            left -= length;
        }
        send.finish().ok();
        connection.closed().await;
    }
}

async fn fetch(identity: &Identity, address: SocketAddr, bytes: u64, transport: Arc<TransportConfig>) {
    let tls = QuicClientConfig::try_from(Arc::new(client_config(identity).expect("TLS"))).expect("a cipher");
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport);
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(endpoint(), None, socket(any), runtime).expect("QUIC");
    let connecting = endpoint.connect_with(config, address, ANY_NODE).expect("an address");
    let connection = connecting.await.expect("a connection");
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    send.write_all(b"all").await.expect("a stream");
    let mut received = 0;
    while let Some(chunk) = receive.read_chunk(1 << 20, true).await.expect("all of it") {
        received += chunk.bytes.len() as u64;
    }
    assert_eq!(received, bytes);
    connection.close(VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
}

/// quinn alone, with one of its own congestion controllers.
#[derive(Debug)]
pub struct RawQuinn<'a> {
    ends: &'a Ends,
    identity: PathBuf,
    address: SocketAddr,
    controller: &'static str,
    bytes: u64,
    server: Process,
}

impl<'a> RawQuinn<'a> {
    /// Starts the sender; `controller` is `bbr` or `cubic`.
    pub fn start(studio: &Studio, ends: &'a Ends, controller: &'static str, bytes: u64) -> Self {
        let identity = studio.dir().join(format!("raw-{controller}"));
        studio.issue(&format!("raw-{controller}@nowhere"), &identity, now());
        let address = SocketAddr::from((ends.address(NEAR), ends.free_port(NEAR)));
        let mut command = ends.server(NEAR, std::env::current_exe().expect("this program has a path"));
        command.args(["raw-quinn", "serve"]).arg(&identity);
        command.args([&address.to_string(), &bytes.to_string(), controller]);
        let server = Process::start(&mut command);
        assert!(server.log.wait_for("ready"), "raw quinn does not start: {}", server.log.text());
        Self { ends, identity, address, controller, bytes, server }
    }
}

impl Contender for RawQuinn<'_> {
    fn name(&self) -> String {
        format!("raw-quinn-{}", self.controller)
    }

    fn servers(&mut self) -> Vec<u32> {
        vec![self.server.pid()]
    }

    fn fetch(&mut self, round: &Round<'_>) -> Option<Duration> {
        let mut command = self.ends.command(FAR, std::env::current_exe().expect("this program has a path"));
        command.args(["raw-quinn", "fetch"]).arg(&self.identity);
        command.args([&self.address.to_string(), &self.bytes.to_string(), self.controller]);
        timed(&mut command, round.limit)
    }
}
