//! What the controller is trying out: more, less, or to stay.

use std::time::{Duration, Instant};

use super::{
    loss::Verdict,
    model::{Model, News, Round},
    units::{bytes_in, percent},
    window,
};

/// Startup ends when the bandwidth has grown by less than a quarter for three round trips (draft, 5.3.1.2) that last a while:
/// on a path of 100 us three round trips are one turn of the scheduler.
const FULL_GROWTH_PERCENT: u64 = 125;
const FULL_ROUNDS: u32 = 3;
const FULL_TIME: Duration = Duration::from_millis(5);

/// Between two probes lie as many of the shortest round trips, some more by chance, and no less than a fifth of a second.
const CRUISE_ROUNDS: u32 = 6;
const CRUISE_MORE_ROUNDS: u64 = 3;
const CRUISE_LEAST: Duration = Duration::from_millis(200);
const CRUISE_MOST: Duration = Duration::from_secs(5);
/// As many times longer after a probe that filled the queue of others: CUBIC needs seconds to recover from a loss.
const CRUISE_CAREFUL: u32 = 8;

/// A round trip that found less than this much of the bandwidth, and a queue, shows that there is less.
const LESS_PERCENT: u64 = 60;

/// A probe goes on while it finds a tenth more, and otherwise sees what comes back of the first round trip.
const UP_GROWTH_PERCENT: u64 = 110;
const UP_ROUNDS: u32 = 2;
/// The ceiling rises by as many packets in the first round trip of a probe, then by double that, up to a quarter of itself.
/// The same steps for all flows let the smaller ones catch up (draft, 5.3.3.6).
const FIRST_RISE_PACKETS: u64 = 4;
const MAX_RISE_PERCENT: u64 = 25;

/// For how long little is in flight to see the shortest round trip (draft: `ProbeRTTDuration`).
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);

/// A generator of numbers that need only differ (SplitMix64).
#[derive(Debug, Clone, Copy)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// What is being tried.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// Doubling, until more brings no more.
    Startup { full: u64, rounds: u32, since: Option<Instant> },
    /// Waiting until what startup queued is gone.
    Drain,
    /// Sending at the rate that the path delivers.
    Cruise { until: Instant },
    /// Sending a quarter more, to see whether there is more.
    Up { bandwidth: u64, rtt: Duration, rounds: u32, rise: u64 },
    /// Waiting until what the probe queued is gone, for at most a round trip.
    Down,
    /// Sending half, to see how short the round trip is without a queue.
    ProbeRtt { until: Option<Instant>, shortest: Duration },
}

impl Phase {
    pub(super) fn startup() -> Self {
        Self::Startup { full: 0, rounds: 0, since: None }
    }

    fn cruise(now: Instant, model: &mut Model, random: &mut Random) -> Self {
        let mut rounds = CRUISE_ROUNDS + u32::try_from(random.below(CRUISE_MORE_ROUNDS)).unwrap_or_default();
        if std::mem::take(&mut model.probe_hurt) {
            rounds *= CRUISE_CAREFUL;
        }
        let rtt = model.min_rtt.get().unwrap_or_default();
        Self::Cruise { until: now + rtt.saturating_mul(rounds).clamp(CRUISE_LEAST, CRUISE_MOST) }
    }

    fn up(model: &mut Model) -> Self {
        model.count_losses_anew();
        let rise = FIRST_RISE_PACKETS.saturating_mul(model.mtu);
        Self::Up { bandwidth: model.bandwidth(), rtt: model.standing_rtt(), rounds: 0, rise }
    }

    fn down(model: &mut Model) -> Self {
        model.forget_standing_rtt();
        Self::Down
    }

