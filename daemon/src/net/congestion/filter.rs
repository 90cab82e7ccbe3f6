//! What is remembered of samples: the fastest, the shortest, and how much arrives at once.

use std::time::{Duration, Instant};

use super::units::bytes_in;

/// For how long the shortest round trip stands without being seen again (draft-ietf-ccwg-bbr: `MinRTTFilterLen`).
pub(super) const MIN_RTT_LIFETIME: Duration = Duration::from_secs(10);
/// Most of what is added for acknowledgements that come in lumps, as time.
const MAX_AGGREGATION: Duration = Duration::from_millis(100);
/// Round trips after which the older half of the lumps is forgotten.
const AGGREGATION_ROUNDS: u64 = 5;

/// The maximum of two periods, the present one and the one before. Who owns it says when a period ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MaxOfTwo {
    now: u64,
    before: u64,
}

impl MaxOfTwo {
    pub(super) fn get(self) -> u64 {
        self.now.max(self.before)
    }

    pub(super) fn add(&mut self, value: u64) {
        self.now = self.now.max(value);
    }

    /// Ends the period. A period without samples says nothing and does not end.
    pub(super) fn rotate(&mut self) {
        if self.now > 0 {
            self.before = std::mem::take(&mut self.now);
        }
    }
}

/// The shortest round trip of the last [`MIN_RTT_LIFETIME`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MinRtt {
    shortest: Option<(Duration, Instant)>,
}

impl MinRtt {
    pub(super) fn get(self) -> Option<Duration> {
        self.shortest.map(|(rtt, _)| rtt)
    }

    /// Takes a sample. One that is nearly as short confirms the minimum, so that a path without a queue is not asked again.
    pub(super) fn add(&mut self, now: Instant, rtt: Duration) {
        let rtt = rtt.max(Duration::from_micros(1));
        match &mut self.shortest {
            Some((shortest, seen)) if rtt > *shortest => {
                if rtt <= *shortest + *shortest / 32 {
                    *seen = now;
                }
            }
            _ => self.shortest = Some((rtt, now)),
        }
    }

    /// Says whether the minimum is too old to be believed.
    pub(super) fn is_stale(self, now: Instant) -> bool {
        self.shortest.is_some_and(|(_, seen)| now.saturating_duration_since(seen) > MIN_RTT_LIFETIME)
    }

    /// Replaces the minimum by what was found with the queue drained.
    pub(super) fn renew(&mut self, now: Instant, rtt: Duration) {
        self.shortest = Some((rtt.max(Duration::from_micros(1)), now));
    }
}

/// How much more arrives at once than the rate explains (draft-ietf-ccwg-bbr, 5.5.9): with lumps of that size the path
/// idles unless as much more is in flight.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Aggregation {
    largest: MaxOfTwo,
    epoch: Option<Instant>,
    acked: u64,
    rotated_at_round: u64,
}

impl Aggregation {
    /// Takes what a batch acknowledged, at the `rate` that is believed.
    pub(super) fn add(&mut self, now: Instant, acked: u64, rate: u64, round: u64) {
        let since = self.epoch.map_or(Duration::ZERO, |epoch| now.saturating_duration_since(epoch));
        let mut expected = bytes_in(rate, since);
        if self.epoch.is_none() || self.acked <= expected {
            self.epoch = Some(now);
            self.acked = 0;
            expected = 0;
        }
        self.acked = self.acked.saturating_add(acked);
        if round >= self.rotated_at_round.saturating_add(AGGREGATION_ROUNDS) {
            self.largest.rotate();
            self.rotated_at_round = round;
        }
        self.largest.add(self.acked.saturating_sub(expected).min(bytes_in(rate, MAX_AGGREGATION)));
    }

    pub(super) fn get(self) -> u64 {
        self.largest.get()
    }
}
