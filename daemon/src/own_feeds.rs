//! When this node writes its own feeds: the state machine of [`avalon_protocol::own_feed`], driven by what peers say and by the
//! clock, and what people hear while it may not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use avalon_protocol::{
    control::{Health, Severity},
    feed::{FeedHead, FeedId},
    id::{NodeId, ProjectName},
    own_feed::{OwnFeeds, Signs, Writing},
};
use avalon_store::{
    ledger::Ledger,
    state_dir::StateDir,
    witness::{self, Moment},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, core::blocking, health::HealthBoard, log::ErrorChain};

/// How often the witness is written while records are. It costs three fsyncs.
const WITNESS_EVERY: Duration = Duration::from_secs(60);

/// The health code of own feeds that may not be written.
const FEED_HELD: &str = "feed-held";

/// Which own feeds may be written. Clones are the same.
#[derive(Debug, Clone)]
pub struct OwnWriting {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    me: NodeId,
    ledger: Ledger,
    health: HealthBoard,
    clock: Arc<dyn Clock>,
    /// Where the witness is; none in tests that have none.
    state: Option<Arc<StateDir>>,
    known: Mutex<Known>,
    /// One witness at a time: each removes the anchor of the one before.
    witnessing: Mutex<()>,
    changed: Notify,
    /// Tells of each change of what may be written, and at the end that nobody will tell any more.
    has_ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct Known {
    feeds: OwnFeeds,
    /// What the ledger was told last.
    told: BTreeMap<ProjectName, [Writing; 2]>,
    /// When the witness said last that this state is the newest, and whether records followed.
    witnessed_at: Option<Duration>,
    is_ahead_of_witness: bool,
}

impl OwnWriting {
    /// Looks where the state comes from, and keeps the own feeds of these projects from being written until it is clear that
    /// nobody knows more of them. `has_peers` says that the configuration names some, `damaged` which own feeds were put aside, and how
    /// many records they had. Blocks.
    pub fn open(
        state: &Arc<StateDir>,
        ledger: &Ledger,
        (me, projects): (&NodeId, &[ProjectName]),
        (has_peers, damaged): (bool, &[(ProjectName, u64)]),
        health: &HealthBoard,
        clock: Arc<dyn Clock>,
    ) -> Self {
        ledger.hold_all();
        let heads: Vec<(ProjectName, FeedHead)> =
            projects.iter().map(|project| (project.clone(), own_head(ledger, me, project))).collect();
        let signs = witness::check(state, me, &heads);
        if let Signs::Restored { why } = &signs {
            tracing::warn!(why, "this state was restored: peers are asked before anything is recorded");
        }
        let others = |project: &ProjectName| ledger.heads(project).iter().any(|(node, _)| node != me);
        let is_alone = !has_peers && !projects.iter().any(others);
        let records = heads.iter().map(|(project, head)| (project.clone(), head.next_seq));
        let mut feeds = OwnFeeds::new(records, signs, is_alone, clock.monotonic());
        damaged.iter().for_each(|(project, records)| feeds.had(project, *records));
        Self::with(me, ledger, Some(Arc::clone(state)), feeds, health, clock)
    }

    /// Lets everything be written at once: a node of a test, alone with what it has.
    #[cfg(test)]
    pub(crate) fn free(me: &NodeId, ledger: &Ledger, health: &HealthBoard, clock: Arc<dyn Clock>) -> Self {
        let feeds = OwnFeeds::new([], Signs::None, true, clock.monotonic());
        Self::with(me, ledger, None, feeds, health, clock)
    }

    fn with(
        me: &NodeId,
        ledger: &Ledger,
        state: Option<Arc<StateDir>>,
        feeds: OwnFeeds,
        health: &HealthBoard,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let known = Known { feeds, told: BTreeMap::new(), witnessed_at: None, is_ahead_of_witness: false };
        let (me, ledger, health) = (me.clone(), ledger.clone(), health.clone());
        let inner = Inner {
            me,
            ledger,
            health,
            clock,
            state,
            known: Mutex::new(known),
            witnessing: Mutex::new(()),
            changed: Notify::new(),
            has_ended: watch::Sender::new(false),
        };
        let own = Self { inner: Arc::new(inner) };
        own.tell(&mut own.known());
        own
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each input is taken whole.
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut OwnFeeds, Duration)) {
        let mut known = self.known();
        change(&mut known.feeds, self.inner.clock.monotonic());
        self.tell(&mut known);
        self.inner.changed.notify_one();
    }

