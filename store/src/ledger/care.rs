//! When the catalog is looked after: pure decisions about numbers that the writing thread brings.

use std::time::Duration;

use crate::catalog::Generations;

/// The engine takes and frees whole segments: less is no growth.
const MIN_GROWTH_BYTES: u64 = 8 << 20;

/// When the catalog is looked after. The defaults are right for everybody but tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogCare {
    /// How often its size is looked at. That is the length of a file and a sum in memory, and what came since the last look is
    /// what it may take beyond the bounds.
    pub look_every: Duration,
    /// Up to so many bytes on disk it is left alone, whatever is in it.
    pub small_bytes: u64,
    /// How many times the bytes of its rows it may take on disk.
    pub max_ratio: u64,
    /// How long the engine may take to open it.
    pub slow_open: Duration,
    /// How soon it may be copied again where it has not grown by half since.
    pub again_after: Duration,
    /// After how many records a checkpoint is written; in a large catalog only when a quarter of all came since the last.
    pub checkpoint_records: u64,
    /// Up to so many records a catalog of no use is built before opening returns; above, meanwhile, about a second or two.
    pub build_at_open_records: u64,
    /// Up to so many rows it proves at open that it has all of them (about 3 s for a million); above, in the background.
    pub verify_at_open_rows: u64,
    /// A copy during which so many rows change is given up: it was the wrong time for it.
    pub max_touched_rows: usize,
}

impl Default for CatalogCare {
    fn default() -> Self {
        Self {
            look_every: Duration::from_mins(10),
            small_bytes: 64 << 20,
            max_ratio: 3,
            slow_open: Duration::from_secs(5),
            again_after: Duration::from_hours(24),
            checkpoint_records: 100_000,
            build_at_open_records: 20_000,
            verify_at_open_rows: 1_000_000,
            max_touched_rows: 1_000_000,
        }
    }
}

/// What is remembered for the decisions.
#[derive(Debug)]
pub(super) struct Care {
    limits: CatalogCare,
    looked_at: Duration,
    /// How long the engine took to open the generation in use; zero where it was made in this run.
    open_took: Duration,
    last: Option<Attempt>,
    /// How many records there were when the last checkpoint was written, or should have been.
    checkpoint_at: u64,
}

/// The last copy, whether it came to something or not.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    at: Duration,
    disk_bytes: u64,
}

/// Why a generation is copied into a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It takes too much room for what is in it.
    Bloated,
    /// It took too long to open.
    SlowOpen,
}

impl Care {
    /// Starts with a generation that took `open_took` to open, and a checkpoint of so many records.
    pub(super) fn new(
        limits: CatalogCare,
        generations: &Generations,
        generation: u64,
        open_took: Duration,
        checkpoint_at: u64,
    ) -> Self {
        let now = generations.now();
        let last = generations.compacted(generation).map(|disk_bytes| Attempt { at: now, disk_bytes });
        Self { limits, looked_at: now, open_took, last, checkpoint_at }
    }

    /// Says whether a checkpoint is due when there are `records`. The time that all checkpoints take together is then in
    /// proportion to the records, not to their square.
    pub(super) fn is_checkpoint_due(&self, records: u64) -> bool {
        let since = records.saturating_sub(self.checkpoint_at);
        since >= self.limits.checkpoint_records.max(self.checkpoint_at / 4)
    }

    /// Notes that a checkpoint of `records` was written, or failed and is not tried again soon.
    pub(super) fn checkpointed(&mut self, records: u64) {
        self.checkpoint_at = records;
    }

    /// Returns how many changed rows end a copy.
    pub(super) fn max_touched_rows(&self) -> usize {
        self.limits.max_touched_rows
    }

    /// Says whether it is time to look at the sizes; once for each interval.
    pub(super) fn is_time_to_look(&mut self, now: Duration) -> bool {
        let due = now.saturating_sub(self.looked_at) >= self.limits.look_every;
        if due {
            self.looked_at = now;
        }
        due
    }

    /// Says why a generation that takes `disk_bytes` for rows of `live_bytes` is to be copied, if it is.
    ///
    /// What a copy does not help against, it is not repeated for: not within a day, unless the generation has grown by
    /// half since.
    pub(super) fn reason_to_compact(
        &self,
        now: Duration,
        disk_bytes: u64,
        live_bytes: u64,
    ) -> Option<Reason> {
        let limits = &self.limits;
        let may_help = self.last.is_none_or(|last| {
            now.saturating_sub(last.at) >= limits.again_after
                || disk_bytes >= last.disk_bytes.saturating_add((last.disk_bytes / 2).max(MIN_GROWTH_BYTES))
        });
        let bloated = disk_bytes > limits.small_bytes && disk_bytes / limits.max_ratio > live_bytes;
        match (may_help, bloated, self.open_took > limits.slow_open) {
            (true, true, _) => Some(Reason::Bloated),
            (true, false, true) => Some(Reason::SlowOpen),
            _ => None,
        }
    }

