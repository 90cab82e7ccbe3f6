//! The UDP socket and QUIC's settings, each with its reason.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use avalon_certs::{Admission, Identity, TlsError};
use avalon_protocol::signing::RecordSigner as _;
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime,
    TransportConfig, VarInt,
    congestion::ControllerFactory,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::congestion::CongestionFactory;

/// The kernel's buffers that are asked for: 10 ms of 6 Gbit/s, so that a thread that is late loses no packets.
pub const UDP_BUFFER_BYTES: usize = 7_500_000;

/// How much of one stream may be under way, or have come and wait for what was lost before it. That takes another round
/// trip, and one more where the repetition is lost too, so this is five bandwidth-delay products of 500 Mbit/s and 200 ms,
/// or nearly two of 1 Gbit/s and 300 ms. Measured on the former with 1 % of loss: a twelfth faster than with half of it.
const STREAM_WINDOW_BYTES: u32 = 64 << 20;
/// How much of one connection may be under way or wait to be read: what a peer can make this side hold. Three and a half
/// bandwidth-delay products of 1 Gbit/s and 300 ms, for several streams. Half of it is for answers that are read: one that
/// waits for room that only those give back that are read after it would wait for ever.
pub(super) const RECEIVE_WINDOW_BYTES: u32 = 128 << 20;
/// The same before it was asked for content: two of the longest control frames, or forty of the longest requests.
pub(super) const UNASKED_WINDOW_BYTES: u32 = 8 << 20;
/// How much may be sent and not acknowledged at most; no less than what the other side admits.
const SEND_WINDOW_MOST_BYTES: u64 = 128 << 20;
/// On a short path it is this: blocks that are still in the processor's caches when they are sent, and buffers that come
/// back soon.
const SEND_WINDOW_LEAST_BYTES: u64 = 8 << 20;
/// In between it is what leaves in a round trip at this many bytes a second, repetitions included.
const SEND_WINDOW_RATE: u128 = 1_000_000_000;
/// Streams that the peer may have open: the control stream and its requests, of which 32 are worked on.
const MAX_STREAMS: u32 = 64;
/// A peer that is silent for as long is gone.
pub(crate) const IDLE_LIMIT_MS: u32 = 30_000;
/// How often a silent connection says that it lives: three times within [`IDLE_LIMIT_MS`], and within the 30 seconds
/// for which home routers keep a UDP mapping.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The largest datagrams that are tried and taken. A datagram costs much the same whatever its length, so a network with
/// jumbo frames carries four times as much for the same work; others find their 1,472 by probing. quinn hands ten at once
/// to the kernel, which takes 65,507 bytes and would drop more without a word.
pub(super) const DATAGRAM_MOST_BYTES: u16 = 6_550;
/// Connection attempts that wait to be looked at; quinn's own limit is 65,536.
const MAX_INCOMING: usize = 256;
/// What one attempt may send before it is looked at, a handshake's worth, and all of them together.
const INCOMING_BUFFER_BYTES: u64 = 64 << 10;
const INCOMING_BUFFERS_BYTES: u64 = 8 << 20;

/// What is signed to make the secret of stateless resets; no feed and no handshake signs anything that starts so.
const RESET_DOMAIN: &[u8] = b"avalon/v1/stateless-reset\0";

/// Why the network side could not start, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetError {
    /// Somebody listens there.
    #[error("the UDP address {address} is in use; stop the other avalond, or set another `listen` in [node]")]
    InUse {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The user may not.
    #[error("the user of avalond may not listen on UDP {address}; choose a port above 1023")]
    NotPermitted {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The machine does not have the address.
    #[error(
        "this machine does not have the address {address}; set `listen` in [node] to one that it has, or to 0.0.0.0 for all"
    )]
    NoSuchAddress {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something else prevents it.
    #[error("could not listen on UDP {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The identity does not serve for TLS.
    #[error("could not set up TLS for peers")]
    Tls {
        /// Why.
        #[source]
        source: TlsError,
    },
    /// TLS lacks the cipher that QUIC starts with.
    #[error("the TLS of this build cannot start QUIC")]
    Cipher {
        /// Why.
        #[source]
        source: NoInitialCipherSuite,
    },
}

/// The kernel's buffers of the UDP socket, as it granted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpBuffers {
    /// For what arrives, in bytes.
    pub receive_bytes: usize,
    /// For what leaves, in bytes.
    pub send_bytes: usize,
}

impl UdpBuffers {
    /// Says whether the kernel granted less than [`UDP_BUFFER_BYTES`]: packets get lost on fast links then.
    pub fn are_small(self) -> bool {
        self.receive_bytes < UDP_BUFFER_BYTES || self.send_bytes < UDP_BUFFER_BYTES
    }
}

/// The endpoint, for both directions.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) client: quinn::ClientConfig,
    pub(crate) local: SocketAddr,
    pub(crate) buffers: UdpBuffers,
}

/// Opens the socket and starts QUIC on it; needs a tokio runtime around it.
pub(crate) fn bind(
    listen: SocketAddr,
    identity: &Identity,
    admission: &Admission,
) -> Result<Bound, NetError> {
    let (server, client) = configs(identity, admission)?;
    let failed = |source| bind_error(listen, source);
    let (socket, buffers) = open_socket(listen).map_err(failed)?;
    let mut config = EndpointConfig::new(Arc::new(reset_key(identity)));
    // quinn refuses what no datagram can be; its own 1,472 would stay then.
    config.max_udp_payload_size(DATAGRAM_MOST_BYTES).ok();
    config.cid_generator(|| Box::new(RandomIds(SystemRandom::new())));
    let endpoint =
        quinn::Endpoint::new(config, Some(server), socket.into(), Arc::new(TokioRuntime)).map_err(failed)?;
    let local = endpoint.local_addr().map_err(failed)?;
    Ok(Bound { endpoint, client, local, buffers })
}

