//! How old this node's knowledge of the studio's rights is: whoever is cut off does not hear who was revoked.
//!
//! It is fresh while a node that has the studio's feeds is connected, an admin's, a site's or one that issues, and everything that it says
//! it has of them is here. An admin's node is never cut off from itself: what it says is what the others wait for. The age is counted by a
//! clock that nobody sets and that goes on while the machine sleeps, and by the wall clock over restarts; one that was set back makes nothing
//! younger.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use avalon_protocol::{
    access::Role,
    control::{Health, Severity},
};
use avalon_store::fs::Dir;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    core::{Core, blocking},
    health::HealthBoard,
    log::ErrorChain,
    net::Net,
    state_file::StateFile,
};

/// How often it is looked, at most and at least; a quarter of what is allowed in between.
const LOOK_MOST: Duration = Duration::from_secs(60);
const LOOK_LEAST: Duration = Duration::from_millis(100);
/// How often it is written down: a restart makes it older by as much at most.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// The two clocks are not read at one moment: less is no sleep.
const NAP: Duration = Duration::from_secs(1);
/// After how long without a word a connection has ended for certain.
const SILENCE: Duration = Duration::from_secs(35);

const OLD: &str = "rights-knowledge-old";

/// What the configuration says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KnowledgeLimits {
    /// From which age on it is told; never without.
    pub max_age: Option<Duration>,
    /// How much older it may be before this node records nothing new; without, it goes on.
    pub grace: Option<Duration>,
    /// Whether peers get content then.
    pub serves_when_old: bool,
}

impl KnowledgeLimits {
    fn refuses_from(&self) -> Option<Duration> {
        Some(self.max_age?.saturating_add(self.grace?))
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Kept {
    /// When it was fresh last, in milliseconds since 1970.
    heard_at_ms: u64,
    /// When that was written down.
    written_at_ms: u64,
}

#[derive(Debug)]
struct Known {
    /// How old it was at a time of the clock that nobody sets.
    age: Duration,
    at: Duration,
    written: Option<Duration>,
}

/// How old this node's knowledge is.
#[derive(Debug)]
pub struct Knowledge {
    file: StateFile,
    limits: KnowledgeLimits,
    /// It is an admin's.
    is_source: bool,
    known: Mutex<Known>,
    refuses: watch::Sender<bool>,
    health: HealthBoard,
    clock: Arc<dyn Clock>,
}

impl Knowledge {
    /// Goes on where the last run ended. A node that is new begins with fresh knowledge: it has just joined. Blocks.
    pub fn open(
        root: &Dir,
        role: Role,
        limits: KnowledgeLimits,
        health: &HealthBoard,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let file = StateFile::new(root, "knowledge.json", "avalon.knowledge/1");
        let now_ms = wall_ms(&**clock);
        let age = match file.read::<Kept>() {
            Ok(None) => Duration::ZERO,
            Ok(Some(kept)) => {
                let by_then = kept.written_at_ms.max(now_ms);
                Duration::from_millis(by_then.saturating_sub(kept.heard_at_ms))
            }
            // Nobody knows, so nobody is trusted for it.
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "how old the knowledge of rights is cannot be read; it counts as too old");
                Duration::MAX
            }
        };
        let known = Known { age, at: clock.with_sleep(), written: None };
        let (health, clock) = (health.clone(), Arc::clone(clock));
        let is_source = role == Role::Admin;
        let refuses = watch::Sender::new(false);
        let opened = Self { file, limits, is_source, known: Mutex::new(known), refuses, health, clock };
        if age.is_zero() {
            opened.write();
        }
        opened.look();
        opened
    }

    /// Returns how old it is.
    pub fn age(&self) -> Duration {
        if self.is_source {
            return Duration::ZERO;
        }
        let known = self.lock();
        known.age.saturating_add(self.clock.with_sleep().saturating_sub(known.at))
    }

    /// Says whether it is so old that this node records nothing new.
    pub fn is_too_old(&self) -> bool {
        self.limits.refuses_from().is_some_and(|from| self.age() >= from)
    }

    /// Says whether peers get no content for that.
    pub fn keeps_content(&self) -> bool {
        !self.limits.serves_when_old && self.is_too_old()
    }

    /// Returns what changes when this node begins or ends to refuse.
    pub fn changed(&self) -> watch::Receiver<bool> {
        self.refuses.subscribe()
    }

