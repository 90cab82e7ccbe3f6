//! Which of this node's own feeds may be written now, what waits until they may, and what is not written any more because own records
//! came back meanwhile.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, RwLock},
};

use avalon_protocol::{
    feed::FeedId,
    id::ProjectName,
    own_feed::Writing,
    record::{RawRecord, Record},
};

use super::{
    Committed, Ledger, LedgerError, Reply,
    writer::{Change, Commit, Job, Writer},
};
use crate::catalog::LocalChange;

/// What is allowed; all is until somebody says otherwise.
#[derive(Debug)]
pub(super) struct Allowed(RwLock<State>);

#[derive(Debug)]
struct State {
    all: Writing,
    projects: BTreeMap<ProjectName, Allows>,
}

#[derive(Debug, Clone, Copy)]
struct Allows {
    records: Writing,
    /// What holds records need not hold those that take a node out of the studio.
    revocations: Writing,
}

impl Default for Allowed {
    fn default() -> Self {
        Self(RwLock::new(State { all: Writing::Free, projects: BTreeMap::new() }))
    }
}

impl Allowed {
    fn of(&self, commit: &Commit) -> Writing {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(allows) = state.projects.get(&commit.project) else { return state.all };
        match commit.records.iter().any(RawRecord::is_revocation) {
            true => allows.revocations,
            false => allows.records,
        }
    }
}

/// How often records of the own feed about a project came back from peers since the start, once the catalog had them.
#[derive(Debug, Default)]
pub(super) struct CameBack(Mutex<BTreeMap<ProjectName, u64>>);

impl CameBack {
    pub(super) fn note(&self, project: &ProjectName) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(project.clone()).or_default() += 1;
    }

    fn of(&self, project: &ProjectName) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(project).copied().unwrap_or_default()
    }
}

impl Ledger {
    /// Returns how often records of the own feed about a project came back from peers since the start: to be asked before the catalog
    /// is, for [`Ledger::commit_concluded`].
    pub fn came_back(&self, project: &ProjectName) -> u64 {
        self.inner.shared.came_back.of(project)
    }

    /// As [`Ledger::commit`], for records that were concluded from the catalog after [`Ledger::came_back`] said `came_back`. The reply
    /// is [`LedgerError::CameBack`] where own records came back since: who did not know them may have concluded what contradicts
    /// them, such as a second first generation.
    pub fn commit_concluded(
        &self,
        (project, came_back): (&ProjectName, u64),
        records: Vec<Record>,
        local: Vec<LocalChange>,
        written_at_ms: u64,
        reply: Reply<Committed, LedgerError>,
    ) {
        let (project, came_back) = (project.clone(), Some(came_back));
        let records = records.iter().map(Record::to_raw).collect();
        let commit = Commit { project, came_back, records, local, written_at_ms, reply };
        self.inner.send(Job::Change(Change::Commit(commit)));
    }

    /// Keeps every own feed from being written until [`Ledger::set_writing`] says otherwise for its project.
    pub fn hold_all(&self) {
        let mut state = self.inner.shared.allowed.0.write().unwrap_or_else(PoisonError::into_inner);
        state.all = Writing::Waits;
    }

    /// Says whether the own feed about a project may be written. What waits for it is written then, or refused.
    pub fn set_writing(&self, project: &ProjectName, writing: Writing) {
        self.set_writing_apart(project, writing, writing);
    }

    /// As [`Ledger::set_writing`], with another word for commits that take a node out of the studio: those go past others that
    /// wait.
    pub fn set_writing_apart(&self, project: &ProjectName, records: Writing, revocations: Writing) {
        {
            let mut state = self.inner.shared.allowed.0.write().unwrap_or_else(PoisonError::into_inner);
            state.projects.insert(project.clone(), Allows { records, revocations });
        }
        self.inner.wake();
    }
}

impl Writer {
    /// Returns of a round what may be done now, behind what has waited. The rest waits or is refused.
    pub(super) fn admit(&mut self, round: Vec<Change>) -> Vec<Change> {
        let waited = std::mem::take(&mut self.parked).into_iter().map(Change::Commit);
        let mut admitted = Vec::with_capacity(round.len());
        for change in waited.chain(round) {
            match change {
                Change::Commit(commit) if !commit.records.is_empty() => {
                    admitted.extend(self.admit_commit(commit).map(Change::Commit));
                }
                other => admitted.push(other),
            }
        }
        admitted
    }

    fn admit_commit(&mut self, commit: Commit) -> Option<Commit> {
        let feed = self.shared.own_feed(&commit.project);
        // Whoever has this node's key can write all of its feeds.
        if let Some(feed) = self.shared.forked_own() {
            (commit.reply)(Err(LedgerError::Forked { feed }));
            return None;
        }
        match self.shared.allowed.of(&commit) {
            Writing::Free => return Some(commit),
            Writing::Waits => self.parked.push(commit),
            Writing::Refused => (commit.reply)(Err(LedgerError::Held { feed })),
        }
        None
    }

    /// Does what has waited, as far as it may be done now.
    pub(super) fn unpark(&mut self) {
        if self.parked.iter().any(|commit| self.may_go_on(commit)) {
            self.change(Vec::new());
        }
    }

    /// Refuses what was concluded before own records came back.
    pub(super) fn knew_own(&self, feed: &FeedId, commit: &Commit) -> Result<(), LedgerError> {
        let now = self.shared.came_back.of(&commit.project);
        match commit.came_back {
            Some(then) if then != now && !commit.records.is_empty() => {
                Err(LedgerError::CameBack { feed: feed.clone() })
            }
            _ => Ok(()),
        }
    }

    fn may_go_on(&self, commit: &Commit) -> bool {
        self.shared.forked_own().is_some() || self.shared.allowed.of(commit) != Writing::Waits
    }
}

impl super::Shared {
    /// Returns an own feed that has two histories, if one has.
    pub(super) fn forked_own(&self) -> Option<FeedId> {
        self.forks().into_iter().map(|fork| fork.feed.clone()).find(|feed| feed.node == self.me)
    }
}
