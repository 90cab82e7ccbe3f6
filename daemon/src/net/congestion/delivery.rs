//! How fast the path delivers: one sample for each batch of acknowledgements.
//!
//! The algorithm is that of draft-cheng-iccrg-delivery-rate-estimation, section 3. It needs, for each packet, what had been
//! delivered when that packet left. quinn names packets in an acknowledgement by the time they were sent, and sends bursts
//! with one time, so one [`Departure`] stands for all packets of a burst. quinn's own BBR instead divides what one batch
//! of acknowledgements covers by the time since the batch before: on bursts that is the rate of the receiver's interface,
//! and after a pause it is nothing.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::units::rate_of;

/// Departures that are remembered: with one for every second packet, 190 MB in flight. Acknowledgements of older ones still
/// count as delivered and give no sample.
const MAX_DEPARTURES: usize = 1 << 16;

/// What was known when packets left.
#[derive(Debug, Clone, Copy)]
struct Departure {
    at: Instant,
    /// Bytes delivered before, and when the last of them were acknowledged.
    delivered: u64,
    delivered_at: Instant,
    /// When the packet left that was the newest one acknowledged.
    first_sent_at: Instant,
    app_limited: bool,
}

/// What one batch of acknowledgements tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Bytes/s over about one round trip; none where the time is too short to tell.
    pub(super) rate: Option<u64>,
    /// The time from the newest acknowledged packet's departure to now, the peer's delay included.
    pub(super) rtt: Duration,
    /// Bytes delivered when that packet left.
    pub(super) prior_delivered: u64,
    /// Whether the sender had nothing to send around then, so that the rate is a lower bound.
    pub(super) app_limited: bool,
    /// Bytes that the batch acknowledged.
    pub(super) acked: u64,
}

/// What left and what arrived.
#[derive(Debug, Clone, Default)]
pub(super) struct Delivery {
    departures: VecDeque<Departure>,
    delivered: u64,
    delivered_at: Option<Instant>,
    first_sent_at: Option<Instant>,
    /// Packets are limited by the application until this much is delivered.
    app_limited_until: u64,
    /// The newest packet of the batch so far: when it left, and what was known then.
    newest: Option<(Instant, Option<Departure>)>,
    acked_in_batch: u64,
}

impl Delivery {
    /// Returns the bytes delivered so far.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Notes that packets left; `idle` says that nothing was in flight before.
    pub(super) fn on_sent(&mut self, now: Instant, idle: bool) {
        if idle || self.first_sent_at.is_none() {
            self.first_sent_at = Some(now);
            self.delivered_at = Some(now);
        }
        if self.departures.back().is_some_and(|last| last.at >= now) {
            return;
        }
        if self.departures.len() >= MAX_DEPARTURES {
            self.departures.pop_front();
        }
        self.departures.push_back(Departure {
            at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at.unwrap_or(now),
            first_sent_at: self.first_sent_at.unwrap_or(now),
            app_limited: self.delivered < self.app_limited_until,
        });
    }

    /// Notes one acknowledged packet.
    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        self.delivered = self.delivered.saturating_add(bytes);
        self.acked_in_batch = self.acked_in_batch.saturating_add(bytes);
        if self.newest.is_none_or(|(newest, _)| sent > newest) {
            self.newest = Some((sent, self.departure(sent)));
        }
    }

    /// Ends a batch; `min_rtt` is the shortest time in which a rate can be told.
    pub(super) fn end_batch(&mut self, now: Instant, min_rtt: Option<Duration>) -> Option<Sample> {
        let (sent, departure) = self.newest.take()?;
        let acked = std::mem::take(&mut self.acked_in_batch);
        self.delivered_at = Some(now);
        self.first_sent_at = Some(self.first_sent_at.map_or(sent, |first| first.max(sent)));
        let rtt = now.saturating_duration_since(sent);
        self.forget(sent, rtt);
        let Some(departure) = departure else {
            let prior_delivered = self.delivered.saturating_sub(acked);
            return Some(Sample { rate: None, rtt, prior_delivered, app_limited: true, acked });
        };
        // Neither sending nor acknowledging can be faster than the path for a whole round trip: the slower of the two counts.
        let sending = sent.saturating_duration_since(departure.first_sent_at);
        let acking = now.saturating_duration_since(departure.delivered_at);
        let elapsed = sending.max(acking);
        let rate = if min_rtt.is_some_and(|min| elapsed < min) {
            None
        } else {
            rate_of(self.delivered.saturating_sub(departure.delivered), elapsed)
        };
        let app_limited = departure.app_limited;
        Some(Sample { rate, rtt, prior_delivered: departure.delivered, app_limited, acked })
    }

    /// Notes that the sender has nothing to send while `in_flight` bytes are under way: what leaves until these have arrived
    /// says nothing about the path.
    pub(super) fn on_app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = self.delivered.saturating_add(in_flight).max(1);
    }

    /// Finds what was known when a packet left; MTU probes leave unannounced and get the burst before them.
    fn departure(&self, sent: Instant) -> Option<Departure> {
        let later = self.departures.partition_point(|departure| departure.at <= sent);
        self.departures.get(later.checked_sub(1)?).copied()
    }

    /// Forgets what quinn has by now declared lost or had acknowledged: it waits 9/8 round trips.
    fn forget(&mut self, newest_sent: Instant, rtt: Duration) {
        let keep = rtt.saturating_mul(2).max(Duration::from_millis(10));
        while self
            .departures
            .front()
            .is_some_and(|oldest| newest_sent.saturating_duration_since(oldest.at) > keep)
        {
            self.departures.pop_front();
        }
    }
}