    /// Hears that a peer is connected.
    pub fn greeted(&self, peer: &NodeId) {
        self.change(|feeds, _| feeds.greeted(peer));
    }

    /// Hears how much a peer has of this node's feed about a project.
    pub fn heard(&self, project: &ProjectName, peer: &NodeId, next_seq: u64) {
        // It may have been sent records that were written a moment ago.
        let ours = own_head(&self.inner.ledger, &self.inner.me, project).next_seq;
        if next_seq > ours {
            tracing::warn!(%project, %peer, has = next_seq, here = ours, "a peer has more of this node's own feed");
        }
        self.change(|feeds, now| {
            feeds.advanced(project, ours);
            feeds.heard(project, peer, next_seq, now);
        });
    }

    /// Hears that a feed goes further.
    pub fn advanced(&self, feed: &FeedId, next_seq: u64) {
        if feed.node == self.inner.me {
            self.known().is_ahead_of_witness = true;
            self.change(|feeds, _| feeds.advanced(&feed.project, next_seq));
        }
    }

    /// Hears that a peer gave records of a feed that were not here, which has so many now.
    pub fn came(&self, feed: &FeedId, peer: &NodeId, next_seq: u64) {
        if feed.node == self.inner.me {
            self.change(|feeds, now| feeds.came(&feed.project, peer, next_seq, now));
        }
    }

    /// Hears that a peer is gone.
    pub fn gone(&self, peer: &NodeId) {
        self.change(|feeds, now| feeds.gone(peer, now));
    }

    /// Hears from a person that the feed about a project is to be written as it is.
    pub fn release(&self, project: &ProjectName) {
        self.change(|feeds, _| feeds.release(project));
    }

    /// Says whether the own feed about a project may be written.
    pub fn writing(&self, project: &ProjectName) -> Writing {
        self.known().feeds.writing(project, self.inner.clock.monotonic())
    }

