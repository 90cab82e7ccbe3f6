//! [`Invites`]: who may join by this node, in `invites.json` in the state directory.
//!
//! Of an invite's secret only the hash of a public key that follows from it is kept, so who reads the file cannot join.
//! A change is on disk before it holds: an invite that was used stays used, whatever happens to the machine.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use avalon_certs::join::{OpenInvites, SeedKeyHash};
use avalon_protocol::{
    access::{InviteId, Role},
    control::{Health, InviteItem, InviteState, Severity},
    id::{NodeId, NodeName, ProjectName, SiteName},
};
use avalon_store::fs::Dir;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    clock::{Clock, time_of_ms},
    health::HealthBoard,
    log::ErrorChain,
    state_file::{StateFile, StateFileError},
};

const NAME: &str = "invites.json";
const SCHEMA: &str = "avalond.invites/1";
const UNREADABLE: &str = "invites-unreadable";

/// Invites that can be used at one time: more than a studio hires in a week.
const MAX_OPEN: usize = 64;
/// How long those that cannot be used any more are shown.
const SHOWN_S: u64 = 7 * 24 * 3600;
/// How long whoever joined may ask for the answer again, in case it was lost on the way.
const AGAIN_S: u64 = 600;

/// An invite that is to be made.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// Its name.
    pub id: InviteId,
    /// What is kept of its secret.
    pub key: SeedKeyHash,
    /// The site.
    pub site: SiteName,
    /// The role.
    pub role: Role,
    /// The node's name.
    pub node: Option<NodeName>,
    /// The projects of the first configuration.
    pub projects: Vec<ProjectName>,
    /// When it ends, in seconds since 1970.
    pub expires_at_s: u64,
}

/// Why an invite was not made, used or revoked.
#[derive(Debug, Error)]
pub enum InviteError {
    /// Too many are open.
    #[error("{MAX_OPEN} invites are open; revoke one")]
    TooMany,
    /// None has that id.
    #[error("there is no open invite {id}")]
    Unknown {
        /// The id.
        id: InviteId,
    },
    /// It cannot be used, or not any more.
    #[error("the invite was used, revoked, or has expired; ask for a new one")]
    Closed,
    /// The file cannot be read or written.
    #[error("the invites cannot be kept")]
    File(#[source] StateFileError),
}

/// An invite as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Invite {
    pub(super) id: InviteId,
    #[serde(with = "hex::serde")]
    key: [u8; 32],
    pub(super) site: SiteName,
    pub(super) role: Role,
    pub(super) node: Option<NodeName>,
    pub(super) projects: Vec<ProjectName>,
    made_at_s: u64,
    expires_at_s: u64,
    #[serde(default)]
    revoked: bool,
    #[serde(default)]
    pub(super) used: Option<Used>,
}

/// Who joined by an invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Used {
    pub(super) node: NodeId,
    at_s: u64,
    /// The public key that was certified: its owner may ask again.
    #[serde(with = "hex::serde")]
    pub(super) public_key: [u8; 32],
    /// The answer, as it stands in feeds.
    #[serde(with = "hex::serde")]
    pub(super) certificate: Vec<u8>,
}

impl Invite {
    fn state(&self, now_s: u64) -> InviteState {
        match self {
            Self { used: Some(_), .. } => InviteState::Used,
            Self { revoked: true, .. } => InviteState::Revoked,
            Self { expires_at_s, .. } if now_s >= *expires_at_s => InviteState::Expired,
            _ => InviteState::Open,
        }
    }

    /// Says whether its holder may come in: to join, or to hear again how it went.
    fn admits(&self, now_s: u64) -> bool {
        let again = |used: &Used| now_s < used.at_s.saturating_add(AGAIN_S) && !self.revoked;
        self.state(now_s) == InviteState::Open || self.used.as_ref().is_some_and(again)
    }

