//! [`Throttle`]: content waits here until every limit that it counts towards lets it through.
//!
//! The rules and the buckets are [`avalon_protocol::limit`]; this adds time, waiting and the time of day. Records and
//! manifests do not come here.

mod ahead;
mod meter;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use avalon_protocol::{
    block::BLOCK_BYTES,
    id::NodeId,
    limit::{BucketId, Direction, Limit, Moment, Shaper, Ticket},
    plan::Priority,
};
use jiff::tz::TimeZone;
use tokio::sync::Notify;

pub(crate) use self::ahead::Asked;
use self::{ahead::Ahead, meter::Meter};
use crate::clock::{Clock, moment_of_week};

/// How often it is looked whether it is time for a limit to begin or end, while content flows.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(10);
/// How often who may not even ask looks again.
const CLOSED_AGAIN: Duration = Duration::from_secs(1);
/// What is let through at once takes this part of a second at most, or somebody more urgent would wait for it.
const PIECES_PER_SECOND: u64 = 20;
/// And is within this: more calls cost more than they give.
const PIECE_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=64 << 10;
/// What is asked of a peer at once under a limit, as a part of a second: what is on its way cannot be slowed down.
const REQUESTS_PER_SECOND: u64 = 8;
/// What has been asked for and not read lasts a round trip and this much longer, and is no less than two blocks: one comes while
/// the next is asked for.
const AHEAD: Duration = Duration::from_millis(125);
const LEAST_AHEAD_BYTES: u64 = 2 * BLOCK_BYTES;

/// What content counts as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow<'a> {
    pub(crate) direction: Direction,
    pub(crate) peer: &'a NodeId,
    pub(crate) class: Priority,
}

/// As much as may be is on its way already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch;

/// How a limit is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Whether it is time for it.
    pub holds: bool,
    /// What it let through in the last five seconds.
    pub bytes_per_second: f64,
}

/// Keeps the content that a node sends and receives within limits.
#[derive(Debug)]
pub struct Throttle {
    me: NodeId,
    clock: Arc<dyn Clock>,
    zone: TimeZone,
    /// Whether there is any limit at all: without one nobody takes the lock.
    limits: AtomicBool,
    state: Mutex<State>,
    ahead: Arc<Ahead>,
}

#[derive(Debug, Default)]
struct State {
    rules: BTreeMap<BucketId, Rule>,
    shaper: Shaper,
    waiting: BTreeMap<Ticket, Waiting>,
    /// The moment of the week, and when it was looked up.
    moment: Option<(Moment, Duration)>,
}

#[derive(Debug)]
struct Rule {
    limit: Limit,
    /// Whether the shaper has a bucket for it, because it is time for it.
    holds: bool,
    meter: Meter,
}

#[derive(Debug)]
struct Waiting {
    buckets: Vec<BucketId>,
    bytes: u64,
    granted: Arc<Notify>,
}

/// Somebody in the queue, who leaves it when dropped.
struct Place<'a> {
    throttle: &'a Throttle,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.throttle.lock();
        if state.waiting.remove(&self.ticket).is_some() {
            state.shaper.leave(self.ticket);
        }
    }
}

impl Throttle {
    /// Makes one without limits. Times of day are those of the machine's time zone.
    pub fn new(me: NodeId, clock: Arc<dyn Clock>) -> Self {
        Self::in_zone(me, clock, TimeZone::system())
    }

    fn in_zone(me: NodeId, clock: Arc<dyn Clock>, zone: TimeZone) -> Self {
        Self {
            me,
            clock,
            zone,
            limits: AtomicBool::new(false),
            state: Mutex::default(),
            ahead: Arc::default(),
        }
    }

