//! A hierarchical token bucket with classes.
//!
//! Every piece of content passes all buckets that it counts towards, or none: the node's, the site's, the class's. Where a
//! bucket is short, whoever is more urgent goes first, of one urgency who came first. Who waits for one bucket keeps
//! nobody from another. Tokens are counted in billionths of a byte, so nothing is lost to rounding: over time a bucket lets
//! through its rate.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Rate;
use crate::plan::Priority;

/// What a bucket that was not used for a while lets through at once: a fifth of what the kernel gathers for one call on a
/// fast line, and never less than a piece.
const BURST: Duration = Duration::from_millis(50);
/// The least burst, in bytes: a slow line still takes whole packets.
const LEAST_BURST_BYTES: u64 = 16 << 10;
/// A bucket that lets nothing through is looked at again after this long, for its rate may change.
const CLOSED_AGAIN: Duration = Duration::from_secs(1);

/// Tokens of one byte.
const BYTE: i128 = 1_000_000_000;

/// Names a bucket.
pub type BucketId = u32;

/// Names one who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(Reverse<Priority>, u64);

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: i128,
    filled: Duration,
}

#[derive(Debug)]
struct Waiter {
    buckets: BTreeSet<BucketId>,
    bytes: u64,
}

/// Says who may send how much when. Time is the time since any fixed moment; it does not go back.
#[derive(Debug, Default)]
pub struct Shaper {
    buckets: BTreeMap<BucketId, Bucket>,
    waiting: BTreeMap<Ticket, Waiter>,
    tickets: u64,
}

impl Bucket {
    fn burst(&self) -> i128 {
        let bytes = u128::from(self.rate.bytes_per_second) * BURST.as_millis() / 1000;
        i128::try_from(bytes).unwrap_or(i128::MAX / BYTE).max(i128::from(LEAST_BURST_BYTES)) * BYTE
    }

    fn fill(&mut self, now: Duration) {
        let nanos = now.saturating_sub(self.filled).as_nanos();
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX / BYTE);
        // Bytes per second times nanoseconds are billionths of a byte.
        let added = nanos.saturating_mul(i128::from(self.rate.bytes_per_second));
        self.tokens = self.tokens.saturating_add(added).min(self.burst());
        self.filled = self.filled.max(now);
    }

    /// Returns how long until it is not in debt.
    fn wait(&self) -> Duration {
        if self.rate.bytes_per_second == 0 {
            return CLOSED_AGAIN;
        }
        let nanos = (-self.tokens).max(0) / i128::from(self.rate.bytes_per_second) + 1;
        u64::try_from(nanos).map_or(CLOSED_AGAIN, Duration::from_nanos).min(CLOSED_AGAIN)
    }

    fn is_open(&self) -> bool {
        self.tokens > 0 && self.rate.bytes_per_second > 0
    }
}

impl Shaper {
    /// Sets the rate of a bucket, or makes it; one that is new starts empty, so that changing limits gives nobody a burst.
    pub fn set(&mut self, id: BucketId, rate: Rate, now: Duration) {
        match self.buckets.get_mut(&id) {
            Some(bucket) => {
                bucket.fill(now);
                bucket.rate = rate;
                bucket.tokens = bucket.tokens.clamp(-bucket.burst(), bucket.burst());
            }
            None => drop(self.buckets.insert(id, Bucket { rate, tokens: 0, filled: now })),
        }
    }

    /// Removes a bucket; who waits for it does not any more.
    pub fn remove(&mut self, id: BucketId) {
        self.buckets.remove(&id);
        for waiter in self.waiting.values_mut() {
            waiter.buckets.remove(&id);
        }
    }

