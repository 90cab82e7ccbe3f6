//! The studio's policy at this node: read from the studio's feeds, seen by whoever goes by it, and changed by appending to
//! this node's own feed.
//!
//! The feeds are the truth. What is held here is folded from them at the start and again whenever one of them advances, so
//! it outlives the catalog. Nothing here decides about versions; who does subscribes to [`StudioPolicy::watch`].

mod apply;
mod checks;
mod diff;
mod document;
mod extract;
mod health;
mod line;
mod read;
mod ruling;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use avalon_protocol::{
    control::EventKind,
    policy::Policy,
    studio::{PolicyFold, Stands},
};
use avalon_store::ledger::{Ledger, LedgerEvent};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use self::{
    apply::{Apply, ApplyError},
    diff::{DiffError, Greeted, PolicyDiff},
    document::understand,
    extract::KeptExtract,
    line::Line,
    read::read_document,
    ruling::{Ranks, Verdict},
};
use self::{
    extract::Held,
    read::{Reading, Tidings},
};
use crate::{
    core::{Core, blocking},
    health::HealthBoard,
    state_file::StateFile,
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
    /// What others told of the policy, where its feeds do not come.
    extract: Mutex<Option<Held>>,
    extract_file: OnceLock<StateFile>,
}

impl StudioPolicy {
    /// Reads the studio's feeds for the first time. Blocks.
    pub fn open(ledger: &Ledger, board: &HealthBoard) -> Self {
        let policy = Self::default();
        // What happened before this start is no news.
        drop(policy.read_on(ledger, board));
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
    pub fn refresh(&self, ledger: &Ledger, board: &HealthBoard) -> Vec<Stands> {
        let Tidings { applied, ignored, .. } = self.read_on(ledger, board);
        ignored.iter().for_each(|(node, records)| health::tell_ignored(board, node, *records));
        applied
    }

    fn read_on(&self, ledger: &Ledger, board: &HealthBoard) -> Tidings {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let tidings = reading.go_on(ledger);
        health::tell_unreadable(board, tidings.failed.as_ref());
        health::tell_elsewhere(board, ledger.admission().elsewhere());
        if tidings.is_other || !tidings.applied.is_empty() {
            self.show(reading, board);
        }
        tidings
    }

    /// Publishes the fold; under the lock of the reading, so that views come in its order.
    fn show(&self, reading: MutexGuard<'_, Reading>, board: &HealthBoard) {
        let fold = Arc::new(reading.fold().clone());
        let (before, of_feeds) = (self.view(), fold.in_effect());
        let serial = of_feeds.as_ref().map_or(0, |stands| stands.id.serial);
        let id = |stands: Option<&Stands>| stands.map(|stands| stands.id);
        let in_effect = match self.held().filter(|held| held.serial() > serial) {
            Some(held) => Some(held.policy),
            None if id(of_feeds) == id(before.fold.in_effect()) => before.in_effect,
            None => of_feeds.and_then(|stands| understand(&stands.document).ok()).map(Arc::new),
        };
        let problem = fold.standing().and_then(|stands| understand(&stands.document).err());
        health::tell_standing(board, &fold, problem.as_deref());
        self.view.send_replace(PolicyView { fold, in_effect, problem });
        drop(reading);
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

/// Waits until the studio's feeds may say more; false when the daemon stops.
pub(crate) async fn studio_advances(
    ledger_events: &mut broadcast::Receiver<LedgerEvent>,
    stop: &CancellationToken,
) -> bool {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return false,
            event = ledger_events.recv() => event,
        };
        match event {
            Ok(LedgerEvent::Rights) => return true,
            Ok(LedgerEvent::Advanced { feed, .. }) if feed.project.is_studio() => return true,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return true,
            Err(broadcast::error::RecvError::Closed) => return false,
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
        if !studio_advances(&mut ledger_events, &stop).await {
            return;
        }
    }
}
