//! The studio's policy at this node: read from the studio's feeds, seen by whoever goes by it, and changed by appending to
//! this node's own feed.
//!
//! The feeds are the truth. What is held here is folded from them at the start and again whenever one of them advances, so
//! it outlives the catalog. Nothing here decides about versions; who does subscribes to [`StudioPolicy::watch`].

mod apply;
mod document;
mod read;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avalon_protocol::{
    control::{EventKind, Health, Severity},
    policy::Policy,
    studio::{PolicyFold, Stands},
};
use avalon_store::ledger::{Ledger, LedgerEvent};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use self::read::{Reading, Tidings};
pub use self::{
    apply::{Apply, ApplyError},
    document::understand,
    read::read_document,
};
use crate::{
    core::{Core, blocking},
    health::HealthBoard,
    log::ErrorChain,
};

/// What is known of the studio's policy at one moment.
#[derive(Debug, Clone, Default)]
pub struct PolicyView {
    /// All that was applied, and what stands.
    pub fold: Arc<PolicyFold>,
    /// What this node goes by; nothing before the first policy that it can read.
    pub in_effect: Option<Arc<Policy>>,
    /// Why the policy that stands is not in effect here, if it is not.
    pub problem: Option<String>,
}

/// The studio's policy. Holds no task; [`follow`] keeps it up to date.
#[derive(Debug, Default)]
pub struct StudioPolicy {
    reading: Mutex<Reading>,
    view: watch::Sender<PolicyView>,
    /// One is applied at a time, so that each gets a serial of its own.
    applying: Mutex<()>,
}

/// The health code of a policy that this node cannot read.
const NOT_UNDERSTOOD: &str = "policy-not-understood";
/// The health code of two policies with one serial.
const APPLIED_TWICE: &str = "policy-applied-twice";
/// The health code of a studio feed that cannot be read back.
const UNREADABLE: &str = "policy-unreadable";
/// The health code of records that state nothing in the studio's feed.
const IGNORED: &str = "studio-records-ignored";

impl StudioPolicy {
    /// Reads the studio's feeds for the first time. Blocks.
    pub fn open(ledger: &Ledger, health: &HealthBoard) -> Self {
        let policy = Self::default();
        // What was applied before this start is no news.
        drop(policy.refresh(ledger, health));
        policy
    }

    /// Returns what is known now.
    pub fn view(&self) -> PolicyView {
        self.view.borrow().clone()
    }

    /// Returns what is known, and tells of each change.
    pub fn watch(&self) -> watch::Receiver<PolicyView> {
        self.view.subscribe()
    }

    /// Reads what the studio's feeds have beyond what was read, and shows what it adds up to. Blocks.
    ///
    /// Returns what was applied since the last time.
    pub fn refresh(&self, ledger: &Ledger, health: &HealthBoard) -> Vec<Stands> {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Tidings { applied, failed, ignored } = reading.go_on(ledger);
        match failed {
            None => health.clear(UNREADABLE),
            Some(error) => {
                tracing::error!(error = %ErrorChain(&error), "a feed of the studio cannot be read");
                health.raise(Health {
                    code: UNREADABLE.into(),
                    severity: Severity::Error,
                    message: format!(
                        "a feed of the studio cannot be read, so a newer policy may be missed: {}",
                        ErrorChain(&error)
                    ),
                    hint: Some("check the disk of the state directory and restart".into()),
                });
            }
        }
        for (node, records) in ignored {
            health.about(&node.to_string()).raise(Health {
                code: IGNORED.into(),
                severity: Severity::Warning,
                message: format!("{records} records of {node} in the studio's feed state nothing there"),
                hint: Some(format!("they are kept and have no effect; check avalond at {node}")),
            });
        }
        if !applied.is_empty() {
            self.show(reading, health);
        }
        applied
    }

    /// Publishes the fold; under the lock of the reading, so that views come in its order.
    fn show(&self, reading: MutexGuard<'_, Reading>, health: &HealthBoard) {
        let fold = Arc::new(reading.fold().clone());
        let before = self.view();
        let id = |fold: &PolicyFold| fold.in_effect().map(|stands| stands.id);
        let in_effect = match id(&fold) == id(&before.fold) {
            true => before.in_effect,
            false => fold.in_effect().and_then(|stands| understand(&stands.document).ok()).map(Arc::new),
        };
        let problem = fold.standing().and_then(|stands| understand(&stands.document).err());
        tell(health, &fold, problem.as_deref());
        self.view.send_replace(PolicyView { fold, in_effect, problem });
        drop(reading);
    }
}

/// Says what somebody has to look at.
fn tell(health: &HealthBoard, fold: &PolicyFold, problem: Option<&str>) {
    match (problem, fold.standing()) {
        (Some(problem), Some(standing)) => {
            let instead = match fold.in_effect() {
                Some(stands) => format!("policy {} stays in effect here", stands.id.serial),
                None => "no policy is in effect here".to_owned(),
            };
            health.raise(Health {
                code: NOT_UNDERSTOOD.into(),
                severity: Severity::Error,
                message: format!(
                    "policy {}, applied by {} at {}, is not understood here, {instead}: {problem}",
                    standing.id.serial, standing.entry.author, standing.entry.place.0
                ),
                hint: Some("upgrade avalond here, or apply one that it understands".into()),
            });
        }
        _ => health.clear(NOT_UNDERSTOOD),
    }
    match (fold.rivals().next_back(), fold.standing()) {
        (Some((_, rival)), Some(standing)) => health.raise(Health {
            code: APPLIED_TWICE.into(),
            severity: Severity::Warning,
            message: format!(
                "policy {} was applied twice at the same time; that of {} at {} stands, that of {} at {} does not",
                standing.id.serial,
                standing.entry.author,
                standing.entry.place.0,
                rival.author,
                rival.place.0
            ),
            hint: Some("compare them, avalonctl policy history, and apply what is meant".into()),
        }),
        _ => health.clear(APPLIED_TWICE),
    }
}

impl Core {
    /// Brings the policy up to date and tells what was applied. Blocks.
    pub fn refresh_policy(&self) {
        for stands in self.policy.refresh(&self.ledger, &self.health) {
            let Stands { id, entry, .. } = stands;
            let node = entry.place.0;
            tracing::info!(serial = id.serial, author = entry.author, peer = %node, "policy applied");
            self.events.emit(EventKind::PolicyApplied {
                serial: id.serial,
                hash: id.hash.to_string(),
                author: entry.author,
                comment: entry.comment,
                node: node.to_string(),
            });
        }
    }
}

/// Keeps the policy up to date with the studio's feeds, until the daemon stops.
pub async fn follow(
    core: Arc<Core>,
    mut ledger_events: broadcast::Receiver<LedgerEvent>,
    stop: CancellationToken,
) {
    loop {
        // First of all once: a record may have come before anybody listened.
        let there = Arc::clone(&core);
        blocking(move || there.refresh_policy()).await;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = ledger_events.recv() => event,
            };
            match event {
                Ok(LedgerEvent::Advanced { feed, .. }) if feed.project.is_studio() => break,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => break,
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}
