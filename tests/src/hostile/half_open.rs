//! Strangers: handshakes that are begun and never finished, and those with a certificate of another studio.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use avalon_certs::{ANY_NODE, Identity, client_config};
use quinn::{Endpoint, crypto::rustls::QuicClientConfig};
use tokio::{net::UdpSocket, time::timeout};

use super::attack::{Plan, Tally, one};
use crate::daemons::now;

/// Long packets of QUIC version 1 (RFC 9000, 17.2): the type in bits 4 and 5.
fn is_long(packet: &[u8], kind: u8) -> bool {
    packet.first().is_some_and(|first| first & 0x80 != 0 && (first >> 4) & 3 == kind)
}

/// Where those with stolen keys come from, and the two kinds of strangers: what one address may have is bounded, and one is
/// not to take it from another.
pub(super) const PEERS: [u8; 4] = [127, 0, 0, 2];
const HALF_OPEN: [u8; 4] = [127, 0, 0, 3];
const STRANGERS: [u8; 4] = [127, 0, 0, 4];

const INITIAL: u8 = 0;
const RETRY: u8 = 3;

/// Makes what a client of an identity dials with.
pub(super) fn client(identity: &std::path::Path) -> Option<(quinn::ClientConfig, Identity)> {
    let identity = Identity::load(identity, now()).ok()?;
    let tls = QuicClientConfig::try_from(Arc::new(client_config(&identity).ok()?)).ok()?;
    Some((quinn::ClientConfig::new(Arc::new(tls)), identity))
}

/// Begins connections without an end. A relay between them and the daemon lets only first packets through, and of the answers
/// only those that ask for a proof of the address: so they get past that, and no further.
pub(super) async fn half_open(plan: Arc<Plan>, tally: Arc<Tally>) {
    let Some((config, _)) = client(&plan.stranger) else { return };
    let (any, from) = (SocketAddr::from(([127, 0, 0, 1], 0)), SocketAddr::from((HALF_OPEN, 0)));
    let (Ok(inner), Ok(outer)) = (UdpSocket::bind(any).await, UdpSocket::bind(from).await) else { return };
    let (Ok(relay), Ok(endpoint)) = (inner.local_addr(), Endpoint::client(any)) else { return };
    let (inner, outer) = (Arc::new(inner), Arc::new(outer));
    tokio::task::spawn_local(relaying(inner, outer, plan.address));
    let mut held = Vec::new();
    loop {
        // Those that were given up are begun anew.
        held.retain(|task: &tokio::task::JoinHandle<()>| !task.is_finished());
        if held.len() < plan.half_open {
            let Ok(connecting) = endpoint.connect_with(config.clone(), relay, ANY_NODE) else { return };
            one(&tally.half_open);
            held.push(tokio::task::spawn_local(async move {
                timeout(Duration::from_secs(30), connecting).await.ok();
            }));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn relaying(inner: Arc<UdpSocket>, outer: Arc<UdpSocket>, daemon: SocketAddr) {
    let mut client = daemon;
    let (mut out, mut back) = (vec![0; 2000], vec![0; 2000]);
    loop {
        tokio::select! {
            Ok((length, from)) = inner.recv_from(&mut out) => {
                client = from;
                if is_long(&out[..length], INITIAL) {
                    outer.send_to(&out[..length], daemon).await.ok();
                }
            }
            Ok((length, _)) = outer.recv_from(&mut back) => {
                if is_long(&back[..length], RETRY) {
                    inner.send_to(&back[..length], client).await.ok();
                }
            }
        }
    }
}

/// Knocks with a certificate of another studio.
pub(super) async fn strangers(plan: Arc<Plan>, tally: Arc<Tally>) {
    let Some((config, _)) = client(&plan.stranger) else { return };
    let Ok(endpoint) = Endpoint::client(SocketAddr::from((STRANGERS, 0))) else { return };
    loop {
        if let Ok(connecting) = endpoint.connect_with(config.clone(), plan.address, ANY_NODE) {
            one(&tally.strangers);
            timeout(Duration::from_secs(1), connecting).await.ok();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
