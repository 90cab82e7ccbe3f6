//! What the network side has done since the daemon's start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters; each only goes up.
#[derive(Debug, Default)]
pub struct NetMetrics {
    /// Bytes of object content that were sent to peers.
    pub bytes_served: Counter,
    /// Objects, or ranges of them, that were sent to peers.
    pub objects_served: Counter,
    /// Objects that peers asked for and did not get.
    pub objects_refused: Counter,
    /// Manifests that were sent to peers.
    pub manifests_served: Counter,
    /// Bytes of object content that came from peers, verified or not.
    pub bytes_fetched: Counter,
    /// Connections that were greeted.
    pub connections: Counter,
}

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Returns the number.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}