    /// Waits while it is about to be known whether the own feed about a project may be written: what is concluded from a catalog that
    /// lacks own records may be wrong. Returns when the daemon stops, too.
    pub async fn decided(&self, project: &ProjectName) {
        let mut has_ended = self.inner.has_ended.subscribe();
        while self.writing(project) == Writing::Waits && !*has_ended.borrow_and_update() {
            if has_ended.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells the ledger and the board what has changed.
    fn tell(&self, known: &mut Known) {
        let (inner, now) = (&self.inner, self.inner.clock.monotonic());
        let projects: Vec<ProjectName> = known.feeds.projects().cloned().collect();
        for project in projects {
            let writing = known.feeds.writing(&project, now);
            let board = inner.health.about(project.as_str());
            match writing {
                Writing::Refused => board.raise(self.held(&known.feeds, &project, now)),
                Writing::Free | Writing::Waits => board.clear(FEED_HELD),
            }
            let revoking = known.feeds.revoking(&project, now);
            if known.told.insert(project.clone(), [writing, revoking]) != Some([writing, revoking]) {
                tracing::debug!(%project, ?writing, ?revoking, "own feed");
                inner.ledger.set_writing_apart(&project, writing, revoking);
                inner.has_ended.send_modify(|_| {});
            }
        }
    }

    fn held(&self, feeds: &OwnFeeds, project: &ProjectName, now: Duration) -> Health {
        let me = &self.inner.me;
        let (message, hint) = if let Some((peer, more)) = feeds.ahead(project, now).next() {
            (
                format!(
                    "{me} records nothing about {project} before it has its own records back: {peer} has {more}"
                ),
                "they come by themselves while that peer is connected".to_owned(),
            )
        } else if let Some(records) = feeds.lacks(project) {
            (
                format!(
                    "{me} records nothing about {project} before it has its own {records} records back, which were damaged on its disk"
                ),
                format!(
                    "let it reach a peer that has them; if no peer has: avalonctl feed release {project} goes on with what is here"
                ),
            )
        } else {
            let why = match feeds.signs() {
                Signs::Restored { why } => format!("its state was restored ({why})"),
                Signs::New | Signs::None => "it has no state from before".to_owned(),
            };
            (
                format!(
                    "{me} records nothing about {project} before a peer has said how far its feed went: {why}"
                ),
                format!(
                    "let it reach a peer that serves {project}; if no peer can know more: avalonctl feed release {project}"
                ),
            )
        };
        Health { code: FEED_HELD.into(), severity: Severity::Error, message, hint: Some(hint) }
    }

    /// Lets time pass, and keeps the witness, until the daemon stops.
    pub async fn watch(self, stop: CancellationToken) {
        loop {
            let now = self.inner.clock.monotonic();
            let next = {
                let mut known = self.known();
                self.tell(&mut known);
                known.feeds.next_change(now)
            };
            let next = [next, self.witness_in_time(now).await].into_iter().flatten().min();
            let wait = next.map(|at| at.saturating_sub(now));
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.inner.changed.notified() => {}
                () = self.inner.clock.sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
        self.inner.has_ended.send_replace(true);
    }

    /// Says whether this state is known to be the newest of every feed that it has. Of one that nobody has asked about yet there is
    /// nothing to be older.
    fn is_free(&self) -> bool {
        let known = self.known();
        let now = self.inner.clock.monotonic();
        let is_free = |project: &&ProjectName| known.feeds.writing(project, now) == Writing::Free;
        // One that was put aside is empty and was not: the next start is to know that.
        let is_empty = |project: &ProjectName| {
            own_head(&self.inner.ledger, &self.inner.me, project) == FeedHead::EMPTY
                && known.feeds.lacks(project).is_none()
        };
        let (free, held): (Vec<_>, Vec<_>) = known.feeds.projects().partition(is_free);
        !free.is_empty() && held.into_iter().all(is_empty)
    }

    /// Notes that this state is the newest, once that is so, and now and then when records followed. Returns when to look again.
    async fn witness_in_time(&self, now: Duration) -> Option<Duration> {
        if !self.is_free() {
            return None;
        }
        let due = {
            let known = self.known();
            match known.witnessed_at {
                Some(_) if !known.is_ahead_of_witness => return None,
                Some(at) => at + WITNESS_EVERY,
                None => now,
            }
        };
        if now < due {
            return Some(due);
        }
        // What is written meanwhile may be behind what is noted.
        self.known().is_ahead_of_witness = false;
        let own = self.clone();
        let is_kept = blocking(move || own.witness(Moment::Start)).await;
        let mut known = self.known();
        known.is_ahead_of_witness |= !is_kept;
        known.witnessed_at = Some(now);
        known.is_ahead_of_witness.then_some(now + WITNESS_EVERY)
    }

    /// Notes at the end what the files of the own feeds are like. Blocks; nothing may be written behind it.
    pub fn witness_end(&self) {
        if self.is_free() {
            self.witness(Moment::Stop);
        }
    }

    fn witness(&self, moment: Moment) -> bool {
        let Some(state) = &self.inner.state else { return true };
        let _turn = self.inner.witnessing.lock().unwrap_or_else(PoisonError::into_inner);
        let (ledger, me) = (&self.inner.ledger, &self.inner.me);
        let projects: Vec<ProjectName> = self.known().feeds.projects().cloned().collect();
        let heads: Vec<_> =
            projects.into_iter().map(|project| (project.clone(), own_head(ledger, me, &project))).collect();
        match witness::write(state, me, &heads, moment) {
            Ok(()) => true,
            Err(error) => {
                // The next start asks peers then, as after a restore.
                tracing::warn!(error = %ErrorChain(&error), "the witness of the own feeds is not written");
                false
            }
        }
    }
}

fn own_head(ledger: &Ledger, me: &NodeId, project: &ProjectName) -> FeedHead {
    let mut heads = ledger.heads(project).into_iter();
    heads.find(|(node, _)| node == me).map_or(FeedHead::EMPTY, |(_, head)| head)
}
