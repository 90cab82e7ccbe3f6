//! One version on its way here.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use avalon_protocol::{
    control::{ErrorCode, EventKind, JobKind, JobState, JobStatus, Prio},
    frames::FrameWish,
    hash::ManifestId,
    id::{NodeId, VersionId},
    plan::Priority,
    policy::Urgency,
    rel_path::RelPath,
    wire::PieceEncoding,
};
use avalon_store::fs::FileIdentity;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, events::EventBus};

/// How often progress is told; a bar does not need more.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// How a job ended, or why it pauses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The version is visible and recorded.
    Placed,
    /// It cannot go on now.
    Waiting {
        /// What it waits for.
        reason: String,
        /// What kind of error it would be if somebody gave up now.
        code: ErrorCode,
        /// When to try again.
        when: RetryWhen,
    },
    /// It cannot be done.
    Failed {
        /// Why.
        reason: String,
        /// What kind of error.
        code: ErrorCode,
    },
    /// Somebody cancelled it, or the daemon stops.
    Cancelled,
}

/// When a job that waits is tried again; a peer that comes always counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryWhen {
    /// When a peer comes or says that it holds the version.
    PeerCame,
    /// After a while.
    After(Duration),
}

/// What lies in the place of a version: while all of it is so, the version cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupied {
    /// The path, relative to the project.
    pub path: RelPath,
    /// What is there.
    pub there: FileIdentity,
    /// The generations that were known to be replaced.
    pub before: Vec<ManifestId>,
    /// For people.
    pub reason: String,
}

/// One version that has to come here.
#[derive(Debug)]
pub struct Job {
    /// Its id, unique for this run of the daemon.
    pub id: String,
    /// What comes.
    pub version: VersionId,
    /// Which generation.
    pub manifest: ManifestId,
    /// Cancels it, for good.
    pub cancel: CancellationToken,
    discarded: AtomicBool,
    puts_back: AtomicBool,
    /// What lay in its place when it was to be placed.
    occupied: Mutex<Option<Occupied>>,
    /// What is fetched, where it is not all of it.
    frames: Option<FrameWish>,
    counts: Counts,
    state: Mutex<State>,
    created: Duration,
    clock: Arc<dyn Clock>,
    events: EventBus,
}

#[derive(Debug, Default)]
struct Counts {
    files_total: AtomicU64,
    files_present: AtomicU64,
    bytes_total: AtomicU64,
    bytes_present: AtomicU64,
    bytes_received: AtomicU64,
    bytes_local: AtomicU64,
    bytes_delta: AtomicU64,
    bytes_compressed: AtomicU64,
    bytes_raw: AtomicU64,
}

/// Files and bytes of the passes around the one that comes.
#[derive(Debug, Clone, Copy, Default)]
struct Passes {
    before: (u64, u64),
    after: (u64, u64),
}

/// When a job's turn comes: higher is sooner.
pub(super) type Turn = (Priority, Urgency);

#[derive(Debug)]
struct State {
    kind: JobKind,
    priority: Priority,
    urgency: Urgency,
    prio: Option<Prio>,
    passes: Passes,
    /// Ends the run that is under way, or the last one.
    run: CancellationToken,
    state: JobState,
    reason: Option<String>,
    error: Option<ErrorCode>,
    sources: BTreeSet<NodeId>,
    path: Option<PathBuf>,
    ended: Option<Duration>,
    told: Option<Duration>,
    rate: Rate,
}

impl State {
    fn turn(&self) -> Turn {
        match self.prio {
            None | Some(Prio::Normal) => (self.priority, self.urgency),
            Some(Prio::Now) => (Priority::Waiting, Urgency::High),
            Some(Prio::High) => (self.priority.max(Priority::Publish), Urgency::High),
            Some(Prio::Low) => (Priority::Backfill, Urgency::Low),
        }
    }
}

/// Bytes per second over about the last seconds.
#[derive(Debug, Default)]
struct Rate {
    at: Duration,
    received: u64,
    bytes_per_second: f64,
}

impl Rate {
    /// Half of the rate comes from the last second, the rest from before.
    fn update(&mut self, now: Duration, received: u64) {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        if elapsed < 0.2 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let latest = received.saturating_sub(self.received) as f64 / elapsed;
        let weight = 0.5f64.powf(elapsed);
        self.bytes_per_second = if self.received == 0 {
            latest
        } else {
            self.bytes_per_second * weight + latest * (1.0 - weight)
        };
        (self.at, self.received) = (now, received);
    }
}