    /// Queues for leave to let `bytes` through all of `buckets`. Ask for little at a time, tens of KiB: what was let
    /// through cannot be taken back for somebody more urgent.
    pub fn ask(
        &mut self,
        class: Priority,
        buckets: impl IntoIterator<Item = BucketId>,
        bytes: u64,
    ) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(Reverse(class), self.tickets);
        self.waiting.insert(ticket, Waiter { buckets: buckets.into_iter().collect(), bytes });
        ticket
    }

    /// Leaves the queue.
    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// Returns who may go now, and in how long to ask again if others wait on.
    pub fn grant(&mut self, now: Duration) -> (Vec<Ticket>, Option<Duration>) {
        self.buckets.values_mut().for_each(|bucket| bucket.fill(now));
        let mut granted = Vec::new();
        let mut again: Option<Duration> = None;
        for (ticket, waiter) in &self.waiting {
            let known = || waiter.buckets.iter().filter(|id| self.buckets.contains_key(id));
            if known().all(|id| self.buckets.get(id).is_some_and(Bucket::is_open)) {
                let cost = i128::from(waiter.bytes) * BYTE;
                for id in &waiter.buckets {
                    if let Some(bucket) = self.buckets.get_mut(id) {
                        bucket.tokens -= cost;
                    }
                }
                granted.push(*ticket);
                continue;
            }
            let shut = known().filter_map(|id| self.buckets.get(id)).filter(|bucket| !bucket.is_open());
            if let Some(wait) = shut.map(Bucket::wait).max() {
                again = Some(again.map_or(wait, |sooner| sooner.min(wait)));
            }
        }
        granted.iter().for_each(|ticket| drop(self.waiting.remove(ticket)));
        (granted, again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: BucketId = 0;
    const SITE: BucketId = 1;
    const MIB: u64 = 1 << 20;
    const PIECE: u64 = 16 << 10;

    fn rate(bytes_per_second: u64) -> Rate {
        Rate { bytes_per_second }
    }

    /// Flows that always have more to send; counts what each got.
    struct World {
        shaper: Shaper,
        now: Duration,
        flows: Vec<(Priority, Vec<BucketId>)>,
        tickets: BTreeMap<Ticket, usize>,
        sent: Vec<u64>,
    }

    impl World {
        fn new(limits: &[(BucketId, u64)], flows: &[(Priority, &[BucketId])]) -> Self {
            let mut shaper = Shaper::default();
            limits.iter().for_each(|(id, bytes)| shaper.set(*id, rate(*bytes), Duration::ZERO));
            let mut world = Self {
                shaper,
                now: Duration::ZERO,
                flows: flows.iter().map(|(class, buckets)| (*class, buckets.to_vec())).collect(),
                tickets: BTreeMap::new(),
                sent: vec![0; flows.len()],
            };
            (0..flows.len()).for_each(|flow| world.ask(flow));
            world
        }

        fn ask(&mut self, flow: usize) {
            let (class, buckets) = self.flows[flow].clone();
            let ticket = self.shaper.ask(class, buckets, PIECE);
            self.tickets.insert(ticket, flow);
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                let (granted, again) = self.shaper.grant(self.now);
                for ticket in &granted {
                    let flow = self.tickets.remove(ticket).unwrap();
                    self.sent[flow] += PIECE;
                    self.ask(flow);
                }
                if granted.is_empty() {
                    // Sleeping is never exact.
                    self.now += again.unwrap() + Duration::from_micros(300);
                }
            }
        }
    }

    #[track_caller]
    fn assert_near(actual: u64, expected: u64) {
        let share = actual as f64 / expected as f64;
        assert!((0.97..=1.03).contains(&share), "{actual} is {share:.4} of {expected}");
    }

    #[test]
    fn a_bucket_lets_its_rate_through_however_slow_or_fast() {
        for bytes in [100_000, 3 * MIB, 60 * MIB, 1000 * MIB] {
            let mut world = World::new(&[(NODE, bytes)], &[(Priority::Publish, &[NODE])]);
            world.run(Duration::from_secs(20));
            assert_near(world.sent[0], 20 * bytes);
        }
    }

    #[test]
    fn the_node_and_the_site_both_hold_and_nothing_is_wasted() {
        let flows: [(Priority, &[BucketId]); 2] =
            [(Priority::Publish, &[NODE, SITE]), (Priority::Publish, &[NODE])];
        let mut world = World::new(&[(NODE, 10 * MIB), (SITE, 2 * MIB)], &flows);
        world.run(Duration::from_secs(10));
        assert_near(world.sent[0], 20 * MIB);
        assert_near(world.sent[1], 80 * MIB);
    }

    #[test]
    fn who_is_more_urgent_gets_all_and_what_it_leaves_is_used() {
        let flows: [(Priority, &[BucketId]); 2] =
            [(Priority::Backfill, &[NODE]), (Priority::Waiting, &[NODE])];
        let mut world = World::new(&[(NODE, 10 * MIB)], &flows);
        world.run(Duration::from_secs(5));
        assert_near(world.sent[1], 50 * MIB);
        assert!(world.sent[0] <= 2 * PIECE, "{}", world.sent[0]);
        // A limit of the urgent class leaves the rest to the other.
        let flows: [(Priority, &[BucketId]); 2] =
            [(Priority::Backfill, &[NODE]), (Priority::Waiting, &[NODE, SITE])];
        let mut world = World::new(&[(NODE, 10 * MIB), (SITE, 4 * MIB)], &flows);
        world.run(Duration::from_secs(10));
        assert_near(world.sent[1], 40 * MIB);
    }

    #[test]
    fn a_waiting_artist_goes_before_a_backfill_at_once() {
        let flows: [(Priority, &[BucketId]); 4] = [(Priority::Backfill, &[NODE]); 4];
        let mut world = World::new(&[(NODE, MIB)], &flows);
        world.run(Duration::from_secs(3));
        let asked = world.now;
        let ticket = world.shaper.ask(Priority::Waiting, [NODE], PIECE);
        loop {
            let (granted, again) = world.shaper.grant(world.now);
            if granted.contains(&ticket) {
                break;
            }
            world.now += again.unwrap();
        }
        assert!(world.now - asked < Duration::from_millis(100), "{:?}", world.now - asked);
    }

    #[test]
    fn rates_change_while_content_flows_and_zero_stops_it() {
        let mut world = World::new(&[(NODE, MIB)], &[(Priority::Publish, &[NODE])]);
        world.run(Duration::from_secs(5));
        world.shaper.set(NODE, rate(20 * MIB), world.now);
        world.sent[0] = 0;
        world.run(Duration::from_secs(5));
        assert_near(world.sent[0], 100 * MIB);
        world.shaper.set(NODE, rate(0), world.now);
        world.sent[0] = 0;
        world.run(Duration::from_secs(5));
        assert!(world.sent[0] <= PIECE, "{}", world.sent[0]);
        world.shaper.remove(NODE);
        let (granted, again) = world.shaper.grant(world.now);
        assert_eq!((granted.len(), again), (1, None), "without a bucket everything goes");
    }

    #[test]
    fn who_leaves_takes_nothing() {
        let mut shaper = Shaper::default();
        shaper.set(NODE, rate(MIB), Duration::ZERO);
        let gone = shaper.ask(Priority::Waiting, [NODE], 100 * MIB);
        shaper.leave(gone);
        let ticket = shaper.ask(Priority::Backfill, [NODE], PIECE);
        let (granted, _) = shaper.grant(Duration::from_secs(1));
        assert_eq!(granted, [ticket]);
    }
}
