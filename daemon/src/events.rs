//! [`EventBus`]: what happens in the daemon, for whoever wants to hear of it.
//!
//! Every part of the daemon emits here; the local API streams it on. A reader that reconnects asks for what it missed by
//! the number of the last event that it saw.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::control::{Event, EventKind};
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::clock::Clock;

/// How many events are kept for readers that come back: minutes of a busy site, and a few MiB of memory.
pub const KEPT_EVENTS: usize = 10_000;

/// How far a reader may fall behind before it is cut off and has to come back for the rest. Small against
/// [`KEPT_EVENTS`], so that the rest is still there.
const LIVE_EVENTS: usize = 1_024;

/// Numbers events, keeps the last [`KEPT_EVENTS`] and hands new ones to all readers. Clones are the same bus.
#[derive(Debug, Clone)]
pub struct EventBus {
    clock: Arc<dyn Clock>,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug)]
struct Log {
    last_id: u64,
    kept: VecDeque<Arc<Event>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl EventBus {
    /// Makes a bus whose first event has number 1.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (live, _) = broadcast::channel(LIVE_EVENTS);
        let log = Log { last_id: 0, kept: VecDeque::new(), live };
        Self { clock, log: Arc::new(Mutex::new(log)) }
    }

    /// Records that something happened and returns its number. Never waits for readers.
    pub fn emit(&self, kind: EventKind) -> u64 {
        let time = rfc3339(self.clock.as_ref());
        let mut log = self.log();
        log.last_id += 1;
        let event = Arc::new(Event { id: log.last_id, time, kind });
        if log.kept.len() == KEPT_EVENTS {
            log.kept.pop_front();
        }
        log.kept.push_back(event.clone());
        // An error means that nobody listens.
        drop(log.live.send(event));
        log.last_id
    }

