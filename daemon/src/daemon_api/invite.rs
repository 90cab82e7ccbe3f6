//! `invite`: who may join by this node.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
};

use avalon_certs::join::SeedKeyHash;
use avalon_protocol::{
    access::{InviteId, JoinToken, Role, Seed, token::is_address},
    control::{ApiError, ErrorCode, InviteItem, InviteReply, InviteRequest, InvitesReply},
    id::{InvalidId, NodeId, NodeName, ProjectName, SiteName},
};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::DaemonApi;
use crate::{
    core::blocking,
    join::{InviteError, NewInvite, StudioIssuer},
    log::ErrorChain,
};

/// How long an invite may hold: a message gets read within a week, and a token that lies around longer is a hole.
const MAX_TTL_S: u64 = 7 * 24 * 3600;
/// The shortest that anybody can use.
const MIN_TTL_S: u64 = 60;

impl DaemonApi {
    pub(super) fn invites_reply(&self) -> InvitesReply {
        list(self.joining.invites.list())
    }

    pub(super) async fn invite_revoked(&self, id: String) -> Result<InvitesReply, ApiError> {
        let id: InviteId =
            id.parse().map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("{error}")))?;
        let invites = self.joining.invites.clone();
        let revoked = blocking(move || invites.revoke(id)).await;
        revoked.map(|item| list(vec![item])).map_err(|error| refused(&error))
    }

    pub(super) async fn invite_made(&self, request: InviteRequest) -> Result<InviteReply, ApiError> {
        let issuer = self.joining.issuer.clone().ok_or_else(|| {
            ApiError::new(ErrorCode::Denied, format!("{} may not issue for the studio", self.core.me)).with_hint(
                format!(
                    "where the studio CA is: avalonctl ca delegate --dir CA_DIR --node {} --out STATE_DIR/identity; then \
                     restart avalond, or ask a node that issues",
                    self.core.me
                ),
            )
        })?;
        let asked = Asked::check(&request, self)?;
        if let Some(node) = &asked.node {
            let id = NodeId::new(node.clone(), asked.site.clone());
            let (issuer, node) = (Arc::clone(&issuer), id.clone());
            if blocking(move || issuer.is_known(&node) || issuer.is_promised(&node)).await {
                let message = format!("there is a node {id} already, or an invite for one");
                return Err(ApiError::new(ErrorCode::BadRequest, message)
                    .with_hint("a name is given once; choose another"));
            }
        }
        let (seed, id) = random()?;
        let key = SeedKeyHash::of(&seed)
            .map_err(|error| ApiError::new(ErrorCode::Internal, ErrorChain(&error).to_string()))?;
        let expires_at_s = (self.core.now_ms() / 1000).saturating_add(request.ttl_seconds);
        let token = JoinToken {
            fingerprint: issuer.fingerprint(),
            addresses: asked.addresses.clone(),
            seed,
            expires_at_s,
            invite: id,
        };
        let token =
            token.encode().map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
        let Asked { site, node, projects, addresses } = asked;
        let new = NewInvite { id, key, site, role: request.role, node, projects, expires_at_s };
        let invites = self.joining.invites.clone();
        let item = blocking(move || invites.add(new)).await.map_err(|error| refused(&error))?;
        tracing::info!(invite = %item.id, site = %item.site, role = %item.role, "invite made");
        Ok(InviteReply { schema: "avalonctl.invite/1".into(), token, addresses, invite: item })
    }

    /// Returns where this node is reached, as far as it knows itself.
    fn own_addresses(&self) -> Vec<String> {
        let local = self.net.local_addr();
        if !local.ip().is_unspecified() {
            return vec![local.to_string()];
        }
        let own = outward_address().map(|ip| SocketAddr::new(ip, local.port()).to_string());
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = format!("{name}:{}", local.port());
        own.into_iter().chain(is_address(&name).then_some(name)).collect()
    }
}

/// A request whose words are names.
struct Asked {
    site: SiteName,
    node: Option<NodeName>,
    projects: Vec<ProjectName>,
    addresses: Vec<String>,
}

impl Asked {
    fn check(request: &InviteRequest, api: &DaemonApi) -> Result<Self, ApiError> {
        let bad = |message: String| ApiError::new(ErrorCode::BadRequest, message);
        let id = |error: InvalidId| bad(error.to_string());
        if request.role == Role::Admin {
            return Err(bad("nobody joins as admin by an invite".into()).with_hint(
                "the studio CA makes admins: avalonctl ca issue --role admin, or ca sign --role admin",
            ));
        }
        if !(MIN_TTL_S..=MAX_TTL_S).contains(&request.ttl_seconds) {
            return Err(bad("an invite holds for one minute to seven days".into()));
        }
        let site = request.site.parse().map_err(id)?;
        let node = request.node.as_deref().map(str::parse).transpose().map_err(id)?;
        let named = request.projects.iter().map(|name| name.parse()).collect::<Result<Vec<ProjectName>, _>>();
        let mut projects = named.map_err(id)?;
        if let Some(strange) = projects.iter().find(|name| api.core.project(name).is_none()) {
            return Err(bad(format!("this node does not serve project {strange}")));
        }
        if projects.is_empty() && request.role != Role::Vendor {
            projects = api.core.projects.keys().cloned().collect();
        }
        let addresses =
            if request.addresses.is_empty() { api.own_addresses() } else { request.addresses.clone() };
        if let Some(odd) = addresses.iter().find(|address| !is_address(address)) {
            return Err(bad(format!("{odd:?} is not host:port, such as lon.example.net:4700")));
        }
        if addresses.is_empty() {
            return Err(bad("this node does not know where it is reached".into())
                .with_hint("say it: --address lon.example.net:4700"));
        }
        Ok(Self { site, node, projects, addresses })
    }
}

impl StudioIssuer {
    /// Says whether an open invite promises a name, or it was given here.
    fn is_promised(&self, node: &NodeId) -> bool {
        self.invites().is_given(node)
    }
}

/// Returns the address from which this machine reaches others. Nothing is sent: connecting a UDP socket only asks for the
/// route.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // An address for documentation (RFC 5737).
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

fn random() -> Result<(Seed, InviteId), ApiError> {
    let (mut seed, mut id) = ([0; 32], [0; 5]);
    let random = SystemRandom::new();
    let filled = random.fill(&mut seed).and_then(|()| random.fill(&mut id));
    filled.map_err(|_| ApiError::new(ErrorCode::Internal, "the system's random number generator failed"))?;
    Ok((Seed::from_bytes(seed), InviteId::from_bytes(id)))
}

fn list(invites: Vec<InviteItem>) -> InvitesReply {
    InvitesReply { schema: "avalonctl.invites/1".into(), invites }
}

fn refused(error: &InviteError) -> ApiError {
    let code = match error {
        InviteError::TooMany | InviteError::Closed => ErrorCode::BadRequest,
        InviteError::Unknown { .. } => ErrorCode::NotFound,
        InviteError::File(error) if error.is_no_space() => ErrorCode::DiskFull,
        InviteError::File(_) => ErrorCode::Internal,
    };
    ApiError::new(code, ErrorChain(error).to_string()).with_hint("list them: avalonctl invites")
}
