//! Who may do what, as this node knows it: what peers may have from it, and what it may do itself.
//!
//! One admission decides all of it. Peers are asked for at each request and never remembered, so that a right that is taken is gone at
//! the next one; whoever was told of a project or is being sent something hears of the change here.

use std::{fmt, sync::Arc, time::Duration};

use avalon_protocol::{
    access::{Action, Admission, Rights, Role},
    control::{ApiError, ErrorCode},
    id::{NodeId, ProjectName},
    wire::PolicyExtract,
};
use avalon_store::ledger::LedgerEvent;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Core, blocking},
    net::Permissions,
};

/// The longest wait for the end of a grant: the wall clock may be set.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(10);

impl Core {
    /// Returns by what everybody's rights are judged.
    pub fn admission(&self) -> Arc<Admission> {
        self.ledger.admission()
    }

    /// Says whether this node may do something in a project, as far as it knows.
    pub fn may(&self, project: &ProjectName, action: Action) -> bool {
        self.admission().rights(&self.me, self.role, project, self.now_ms()).allows(action)
    }

    /// Refuses what this node has no right to.
    ///
    /// # Errors
    /// [`NotGranted`], which says whom to ask, or that this node's knowledge is too old to say anything new.
    pub fn check_may(&self, project: &ProjectName, action: Action) -> Result<(), NotGranted> {
        let refused = |is_too_old| NotGranted {
            node: self.me.clone(),
            role: self.role,
            project: project.clone(),
            action,
            is_too_old,
        };
        match self.may(project, action) {
            true if !matches!(action, Action::See | Action::Pull) && self.knowledge.is_too_old() => {
                Err(refused(true))
            }
            true => Ok(()),
            false => Err(refused(false)),
        }
    }
}

/// This node may not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct NotGranted {
    node: NodeId,
    role: Role,
    project: ProjectName,
    action: Action,
    /// It may, as far as it knows; and what it knows is too old.
    is_too_old: bool,
}

impl NotGranted {
    fn text(&self) -> String {
        let Self { node, role, project, action, is_too_old } = self;
        match is_too_old {
            true => format!(
                "this node, {node}, has not heard for too long whom the studio trusts, so it cannot {action} in project {project}"
            ),
            false => {
                format!(
                    "this node, {node}, has no grant to {action} in project {project}; its role is {role}"
                )
            }
        }
    }

    /// Says whether it passes by itself, when this node hears from others again.
    pub fn passes(&self) -> bool {
        self.is_too_old
    }

    /// Returns the error's code for the local API.
    pub fn code(&self) -> ErrorCode {
        if self.is_too_old { ErrorCode::RightsTooOld } else { ErrorCode::NotGranted }
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> String {
        let Self { node, action, project, .. } = self;
        if self.is_too_old {
            return "connect this node with an admin's or a site's node; it goes on by itself then"
                .to_owned();
        }
        format!("ask an admin of the studio for a grant of {action} in {project} to {node}")
    }
}

impl From<NotGranted> for ApiError {
    fn from(refused: NotGranted) -> Self {
        Self::new(refused.code(), refused.to_string()).with_hint(refused.hint())
    }
}

/// The rights of peers, as the network asks for them.
pub struct PeerRights {
    core: Arc<Core>,
    changed: watch::Sender<()>,
    told: watch::Sender<Option<(PolicyExtract, NodeId)>>,
}

impl PeerRights {
    /// Nothing tells of changes before [`PeerRights::follow`] runs.
    pub fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            changed: watch::Sender::new(()),
            told: watch::Sender::new(None),
        })
    }

    /// Tells of each change, until the daemon stops: whatever is said in the studio's feeds may be one, and time may end a grant.
    pub async fn follow(
        self: Arc<Self>,
        mut ledger_events: broadcast::Receiver<LedgerEvent>,
        stop: CancellationToken,
    ) {
        let mut told = self.told.subscribe();
        // What is told of the policy is written from this view, which follows the ledger's.
        let mut policy = self.core.policy.watch();
        let mut too_old = self.core.knowledge.changed();
        loop {
            let until = self.next_end();
            let is_news = tokio::select! {
                () = stop.cancelled() => return,
                event = ledger_events.recv() => match event {
                    Ok(LedgerEvent::Rights) => true,
                    Ok(LedgerEvent::Advanced { feed, .. }) => feed.project.is_studio(),
                    Ok(_) => false,
                    Err(broadcast::error::RecvError::Lagged(_)) => true,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Ok(()) = policy.changed() => true,
                Ok(()) = too_old.changed() => true,
                Ok(()) = told.changed() => {
                    let (core, heard) = (Arc::clone(&self.core), told.borrow_and_update().clone());
                    blocking(move || heard.is_some_and(|(extract, by)| core.take_extract(extract, &by))).await
                }
                () = self.core.clock.sleep(until.unwrap_or_default().min(LOOK_AT_CLOCK)), if until.is_some() => true,
            };
            if is_news {
                self.changed.send_replace(());
            }
        }
    }

    /// Returns how long the grants stay as they are; nothing when time does not end any.
    fn next_end(&self) -> Option<Duration> {
        let now_ms = self.core.now_ms();
        let end_ms = self.core.admission().policy().next_end_ms(now_ms)?;
        Some(Duration::from_millis(end_ms.saturating_sub(now_ms)))
    }
}

impl Permissions for PeerRights {
    fn rights(&self, node: &NodeId, role: Role, project: &ProjectName) -> Rights {
        let rights = self.core.admission().rights(node, role, project, self.core.now_ms());
        // What says who is trusted goes on: it is what this node waits for.
        match !project.is_studio() && self.core.knowledge.keeps_content() {
            true => rights.and(Rights::of([Action::See])),
            false => rights,
        }
    }

    fn extract(&self, node: &NodeId, role: Role) -> Option<PolicyExtract> {
        let view = self.core.policy.view();
        let serial = view.fold.in_effect()?.id.serial;
        // What this node was only told itself is not all of it.
        let tells = matches!(self.core.role, Role::Admin | Role::Site) && serial == self.core.policy.serial();
        let document = view.in_effect.filter(|_| tells)?.extract(node, role, self.core.now_ms())?;
        Some(PolicyExtract { serial, document })
    }

    fn told(&self, extract: PolicyExtract, by: &NodeId, role: Role) {
        // Nobody signed it, so as few as possible are believed: an admin's node has the studio's feeds, a vendor's may know no admin.
        let is_believed = match self.core.role {
            Role::Admin => false,
            Role::Vendor => matches!(role, Role::Admin | Role::Site),
            Role::Site | Role::Workstation | Role::Farm => role == Role::Admin,
        };
        if is_believed {
            self.told.send_replace(Some((extract, by.clone())));
        } else {
            tracing::debug!(peer = %by, %role, "what a peer says of the policy is passed over");
        }
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl fmt::Debug for PeerRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerRights").finish_non_exhaustive()
    }
}
