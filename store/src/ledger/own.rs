//! Which of this node's own feeds may be written now, and what waits until they may.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use avalon_protocol::{feed::FeedId, id::ProjectName, own_feed::Writing, record::RawRecord};

use super::{
    Ledger, LedgerError,
    writer::{Change, Commit, Writer},
};

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

impl Ledger {
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
