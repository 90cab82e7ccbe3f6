//! How much content peers were asked for under a limit and has not been read: it comes at the rate of the line.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{limit::BucketId, plan::Priority};
use tokio::sync::{Notify, futures::Notified};

/// The slowest limit that applies, and for whom: who waits at the screen does not wait for what a backfill asked for.
type Key = (BucketId, Priority);

/// What was asked for under each limit.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    asked: Mutex<BTreeMap<Key, u64>>,
    freed: Notify,
}

/// Content that a peer was asked for; drop it when it has been read.
#[derive(Debug)]
pub(crate) struct Asked {
    ahead: Arc<Ahead>,
    key: Key,
    bytes: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut asked = self.ahead.lock();
        if let Some(all) = asked.get_mut(&self.key) {
            *all = all.saturating_sub(self.bytes);
            if *all == 0 {
                asked.remove(&self.key);
            }
        }
        drop(asked);
        self.ahead.freed.notify_waiters();
    }
}

impl Ahead {
    /// Notes that `bytes` are asked for, unless more than `most` would be; the first may always.
    pub(super) fn ask(self: &Arc<Self>, key: Key, bytes: u64, most: u64) -> Option<Asked> {
        let mut asked = self.lock();
        let all = asked.entry(key).or_default();
        if *all > 0 && all.saturating_add(bytes) > most {
            return None;
        }
        *all = all.saturating_add(bytes);
        Some(Asked { ahead: Arc::clone(self), key, bytes })
    }

    /// Resolves when something was read, from now on.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        // Nothing under the lock panics half-way.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
