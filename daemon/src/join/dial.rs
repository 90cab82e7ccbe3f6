//! The machine that joins: dials with the key of its token, checks who answers, and asks for its certificate.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use avalon_certs::{
    NodeKey,
    join::{JOIN_SERVER, JoinTlsError, UntrustedServer, check_server, join_client_config},
};
use avalon_protocol::{
    access::JoinToken,
    id::{NodeId, NodeName},
    wire::{JOIN_VERSION, JoinAsk, JoinCertify, JoinHello, JoinOffer, JoinReply, Joined},
};
use quinn::{
    Connection, Endpoint, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig},
};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::{net::lookup_host, time::timeout};

use super::wire::{self, WireFault};
use crate::net::Closed;

/// How long one address may take to resolve and answer.
const DIAL_DEADLINE: Duration = Duration::from_secs(8);
/// How long the conversation may take.
const TALK_DEADLINE: Duration = Duration::from_secs(40);
/// How often an answer that was lost is asked for again.
const ATTEMPTS: usize = 3;

/// Why a machine did not join.
#[derive(Debug, Error)]
pub(super) enum JoinError {
    /// TLS could not be set up.
    #[error("could not set up TLS")]
    Tls(#[source] JoinTlsError),
    /// TLS lacks the cipher that QUIC starts with.
    #[error("the TLS of this build cannot start QUIC")]
    Cipher(#[source] NoInitialCipherSuite),
    /// Nobody answered.
    #[error("no node that issues could be reached: {tried}")]
    Unreachable {
        /// Each address, and why not.
        tried: String,
    },
    /// Somebody answered, and takes no such invite.
    #[error(
        "the node at {address} takes no such invite: it was used or revoked, has expired, or is of another node"
    )]
    NotAdmitted {
        /// The address.
        address: String,
    },
    /// Whoever answered is not of the studio.
    #[error("joining was given up before anything was said")]
    Server(#[source] UntrustedServer),
    /// The other side refuses.
    #[error("{reason}")]
    Refused {
        /// Why, in its words.
        reason: String,
    },
    /// The conversation broke off.
    #[error("the conversation with the node that issues broke off")]
    Broken(#[source] WireFault),
    /// It took too long.
    #[error("the node that issues took too long to answer")]
    Slow,
    /// It said something out of turn.
    #[error("the node that issues did not keep to the order of joining")]
    Order,
    /// There is no name to ask for.
    #[error("the invite says no name, and the name of this machine, {hostname:?}, is none for a node")]
    NoName {
        /// What the machine is called.
        hostname: String,
    },
    /// The key could not be used.
    #[error("the request for a certificate could not be made")]
    Request,
}

/// What joining came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) joined: Joined,
    /// The certificate of the studio's authority, in DER, which the token vouches for.
    pub(super) authority: CertificateDer<'static>,
    /// Who issued.
    pub(super) issuer: NodeId,
    /// The address that answered, as it stands in the token.
    pub(super) address: String,
}

/// Who wants to join.
#[derive(Debug)]
pub(super) struct Joiner<'a> {
    pub(super) token: &'a JoinToken,
    pub(super) key: &'a NodeKey,
    /// What it would be called.
    pub(super) node: Option<NodeName>,
    pub(super) now: SystemTime,
}

