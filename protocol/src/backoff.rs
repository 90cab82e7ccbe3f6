//! How long to wait before trying again.

use std::time::Duration;

/// Waits that double from one to a limit, each shortened by up to a quarter so that nodes that lost the same peer do not
/// come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts with no failure.
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, failures: 0 }
    }

    /// Counts a failure and returns how long to wait; `random` is any random number.
    pub fn failed(&mut self, random: u64) -> Duration {
        let full = self.first.saturating_mul(2u32.saturating_pow(self.failures)).min(self.limit);
        self.failures = self.failures.saturating_add(1);
        let quarter_permille = u32::try_from(random % 250).unwrap_or(0);
        full - full * quarter_permille / 1000
    }

    /// Forgets the failures.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_limit_and_starts_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<u128> = (0..6).map(|_| backoff.failed(0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        for _ in 0..100 {
            assert!(backoff.failed(249) > Duration::from_millis(750));
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(0).as_millis(), 100);
    }
}