    /// Replaces all limits. One that keeps its id keeps what it has let through in mind; who waits goes on under the new
    /// ones.
    pub fn set(&self, limits: impl IntoIterator<Item = (BucketId, Limit)>) {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let mut old = std::mem::take(&mut state.rules);
        for (id, limit) in limits {
            let rule = match old.remove(&id) {
                Some(rule) => Rule { limit, ..rule },
                None => Rule { limit, holds: false, meter: Meter::default() },
            };
            state.rules.insert(id, rule);
        }
        old.keys().for_each(|id| state.shaper.remove(*id));
        self.limits.store(!state.rules.is_empty(), Ordering::Relaxed);
        state.moment = None;
        self.look_at_clock(&mut state, now);
        let set: Vec<_> = state.rules.iter().map(|(id, rule)| (*id, rule.holds, rule.limit.rate)).collect();
        for (id, _, rate) in set.into_iter().filter(|(_, holds, _)| *holds) {
            state.shaper.set(id, rate, now);
        }
        state.grant(now);
        // Whoever sleeps until the old limits let it through is woken by the new ones.
        state.waiting.values().for_each(|waiting| waiting.granted.notify_one());
    }

    /// Waits until some of `wanted` bytes may go, and returns how many: all of them when no limit applies, else what goes
    /// in a twentieth of a second. Dropping the future leaves the queue.
    pub(crate) async fn pass(&self, flow: Flow<'_>, wanted: u64) -> u64 {
        if wanted == 0 || !self.limits.load(Ordering::Relaxed) {
            return wanted;
        }
        let Some((place, granted, bytes)) = self.queue(flow, wanted) else { return wanted };
        loop {
            let again = {
                let mut state = self.lock();
                let now = self.clock.monotonic();
                self.look_at_clock(&mut state, now);
                let again = state.grant(now);
                if !state.waiting.contains_key(&place.ticket) {
                    return bytes;
                }
                again.unwrap_or(CLOSED_AGAIN).min(LOOK_AT_CLOCK)
            };
            tokio::select! {
                () = granted.notified() => {}
                () = self.clock.sleep(again) => {}
            }
        }
    }

    /// Waits while a limit lets nothing through at all: then it is better not to ask for anything.
    pub(crate) async fn opened(&self, flow: Flow<'_>) {
        while self.slowest(flow).is_some_and(|(rate, _)| rate == 0) {
            self.clock.sleep(CLOSED_AGAIN).await;
        }
    }

    /// Returns how much content to ask a peer for at once; nothing when no limit applies.
    pub(crate) fn request_bytes(&self, flow: Flow<'_>) -> Option<u64> {
        self.slowest(flow).map(|(bytes_per_second, _)| bytes_per_second / REQUESTS_PER_SECOND)
    }

    /// Waits until little enough is on its way to ask a peer, `rtt` away, for `bytes` more; none when no limit applies.
    pub(crate) async fn ask(&self, flow: Flow<'_>, bytes: u64, rtt: Duration) -> Option<Asked> {
        loop {
            let mut freed = std::pin::pin!(self.ahead.freed());
            freed.as_mut().enable();
            match self.try_ask(flow, bytes, rtt) {
                Ok(asked) => return asked,
                // The limit may end meanwhile.
                Err(TooMuch) => tokio::select! {
                    () = freed => {}
                    () = self.clock.sleep(CLOSED_AGAIN) => {}
                },
            }
        }
    }

    /// Asks for `bytes` more if little enough is on its way; none when no limit applies.
    ///
    /// # Errors
    /// [`TooMuch`] is.
    pub(crate) fn try_ask(
        &self,
        flow: Flow<'_>,
        bytes: u64,
        rtt: Duration,
    ) -> Result<Option<Asked>, TooMuch> {
        let Some((rate, key)) = self.slowest(flow) else { return Ok(None) };
        let lasts = u64::try_from((rtt + AHEAD).as_millis()).unwrap_or(u64::MAX);
        let most = (rate.saturating_mul(lasts) / 1000).max(LEAST_AHEAD_BYTES);
        self.ahead.ask((key, flow.class), bytes, most).map(Some).ok_or(TooMuch)
    }