impl Joiner<'_> {
    /// Joins by the first address that leads to a node of the studio.
    pub(super) async fn join(&self) -> Result<Outcome, JoinError> {
        let tls = join_client_config(&self.token.seed).map_err(JoinError::Tls)?;
        let tls = QuicClientConfig::try_from(Arc::new(tls)).map_err(JoinError::Cipher)?;
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let mut tried = Vec::new();
        let mut attempts = 0;
        while attempts < ATTEMPTS {
            attempts += 1;
            for address in &self.token.addresses {
                let (connection, _endpoint) = match connect(&config, address).await {
                    Ok(connected) => connected,
                    Err(Missed::NotAdmitted) => {
                        return Err(JoinError::NotAdmitted { address: address.clone() });
                    }
                    Err(Missed::Lost(reason)) => {
                        tried.push(format!("{address}: {reason}"));
                        continue;
                    }
                };
                match timeout(TALK_DEADLINE, self.talk(&connection, address)).await {
                    Ok(Err(JoinError::Broken(_))) if is_untrusted(&connection) => {
                        return Err(JoinError::NotAdmitted { address: address.clone() });
                    }
                    // The invite may be used up by now; whoever has its key gets the same answer again.
                    Ok(Err(JoinError::Broken(_))) if attempts < ATTEMPTS => break,
                    Ok(done) => {
                        connection.close(VarInt::from_u32(0), b"done");
                        return done;
                    }
                    Err(_) => return Err(JoinError::Slow),
                }
            }
            if tried.len() >= self.token.addresses.len() {
                break;
            }
        }
        Err(JoinError::Unreachable { tried: tried.join("; ") })
    }

    async fn talk(&self, connection: &Connection, address: &str) -> Result<Outcome, JoinError> {
        let broken = JoinError::Broken;
        let opened = connection.open_bi().await;
        let (mut send, mut receive) = opened.map_err(|error| broken(WireFault::Ended(error.into())))?;
        let hello = JoinHello { version: JOIN_VERSION, build: env!("CARGO_PKG_VERSION").to_owned() };
        wire::write(&mut send, &JoinAsk::Hello(hello)).await.map_err(broken)?;
        let offer = match wire::read::<JoinReply>(&mut receive).await.map_err(broken)? {
            JoinReply::Offer(offer) => offer,
            JoinReply::Refused(refused) => {
                return Err(JoinError::Refused { reason: refused.reason });
            }
            JoinReply::Joined(_) => return Err(JoinError::Order),
        };
        // Before a word about this machine: is it the studio of the token?
        let identity =
            connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
        let chain = identity.map(|chain| *chain).unwrap_or_default();
        let (authority, facts) = check_server(&offer.authority, &self.token.fingerprint, &chain, self.now)
            .map_err(JoinError::Server)?;

        let node = self.name(&offer)?;
        let id = NodeId::new(node.clone(), offer.site.clone());
        let request = self.key.request(&id).map_err(|_| JoinError::Request)?.der().to_vec();
        wire::write(&mut send, &JoinAsk::Certify(JoinCertify { node, request })).await.map_err(broken)?;
        match wire::read::<JoinReply>(&mut receive).await.map_err(broken)? {
            JoinReply::Joined(joined) => Ok(Outcome {
                joined,
                authority: authority.der().clone(),
                issuer: facts.node,
                address: address.to_owned(),
            }),
            JoinReply::Refused(refused) => Err(JoinError::Refused { reason: refused.reason }),
            JoinReply::Offer(_) => Err(JoinError::Order),
        }
    }

    fn name(&self, offer: &JoinOffer) -> Result<NodeName, JoinError> {
        if let Some(name) = offer.node.clone().or_else(|| self.node.clone()) {
            return Ok(name);
        }
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let label: String = hostname
            .split('.')
            .next()
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        label.trim_matches('-').parse().map_err(|_| JoinError::NoName { hostname })
    }
}

/// Why there is no connection with an address.
enum Missed {
    /// Somebody is there who does not know the key.
    NotAdmitted,
    Lost(String),
}

/// Tries every address that a name has.
async fn connect(config: &quinn::ClientConfig, address: &str) -> Result<(Connection, Endpoint), Missed> {
    let found = match timeout(DIAL_DEADLINE, lookup_host(address)).await {
        Ok(Ok(found)) => found.collect::<Vec<SocketAddr>>(),
        Ok(Err(error)) => return Err(Missed::Lost(format!("the name does not resolve ({error})"))),
        Err(_) => return Err(Missed::Lost("the name does not resolve in time".into())),
    };
    let mut last = Missed::Lost("the name has no address".to_owned());
    for remote in found {
        match dial(config, remote).await {
            Ok(connected) => return Ok(connected),
            Err(missed) => last = missed,
        }
    }
    Err(last)
}

async fn dial(config: &quinn::ClientConfig, remote: SocketAddr) -> Result<(Connection, Endpoint), Missed> {
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint =
        Endpoint::client(any).map_err(|error| Missed::Lost(format!("there is no UDP socket ({error})")))?;
    let connecting = endpoint.connect_with(config.clone(), remote, JOIN_SERVER);
    let connecting = connecting.map_err(|error| Missed::Lost(error.to_string()))?;
    match timeout(DIAL_DEADLINE, connecting).await {
        // The client's half of a handshake ends before the server has judged its certificate.
        Ok(Ok(connection)) => Ok((connection, endpoint)),
        Ok(Err(error)) => Err(missed(error)),
        Err(_) => Err(Missed::Lost("no answer".into())),
    }
}

/// Reads why nobody let this machine in. What a peer would be told of its certificate is about the invite here.
fn missed(error: quinn::ConnectionError) -> Missed {
    match Closed::from_quinn(error) {
        Closed::Untrusted { .. } => Missed::NotAdmitted,
        closed => Missed::Lost(closed.to_string()),
    }
}

fn is_untrusted(connection: &Connection) -> bool {
    let closed = connection.close_reason();
    closed.is_some_and(|error| matches!(Closed::from_quinn(error), Closed::Untrusted { .. }))
}
