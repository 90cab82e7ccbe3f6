//! The bytes that may be in flight, from the model and the phase.

use super::{
    model::Model,
    phase::Phase,
    units::{bytes_in, percent},
};

/// While starting: the window doubles with each round trip, and must not run away from what is delivered.
const STARTUP_GAIN_PERCENT: u64 = 230;
/// While probing (draft: `ProbeBwUp` pacing gain).
pub(super) const UP_GAIN_PERCENT: u64 = 125;
/// Never more than as many bandwidth-delay products (draft: `DefaultCwndGain`): what others queue is followed so far.
const CAP_GAIN_PERCENT: u64 = 200;
/// While looking for the shortest round trip (draft: `ProbeRTTCwndGain`).
const PROBE_RTT_GAIN_PERCENT: u64 = 50;
/// How much of the ceiling is used between probes (draft: `Headroom`): others find room.
const HEADROOM_PERCENT: u64 = 85;

/// Fewer packets would wait for the peer's delayed acknowledgements (draft: `MinPipeCwnd`).
const LEAST_PACKETS: u64 = 4;
/// More than any connection's flow control admits; quinn stops pacing above 4 GiB.
const MOST_BYTES: u64 = 1 << 30;

/// Returns the smallest window.
pub(super) fn least(mtu: u64) -> u64 {
    LEAST_PACKETS.saturating_mul(mtu)
}

/// Returns the window that shows the shortest round trip.
pub(super) fn probe_rtt(model: &Model) -> u64 {
    percent(model.bandwidth_delay(), PROBE_RTT_GAIN_PERCENT).max(least(model.mtu))
}

/// Returns the next window after `window`, when `acked` bytes were acknowledged.
pub(super) fn next(phase: &Phase, model: &Model, window: u64, acked: u64) -> u64 {
    let spare = model.spare();
    let delay_products = |gain| percent(model.bandwidth_delay(), gain).saturating_add(spare);
    let paced = |rtt, gain| {
        let target = percent(bytes_in(model.bandwidth(), rtt), gain).saturating_add(spare);
        target.min(delay_products(CAP_GAIN_PERCENT))
    };
    let under_ceiling = |target: u64, part| match model.ceiling {
        Some(ceiling) => target.min(percent(ceiling, part)),
        None => target,
    };
    let target = match phase {
        _ if model.bandwidth() == 0 => window.saturating_add(acked),
        Phase::Startup { .. } => {
            window.saturating_add(acked).min(delay_products(STARTUP_GAIN_PERCENT)).max(window)
        }
        Phase::Drain | Phase::Down => under_ceiling(delay_products(100), HEADROOM_PERCENT),
        Phase::Cruise { .. } => under_ceiling(paced(model.standing_rtt(), 100), HEADROOM_PERCENT),
        Phase::Up { rtt, .. } => under_ceiling(paced(*rtt, UP_GAIN_PERCENT), 100),
        Phase::ProbeRtt { .. } => probe_rtt(model),
    };
    target.clamp(least(model.mtu), MOST_BYTES)
}