    /// Returns the kept events after number `id`, and all that come after those: none missing, none twice.
    ///
    /// A number that this bus has not reached is from before a restart; then all kept events are new to the reader. The
    /// receiver of a reader that falls far behind says so; that reader asks again, with the last number it has.
    pub fn since(&self, id: u64) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let log = self.log();
        let id = if id > log.last_id { 0 } else { id };
        let past = log.kept.iter().skip_while(|event| event.id <= id).cloned().collect();
        (past, log.live.subscribe())
    }

    /// Hears of all that happens from now on.
    pub fn follow(&self) -> Follower {
        let log = self.log();
        Follower {
            bus: self.clone(),
            last: log.last_id,
            lost: 0,
            missed: VecDeque::new(),
            live: log.live.subscribe(),
        }
    }

    /// Returns the number of the last event; zero before the first.
    pub fn last_id(&self) -> u64 {
        self.log().last_id
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Nothing that can panic happens between the changes under the lock.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader within the daemon: who falls behind reads on from what is kept, and misses nothing until [`KEPT_EVENTS`] have passed.
#[derive(Debug)]
pub struct Follower {
    bus: EventBus,
    /// The number of the last event that was returned.
    last: u64,
    /// How many were not kept long enough to be returned.
    lost: u64,
    /// What was read again and is not returned yet.
    missed: VecDeque<Arc<Event>>,
    live: broadcast::Receiver<Arc<Event>>,
}

impl Follower {
    /// Returns the next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Arc<Event> {
        loop {
            if let Some(event) = self.missed.pop_front() {
                return self.returned(event);
            }
            match self.live.recv().await {
                Ok(event) => return self.returned(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let (missed, live) = self.bus.since(self.last);
                    (self.missed, self.live) = (missed.into(), live);
                }
                // It cannot be: the bus that is held here keeps it open.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    fn returned(&mut self, event: Arc<Event>) -> Arc<Event> {
        self.lost += event.id.saturating_sub(self.last.saturating_add(1));
        self.last = event.id;
        event
    }

    /// Returns how many events were missed before the last one, and since this was asked.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

/// Returns the time of day as RFC 3339 in UTC, in whole milliseconds.
fn rfc3339(clock: &dyn Clock) -> String {
    // A clock before the year -9999 or after 9999 is not worth an error.
    let now = Timestamp::try_from(clock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{now:.3}")
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::Barrier,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::clock::ManualClock;

    fn solved(code: &str) -> EventKind {
        EventKind::Solved { code: code.into() }
    }

    fn bus() -> EventBus {
        EventBus::new(Arc::new(ManualClock::new()))
    }

    #[test]
    fn events_count_from_one_and_carry_the_time_of_the_clock() {
        let clock = ManualClock::starting_at(SystemTime::UNIX_EPOCH);
        let bus = EventBus::new(Arc::new(clock.clone()));
        assert_eq!((bus.last_id(), bus.emit(solved("a"))), (0, 1));
        clock.advance(Duration::from_micros(1_234_567));
        assert_eq!(bus.emit(solved("b")), 2);
        let (past, _) = bus.since(0);
        let times: Vec<&str> = past.iter().map(|event| event.time.as_str()).collect();
        assert_eq!(times, ["1970-01-01T00:00:00.000Z", "1970-01-01T00:00:01.234Z"]);
        assert_eq!(past[1].kind, solved("b"));
    }

    #[tokio::test]
    async fn a_reader_gets_what_it_missed_and_then_what_comes() {
        let bus = bus();
        for _ in 0..5 {
            bus.emit(solved("x"));
        }
        let (past, mut live) = bus.since(3);
        bus.emit(solved("y"));
        assert_eq!(past.iter().map(|event| event.id).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(live.recv().await.unwrap().id, 6);
    }

    #[tokio::test]
    async fn a_follower_that_falls_behind_misses_nothing_and_hears_nothing_twice() {
        let bus = bus();
        bus.emit(solved("before"));
        let mut follower = bus.follow();
        for _ in 0..LIVE_EVENTS * 2 {
            bus.emit(solved("x"));
        }
        for expected in 2..=bus.last_id() {
            if expected == 100 {
                bus.emit(solved("while it catches up"));
            }
            assert_eq!(follower.next().await.id, expected);
        }
        assert_eq!(follower.next().await.id, bus.last_id(), "what came meanwhile");
    }

    #[test]
    fn only_the_last_events_are_kept() {
        let bus = bus();
        for _ in 0..=KEPT_EVENTS {
            bus.emit(solved("x"));
        }
        let (past, _) = bus.since(0);
        assert_eq!((past.len(), past[0].id), (KEPT_EVENTS, 2));
    }

    #[test]
    fn a_number_from_before_a_restart_gets_everything() {
        let bus = bus();
        bus.emit(solved("x"));
        assert_eq!(bus.since(5_000).0.len(), 1);
        assert!(bus.since(1).0.is_empty());
    }

    #[test]
    fn no_event_is_lost_or_doubled_while_others_emit() {
        let bus = bus();
        let start = Barrier::new(2);
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                for _ in 0..1_000 {
                    bus.emit(solved("x"));
                }
            });
            start.wait();
            let (past, mut live) = bus.since(0);
            let mut seen: Vec<u64> = past.iter().map(|event| event.id).collect();
            while seen.len() < 1_000 {
                seen.push(live.blocking_recv().unwrap().id);
            }
            seen
        });
        assert_eq!(seen, (1..=1_000).collect::<BTreeSet<u64>>().into_iter().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_reader_that_sleeps_is_told_so_and_finds_the_rest() {
        let bus = bus();
        let (_, mut live) = bus.since(0);
        for _ in 0..LIVE_EVENTS * 2 {
            bus.emit(solved("x"));
        }
        assert!(matches!(live.recv().await, Err(broadcast::error::RecvError::Lagged(_))));
        assert_eq!(bus.since(0).0.len(), LIVE_EVENTS * 2);
    }

    #[tokio::test]
    async fn who_falls_too_far_behind_knows_how_much_was_missed() {
        let bus = EventBus::new(Arc::new(ManualClock::new()));
        let mut follower = bus.follow();
        bus.emit(solved("first"));
        assert_eq!((follower.next().await.id, follower.take_lost()), (1, 0));
        let events = KEPT_EVENTS + 50;
        for _ in 0..events {
            bus.emit(solved("x"));
        }
        let mut returned = 1;
        while returned < KEPT_EVENTS {
            follower.next().await;
            returned += 1;
        }
        assert_eq!(follower.take_lost(), 50);
        follower.next().await;
        assert_eq!(follower.take_lost(), 0);
    }
}