/// Makes both sides' settings for an identity.
pub(crate) fn configs(
    identity: &Identity,
    admission: &Admission,
) -> Result<(quinn::ServerConfig, quinn::ClientConfig), NetError> {
    let tls = |source| NetError::Tls { source };
    let cipher = |source| NetError::Cipher { source };
    let transport = Arc::new(transport());
    let server_tls = avalon_certs::server_config_for(identity, admission).map_err(tls)?;
    let server_tls = QuicServerConfig::try_from(Arc::new(server_tls)).map_err(cipher)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(server_tls));
    server
        .transport_config(Arc::clone(&transport))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
    let client_tls = avalon_certs::client_config_for(identity, &admission.revocations).map_err(tls)?;
    let client_tls = QuicClientConfig::try_from(Arc::new(client_tls)).map_err(cipher)?;
    let mut client = quinn::ClientConfig::new(Arc::new(client_tls));
    client.transport_config(transport);
    Ok((server, client))
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(UNASKED_WINDOW_BYTES))
        .send_window(SEND_WINDOW_LEAST_BYTES)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_LIMIT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .mtu_discovery_config(Some(mtu_discovery()))
        .congestion_controller_factory(congestion());
    transport
}

fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_MOST_BYTES);
    discovery
}

/// Returns how many bytes a connection whose round trip is as long may have sent and not acknowledged.
pub(super) fn send_window_bytes(rtt: Duration) -> u64 {
    let bytes = rtt.as_micros().saturating_mul(SEND_WINDOW_RATE) / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX).clamp(SEND_WINDOW_LEAST_BYTES, SEND_WINDOW_MOST_BYTES)
}

/// The one place that chooses the congestion controller.
fn congestion() -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::new(CongestionFactory::new(random()))
}

fn open_socket(listen: SocketAddr) -> io::Result<(Socket, UdpBuffers)> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        // One socket for both families; where the system refuses, IPv6 alone is served.
        socket.set_only_v6(false).ok();
    }
    // The kernel cuts this to its own limit without an error; what it granted is read back.
    socket.set_recv_buffer_size(UDP_BUFFER_BYTES).ok();
    socket.set_send_buffer_size(UDP_BUFFER_BYTES).ok();
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    let buffers = UdpBuffers {
        receive_bytes: granted(socket.recv_buffer_size()?),
        send_bytes: granted(socket.send_buffer_size()?),
    };
    Ok((socket, buffers))
}

/// Linux reports double of what it granted, for its own bookkeeping (socket(7)).
fn granted(reported_bytes: usize) -> usize {
    if cfg!(target_os = "linux") { reported_bytes / 2 } else { reported_bytes }
}

fn bind_error(address: SocketAddr, source: io::Error) -> NetError {
    match source.kind() {
        io::ErrorKind::AddrInUse => NetError::InUse { address, source },
        io::ErrorKind::PermissionDenied => NetError::NotPermitted { address, source },
        io::ErrorKind::AddrNotAvailable => NetError::NoSuchAddress { address, source },
        _ => NetError::Bind { address, source },
    }
}

/// Makes the secret of stateless resets from the node's key, so that it is the same after a crash: the peers of a daemon
/// that was killed learn at the next packet that it has forgotten them, and not after [`IDLE_LIMIT_MS`].
fn reset_key(identity: &Identity) -> hmac::Key {
    let secret = identity.signer().sign(RESET_DOMAIN);
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

/// Connection ids of 8 random bytes. quinn's own are marked with a key that a restart forgets, and packets with ids of
/// the time before would be dropped where a reset is due.
struct RandomIds(SystemRandom);

impl fmt::Debug for RandomIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RandomIds")
    }
}

impl ConnectionIdGenerator for RandomIds {
    #[expect(
        clippy::expect_used,
        reason = "without randomness no connection is safe, and quinn takes no error"
    )]
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        self.0.fill(&mut id).expect("the system has randomness");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Returns any number, for jitter.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness there is no jitter; a connection will fail more loudly.
    SystemRandom::new().fill(&mut bytes).ok();
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_port_in_use_and_a_foreign_address_are_told_apart() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind_error(address, open_socket(address).unwrap_err());
        assert!(matches!(error, NetError::InUse { .. }), "{error:?}");
        let foreign = "192.0.2.1:0".parse().unwrap();
        let error = bind_error(foreign, open_socket(foreign).unwrap_err());
        assert!(matches!(error, NetError::NoSuchAddress { .. }), "{error:?}");
        assert!(error.to_string().contains("192.0.2.1:0"), "{error}");
    }

    #[test]
    fn the_send_window_fits_the_path_between_its_bounds() {
        let of_ms = |ms| send_window_bytes(Duration::from_millis(ms));
        assert_eq!((of_ms(0), of_ms(20), of_ms(100_000)), (8 << 20, 20_000_000, 128 << 20));
    }

    #[test]
    fn the_buffers_that_the_kernel_granted_are_known() {
        let (_, buffers) = open_socket("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(buffers.receive_bytes > 0 && buffers.send_bytes > 0);
        let granted = UdpBuffers { receive_bytes: UDP_BUFFER_BYTES, send_bytes: UDP_BUFFER_BYTES };
        assert!(!granted.are_small());
        assert!(UdpBuffers { receive_bytes: 212_992, ..granted }.are_small());
    }
}