    /// Asks for `bytes` more whatever is on its way.
    pub(crate) fn ask_at_once(&self, flow: Flow<'_>, bytes: u64) -> Option<Asked> {
        let (_, key) = self.slowest(flow)?;
        self.ahead.ask((key, flow.class), bytes, u64::MAX)
    }

    /// Returns how the limits are doing.
    pub fn readings(&self) -> BTreeMap<BucketId, Reading> {
        let (now, moment) = (self.clock.monotonic(), self.moment());
        let state = self.lock();
        let reading = |rule: &Rule| Reading {
            holds: rule.limit.when.contains(moment),
            bytes_per_second: rule.meter.bytes_per_second(now),
        };
        state.rules.iter().map(|(id, rule)| (*id, reading(rule))).collect()
    }

    /// Returns the rate of the slowest limit that applies, in bytes a second, and which it is.
    fn slowest(&self, flow: Flow<'_>) -> Option<(u64, BucketId)> {
        if !self.limits.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.lock();
        let moment = self.look_at_clock(&mut state, self.clock.monotonic());
        state.applying(&self.me, flow, moment).map(|(id, rule)| (rule.limit.rate.bytes_per_second, id)).min()
    }

    /// Takes a place in the queue; none when no limit applies.
    fn queue(&self, flow: Flow<'_>, wanted: u64) -> Option<(Place<'_>, Arc<Notify>, u64)> {
        let mut state = self.lock();
        let moment = self.look_at_clock(&mut state, self.clock.monotonic());
        let applying = state.applying(&self.me, flow, moment);
        let (buckets, rates): (Vec<BucketId>, Vec<u64>) =
            applying.map(|(id, rule)| (id, rule.limit.rate.bytes_per_second)).unzip();
        let slowest = rates.into_iter().min()?;
        let piece = (slowest / PIECES_PER_SECOND).clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end());
        let bytes = wanted.min(piece);
        let ticket = state.shaper.ask(flow.class, buckets.iter().copied(), bytes);
        let granted = Arc::new(Notify::new());
        state.waiting.insert(ticket, Waiting { buckets, bytes, granted: Arc::clone(&granted) });
        Some((Place { throttle: self, ticket }, granted, bytes))
    }

    /// Returns the moment of the week, and opens or removes buckets when it is time for them.
    fn look_at_clock(&self, state: &mut State, now: Duration) -> Moment {
        if let Some((moment, looked)) = state.moment
            && now.saturating_sub(looked) < LOOK_AT_CLOCK
        {
            return moment;
        }
        let moment = self.moment();
        state.moment = Some((moment, now));
        for (id, rule) in &mut state.rules {
            let holds = rule.limit.when.contains(moment);
            match (rule.holds, holds) {
                (false, true) => state.shaper.set(*id, rule.limit.rate, now),
                (true, false) => state.shaper.remove(*id),
                _ => {}
            }
            rule.holds = holds;
        }
        moment
    }

    fn moment(&self) -> Moment {
        moment_of_week(&*self.clock, &self.zone)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn applying<'a>(
        &'a self,
        me: &'a NodeId,
        flow: Flow<'a>,
        moment: Moment,
    ) -> impl Iterator<Item = (BucketId, &'a Rule)> {
        let applies = move |limit: &Limit| limit.applies(flow.direction, me, flow.peer, flow.class, moment);
        self.rules.iter().filter(move |(_, rule)| applies(&rule.limit)).map(|(id, rule)| (*id, rule))
    }

    /// Lets through who may go now, and returns when to look again for the others.
    fn grant(&mut self, now: Duration) -> Option<Duration> {
        let (granted, again) = self.shaper.grant(now);
        for ticket in granted {
            let Some(waiting) = self.waiting.remove(&ticket) else { continue };
            for id in &waiting.buckets {
                if let Some(rule) = self.rules.get_mut(id) {
                    rule.meter.add(waiting.bytes, now);
                }
            }
            waiting.granted.notify_one();
        }
        again
    }
}

#[cfg(test)]
mod tests;
