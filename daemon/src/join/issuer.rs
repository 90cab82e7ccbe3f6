//! [`StudioIssuer`]: a node that certifies for its studio, for who joins by an invite and for who renews.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use avalon_certs::{
    AuthorityError, CertificateRequest, IssueRequest, IssuingAuthority, NodeCertificate, RequestError,
    join::SeedKeyHash,
};
use avalon_protocol::{
    access::Role,
    audit::{AuditAction, AuditActor, AuditFact, AuditOutcome},
    id::{NodeId, NodeName, ProjectName},
    record::{Issued, Record},
    wire::{JoinCertify, JoinOffer, Joined, RenewAnswer, RenewLater, RenewReply},
};
use avalon_store::ledger::LedgerError;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::{
    Invites,
    invites::{Invite, InviteError},
    names::Names,
    renewals::Renewals,
    server,
};
use crate::{
    audit::Sum,
    core::{Core, blocking},
    log::ErrorChain,
    net::{Issuer, Net},
};

/// Machines that join at once; the others come back.
const MAX_JOINS: usize = 4;

/// Names that are told at a time; the others the next time.
const MAX_TOLD: usize = 256;

/// Certificates that are made for renewals at once.
const MAX_RENEWALS: usize = 4;

/// Why somebody was not certified. The text goes to the other side, so it says nothing about other nodes.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// The invite.
    #[error("{0}")]
    Invite(#[from] InviteError),
    /// The request.
    #[error("the request for a certificate is not valid")]
    Request(#[source] RequestError),
    /// The name.
    #[error("the name {node} cannot be given; choose another with --node")]
    Taken {
        /// The name.
        node: NodeId,
    },
    /// The authority.
    #[error("no certificate could be made; whoever looks after the node that invited finds why in its log")]
    Authority(#[source] AuthorityError),
}

/// What a node issues with.
pub struct StudioIssuer {
    pub(super) core: Arc<Core>,
    pub(super) authority: IssuingAuthority,
    pub(super) invites: Invites,
    /// Whom a new node may dial beside this one.
    peers: Vec<String>,
    /// How long what it certifies is valid.
    validity: Duration,
    pub(super) joins: Semaphore,
    renewals: Semaphore,
    renewed: Mutex<Renewals>,
    names: Names,
    /// Who is connected; set when there is a network.
    net: OnceLock<Net>,
}

impl std::fmt::Debug for StudioIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StudioIssuer").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl StudioIssuer {
    /// Takes what is issued with; `peers` are those that new nodes may dial too.
    pub fn new(
        core: &Arc<Core>,
        authority: IssuingAuthority,
        invites: &Invites,
        peers: Vec<String>,
        validity: Duration,
    ) -> Self {
        Self {
            core: Arc::clone(core),
            authority,
            invites: invites.clone(),
            peers,
            validity,
            joins: Semaphore::new(MAX_JOINS),
            renewals: Semaphore::new(MAX_RENEWALS),
            renewed: Mutex::new(Renewals::new(validity)),
            names: Names::default(),
            net: OnceLock::new(),
        }
    }

    /// Takes the network, whose peers are known names.
    pub fn set_net(&self, net: &Net) {
        // There is one.
        self.net.set(net.clone()).ok();
    }

    /// Returns from when and until when this node may issue.
    pub fn valid(&self) -> (SystemTime, SystemTime) {
        (self.authority.valid_from(), self.authority.expires_at())
    }

    /// Returns when this node no longer may issue.
    pub fn expires_at(&self) -> SystemTime {
        self.authority.expires_at()
    }

    /// Returns the fingerprint of the studio's authority, as it stands in tokens.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.authority.authority().fingerprint_bytes()
    }

    /// Returns who may join.
    pub fn invites(&self) -> &Invites {
        &self.invites
    }

    /// Says whether a name is that of a node, of one that was revoked, or given by another node that issues: names are given once.
    /// Blocks.
    pub fn is_known(&self, node: &NodeId) -> bool {
        let connected = self.net.get().is_some_and(|net| net.link(node).is_some());
        let mut heads = self.core.feed_projects().flat_map(|project| self.core.ledger.heads(&project));
        *node == self.core.me
            || connected
            || self.core.ledger.admission().is_revoked(node)
            || heads.any(|(owner, _)| owner == *node)
            || self.names.is_given(&self.core.ledger, node)
    }

    /// Says in the studio's feed which names were given here, as far as it does not say so yet, so that others that issue do not
    /// give them too. Blocks.
    pub fn tell_given(&self) {
        let told = self.names.given_by(&self.core.ledger, &self.core.me);
        let at_ms = self.core.now_ms();
        let untold = self.invites.given().into_iter().filter(|node| !told.contains(node));
        let records: Vec<Record> =
            untold.map(|node| Record::Issued(Issued { node, at_ms })).take(MAX_TOLD).collect();
        if records.is_empty() {
            return;
        }
        let done = |result: Result<_, LedgerError>| {
            if let Err(error) = result {
                tracing::warn!(error = %ErrorChain(&error), "the name of a node that joined is not told; it is tried again");
            }
        };
        self.core.ledger.commit(&ProjectName::studio(), records, Vec::new(), at_ms, Box::new(done));
    }

    pub(super) fn offer(&self, invite: &Invite) -> JoinOffer {
        JoinOffer {
            authority: self.authority.authority().der().to_vec(),
            studio: self.core.studio.clone(),
            site: invite.site.clone(),
            node: invite.node.clone(),
            role: invite.role,
        }
    }

    /// Certifies a machine that joins; its invite is used up, durably, when this returns. Blocks.
    pub(super) fn certify(&self, key: &SeedKeyHash, ask: &JoinCertify) -> Result<Joined, Refusal> {
        let invite = self.invites.find(key).ok_or(InviteError::Closed)?;
        let request = CertificateRequest::parse(&ask.request).map_err(Refusal::Request)?;
        let public_key = *request.public_key().as_bytes();
        if let Some(used) = &invite.used {
            // The answer was lost on its way; it is for this key and no other.
            if used.public_key != public_key {
                return Err(InviteError::Closed.into());
            }
            return Ok(self.joined(&invite, used.node.clone(), used.certificate.clone()));
        }
        let name: NodeName = invite.node.clone().unwrap_or_else(|| ask.node.clone());
        let node = NodeId::new(name, invite.site.clone());
        // A name that the invite promises is its own. Whoever chooses one gets none to which a policy gives something.
        let is_reserved =
            || self.invites.is_given(&node) || self.core.ledger.admission().policy().names(&node);
        if self.is_known(&node) || (invite.node.is_none() && is_reserved()) {
            return Err(Refusal::Taken { node });
        }
        let what = IssueRequest { node: node.clone(), role: invite.role, validity: self.validity };
        let certificate = self.invites.use_up(key, &node, public_key, || {
            let issued = self.authority.sign(&request, &what, self.invites.now());
            issued.map(|issued| issued.chain.to_bytes()).map_err(Refusal::Authority)
        })?;
        tracing::info!(%node, role = %invite.role, invite = %invite.id, "a machine joined the studio");
        let fact = AuditFact::daemon(AuditAction::Join).about(node.to_string());
        let fact = fact.detail("role", invite.role.as_str()).detail("invite", invite.id.to_string());
        self.core.audit.note(fact);
        self.tell_given();
        Ok(self.joined(&invite, node, certificate))
    }

    fn joined(&self, invite: &Invite, node: NodeId, certificate: Vec<u8>) -> Joined {
        // Somebody from outside learns of no other machine.
        let peers = if invite.role == Role::Vendor { Vec::new() } else { self.peers.clone() };
        Joined { node, role: invite.role, certificate, projects: invite.projects.clone(), peers }
    }

    /// Certifies another key of a node, with the name and role that it has. Blocks.
    fn renewed(&self, peer: &NodeCertificate, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let request = CertificateRequest::parse(request).map_err(Refusal::Request)?;
        let what = IssueRequest { node: peer.node.clone(), role: peer.role, validity: self.validity };
        let issued = self.authority.sign(&request, &what, self.core.clock.now());
        let issued = issued.map_err(Refusal::Authority)?;
        tracing::info!(node = %peer.node, role = %peer.role, "the certificate of a node was renewed");
        let fact = AuditFact::daemon(AuditAction::Certificate).about(peer.node.to_string());
        self.core.audit.note(fact.detail("role", peer.role.as_str()));
        Ok(issued.chain.to_bytes())
    }

    /// Counts a renewal of a peer, or answers when it is to ask again. What is refused is summed up in the audit.
    fn take_turn(&self, peer: &NodeId) -> Result<(), RenewLater> {
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.take(peer, self.core.clock.monotonic()).map_err(|wait| {
            let sum = Sum {
                actor: AuditActor::Peer { node: peer.to_string() },
                action: AuditAction::Certificate,
                outcome: AuditOutcome::Denied,
                project: None,
                about: None,
            };
            self.core.audit.add(sum, 0);
            let wait_s = wait.as_millis().div_ceil(1000);
            RenewLater { wait_s: u32::try_from(wait_s).unwrap_or(u32::MAX) }
        })
    }

    /// Certifies another key of this node itself. Blocks.
    ///
    /// # Errors
    /// As text.
    pub(super) fn renew_own(&self, own: &NodeCertificate, request: &[u8]) -> Result<Vec<u8>, String> {
        self.renewed(own, request).map_err(|error| ErrorChain(&error).to_string())
    }
}

