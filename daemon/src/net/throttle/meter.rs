//! How much went in the last seconds.

use std::time::Duration;

/// Whole seconds that are looked back on.
const SECONDS: u64 = 5;
/// These, and the one that is not over.
const SLOTS: usize = 6;

/// Counts bytes by the second.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// The second and what went in it, each at its number modulo the slots.
    slots: [(u64, u64); SLOTS],
}

impl Meter {
    pub(super) fn add(&mut self, bytes: u64, now: Duration) {
        let second = now.as_secs();
        let slot = usize::try_from(second % SLOTS as u64).unwrap_or_default();
        if let Some(slot) = self.slots.get_mut(slot) {
            if slot.0 != second {
                *slot = (second, 0);
            }
            slot.1 += bytes;
        }
    }

    /// Returns the rate over the last whole seconds.
    pub(super) fn bytes_per_second(&self, now: Duration) -> f64 {
        let second = now.as_secs();
        let recent = |slot: &&(u64, u64)| slot.0 < second && slot.0 + SECONDS >= second;
        let bytes: u64 = self.slots.iter().filter(recent).map(|slot| slot.1).sum();
        #[expect(clippy::cast_precision_loss, reason = "it is for people")]
        let rate = bytes as f64 / SECONDS as f64;
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_what_is_older_than_five_seconds() {
        let mut meter = Meter::default();
        let at = Duration::from_millis;
        (0..10_000).step_by(100).for_each(|ms| meter.add(100, at(ms)));
        assert!((meter.bytes_per_second(at(10_500)) - 1000.0).abs() < 1e-9);
        assert!((meter.bytes_per_second(at(12_000)) - 600.0).abs() < 1e-9);
        assert!(meter.bytes_per_second(at(20_000)).abs() < 1e-9);
    }
}
