//! A node under limits, in virtual time.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;

use super::*;
use crate::clock::ManualClock;

const MIB: u64 = 1 << 20;
const TICK: Duration = Duration::from_millis(1);

struct World {
    clock: ManualClock,
    throttle: Arc<Throttle>,
    peer: NodeId,
    tick: Duration,
}

fn limit(rate: &str, class: Option<Priority>, when: &str) -> Limit {
    Limit {
        rate: rate.parse().unwrap(),
        direction: Direction::Send,
        site: None,
        class,
        when: when.parse().unwrap(),
    }
}

impl World {
    fn new() -> Self {
        // Monday, 2026-11-16, 08:59:00 UTC.
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_794_819_540);
        let clock = ManualClock::starting_at(start);
        let me = "a@london".parse().unwrap();
        let throttle = Throttle::in_zone(me, Arc::new(clock.clone()), TimeZone::UTC);
        Self { clock, throttle: Arc::new(throttle), peer: "b@montreal".parse().unwrap(), tick: TICK }
    }

    /// Starts somebody who always has more to send, and returns how much went.
    fn flow(&self, class: Priority) -> Arc<AtomicU64> {
        let sent = Arc::new(AtomicU64::new(0));
        let (throttle, peer, count) = (Arc::clone(&self.throttle), self.peer.clone(), Arc::clone(&sent));
        let flowing = async move {
            loop {
                let flow = Flow { direction: Direction::Send, peer: &peer, class };
                count.fetch_add(throttle.pass(flow, MIB).await, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        };
        drop(tokio::task::spawn_local(flowing));
        sent
    }

    async fn run(&self, time: Duration) {
        let end = self.clock.monotonic() + time;
        while self.clock.monotonic() < end {
            // Enough for all that a tick lets through.
            for _ in 0..24 {
                tokio::task::yield_now().await;
            }
            self.clock.advance(self.tick);
        }
    }

    fn pass(&self, class: Priority, bytes: u64) -> impl Future<Output = u64> {
        let flow = Flow { direction: Direction::Send, peer: &self.peer, class };
        self.throttle.pass(flow, bytes)
    }
}

/// Takes what went since the last time.
fn taken(sent: &AtomicU64) -> u64 {
    sent.swap(0, Ordering::Relaxed)
}

#[track_caller]
fn assert_near(actual: u64, expected: u64) {
    let share = actual as f64 / expected as f64;
    assert!((0.97..=1.03).contains(&share), "{actual} is {share:.4} of {expected}");
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(test).await
}

#[tokio::test]
async fn without_a_limit_that_applies_nothing_waits() {
    let world = World::new();
    assert_eq!(world.pass(Priority::Publish, MIB).now_or_never(), Some(MIB));
    let near: NodeId = "c@london".parse().unwrap();
    world.throttle.set([(1, limit("0", None, "always")), (2, limit("0", None, "tue"))]);
    let flow = |direction, peer| Flow { direction, peer, class: Priority::Publish };
    for exempt in [flow(Direction::Send, &near), flow(Direction::Receive, &world.peer)] {
        assert_eq!(world.throttle.pass(exempt, MIB).now_or_never(), Some(MIB), "{exempt:?}");
        assert_eq!(world.throttle.request_bytes(exempt), None);
    }
    assert_eq!(world.pass(Priority::Publish, MIB).now_or_never(), None);
}

#[tokio::test]
async fn content_flows_at_the_rate_of_the_limit_however_many_send() {
    local(async {
        for (rate, bytes) in [("200kB/s", 200_000), ("4MiB/s", 4 * MIB), ("200Mbit/s", 25_000_000)] {
            let world = World::new();
            world.throttle.set([(1, limit(rate, None, "always"))]);
            let flows: Vec<_> = (0..3).map(|_| world.flow(Priority::Publish)).collect();
            world.run(Duration::from_secs(10)).await;
            let sent: Vec<u64> = flows.iter().map(|sent| taken(sent)).collect();
            assert_near(sent.iter().sum(), 10 * bytes);
            sent.iter().for_each(|sent| assert_near(*sent, 10 * bytes / 3));
            let reading = world.throttle.readings()[&1];
            assert!(
                reading.holds && (reading.bytes_per_second / bytes as f64 - 1.0).abs() < 0.03,
                "{reading:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_waiting_artist_goes_first_within_a_tenth_of_a_second_at_any_rate() {
    local(async {
        for rate in ["50kB/s", "1MiB/s", "100MiB/s"] {
            let world = World::new();
            world.throttle.set([(1, limit(rate, None, "always"))]);
            let backfill: Vec<_> = (0..8).map(|_| world.flow(Priority::Backfill)).collect();
            world.run(Duration::from_secs(2)).await;
            let asked = world.clock.monotonic();
            let mut pass = std::pin::pin!(world.pass(Priority::Waiting, MIB));
            while (&mut pass).now_or_never().is_none() {
                world.run(TICK).await;
            }
            let waited = world.clock.monotonic() - asked;
            assert!(waited <= Duration::from_millis(100), "{rate}: {waited:?}");
            assert!(backfill.iter().all(|sent| taken(sent) > 0));
        }
    })
    .await;
}

#[tokio::test]
async fn all_limits_hold_at_once_and_each_change_holds_from_then_on() {
    local(async {
        let world = World::new();
        let class = Some(Priority::Backfill);
        world.throttle.set([(1, limit("10MiB/s", None, "always")), (2, limit("2MiB/s", class, "always"))]);
        let (publish, backfill) = (world.flow(Priority::Publish), world.flow(Priority::Backfill));
        world.run(Duration::from_secs(5)).await;
        assert!(taken(&publish) > 48 * MIB && taken(&backfill) < MIB, "the more urgent one takes all");
        // What is more urgent has less: the rest is for the other, within its own.
        let urgent = (3, limit("4MiB/s", Some(Priority::Publish), "always"));
        world.throttle.set([
            (1, limit("10MiB/s", None, "always")),
            (2, limit("2MiB/s", class, "always")),
            urgent.clone(),
        ]);
        world.run(Duration::from_secs(5)).await;
        assert_near(taken(&publish), 20 * MIB);
        assert_near(taken(&backfill), 10 * MIB);
        world.throttle.set([(2, limit("0", class, "always")), urgent]);
        taken(&backfill);
        world.run(Duration::from_secs(5)).await;
        assert_near(taken(&publish), 20 * MIB);
        assert!(taken(&backfill) <= 64 << 10, "nothing is nothing");
        world.throttle.set([]);
        world.run(TICK * 2).await;
        assert!(taken(&backfill) > 0, "without a limit it goes on at once");
    })
    .await;
}

#[tokio::test]
async fn who_is_dropped_leaves_the_queue() {
    let world = World::new();
    world.throttle.set([(1, limit("1MiB/s", None, "always"))]);
    {
        let mut gone = std::pin::pin!(world.pass(Priority::Waiting, MIB));
        assert!((&mut gone).now_or_never().is_none());
        assert_eq!(world.throttle.lock().waiting.len(), 1);
    }
    assert_eq!(world.throttle.lock().waiting.len(), 0);
    let mut pass = std::pin::pin!(world.pass(Priority::Backfill, 1000));
    assert!((&mut pass).now_or_never().is_none());
    world.clock.advance(TICK);
    assert_eq!(pass.now_or_never(), Some(1000), "who left has taken nothing");
}

#[tokio::test]
async fn a_limit_begins_and_ends_with_its_hours_while_content_flows() {
    local(async {
        let world = World { tick: TICK * 10, ..World::new() };
        let hours = limit("1MiB/s", None, "mon 09:00-09:02");
        world.throttle.set([(1, limit("4MiB/s", None, "always")), (2, hours)]);
        let sent = world.flow(Priority::Publish);
        assert!(!world.throttle.readings()[&2].holds);
        world.run(Duration::from_secs(30)).await;
        assert_near(taken(&sent), 30 * 4 * MIB);
        world.run(Duration::from_secs(45)).await;
        assert!(world.throttle.readings()[&2].holds);
        taken(&sent);
        world.run(Duration::from_secs(30)).await;
        assert_near(taken(&sent), 30 * MIB);
        world.run(Duration::from_secs(100)).await;
        taken(&sent);
        world.run(Duration::from_secs(10)).await;
        assert_near(taken(&sent), 10 * 4 * MIB);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_asked_for_while_nothing_may_come() {
    let world = World::new();
    world.throttle.set([(1, limit("0", None, "always"))]);
    let flow = Flow { direction: Direction::Send, peer: &world.peer, class: Priority::Publish };
    let mut opened = std::pin::pin!(world.throttle.opened(flow));
    assert!((&mut opened).now_or_never().is_none());
    world.throttle.set([(1, limit("80MB/s", None, "always"))]);
    world.clock.advance(CLOSED_AGAIN);
    assert!(opened.now_or_never().is_some());
    assert_eq!(world.throttle.request_bytes(flow), Some(10_000_000));
}

#[tokio::test]
async fn what_is_asked_for_is_bounded_by_the_limit_and_waits_for_what_was_read() {
    let world = World::new();
    let receive = |rate: &str| Limit { direction: Direction::Receive, ..limit(rate, None, "always") };
    world.throttle.set([(1, receive("8MiB/s"))]);
    let flow = |class| Flow { direction: Direction::Receive, peer: &world.peer, class };
    let (publish, rtt) = (flow(Priority::Publish), Duration::from_millis(375));
    // Half a second of it: 4 MiB.
    let mut asked: Vec<_> = (0..4).map(|_| world.throttle.try_ask(publish, MIB, rtt).unwrap()).collect();
    assert_eq!(world.throttle.try_ask(publish, MIB, rtt).unwrap_err(), TooMuch);
    assert!(
        world.throttle.try_ask(flow(Priority::Waiting), MIB, rtt).is_ok(),
        "nobody waits for who is less urgent"
    );
    let mut waiting = std::pin::pin!(world.throttle.ask(publish, MIB, rtt));
    assert!((&mut waiting).now_or_never().is_none());
    asked.pop();
    let fourth = (&mut waiting).now_or_never().expect("one was read");
    assert_eq!(world.throttle.try_ask(publish, MIB, rtt).unwrap_err(), TooMuch);
    drop((asked, fourth));
    let large = world.throttle.try_ask(publish, 100 * MIB, rtt);
    assert!(large.is_ok(), "the first may always be asked for");
    world.throttle.set([(1, receive("100kB/s"))]);
    drop(large);
    let two: Vec<_> = (0..2).map(|_| world.throttle.try_ask(publish, MIB, rtt)).collect();
    assert!(two.iter().all(Result::is_ok), "one comes while the next is asked for");
    assert_eq!(world.throttle.try_ask(publish, MIB, rtt).unwrap_err(), TooMuch);
    world.throttle.set([]);
    assert!(world.throttle.try_ask(publish, MIB, rtt).unwrap().is_none(), "no limit, nothing to wait for");
}
