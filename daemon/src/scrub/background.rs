//! Reading by itself: every version that is held once in an interval, the one first that was not read for longest.
//!
//! A version that was never read since it is known when, counts as read when it was published. So one that was fetched long after
//! that is read soon: whether the disk kept what was written.

use std::{
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use avalon_protocol::{control::ScrubState, hash::ManifestId, id::VersionId};
use tokio_util::sync::CancellationToken;

use super::{
    Reader, Scrubber, Target,
    check::{Checked, LOOK_AGAIN},
    damage,
};
use crate::{clock::moment_of_week, core::blocking};

/// How many versions are read from the catalog at a time.
const PAGE: usize = 500;
/// How many versions are chosen at a time. To find the oldest, all that are held are looked at; so not for each of them.
const BATCH: usize = 1000;
/// How often it looks what is due when nothing is, at least; what is not due now may be when the clock was set.
const LOOK_AT_LEAST: Duration = Duration::from_secs(3600);
/// How often it looks whether its hours have come.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);
/// How soon a version is tried again of which nothing could be said, or that is not as it was and not the disk's fault.
const TRY_AGAIN: Duration = Duration::from_secs(3600);

/// Versions that are set aside for a while, and until when.
pub(super) type Aside = HashMap<VersionId, Duration>;

/// What is to be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// The oldest first, with when each was read last.
    pub(super) chosen: Vec<(u64, VersionId)>,
    /// How many are due.
    pub(super) count: u64,
    /// When the oldest was read last, of all that are held and not set aside.
    pub(super) oldest_ms: Option<u64>,
}

impl Scrubber {
    pub(super) async fn background(&self) {
        let stop = self.0.tasks.token();
        if !self.0.core.until_catalog(&stop).await {
            return;
        }
        let mut aside = Aside::new();
        while !stop.is_cancelled() {
            let wait = self.pass(&mut aside, &stop).await;
            self.set_state(ScrubState::Idle);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.core.clock.sleep(wait) => {}
            }
        }
    }

    /// Reads what is due, up to a batch; returns how long nothing is.
    pub(super) async fn pass(&self, aside: &mut Aside, stop: &CancellationToken) -> Duration {
        let now = self.0.core.clock.monotonic();
        aside.retain(|_, until| *until > now);
        let (scrubber, passed_over) = (self.clone(), aside.keys().cloned().collect());
        let due = blocking(move || scrubber.due(&passed_over)).await;
        let Some(Due { chosen, count, oldest_ms }) = due else { return LOOK_AT_CLOCK };
        {
            let mut totals = self.totals();
            (totals.due, totals.oldest_ms) = (count, oldest_ms);
        }
        if chosen.is_empty() {
            return self.until_next(oldest_ms, !aside.is_empty());
        }
        for (_, version) in chosen {
            if !self.until_hours(stop).await || !self.may_go_on(Reader::Itself).await {
                return LOOK_AGAIN;
            }
            let is_good = match self.read_held(&version).await {
                Some(Checked::Read(bad)) => bad.is_empty(),
                Some(Checked::Unread(why)) => {
                    tracing::debug!(%version, why, "a version was not verified");
                    false
                }
                Some(Checked::Stopped) => return LOOK_AGAIN,
                // It is dropped meanwhile, or its manifest is not to be had now.
                None => false,
            };
            if !is_good {
                aside.insert(version, self.0.core.clock.monotonic() + TRY_AGAIN);
            }
            let mut totals = self.totals();
            totals.due = totals.due.saturating_sub(1);
        }
        Duration::ZERO
    }

    /// Reads a version if it is still held, and has it fetched again if it is damaged. `None` when it is not.
    async fn read_held(&self, version: &VersionId) -> Option<Checked> {
        let (core, id) = (Arc::clone(&self.0.core), version.clone());
        let target = blocking(move || {
            let fold = core.ledger.version(&id).ok()??;
            fold.held_by(&core.me).next()?;
            Target::of(&core, &id, &fold)
        });
        let target = target.await?;
        let checked = self.read_one(&target, Reader::Itself, &|_| ()).await;
        if let Checked::Read(bad) = &checked
            && self.0.config.repair
        {
            let lost: Vec<_> = bad.iter().filter(|bad| bad.is_lost).cloned().collect();
            damage::ask_for(&self.0.core, version, &lost).await;
        }
        Some(checked)
    }

    /// Waits until it may read by the clock; false when the daemon stops.
    async fn until_hours(&self, stop: &CancellationToken) -> bool {
        let clock = &self.0.core.clock;
        let zone = jiff::tz::TimeZone::system();
        while !self.0.config.when.contains(moment_of_week(clock.as_ref(), &zone)) {
            self.set_state(ScrubState::Waiting);
            tokio::select! {
                () = stop.cancelled() => return false,
                () = clock.sleep(LOOK_AT_CLOCK) => {}
            }
        }
        true
    }

    fn until_next(&self, oldest_ms: Option<u64>, has_aside: bool) -> Duration {
        let most = if has_aside { LOOK_AT_CLOCK } else { LOOK_AT_LEAST };
        let due_ms = oldest_ms.map(|oldest| oldest.saturating_add(self.interval_ms()));
        let wait = due_ms.map(|due| Duration::from_millis(due.saturating_sub(self.0.core.now_ms())));
        wait.unwrap_or(self.0.config.interval).clamp(Duration::from_secs(1), most)
    }

    fn interval_ms(&self) -> u64 {
        u64::try_from(self.0.config.interval.as_millis()).unwrap_or(u64::MAX)
    }

    /// Finds what is due, of all that is held but what is set aside. `None` while the catalog cannot be read. Blocks.
    pub(super) fn due(&self, aside: &HashSet<VersionId>) -> Option<Due> {
        let core = &self.0.core;
        let now_ms = core.now_ms();
        let due_before = now_ms.saturating_sub(self.interval_ms());
        let (mut due, mut held) = (Due::default(), HashSet::new());
        let mut oldest: BinaryHeap<(u64, VersionId)> = BinaryHeap::new();
        for project in core.projects.keys() {
            let mut after: Option<VersionId> = None;
            loop {
                let page = core.ledger.versions(project, None, after.as_ref(), PAGE).ok()?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (version, fold) in page {
                    let number = |id: &ManifestId| fold.generation(id).map(|known| known.generation);
                    let Some(manifest) = fold.held_by(&core.me).max_by_key(number) else { continue };
                    let published = fold.generation(&manifest).map_or(0, |known| known.published_at_ms);
                    // A clock that was ahead keeps nothing from being read.
                    let at_ms = self.0.verified.of(&manifest).unwrap_or(published);
                    let at_ms = if at_ms > now_ms { 0 } else { at_ms };
                    held.extend(manifest.as_bytes().first_chunk::<16>().copied());
                    if aside.contains(&version) {
                        continue;
                    }
                    due.oldest_ms = Some(due.oldest_ms.map_or(at_ms, |oldest| oldest.min(at_ms)));
                    if at_ms > due_before {
                        continue;
                    }
                    due.count += 1;
                    oldest.push((at_ms, version));
                    if oldest.len() > BATCH {
                        oldest.pop();
                    }
                }
            }
        }
        self.0.verified.retain(|key| key.try_into().is_ok_and(|key: [u8; 16]| held.contains(&key)));
        due.chosen = oldest.into_sorted_vec();
        Some(due)
    }
}
