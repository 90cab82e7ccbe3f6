//! [`Joining`]: what a daemon starts of all this: what it issues with if it may, its invites, and the care for its own
//! certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use avalon_certs::{Admission, Identity, IssuingAuthority, join::OpenInvites};
use avalon_store::fs::Dir;

use super::{Invites, Served, StudioIssuer, renew::Renewal};
use crate::{
    certificate::{self, CertificateEnd},
    config::Config,
    core::{Core, blocking},
    net::{Issuer, Net},
    tasks::Tasks,
};

/// How others join by this node, and how its own certificate stays valid.
#[derive(Debug, Clone)]
pub struct Joining {
    /// What this node issues with, if it may.
    pub issuer: Option<Arc<StudioIssuer>>,
    /// Who may join.
    pub invites: Invites,
    identity_dir: PathBuf,
}

impl Joining {
    /// Opens what lies in the identity directory, and the invites in the state directory.
    ///
    /// # Errors
    /// An issuing key that is there and cannot be used: somebody meant this node to issue.
    pub async fn open(
        core: &Arc<Core>,
        state: &Dir,
        identity_dir: &Path,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let (peers, validity) = (config.peers.clone(), config.certificate_validity);
        let (core, state, identity_dir) = (Arc::clone(core), state.clone(), identity_dir.to_owned());
        blocking(move || {
            let invites = Invites::open(&state, Arc::clone(&core.clock), &core.health);
            let authority = IssuingAuthority::open(&identity_dir)
                .context("the issuing key of this node cannot be used; delegate again with `avalonctl ca delegate`")?;
            let (own, other) = match authority {
                Some(authority) if *authority.node() == core.me => (Some(authority), None),
                other => (None, other),
            };
            if let Some(other) = other {
                tracing::warn!(node = %other.node(), "the issuing certificate is of another node and is not used");
            }
            let issuer = own
                .map(|authority| Arc::new(StudioIssuer::new(&core, authority, &invites, peers, validity)));
            Ok(Self { issuer, invites, identity_dir })
        })
        .await
    }

    /// Returns whom the network lets past the handshake.
    pub fn admission(&self, core: &Core) -> Admission {
        let invites = self.issuer.as_ref().map(|_| Arc::new(self.invites.clone()) as Arc<dyn OpenInvites>);
        Admission { revocations: core.revocations.clone(), invites }
    }

    /// Returns what the network asks to issue.
    pub fn served(&self) -> Option<Arc<dyn Issuer>> {
        self.issuer.clone().map(|issuer| Arc::new(Served(issuer)) as Arc<dyn Issuer>)
    }

    /// Starts what watches this node's certificate and renews it in time.
    pub fn care(
        &self,
        core: &Arc<Core>,
        net: &Net,
        identity: &Arc<Identity>,
        tasks: &Tasks,
    ) -> CertificateEnd {
        if let Some(issuer) = &self.issuer {
            issuer.set_net(net);
            let (from, to) = issuer.valid();
            certificate::watch_issuing(core, from, to, tasks);
            // What a crash or a feed that was held kept from being told.
            let issuer = Arc::clone(issuer);
            tasks.spawn("names that were given", blocking(move || issuer.tell_given()));
        }
        let end = CertificateEnd::new(identity.valid_from(), identity.expires_at());
        certificate::watch(core, &end, tasks);
        let renewal = Renewal {
            core: Arc::clone(core),
            net: net.clone(),
            dir: self.identity_dir.clone(),
            identity: Arc::clone(identity),
            end: end.clone(),
            issuer: self.issuer.clone(),
        };
        renewal.start(tasks);
        end
    }
}
