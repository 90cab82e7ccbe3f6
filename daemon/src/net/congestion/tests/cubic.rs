//! CUBIC as the kernel's TCP runs it (RFC 9438), without pacing and without HyStart: the flow to share a link with.

use std::time::{Duration, Instant};

const C: f64 = 0.4;
const BETA: f64 = 0.7;

#[derive(Debug, Clone)]
pub(super) struct Cubic {
    mss: f64,
    /// In packets.
    window: f64,
    threshold: f64,
    before_loss: f64,
    epoch: Option<Instant>,
    reno: f64,
    recovering_until: Option<Instant>,
}

impl Cubic {
    pub(super) fn new(mss: u64) -> Self {
        Self {
            mss: mss as f64,
            window: 10.0,
            threshold: f64::MAX,
            before_loss: 0.0,
            epoch: None,
            reno: 0.0,
            recovering_until: None,
        }
    }

    pub(super) fn window(&self) -> u64 {
        (self.window * self.mss) as u64
    }

    pub(super) fn acked(&mut self, now: Instant, bytes: u64, rtt: Duration) {
        let packets = bytes as f64 / self.mss;
        if self.window < self.threshold {
            self.window += packets;
            return;
        }
        let epoch = *self.epoch.get_or_insert(now);
        let k = ((self.before_loss * (1.0 - BETA)).max(0.0) / C).cbrt();
        let t = (now - epoch + rtt).as_secs_f64();
        let target = (C * (t - k).powi(3) + self.before_loss).clamp(self.window, 1.5 * self.window);
        self.window += (target - self.window) / self.window * packets;
        self.reno += 3.0 * (1.0 - BETA) / (1.0 + BETA) * packets / self.reno.max(1.0);
        self.window = self.window.max(self.reno);
    }

    pub(super) fn lost(&mut self, now: Instant, sent: Instant) {
        if self.recovering_until.is_some_and(|until| sent <= until) {
            return;
        }
        self.recovering_until = Some(now);
        let fast = self.window < self.before_loss;
        self.before_loss = if fast { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(2.0);
        (self.threshold, self.reno, self.epoch) = (self.window, self.window, None);
    }
}
