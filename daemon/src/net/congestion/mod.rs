//! The congestion controller: how many bytes may be under way.
//!
//! It is of the BBR family (draft-ietf-ccwg-bbr, called "the draft" here): it models the path by its bandwidth and its
//! shortest round trip and keeps about their product in flight, instead of taking each lost packet for a full queue. In the
//! order of the data: `delivery` makes samples of acknowledgements, `filter` remembers the largest and shortest, `loss`
//! judges what was lost, `model` holds all of that, `phase` decides what to try next, `window` turns it into bytes.
//!
//! Where it differs from the draft, and why:
//!
//! - **The window is all there is.** quinn's pacer sends at 1.25 windows per smoothed round trip and cannot be told a rate,
//!   so the window is what keeps the rate: `rate * smoothed round trip` is what a sender paced at that rate has in flight.
//!   As in the draft, twice the bandwidth-delay product is the cap.
//! - **Draining needs no gain below 1**: a smaller window stops the sender until the queue is gone.
//! - **Loss below the limit has no effect at all.** The draft lowers its short-term bounds on any loss outside of probing, which
//!   costs a path with 1 % of random loss its rate. Here rounds that lose too much (`loss`) do that, and no others.
//! - **The limit of 2 % is a test with a margin**, because a short round trip is too few packets to know a rate by.
//! - **It probes every 6 to 8 round trips** as BBRv1 did, and not every 2 to 3 seconds: files are often gone by then.

mod delivery;
mod filter;
mod loss;
mod model;
mod phase;
mod response;
mod units;
mod window;

#[cfg(test)]
mod tests;

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

use self::{
    model::Model,
    phase::{Phase, Random},
};

/// Packets that may leave before anything is known: about what browsers start with; quinn's BBR starts with 200.
const INITIAL_PACKETS: u64 = 32;

/// Makes a [`Congestion`] for each connection.
#[derive(Debug)]
pub struct CongestionFactory {
    seed: AtomicU64,
}

impl CongestionFactory {
    /// Starts with any number, from which the controllers draw when they probe: flows that probe at once learn nothing.
    pub fn new(seed: u64) -> Self {
        Self { seed: AtomicU64::new(seed) }
    }
}

impl ControllerFactory for CongestionFactory {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        Box::new(Congestion::new(seed, current_mtu))
    }
}

/// The controller of one path.
#[derive(Debug, Clone)]
pub struct Congestion {
    model: Model,
    phase: Phase,
    random: Random,
    window: u64,
}

impl Congestion {
    /// Starts on a path of which nothing is known; `mtu` is in bytes.
    pub fn new(seed: u64, mtu: u16) -> Self {
        let mtu = u64::from(mtu).max(1);
        Self {
            model: Model::new(mtu),
            phase: Phase::startup(),
            random: Random::new(seed),
            window: INITIAL_PACKETS * mtu,
        }
    }

    fn acked(&mut self, sent: Instant, bytes: u64) {
        self.model.on_ack(sent, bytes);
    }

    fn batch_ended(&mut self, now: Instant, in_flight: u64, app_limited: bool) {
        let Some(news) = self.model.end_batch(now, in_flight, app_limited) else { return };
        self.phase.advance(now, &news, &mut self.model, &mut self.random, self.window);
        self.window = window::next(&self.phase, &self.model, self.window, news.acked);
    }
}

impl Controller for Congestion {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.model.on_sent(now, bytes);
    }

    fn on_ack(&mut self, _: Instant, sent: Instant, bytes: u64, _: bool, _: &RttEstimator) {
        self.acked(sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        self.batch_ended(now, in_flight, app_limited);
    }

    fn on_congestion_event(
        &mut self,
        _: Instant,
        _: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.model.on_loss(lost_bytes);
        if is_persistent_congestion {
            // RFC 9002, 7.6.2: nothing that was known of the path holds any more.
            self.model.forget_path();
            self.phase = Phase::startup();
            self.window = window::least(self.model.mtu);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.model.mtu = u64::from(new_mtu).max(1);
        self.window = self.window.max(window::least(self.model.mtu));
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.pacing_rate = Some(self.model.bandwidth().saturating_mul(8));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.model.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
