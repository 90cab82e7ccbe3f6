//! [`Clock`], the only way to the time.
//!
//! Whoever needs to know or to wait takes a clock, so that tests decide how fast time goes.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use avalon_protocol::limit::Moment;
use jiff::{Timestamp, tz::TimeZone};
use tokio::sync::watch;

/// A wait that a [`Clock`] gave out. Dropping it ends the wait.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The time of day, a time that never jumps, and waiting.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the time of day, for people and records; it may jump.
    fn now(&self) -> SystemTime;
    /// Returns the time since the clock was made; it only goes forward, and stands still while the machine sleeps.
    fn monotonic(&self) -> Duration;
    /// Returns a time that only goes forward, also while the machine sleeps, where the system can tell.
    fn with_sleep(&self) -> Duration;
    /// Waits for as long as `duration`; at once when it is zero.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// Returns the monotonic time in whole milliseconds.
pub fn monotonic_ms(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX)
}

/// Formats a time in milliseconds since 1970 as the local API does.
pub fn time_of_ms(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default()
}

/// Returns the moment of the week in a time zone.
pub fn moment_of_week(clock: &dyn Clock, zone: &TimeZone) -> Moment {
    let time = Timestamp::try_from(clock.now()).unwrap_or_default().to_zoned(zone.clone());
    let day = u8::try_from(time.weekday().to_monday_zero_offset()).unwrap_or_default();
    let part = |number: i8| u16::try_from(number).unwrap_or_default();
    Moment { day, minute: part(time.hour()) * 60 + part(time.minute()) }
}

/// Waits for as long as `duration`, and an eighth more, in time in which this node itself got on: a stall of its own, however
/// long, is one step of nine, and there is always one behind it. For deadlines that are somebody else's fault.
pub fn sleep_awake(clock: &Arc<dyn Clock>, duration: Duration) -> Sleep {
    /// Into how many the duration is parted.
    const STEPS: u32 = 8;
    let clock = Arc::clone(clock);
    Box::pin(async move {
        for _ in 0..=STEPS {
            clock.sleep(duration / STEPS).await;
        }
    })
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy)]
pub struct RealClock {
    start: Instant,
}

impl RealClock {
    /// Starts a clock whose monotonic time is zero now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else takes")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else takes")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[cfg(target_os = "linux")]
    fn with_sleep(&self) -> Duration {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(since_boot).unwrap_or_default()
    }

    #[cfg(not(target_os = "linux"))]
    fn with_sleep(&self) -> Duration {
        self.monotonic()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else takes")]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that stands still until a test advances it. Clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    start: SystemTime,
    elapsed: watch::Sender<Duration>,
    slept: watch::Sender<Duration>,
}

impl ManualClock {
    /// Makes a clock that shows `start`.
    pub fn starting_at(start: SystemTime) -> Self {
        Self { start, elapsed: watch::Sender::new(Duration::ZERO), slept: watch::Sender::new(Duration::ZERO) }
    }

    /// Makes a clock that shows a fixed day in 2026.
    pub fn new() -> Self {
        Self::starting_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000))
    }

    /// Lets time go on at once; every wait that ends by then ends.
    pub fn advance(&self, duration: Duration) {
        self.elapsed.send_modify(|elapsed| *elapsed += duration);
    }

    /// Lets the machine sleep: waits go on behind it as if nothing had been.
    pub fn sleep_machine(&self, duration: Duration) {
        self.slept.send_modify(|slept| *slept += duration);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.start + self.with_sleep()
    }

    fn monotonic(&self) -> Duration {
        *self.elapsed.borrow()
    }

    fn with_sleep(&self) -> Duration {
        self.monotonic() + *self.slept.borrow()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let mut elapsed = self.elapsed.subscribe();
        let until = self.monotonic().saturating_add(duration);
        Box::pin(async move {
            let reached = elapsed.wait_for(|now| *now >= until).await.is_ok();
            if !reached {
                // Every clock is gone, so this time never comes.
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_only_those_whose_time_has_come() {
        let clock = ManualClock::new();
        let start = clock.now();
        let mut short = clock.sleep(Duration::from_secs(2));
        let mut long = clock.clone().sleep(Duration::from_secs(5));
        assert!((&mut short).now_or_never().is_none());
        clock.advance(Duration::from_secs(2));
        short.await;
        assert!((&mut long).now_or_never().is_none());
        clock.advance(Duration::from_secs(3));
        long.await;
        assert_eq!(clock.now(), start + Duration::from_secs(5));
        clock.sleep(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn a_stall_is_one_step_however_long_it_is() {
        let clock = ManualClock::new();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let mut awake = sleep_awake(&shared, Duration::from_secs(8));
        for _ in 0..8 {
            assert!((&mut awake).now_or_never().is_none());
            clock.advance(Duration::from_secs(600));
        }
        assert!((&mut awake).now_or_never().is_none(), "what came meanwhile can still be looked at");
        clock.advance(Duration::from_secs(1));
        awake.await;
    }

    #[tokio::test]
    async fn the_real_clock_goes_forward() {
        let clock = RealClock::new();
        let before = clock.monotonic();
        clock.sleep(Duration::from_millis(1)).await;
        assert!(clock.monotonic() >= before + Duration::from_millis(1));
        let before = clock.with_sleep();
        clock.sleep(Duration::from_millis(1)).await;
        assert!(clock.with_sleep() >= before + Duration::from_millis(1));
    }
}
