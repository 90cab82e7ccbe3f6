//! The first version of BBR as the kernel's TCP runs it (draft-cardwell-iccrg-bbr-congestion-control-00): it paces, keeps up to two
//! bandwidth-delay products in flight, and takes no notice of loss. The hardest flow to share a link with.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// ln 2 doubled: the least gain that doubles the rate in each round trip.
const HIGH_GAIN: f64 = 2.885;
/// Of the pacing rate, for a round trip each.
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const WINDOW_GAIN: f64 = 2.0;
/// Round trips that the bandwidth is remembered for.
const BANDWIDTH_ROUNDS: u64 = 10;
const MIN_RTT_EXPIRES: Duration = Duration::from_secs(10);
const PROBE_RTT_LASTS: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Startup,
    Drain,
    Cycle(usize),
    ProbeRtt { until: Instant },
}

#[derive(Debug, Clone)]
pub(super) struct Bbr1 {
    mss: f64,
    phase: Phase,
    phase_since: Instant,
    min_rtt: Option<(Duration, Instant)>,
    /// The fastest sample of each of the last round trips, in bytes/s.
    samples: VecDeque<(u64, f64)>,
    round: u64,
    delivered: u64,
    round_ends_at: u64,
    full: (f64, u32),
}

impl Bbr1 {
    pub(super) fn new(mss: u64, now: Instant) -> Self {
        Self {
            mss: mss as f64,
            phase: Phase::Startup,
            phase_since: now,
            min_rtt: None,
            samples: VecDeque::new(),
            round: 0,
            delivered: 0,
            round_ends_at: 0,
            full: (0.0, 0),
        }
    }

    fn bandwidth(&self) -> f64 {
        self.samples.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
    }

    fn bandwidth_delay(&self) -> f64 {
        self.bandwidth() * self.min_rtt.map_or(0.0, |(rtt, _)| rtt.as_secs_f64())
    }

    /// Bytes/s to send at.
    pub(super) fn rate(&self) -> f64 {
        let gain = match self.phase {
            Phase::Startup => HIGH_GAIN,
            Phase::Drain => 1.0 / HIGH_GAIN,
            Phase::Cycle(index) => CYCLE[index],
            Phase::ProbeRtt { .. } => 1.0,
        };
        let least = 10.0 * self.mss / self.min_rtt.map_or(0.1, |(rtt, _)| rtt.as_secs_f64());
        (gain * self.bandwidth()).max(least)
    }

    pub(super) fn window(&self) -> u64 {
        let gain = match self.phase {
            Phase::Startup | Phase::Drain => HIGH_GAIN,
            Phase::Cycle(_) => WINDOW_GAIN,
            Phase::ProbeRtt { .. } => 0.0,
        };
        let least = if matches!(self.phase, Phase::ProbeRtt { .. }) { 4.0 } else { 10.0 };
        (gain * self.bandwidth_delay()).max(least * self.mss) as u64
    }

    /// Takes an acknowledgement of `bytes` that left at `sent`, when `delivered_then` bytes had been delivered at `delivered_at`.
    pub(super) fn acked(
        &mut self,
        now: Instant,
        bytes: u64,
        sent: Instant,
        (delivered_then, delivered_at): (u64, Instant),
        in_flight: u64,
    ) {
        self.delivered += bytes;
        let rtt = now - sent;
        let elapsed = (now - delivered_at).as_secs_f64().max(1e-6);
        if delivered_then >= self.round_ends_at {
            self.round += 1;
            self.round_ends_at = self.delivered;
            if self.phase == Phase::Startup {
                self.full = if self.bandwidth() >= 1.25 * self.full.0 {
                    (self.bandwidth(), 0)
                } else {
                    (self.full.0, self.full.1 + 1)
                };
                if self.full.1 >= 3 {
                    (self.phase, self.phase_since) = (Phase::Drain, now);
                }
            }
        }
        // A sample over less than a round trip is a burst of acknowledgements.
        if self.min_rtt.is_none_or(|(least, _)| elapsed >= least.as_secs_f64() * 0.99) {
            let rate = (self.delivered - delivered_then) as f64 / elapsed;
            match self.samples.back_mut() {
                Some((round, best)) if *round == self.round => *best = best.max(rate),
                _ => self.samples.push_back((self.round, rate)),
            }
        }
        while self.samples.len() > 1 && self.samples[0].0 + BANDWIDTH_ROUNDS < self.round {
            self.samples.pop_front();
        }
        let expired = self.min_rtt.is_some_and(|(_, at)| now - at > MIN_RTT_EXPIRES);
        if expired || self.min_rtt.is_none_or(|(least, _)| rtt <= least) {
            self.min_rtt = Some((rtt, now));
        }
        if expired && !matches!(self.phase, Phase::ProbeRtt { .. }) {
            self.phase = Phase::ProbeRtt { until: now + PROBE_RTT_LASTS + rtt };
        }
        self.advance(now, in_flight);
    }

    fn advance(&mut self, now: Instant, in_flight: u64) {
        let round_trip = self.min_rtt.map_or(Duration::ZERO, |(rtt, _)| rtt);
        let next = match self.phase {
            Phase::Drain if in_flight as f64 <= self.bandwidth_delay() => Phase::Cycle(2),
            Phase::ProbeRtt { until } if now >= until => Phase::Cycle(2),
            Phase::Cycle(index) if now - self.phase_since >= round_trip => {
                let drained = index == 1 || in_flight as f64 >= CYCLE[index] * self.bandwidth_delay();
                if index == 0 && !drained { Phase::Cycle(0) } else { Phase::Cycle((index + 1) % CYCLE.len()) }
            }
            same => same,
        };
        if next != self.phase {
            (self.phase, self.phase_since) = (next, now);
        }
    }
}