impl Job {
    /// Makes a job that is queued.
    pub fn new(
        id: String,
        version: VersionId,
        manifest: ManifestId,
        wish: (JobKind, Priority),
        clock: Arc<dyn Clock>,
        events: EventBus,
    ) -> Self {
        let created = clock.monotonic();
        let state = State {
            kind: wish.0,
            priority: wish.1,
            urgency: Urgency::default(),
            prio: None,
            passes: Passes::default(),
            run: CancellationToken::new(),
            state: JobState::Queued,
            reason: None,
            error: None,
            sources: BTreeSet::new(),
            path: None,
            ended: None,
            told: None,
            rate: Rate { at: created, ..Rate::default() },
        };
        let (counts, cancel) = (Counts::default(), CancellationToken::new());
        Self {
            discarded: AtomicBool::new(false),
            puts_back: AtomicBool::new(false),
            occupied: Mutex::new(None),
            frames: None,
            id,
            version,
            manifest,
            cancel,
            counts,
            state: Mutex::new(state),
            created,
            clock,
            events,
        }
    }

    /// Notes that somebody does not want it any more: what was fetched is removed when it has ended.
    pub fn discard(&self) {
        self.discarded.store(true, Ordering::Relaxed);
    }

    /// Says whether somebody does not want it any more.
    pub fn is_discarded(&self) -> bool {
        self.discarded.load(Ordering::Relaxed)
    }

    /// Begins a run of its work.
    pub fn begin(&self) {
        self.lock().run = self.cancel.child_token();
        self.set_state(JobState::Running, None, None);
    }

    /// Ends the run that is under way; what came stays, and another run goes on with it.
    pub fn interrupt(&self) {
        self.lock().run.cancel();
    }

    /// Returns what ends the run that is under way: a pause, or that the job is cancelled.
    pub fn stop(&self) -> CancellationToken {
        self.lock().run.clone()
    }

    /// Says whether the run that is under way is to end.
    pub fn is_stopped(&self) -> bool {
        self.lock().run.is_cancelled()
    }

    /// Lets it fetch some frames only.
    #[must_use]
    pub fn with_frames(mut self, frames: Option<FrameWish>) -> Self {
        self.frames = frames;
        self
    }

    /// Returns which frames it fetches, where it is not all of the version.
    pub fn frames(&self) -> Option<&FrameWish> {
        self.frames.as_ref()
    }

    /// Notes that somebody wants back what stands: what lies in its place goes to the trash.
    pub fn put_back(&self) {
        self.puts_back.store(true, Ordering::Relaxed);
    }

    /// Says whether somebody wants back what stands.
    pub fn puts_back(&self) -> bool {
        self.puts_back.load(Ordering::Relaxed)
    }

    /// Notes what lay in its place; `None` when nothing does any more.
    pub fn set_occupied(&self, occupied: Option<Occupied>) {
        *self.occupied.lock().unwrap_or_else(PoisonError::into_inner) = occupied;
    }

