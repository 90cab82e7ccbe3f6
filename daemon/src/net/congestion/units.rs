//! Arithmetic of bytes, time and rates that saturates and never overflows.

use std::time::Duration;

/// Makes a `u64` of what was computed with room to spare.
fn clamp(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Returns how many bytes pass in `time` at `rate` bytes/s.
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    clamp(u128::from(rate).saturating_mul(time.as_nanos()) / 1_000_000_000)
}

/// Returns the rate in bytes/s of `bytes` in `time`; none for no time at all.
pub(super) fn rate_of(bytes: u64, time: Duration) -> Option<u64> {
    (u128::from(bytes) * 1_000_000_000).checked_div(time.as_nanos()).map(clamp)
}

/// Returns `percent` of `value`.
pub(super) fn percent(value: u64, percent: u64) -> u64 {
    clamp(u128::from(value) * u128::from(percent) / 100)
}