    fn item(&self, now_s: u64) -> InviteItem {
        let seconds = |s: u64| time_of_ms(s.saturating_mul(1000));
        let joined = self.used.as_ref().map(|used| used.node.node.to_string());
        InviteItem {
            id: self.id.to_string(),
            site: self.site.to_string(),
            role: self.role,
            node: joined.or_else(|| self.node.as_ref().map(ToString::to_string)),
            projects: self.projects.iter().map(ToString::to_string).collect(),
            state: self.state(now_s),
            made: seconds(self.made_at_s),
            expires: seconds(self.expires_at_s),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    invites: Vec<Invite>,
    /// Every name that this node ever gave: none is given twice.
    given: BTreeSet<NodeId>,
}

/// The invites of this node. Clones are the same. Changes block.
#[derive(Debug, Clone)]
pub struct Invites {
    file: StateFile,
    clock: Arc<dyn Clock>,
    kept: Arc<Mutex<Kept>>,
}

impl Invites {
    /// Reads what is kept. When it cannot be read, no invite is open and somebody hears of it; the file stays until the next
    /// invite is made.
    pub fn open(dir: &Dir, clock: Arc<dyn Clock>, health: &HealthBoard) -> Self {
        let file = StateFile::new(dir, NAME, SCHEMA);
        let kept = file.read::<Kept>().unwrap_or_else(|error| {
            health.raise(Health {
                code: UNREADABLE.into(),
                severity: Severity::Warning,
                message: format!("the invites cannot be read and none is open: {}", ErrorChain(&error)),
                hint: Some("make new ones with avalonctl invite; the damaged file is replaced then".into()),
            });
            None
        });
        Self { file, clock, kept: Arc::new(Mutex::new(kept.unwrap_or_default())) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A change is made on a copy and taken when it is on disk.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_s(&self) -> u64 {
        self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// Returns the time of day.
    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Keeps a new invite, and returns how it is shown.
    ///
    /// # Errors
    /// [`InviteError::TooMany`] and [`InviteError::File`].
    pub fn add(&self, new: NewInvite) -> Result<InviteItem, InviteError> {
        let now_s = self.now_s();
        let mut kept = self.kept();
        let open = kept.invites.iter().filter(|invite| invite.state(now_s) == InviteState::Open).count();
        if open >= MAX_OPEN {
            return Err(InviteError::TooMany);
        }
        let invite = Invite {
            id: new.id,
            key: *new.key.as_bytes(),
            site: new.site,
            role: new.role,
            node: new.node,
            projects: new.projects,
            made_at_s: now_s,
            expires_at_s: new.expires_at_s,
            revoked: false,
            used: None,
        };
        let item = invite.item(now_s);
        let mut changed = kept.clone();
        changed.invites.retain(|invite| now_s < invite.expires_at_s.saturating_add(SHOWN_S));
        changed.invites.push(invite);
        self.keep(&mut kept, changed)?;
        Ok(item)
    }

    /// Lists the invites, the newest first.
    pub fn list(&self) -> Vec<InviteItem> {
        let now_s = self.now_s();
        self.kept().invites.iter().rev().map(|invite| invite.item(now_s)).collect()
    }

    /// Takes an open invite back.
    ///
    /// # Errors
    /// [`InviteError::Unknown`] and [`InviteError::File`].
    pub fn revoke(&self, id: InviteId) -> Result<InviteItem, InviteError> {
        let now_s = self.now_s();
        let mut kept = self.kept();
        let mut changed = kept.clone();
        let found = changed.invites.iter_mut().find(|invite| invite.id == id);
        let invite = found
            .filter(|invite| invite.state(now_s) == InviteState::Open)
            .ok_or(InviteError::Unknown { id })?;
        invite.revoked = true;
        let item = invite.item(now_s);
        self.keep(&mut kept, changed)?;
        Ok(item)
    }

    /// Returns the invite of a key, to be offered.
    pub(super) fn find(&self, key: &SeedKeyHash) -> Option<Invite> {
        let now_s = self.now_s();
        self.kept().invites.iter().find(|it| it.key == *key.as_bytes() && it.admits(now_s)).cloned()
    }

    /// Says whether a node of that name was let in here, or is promised to be by an open invite.
    pub fn is_given(&self, node: &NodeId) -> bool {
        let now_s = self.now_s();
        let kept = self.kept();
        let promised = |invite: &Invite| {
            invite.state(now_s) == InviteState::Open
                && invite.node.as_ref() == Some(&node.node)
                && invite.site == node.site
        };
        kept.given.contains(node) || kept.invites.iter().any(promised)
    }

    /// Returns every name that was given here.
    pub(super) fn given(&self) -> BTreeSet<NodeId> {
        self.kept().given.clone()
    }

    /// Uses an open invite: `certify` makes the certificate, and both are on disk when this returns. At most one call
    /// succeeds for an invite, whoever calls at the same time.
    ///
    /// # Errors
    /// [`InviteError::Closed`], what `certify` says, and [`InviteError::File`], after which it is still open.
    pub(super) fn use_up<E: From<InviteError>>(
        &self,
        key: &SeedKeyHash,
        node: &NodeId,
        public_key: [u8; 32],
        certify: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let at_s = self.now_s();
        let mut kept = self.kept();
        let mut changed = kept.clone();
        let found = changed.invites.iter_mut().find(|invite| invite.key == *key.as_bytes());
        let invite =
            found.filter(|invite| invite.state(at_s) == InviteState::Open).ok_or(InviteError::Closed)?;
        if kept.given.contains(node) {
            return Err(InviteError::Closed.into());
        }
        let certificate = certify()?;
        invite.used = Some(Used { node: node.clone(), at_s, public_key, certificate: certificate.clone() });
        changed.given.insert(node.clone());
        self.keep(&mut kept, changed)?;
        Ok(certificate)
    }

    fn keep(&self, kept: &mut Kept, changed: Kept) -> Result<(), InviteError> {
        self.file.write(&changed).map_err(InviteError::File)?;
        *kept = changed;
        Ok(())
    }
}

impl OpenInvites for Invites {
    fn is_open(&self, key: &SeedKeyHash) -> bool {
        self.find(key).is_some()
    }
}
