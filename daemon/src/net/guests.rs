//! What one node may have of this one's work at once, however many connections it holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
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

/// How many frames of the control stream of one node are looked at in a second, and how many at once after a rest. A frame has up
/// to a megabyte of records; a site that passes on what 25 busy nodes commit sends some hundreds in a second.
const FRAMES_PER_SECOND: f64 = 500.0;
const FRAME_BURST: f64 = 1000.0;

/// Nodes that are remembered when they are gone, so that nobody gets a rest by connecting anew.
const MAX_GUESTS: usize = 1024;

/// The nodes that are being served, and those that were lately.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<BTreeMap<NodeId, Arc<Places>>>);

impl Guests {
    /// Returns the places of a node; those of its other connections are the same.
    pub(crate) fn of(&self, node: &NodeId) -> Arc<Places> {
        // Every change under the lock is whole.
        let mut guests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guests.len() >= MAX_GUESTS && !guests.contains_key(node) {
            guests.retain(|_, places| Arc::strong_count(places) > 1);
        }
        Arc::clone(guests.entry(node.clone()).or_insert_with(|| Arc::new(Places::new())))
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
    requests: Mutex<Pace>,
    frames: Mutex<Pace>,
}

impl Places {
    fn new() -> Self {
        Self {
            urgent: Semaphore::new(URGENT_REQUESTS),
            others: Semaphore::new(MAX_REQUESTS - URGENT_REQUESTS),
            proof: Semaphore::new(1),
            requests: Mutex::new(Pace::new(REQUESTS_PER_SECOND, REQUEST_BURST)),
            frames: Mutex::new(Pace::new(FRAMES_PER_SECOND, FRAME_BURST)),
        }
    }

    /// Waits until the node may begin another request. Those that wait are not taken off the connection, so that QUIC's limit
    /// of streams bounds them.
    pub(crate) async fn turn(&self, clock: &dyn Clock) {
        let wait = self.requests.lock().unwrap_or_else(PoisonError::into_inner).take(clock.monotonic());
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
    }

    /// Counts a frame of the control stream, and returns for how long no other is to be taken off it.
    pub(crate) fn frame(&self, clock: &dyn Clock) -> Duration {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).take(clock.monotonic())
    }
}

#[derive(Debug)]
struct Pace {
    per_second: f64,
    burst: f64,
    /// Below zero when some were promised ahead.
    tokens: f64,
    at: Duration,
}

impl Pace {
    fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, tokens: burst, at: Duration::ZERO }
    }

    /// Takes one and returns how long to wait for it.
    fn take(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst) - 1.0;
        self.at = now;
        Duration::from_secs_f64((-self.tokens).max(0.0) / self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

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
    fn who_connects_anew_had_no_rest_and_few_are_remembered() {
        let (guests, clock, liar) = (Guests::default(), ManualClock::new(), "liar@x".parse().unwrap());
        let flood = |frames: usize| (0..frames).map(|_| guests.of(&liar).frame(&clock)).max().unwrap();
        assert!(flood(1000).is_zero(), "what was missed while a line was cut comes at once");
        assert_eq!(flood(500), Duration::from_secs(1));
        assert!(guests.of(&"b@x".parse().unwrap()).frame(&clock).is_zero());
        let used = guests.of(&liar);
        for number in 0..3 * MAX_GUESTS {
            guests.of(&format!("n{number}@x").parse().unwrap());
        }
        assert!(Arc::ptr_eq(&used, &guests.of(&liar)));
        assert!(guests.0.lock().unwrap().len() <= MAX_GUESTS);
    }

    #[test]
    fn requests_beyond_the_pace_wait() {
        let mut pace = Pace::new(REQUESTS_PER_SECOND, REQUEST_BURST);
        let now = Duration::from_secs(5);
        assert!((0..1000).all(|_| pace.take(now).is_zero()), "a burst is served at once");
        let waits: Vec<_> = (0..500).map(|_| pace.take(now)).collect();
        assert_eq!(waits[0], Duration::from_millis(2));
        assert_eq!(waits[499], Duration::from_secs(1));
        assert!(pace.take(now + Duration::from_secs(60)).is_zero());
    }
}