/// A node that issues, as the network sees it.
#[derive(Debug, Clone)]
pub struct Served(pub Arc<StudioIssuer>);

impl Issuer for Served {
    fn admit(&self, connection: quinn::Connection, key: SeedKeyHash) -> BoxFuture<'_, ()> {
        Box::pin(server::serve(Arc::clone(&self.0), connection, key))
    }

    fn renew<'a>(&'a self, peer: &'a NodeCertificate, request: &'a [u8]) -> BoxFuture<'a, RenewAnswer> {
        Box::pin(async move {
            let refused =
                |refused: String| RenewAnswer::Reply(RenewReply { certificate: Vec::new(), refused });
            // Whoever was revoked after its handshake keeps no way to stay.
            if self.0.core.revocations.now().has_node(&peer.node) {
                return refused("this node was revoked".into());
            }
            if peer.role == Role::Admin {
                return refused(
                    "only the studio CA itself gives the role admin: renew with avalonctl ca issue --role admin".into(),
                );
            }
            if let Err(later) = self.0.take_turn(&peer.node) {
                return RenewAnswer::Later(later);
            }
            let Ok(_turn) = self.0.renewals.acquire().await else { return refused("stopping".into()) };
            let (issuer, peer, request) = (Arc::clone(&self.0), peer.clone(), request.to_vec());
            match blocking(move || issuer.renewed(&peer, &request)).await {
                Ok(certificate) => RenewAnswer::Reply(RenewReply { certificate, refused: String::new() }),
                Err(error) => {
                    tracing::warn!(error = %ErrorChain(&error), "a certificate was not renewed");
                    refused(error.to_string())
                }
            }
        })
    }
}