    /// Goes on after a batch of acknowledgements, with `window` bytes allowed in flight until now.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        news: &News,
        model: &mut Model,
        random: &mut Random,
        window: u64,
    ) {
        let mut drained = news.in_flight <= model.bandwidth_delay().saturating_add(model.spare());
        if let Some(round) = news.round {
            // Against the queue of others there is no draining it.
            drained |= matches!(self, Self::Down);
            model.lower_ceiling(round, window);
            self.end_round(now, round, news, model);
        }
        match self {
            Self::Drain | Self::Down if drained => {
                model.end_cycle();
                *self = Self::cruise(now, model, random);
            }
            Self::ProbeRtt { until, shortest } => {
                *shortest = (*shortest).min(news.rtt);
                if until.is_none() && news.in_flight <= window::probe_rtt(model) {
                    *until = Some(now + PROBE_RTT_TIME.max(model.smoothed_rtt()));
                }
                if until.is_some_and(|until| now >= until) {
                    model.min_rtt.renew(now, *shortest);
                    *self = Self::cruise(now, model, random);
                }
            }
            _ => {}
        }
        self.look_at_min_rtt(now, news, model);
    }

    fn end_round(&mut self, now: Instant, round: Round, news: &News, model: &mut Model) {
        let bandwidth = model.bandwidth();
        // Packets are lost and others keep a queue: it is full, and not the path bad.
        let lost = model.lost_unusually(round);
        let hurts = lost && model.others_queue();
        self.notice_less(&round, news, model);
        match self {
            Self::Startup { full, rounds, since } => {
                if round.verdict != Verdict::Harmless {
                    *self = Self::Drain;
                } else if bandwidth >= percent(*full, FULL_GROWTH_PERCENT) {
                    (*full, *rounds, *since) = (bandwidth, 0, Some(now));
                } else if !news.app_limited {
                    *rounds = rounds.saturating_add(1);
                    let lasted = since.is_some_and(|since| now.saturating_duration_since(since) >= FULL_TIME);
                    if *rounds >= FULL_ROUNDS && lasted {
                        *self = Self::Drain;
                    }
                }
            }
            Self::Cruise { until } if now >= *until => *self = Self::up(model),
            // Whoever queued until packets were lost should find that others give way too. Alone it costs nothing.
            Self::Cruise { .. } if lost => {
                if hurts {
                    model.end_cycle();
                }
                model.yield_to_others();
            }
            Self::Up { bandwidth: best, rtt, rounds, rise } => {
                let grew = bandwidth >= percent(*best, UP_GROWTH_PERCENT);
                (*best, *rounds) = if grew { (bandwidth, 0) } else { (*best, rounds.saturating_add(1)) };
                let wanted = percent(bytes_in(bandwidth, *rtt), window::UP_GAIN_PERCENT);
                model.probe_hurt |= hurts;
                if hurts || round.verdict != Verdict::Harmless || news.app_limited {
                    *self = Self::down(model);
                } else if let Some(ceiling) = model.ceiling.filter(|ceiling| *ceiling < wanted) {
                    let most = percent(ceiling, MAX_RISE_PERCENT);
                    model.ceiling = Some(ceiling.saturating_add((*rise).min(most)));
                    *rise = rise.saturating_mul(2);
                } else if *rounds >= UP_ROUNDS {
                    *self = Self::down(model);
                }
            }
            Self::Cruise { .. } | Self::Drain | Self::Down | Self::ProbeRtt { .. } => {}
        }
    }

    /// Forgets the bandwidth faster when a round trip found far less and yet a queue: then the path was not idle.
    fn notice_less(self, round: &Round, news: &News, model: &mut Model) {
        let shortest = model.min_rtt.get().unwrap_or_default();
        let queued = model.standing_rtt() > shortest + shortest / 4;
        let less = round.best < percent(model.bandwidth(), LESS_PERCENT);
        if less && queued && !news.app_limited && !matches!(self, Self::Startup { .. }) {
            model.end_cycle();
        }
    }

    /// Asks for the shortest round trip again when it was not seen for long.
    fn look_at_min_rtt(&mut self, now: Instant, news: &News, model: &mut Model) {
        if !model.min_rtt.is_stale(now) {
            return;
        }
        match self {
            Self::ProbeRtt { .. } => {}
            // Who sends little makes no queue.
            _ if news.app_limited => model.min_rtt.renew(now, news.rtt),
            Self::Startup { .. } => {}
            _ => *self = Self::ProbeRtt { until: None, shortest: news.rtt },
        }
    }
}