    /// All that somebody who knows has is here. Blocks now and then.
    pub fn heard(&self) {
        let now = self.clock.with_sleep();
        let is_due = {
            let mut known = self.lock();
            (known.age, known.at) = (Duration::ZERO, now);
            known.written.is_none_or(|at| now.saturating_sub(at) >= WRITE_EVERY)
        };
        if is_due {
            self.write();
        }
    }

    fn write(&self) {
        let now_ms = wall_ms(&*self.clock);
        let age = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
        let kept = Kept { heard_at_ms: now_ms.saturating_sub(age), written_at_ms: now_ms };
        match self.file.write(&kept) {
            Ok(()) => self.lock().written = Some(self.clock.with_sleep()),
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "how old the knowledge of rights is was not kept; it is tried again");
            }
        }
    }

    /// Tells when it is old, and when it is not any more.
    fn look(&self) {
        let age = self.age();
        let is_too_old = self.is_too_old();
        match self.limits.max_age.filter(|max_age| age >= *max_age) {
            Some(_) => self.health.raise(old(is_too_old)),
            None => self.health.clear(OLD),
        }
        // A clock that is set back over a restart makes it younger by this much at most.
        let now = self.clock.with_sleep();
        if self.lock().written.is_some_and(|at| now.saturating_sub(at) >= WRITE_EVERY) {
            self.write();
        }
        self.refuses.send_if_modified(|refuses| std::mem::replace(refuses, is_too_old) != is_too_old);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change under the lock is whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_every(&self) -> Duration {
        let least = [self.limits.max_age, self.limits.grace].into_iter().flatten().min();
        least.map_or(LOOK_MOST, |least| (least / 4).clamp(LOOK_LEAST, LOOK_MOST))
    }
}