    /// Returns what lay in its place when it was to be placed.
    pub fn occupied(&self) -> Option<Occupied> {
        self.occupied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how urgent it is.
    pub fn priority(&self) -> Priority {
        self.turn().0
    }

    /// Returns the bytes of its version, if it comes by itself and waits for room.
    pub fn waits_for_room(&self) -> Option<u64> {
        let state = self.lock();
        let waits = state.state == JobState::Waiting && state.error == Some(ErrorCode::DiskFull);
        (waits && state.kind == JobKind::Mirror).then(|| self.counts.bytes_total.load(Ordering::Relaxed))
    }

    /// Returns what it is for.
    pub fn kind(&self) -> JobKind {
        self.lock().kind
    }

    /// Sets its order among those that are as urgent.
    pub fn set_urgency(&self, urgency: Urgency) {
        self.lock().urgency = urgency;
    }

    /// Notes what somebody says about its order; `None` takes it back.
    pub fn set_prio(&self, prio: Option<Prio>) {
        self.lock().prio = prio;
    }

    /// Returns when its turn comes: higher is sooner.
    pub(super) fn turn(&self) -> Turn {
        self.lock().turn()
    }

    /// Makes it more urgent: somebody waits for it now.
    pub fn raise(&self, kind: JobKind, priority: Priority) {
        let mut state = self.lock();
        if priority > state.priority {
            (state.kind, state.priority) = (kind, priority);
        }
    }

    /// Returns where it stands.
    pub fn state(&self) -> JobState {
        self.lock().state
    }

    /// Moves on and tells everybody.
    pub fn set_state(&self, to: JobState, reason: Option<String>, error: Option<ErrorCode>) {
        {
            let mut state = self.lock();
            (state.state, state.reason, state.error) = (to, reason, error);
            if to.is_final() {
                state.ended = Some(self.clock.monotonic());
            }
        }
        self.tell();
    }

    /// Names the size of the version, before the first look at what is here of it.
    pub fn set_size(&self, files: u64, bytes: u64) {
        self.counts.files_total.store(files, Ordering::Relaxed);
        self.counts.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// Names where the version will be.
    pub fn set_path(&self, path: PathBuf) {
        self.lock().path = Some(path);
    }

    /// Names a node that bytes come from.
    pub fn add_source(&self, node: &NodeId) {
        self.lock().sources.insert(node.clone());
    }

    /// Sets what is here and verified of what is fetched now, and tells everybody. Of a version that comes in passes, what
    /// the others have is added.
    pub fn set_present(&self, files: (u64, u64), bytes: (u64, u64)) {
        let Passes { before, after } = self.lock().passes;
        self.counts.files_present.store(before.0 + files.0, Ordering::Relaxed);
        self.counts.files_total.store(before.0 + files.1 + after.0, Ordering::Relaxed);
        self.counts.bytes_present.store(before.1 + bytes.0, Ordering::Relaxed);
        self.counts.bytes_total.store(before.1 + bytes.1 + after.1, Ordering::Relaxed);
        self.tell();
    }

    /// Says what is in the passes before and after the one that comes now: files and bytes.
    pub fn set_passes(&self, before: (u64, u64), after: (u64, u64)) {
        self.lock().passes = Passes { before, after };
    }

    /// Counts content by the way in which it came.
    pub fn add_content(&self, encoding: PieceEncoding, bytes: u64) {
        let count = match encoding {
            PieceEncoding::Raw => &self.counts.bytes_raw,
            PieceEncoding::Zstd => &self.counts.bytes_compressed,
            PieceEncoding::Delta => &self.counts.bytes_delta,
        };
        count.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts what came over the network, as it was encoded.
    pub fn add_received(&self, bytes: u64) {
        self.counts.bytes_received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts content that was found on this machine.
    pub fn add_local(&self, bytes: u64) {
        self.counts.bytes_local.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says whether progress should be told again, and takes note that it is.
    pub fn progress_is_due(&self) -> bool {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let due = state.told.is_none_or(|told| now.saturating_sub(told) >= TELL_EVERY);
        if due {
            state.told = Some(now);
        }
        due
    }

    fn tell(&self) {
        self.events.emit(EventKind::Job { job: self.status() });
    }

    /// Returns how it stands, for people and scripts.
    pub fn status(&self) -> JobStatus {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let received = load(&counts.bytes_received);
        state.rate.update(now, received);
        let rate = if state.state == JobState::Running { state.rate.bytes_per_second } else { 0.0 };
        let missing = load(&counts.bytes_total).saturating_sub(load(&counts.bytes_present));
        #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
        let eta_seconds = (rate > 0.0).then(|| missing as f64 / rate);
        JobStatus {
            id: self.id.clone(),
            kind: state.kind,
            reference: self.version.to_string(),
            manifest: self.manifest.to_string(),
            state: state.state,
            reason: state.reason.clone(),
            error: state.error,
            files_total: load(&counts.files_total),
            files_present: load(&counts.files_present),
            bytes_total: load(&counts.bytes_total),
            bytes_present: load(&counts.bytes_present),
            bytes_received: received,
            bytes_local: load(&counts.bytes_local),
            bytes_delta: load(&counts.bytes_delta),
            bytes_compressed: load(&counts.bytes_compressed),
            bytes_raw: load(&counts.bytes_raw),
            bytes_per_second: rate,
            eta_seconds,
            seconds: state.ended.unwrap_or(now).saturating_sub(self.created).as_secs_f64(),
            sources: state.sources.iter().map(ToString::to_string).collect(),
            path: state.path.as_ref().map(|path| path.display().to_string()),
            class: Some(state.turn().0.into()),
            prio: state.prio,
            frames: self.frames.as_ref().map(|wish| wish.frames.to_string()),
            position: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
