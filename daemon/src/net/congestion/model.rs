//! What is known of the path.

use std::time::{Duration, Instant};

use super::{
    delivery::{Delivery, Sample},
    filter::{Aggregation, MaxOfTwo, MinRtt},
    loss::{LossCount, Verdict, packets},
    response::{Answer, Count, Response},
    units::{bytes_in, percent},
};

/// What stays of the bytes in flight when too much was lost (draft-ietf-ccwg-bbr: `Beta`; CUBIC's is the same).
const BETA_PERCENT: u64 = 70;
/// What stays when the path marked packets: less is enough, as the mark comes before the loss (RFC 8511).
const BETA_MARKED_PERCENT: u64 = 85;
/// What was delivered in a round trip was in flight a round trip before, and the path held it. A little less is kept, as the
/// draft's `max(inflight, Beta * target)` alone would leave two flows with the shares that they happen to have.
const KEPT_OF_DELIVERED_PERCENT: u64 = 95;
/// What timers and schedulers of both ends need in flight beyond the bandwidth-delay product.
const SLACK: Duration = Duration::from_millis(1);

/// The model of one path.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) min_rtt: MinRtt,
    pub(super) mtu: u64,
    /// Most bytes in flight that the path held without losing too much, once it has.
    pub(super) ceiling: Option<u64>,
    /// Whether the last probe lost packets while others queued: the next one waits longer then.
    pub(super) probe_hurt: bool,
    /// The shortest round trip since this flow last drained its own queue: what is in it beyond `min_rtt` others queue.
    standing_rtt: Option<Duration>,
    delivery: Delivery,
    bandwidth: MaxOfTwo,
    smoothed_rtt: Option<Duration>,
    aggregation: Aggregation,
    loss: LossCount,
    response: Response,
    in_flight: u64,
    round: u64,
    /// The round trip ends when a packet is acknowledged that left after this much was delivered.
    round_ends_at: u64,
    delivered_at_round_start: u64,
    lost_in_round: u64,
    best_in_round: u64,
}

/// What a batch of acknowledgements changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    pub(super) acked: u64,
    pub(super) in_flight: u64,
    pub(super) rtt: Duration,
    pub(super) app_limited: bool,
    /// The judgement of a round trip that ended; none while it lasts.
    pub(super) round: Option<Round>,
}

/// A round trip that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) verdict: Verdict,
    /// The share of lost packets that the verdict is about.
    share: f64,
    /// Bytes that were delivered in it.
    pub(super) delivered: u64,
    /// The fastest sample of it, in bytes/s.
    pub(super) best: u64,
    /// Bytes that were found lost in it.
    pub(super) lost: u64,
}