    /// Notes that a copy begins of a generation that takes `disk_bytes`.
    pub(super) fn begun(&mut self, now: Duration, disk_bytes: u64) {
        self.last = Some(Attempt { at: now, disk_bytes });
    }

    /// Notes that a new generation is in use, which takes `disk_bytes` where that is known.
    pub(super) fn switched(&mut self, now: Duration, disk_bytes: Option<u64>) {
        self.open_took = Duration::ZERO;
        if let Some(disk_bytes) = disk_bytes {
            self.last = Some(Attempt { at: now, disk_bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const MIB: u64 = 1 << 20;

    fn care(open_took: Duration) -> Care {
        Care {
            limits: CatalogCare::default(),
            looked_at: Duration::ZERO,
            open_took,
            last: None,
            checkpoint_at: 0,
        }
    }

    #[test]
    fn sizes_are_looked_at_every_ten_minutes() {
        let (mut care, every) = (care(Duration::ZERO), Duration::from_mins(10));
        assert!(!care.is_time_to_look(every - Duration::from_millis(1)));
        assert!(care.is_time_to_look(every));
        assert!(!care.is_time_to_look(every * 3 / 2));
        assert!(care.is_time_to_look(every * 5), "a machine that slept");
        assert!(!care.is_time_to_look(every * 5));
    }

    #[test]
    fn three_times_the_rows_is_too_much_but_not_in_a_small_catalog() {
        let care = care(Duration::ZERO);
        assert_eq!(care.reason_to_compact(HOUR, 300 * MIB, 100 * MIB), None);
        assert_eq!(care.reason_to_compact(HOUR, 304 * MIB, 100 * MIB), Some(Reason::Bloated));
        assert_eq!(care.reason_to_compact(HOUR, 64 * MIB, 1), None);
        assert_eq!(care.reason_to_compact(HOUR, 64 * MIB + 3, 1), Some(Reason::Bloated));
    }

    #[test]
    fn an_open_of_more_than_five_seconds_is_a_reason_until_the_next_generation() {
        let mut care = care(Duration::from_millis(5001));
        assert_eq!(care.reason_to_compact(HOUR, MIB, MIB), Some(Reason::SlowOpen));
        care.switched(HOUR, Some(MIB));
        assert_eq!(care.reason_to_compact(HOUR * 100, MIB, MIB), None);
        assert_eq!(
            Care { open_took: Duration::from_secs(5), ..care }.reason_to_compact(HOUR * 100, MIB, MIB),
            None
        );
    }

    #[test]
    fn checkpoints_come_after_so_many_records_or_a_quarter_of_all() {
        let mut care = care(Duration::ZERO);
        assert!(!care.is_checkpoint_due(99_999) && care.is_checkpoint_due(100_000));
        care.checkpointed(100_000);
        assert!(!care.is_checkpoint_due(199_999) && care.is_checkpoint_due(200_000));
        care.checkpointed(1_000_000);
        assert!(!care.is_checkpoint_due(1_249_999) && care.is_checkpoint_due(1_250_000));
        assert!(!care.is_checkpoint_due(10), "the feeds were replaced by a backup");
    }

    #[test]
    fn what_did_not_help_is_not_done_again_before_a_day_or_growth_by_half() {
        let mut care = care(Duration::ZERO);
        care.begun(HOUR, 900 * MIB);
        assert_eq!(care.reason_to_compact(HOUR * 2, 900 * MIB, MIB), None, "it failed");
        care.switched(HOUR * 2, Some(400 * MIB));
        assert_eq!(care.reason_to_compact(HOUR * 3, 599 * MIB, MIB), None);
        assert_eq!(care.reason_to_compact(HOUR * 3, 600 * MIB, MIB), Some(Reason::Bloated));
        assert_eq!(care.reason_to_compact(HOUR * 26 - Duration::from_secs(1), 400 * MIB, MIB), None);
        assert_eq!(care.reason_to_compact(HOUR * 26, 400 * MIB, MIB), Some(Reason::Bloated));
    }
}