fn wall_ms(clock: &dyn Clock) -> u64 {
    let since = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn old(is_too_old: bool) -> Health {
    Health {
        code: OLD.into(),
        severity: if is_too_old { Severity::Error } else { Severity::Warning },
        message: match is_too_old {
            true => "this node has not heard for too long whom the studio trusts; it records nothing new",
            false => "this node has not heard for a long time whom the studio trusts",
        }
        .into(),
        hint: Some(
            "connect it with an admin's or a site's node; avalonctl status shows how old it is".into(),
        ),
    }
}

/// Says since when this machine has been awake: a connection that died in its sleep looks alive until it has been silent for a while.
#[derive(Debug)]
struct Awake {
    /// How much of its time the machine had slept by the last look.
    slept: Duration,
    /// When it was found to have slept.
    since: Option<Duration>,
}

impl Awake {
    fn new(clock: &dyn Clock) -> Self {
        Self { slept: clock.with_sleep().saturating_sub(clock.monotonic()), since: None }
    }

    /// Says whether what looks connected now was connected after the last sleep.
    fn is_long(&mut self, clock: &dyn Clock) -> bool {
        let (slept, now) = (clock.with_sleep().saturating_sub(clock.monotonic()), clock.monotonic());
        if slept > self.slept + NAP {
            self.since = Some(now);
        }
        self.slept = slept;
        self.since.is_none_or(|since| now.saturating_sub(since) > SILENCE)
    }
}

/// Follows whether somebody is connected who knows, until the daemon stops.
pub async fn follow(core: Arc<Core>, net: Net, stop: CancellationToken) {
    let mut awake = Awake::new(&*core.clock);
    loop {
        let is_long_awake = awake.is_long(&*core.clock);
        let knows =
            is_long_awake && net.links().iter().any(|link| link.may_know_rights() && link.has_studio_of());
        let there = Arc::clone(&core);
        blocking(move || {
            if knows {
                there.knowledge.heard();
            }
            there.knowledge.look();
        })
        .await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.clock.sleep(core.knowledge.look_every()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use avalon_store::state_dir::StateDir;

    use super::*;
    use crate::{clock::ManualClock, events::EventBus};

    const HOUR: Duration = Duration::from_hours(1);

    struct Place {
        state: StateDir,
        clock: ManualClock,
        board: HealthBoard,
        _dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (state, clock) = (StateDir::open(&dir.path().join("state")).unwrap(), ManualClock::new());
            let board = HealthBoard::new(EventBus::new(Arc::new(clock.clone())));
            Self { state, clock, board, _dir: dir }
        }

        fn open(&self, role: Role, limits: KnowledgeLimits) -> Knowledge {
            let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
            Knowledge::open(&self.state.root, role, limits, &self.board, &clock)
        }
    }

    fn limits() -> KnowledgeLimits {
        KnowledgeLimits { max_age: Some(2 * HOUR), grace: Some(HOUR), serves_when_old: false }
    }

    #[test]
    fn it_grows_old_is_told_then_refuses_and_is_fresh_again_when_it_hears() {
        let place = Place::new();
        let knowledge = place.open(Role::Site, limits());
        let changed = knowledge.changed();
        for (hours, told, refuses) in [
            (0, None, false),
            (1, None, false),
            (1, Some(Severity::Warning), false),
            (1, Some(Severity::Error), true),
        ] {
            place.clock.advance(hours * HOUR);
            knowledge.look();
            let severity = place.board.items().first().map(|health| health.severity);
            assert_eq!(
                (severity, knowledge.is_too_old(), knowledge.keeps_content()),
                (told, refuses, refuses),
                "{:?}",
                knowledge.age()
            );
        }
        assert!(*changed.borrow());
        knowledge.heard();
        knowledge.look();
        assert!(place.board.items().is_empty() && !*changed.borrow() && knowledge.age().is_zero());
    }

    #[test]
    fn a_machine_that_sleeps_hears_nothing() {
        let place = Place::new();
        let knowledge = place.open(Role::Site, limits());
        place.clock.advance(HOUR);
        place.clock.sleep_machine(2 * HOUR);
        assert!(knowledge.is_too_old() && knowledge.age() == 3 * HOUR);
    }

    #[test]
    fn what_looks_connected_after_a_sleep_is_not_believed_at_once() {
        assert!(SILENCE > Duration::from_millis(crate::net::endpoint::IDLE_LIMIT_MS.into()));
        let clock = ManualClock::new();
        let mut awake = Awake::new(&clock);
        let mut is_long_after = |advance| {
            clock.advance(advance);
            awake.is_long(&clock)
        };
        assert!(is_long_after(Duration::ZERO) && is_long_after(HOUR));
        clock.sleep_machine(HOUR);
        let answers = [0, 30, 4, 2, 60].map(|seconds| is_long_after(Duration::from_secs(seconds)));
        assert_eq!(answers, [false, false, false, true, true]);
    }

    #[test]
    fn without_limits_it_only_has_an_age_and_an_admins_node_has_none() {
        let place = Place::new();
        let free = place.open(Role::Workstation, KnowledgeLimits::default());
        let warns =
            place.open(Role::Workstation, KnowledgeLimits { max_age: Some(HOUR), ..Default::default() });
        let admin = place.open(Role::Admin, limits());
        let serves = place.open(Role::Site, KnowledgeLimits { serves_when_old: true, ..limits() });
        place.clock.advance(100 * HOUR);
        [&free, &warns, &admin, &serves].into_iter().for_each(Knowledge::look);
        assert_eq!([&free, &warns, &admin, &serves].map(Knowledge::is_too_old), [false, false, false, true]);
        assert_eq!((free.age(), admin.age()), (100 * HOUR, Duration::ZERO));
        assert!(!serves.keeps_content());
    }

    #[test]
    fn a_restart_goes_on_and_neither_a_clock_set_back_nor_a_damaged_file_makes_it_younger() {
        let place = Place::new();
        let knowledge = place.open(Role::Site, limits());
        knowledge.heard();
        place.clock.advance(5 * HOUR);
        assert_eq!(place.open(Role::Site, limits()).age(), 5 * HOUR);
        let now_ms = wall_ms(&place.clock);
        let hour = u64::try_from(HOUR.as_millis()).unwrap();
        let file = StateFile::new(&place.state.root, "knowledge.json", "avalon.knowledge/1");
        // Written a day ahead of what the clock says now.
        file.write(&Kept { heard_at_ms: now_ms + 20 * hour, written_at_ms: now_ms + 24 * hour }).unwrap();
        assert_eq!(place.open(Role::Site, limits()).age(), 4 * HOUR);
        place
            .state
            .root
            .write_atomic(&"knowledge.json".parse().unwrap(), b"{", avalon_store::fs::WriteMode::Replace)
            .unwrap();
        let damaged = place.open(Role::Site, limits());
        assert!(damaged.is_too_old());
        damaged.heard();
        assert!(!place.open(Role::Site, limits()).is_too_old());
    }
}
