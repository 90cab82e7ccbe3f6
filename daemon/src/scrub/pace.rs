//! How fast files are read again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::clock::Clock;

/// What opening a file costs at least: a disk that turns has to seek for it.
const LEAST_BYTES: u64 = 16 << 10;

/// Lets through so many bytes a second, together. Nothing is saved up: after a rest there is no burst.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    clock: Arc<dyn Clock>,
    /// When what was let through is over.
    free_at: Mutex<Duration>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64, clock: Arc<dyn Clock>) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), clock, free_at: Mutex::default() }
    }

    /// Waits until so many more bytes may be read.
    pub(super) async fn take(&self, bytes: u64) {
        let wait = {
            // Every change under the lock is one number.
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.clock.monotonic();
            let from = (*free_at).max(now);
            let nanos =
                u128::from(bytes.max(LEAST_BYTES)) * 1_000_000_000 / u128::from(self.bytes_per_second);
            *free_at = from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            from.saturating_sub(now)
        };
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn so_many_bytes_a_second_and_no_burst_after_a_rest() {
        let clock = ManualClock::new();
        let pace = Pace::new(1 << 20, Arc::new(clock.clone()));
        clock.advance(Duration::from_secs(3600));
        assert!(pace.take(2 << 20).now_or_never().is_some(), "the first goes at once");
        let mut next = Box::pin(pace.take(1 << 20));
        assert!((&mut next).now_or_never().is_none());
        clock.advance(Duration::from_millis(1999));
        assert!((&mut next).now_or_never().is_none(), "two seconds for two MiB");
        clock.advance(Duration::from_millis(1));
        next.await;
        let mut small = Box::pin(pace.take(1));
        clock.advance(Duration::from_secs(1));
        assert!((&mut small).now_or_never().is_some());
        let mut after = Box::pin(pace.take(1));
        assert!((&mut after).now_or_never().is_none(), "a small file counts as 16 KiB");
        clock.advance(Duration::from_millis(16));
        after.await;
    }
}
