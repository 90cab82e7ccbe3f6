//! What one node may have of this one's work at once, however many connections it holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use avalon_protocol::id::NodeId;
use tokio::sync::Semaphore;

use crate::clock::Clock;

/// Requests of one peer that are worked on at once; the others wait.
pub(crate) const MAX_REQUESTS: usize = 32;
/// How many of them are for what somebody waits for, and for manifests: a backfill does not keep those waiting.
const URGENT_REQUESTS: usize = 12;

/// How many requests of one node are begun in a second, and how many at once after a rest. One request is for up to 4,096
/// objects; a node that fetches small files over eight streams makes some tens in a second.
const REQUESTS_PER_SECOND: f64 = 500.0;
const REQUEST_BURST: f64 = 1000.0;

/// The nodes that are being served.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<BTreeMap<NodeId, Weak<Places>>>);

impl Guests {
    /// Returns the places of a node; those of its other connections are the same.
    pub(crate) fn of(&self, node: &NodeId) -> Arc<Places> {
        // Every change under the lock is whole.
        let mut guests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = guests.get(node).and_then(Weak::upgrade) {
            return places;
        }
        guests.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Places::new());
        guests.insert(node.clone(), Arc::downgrade(&places));
        places
    }
}

/// The places of one node's requests.
#[derive(Debug)]
pub(crate) struct Places {
    /// For what somebody waits for.
    pub(crate) urgent: Semaphore,
    pub(crate) others: Semaphore,
    /// One proof is read at a time, for it reads as fast as the disk can.
    pub(crate) proof: Semaphore,
    pace: Mutex<Pace>,
}

impl Places {
    fn new() -> Self {
        Self {
            urgent: Semaphore::new(URGENT_REQUESTS),
            others: Semaphore::new(MAX_REQUESTS - URGENT_REQUESTS),
            proof: Semaphore::new(1),
            pace: Mutex::new(Pace { tokens: REQUEST_BURST, at: Duration::ZERO }),
        }
    }

    /// Waits until the node may begin another request. Those that wait are not taken off the connection, so that QUIC's limit
    /// of streams bounds them.
    pub(crate) async fn turn(&self, clock: &dyn Clock) {
        let wait = self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(clock.monotonic());
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
    }
}

#[derive(Debug)]
struct Pace {
    /// Below zero when some were promised ahead.
    tokens: f64,
    at: Duration,
}

impl Pace {
    /// Takes one and returns how long to wait for it.
    fn take(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * REQUESTS_PER_SECOND).min(REQUEST_BURST) - 1.0;
        self.at = now;
        Duration::from_secs_f64((-self.tokens).max(0.0) / REQUESTS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_no_more_by_more_connections() {
        let guests = Guests::default();
        let (a, b) = ("a@x".parse().unwrap(), "b@x".parse().unwrap());
        let first = guests.of(&a);
        assert!(Arc::ptr_eq(&first, &guests.of(&a)));
        assert!(!Arc::ptr_eq(&first, &guests.of(&b)));
        drop(first);
        guests.of(&b);
        assert_eq!(guests.of(&a).others.available_permits(), MAX_REQUESTS - URGENT_REQUESTS);
    }

    #[test]
    fn requests_beyond_the_pace_wait() {
        let mut pace = Pace { tokens: REQUEST_BURST, at: Duration::ZERO };
        let now = Duration::from_secs(5);
        assert!((0..1000).all(|_| pace.take(now).is_zero()), "a burst is served at once");
        let waits: Vec<_> = (0..500).map(|_| pace.take(now)).collect();
        assert_eq!(waits[0], Duration::from_millis(2));
        assert_eq!(waits[499], Duration::from_secs(1));
        assert!(pace.take(now + Duration::from_secs(60)).is_zero());
    }
}