impl Model {
    pub(super) fn new(mtu: u64) -> Self {
        Self {
            min_rtt: MinRtt::default(),
            mtu,
            ceiling: None,
            probe_hurt: false,
            standing_rtt: None,
            delivery: Delivery::default(),
            bandwidth: MaxOfTwo::default(),
            smoothed_rtt: None,
            aggregation: Aggregation::default(),
            loss: LossCount::default(),
            response: Response::default(),
            in_flight: 0,
            round: 0,
            round_ends_at: 0,
            delivered_at_round_start: 0,
            lost_in_round: 0,
            best_in_round: 0,
        }
    }

    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64) {
        self.delivery.on_sent(now, self.in_flight == 0);
        self.in_flight = self.in_flight.saturating_add(bytes);
    }

    pub(super) fn on_ack(&mut self, sent: Instant, bytes: u64) {
        self.delivery.on_ack(sent, bytes);
        self.loss.add_delivered(bytes);
    }

    /// Notes lost bytes; none at all means that the path marked packets (ECN).
    pub(super) fn on_loss(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        if bytes == 0 {
            self.loss.add_mark();
        } else {
            self.loss.add_lost(bytes);
            self.lost_in_round = self.lost_in_round.saturating_add(bytes);
        }
    }

    /// Ends a batch of acknowledgements after which `in_flight` bytes are under way.
    pub(super) fn end_batch(&mut self, now: Instant, in_flight: u64, app_limited: bool) -> Option<News> {
        self.in_flight = in_flight;
        let sample = self.delivery.end_batch(now, self.min_rtt.get())?;
        if app_limited {
            self.delivery.on_app_limited(in_flight);
        }
        self.min_rtt.add(now, sample.rtt);
        self.smoothed_rtt = Some(self.smoothed_rtt.map_or(sample.rtt, |old| old / 8 * 7 + sample.rtt / 8));
        self.standing_rtt = Some(self.standing_rtt.map_or(sample.rtt, |old| old.min(sample.rtt)));
        self.best_in_round = self.best_in_round.max(sample.rate.unwrap_or_default());
        let round = self.end_round(&sample);
        // What a sender with little to say achieves can raise the estimate and not lower it.
        if let Some(rate) = sample.rate
            && (!sample.app_limited || rate > self.bandwidth.get())
        {
            self.bandwidth.add(rate);
        }
        self.aggregation.add(now, sample.acked, self.bandwidth.get(), self.round);
        let Sample { acked, rtt, app_limited, .. } = sample;
        Some(News { acked, in_flight, rtt, app_limited, round })
    }

    fn end_round(&mut self, sample: &Sample) -> Option<Round> {
        if sample.prior_delivered < self.round_ends_at {
            return None;
        }
        let delivered_so_far = self.delivery.delivered();
        let delivered = delivered_so_far.saturating_sub(self.delivered_at_round_start);
        self.round = self.round.saturating_add(1);
        self.round_ends_at = delivered_so_far;
        self.delivered_at_round_start = delivered_so_far;
        let best = std::mem::take(&mut self.best_in_round);
        let lost = std::mem::take(&mut self.lost_in_round);
        let (verdict, share) = self.loss.end_round(self.mtu, self.response.harmless());
        Some(Round { verdict, share, delivered, best, lost })
    }

    /// Lowers the ceiling after a round trip that lost too much, or was marked, with `window` bytes allowed in flight.
    pub(super) fn lower_ceiling(&mut self, round: Round, window: u64) {
        let count = self.packets_of(round);
        match self.response.end_round(count, (round.verdict, round.share), window, self.ceiling) {
            Answer::Lower => {}
            Answer::Hold => return,
            Answer::Restore(ceiling) => {
                self.ceiling = ceiling;
                return;
            }
        }
        let kept = match round.verdict {
            Verdict::Harmless => return,
            Verdict::Marked => percent(window, BETA_MARKED_PERCENT),
            Verdict::TooMuch => percent(window, BETA_PERCENT)
                .max(percent(round.delivered.min(window), KEPT_OF_DELIVERED_PERCENT)),
        };
        self.ceiling = Some(self.ceiling.map_or(kept, |ceiling| ceiling.min(kept)));
    }

    /// Says whether a round trip lost packets, and not only what this path always loses.
    pub(super) fn lost_unusually(&self, round: Round) -> bool {
        self.response.is_unusual(self.packets_of(round))
    }

    fn packets_of(&self, round: Round) -> Count {
        Count { delivered: packets(round.delivered, self.mtu), lost: packets(round.lost, self.mtu) }
    }

    /// Begins to forget the bandwidth that was: a cycle of probing is over, or the path is known to have less by now.
    pub(super) fn end_cycle(&mut self) {
        self.bandwidth.rotate();
    }

    /// Forgets all that was known.
    pub(super) fn forget_path(&mut self) {
        self.bandwidth = MaxOfTwo::default();
        self.min_rtt = MinRtt::default();
        self.aggregation = Aggregation::default();
        self.ceiling = None;
        self.loss = LossCount::default();
        self.response = Response::default();
    }

    /// Counts losses anew, so that what is tried now is not blamed for what was before.
    pub(super) fn count_losses_anew(&mut self) {
        self.loss = LossCount::default();
    }

    /// Returns the bandwidth in bytes/s; 0 while it is not known.
    pub(super) fn bandwidth(&self) -> u64 {
        self.bandwidth.get()
    }

    /// Asks anew for the round trip that others' queues make; the own queue is about to be drained.
    pub(super) fn forget_standing_rtt(&mut self) {
        self.standing_rtt = None;
    }

    /// Says whether others keep a queue standing: more than a tenth of a round trip.
    pub(super) fn others_queue(&self) -> bool {
        let shortest = self.min_rtt.get().unwrap_or_default();
        self.standing_rtt() > shortest + shortest / 10 + SLACK
    }

    /// Takes it that others queue nothing, until asked anew.
    pub(super) fn yield_to_others(&mut self) {
        self.standing_rtt = self.min_rtt.get();
    }

    /// Returns the round trip without the own queue.
    pub(super) fn standing_rtt(&self) -> Duration {
        let shortest = self.min_rtt.get().unwrap_or_default();
        self.standing_rtt.unwrap_or(shortest).max(shortest)
    }

    /// Returns the smoothed round trip; no less than the shortest.
    pub(super) fn smoothed_rtt(&self) -> Duration {
        let shortest = self.min_rtt.get().unwrap_or_default();
        self.smoothed_rtt.unwrap_or_default().max(shortest)
    }

    /// Returns what the path holds without a queue, in bytes: bandwidth times the shortest round trip.
    pub(super) fn bandwidth_delay(&self) -> u64 {
        bytes_in(self.bandwidth(), self.min_rtt.get().unwrap_or_default())
    }

    /// Returns what must be in flight beyond that, for the path not to idle.
    pub(super) fn spare(&self) -> u64 {
        bytes_in(self.bandwidth(), SLACK).max(self.aggregation.get())
    }
}
