//! Feeds with two histories: the proof is made durable, and nothing more of the feed is taken.
//!
//! What was taken before stays, and is served as ever. Whoever has another part of the other history shows it; the proof is
//! shown to peers in turn, so that a fork that one node finds stops that feed everywhere.

use std::sync::{Arc, PoisonError};

use avalon_protocol::{
    feed::{FeedError, FeedId, SealedGroup},
    fork::ForkProof,
};

use super::{IngestError, Ledger, LedgerError, LedgerEvent, shared::Shared, writer::Writer};
use crate::{
    feed::{FeedFile, FeedFileError, Fork, Settled},
    fs::IoError,
};

impl Shared {
    pub(super) fn forks(&self) -> Vec<Arc<Fork>> {
        self.forks.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn fork(&self, feed: &FeedId) -> Option<Arc<Fork>> {
        self.forks.read().unwrap_or_else(PoisonError::into_inner).get(feed).cloned()
    }

    pub(super) fn set_fork(&self, fork: Fork) {
        let mut forks = self.forks.write().unwrap_or_else(PoisonError::into_inner);
        forks.insert(fork.feed.clone(), Arc::new(fork));
    }
}

impl Ledger {
    /// Returns the feeds that have two histories.
    pub fn forks(&self) -> Vec<Arc<Fork>> {
        self.inner.shared.forks()
    }

    /// Returns what is known of the two histories of a feed, if it has two.
    pub fn fork(&self, feed: &FeedId) -> Option<Arc<Fork>> {
        self.inner.shared.fork(feed)
    }

    /// Notes, durably, that a person has dealt with a fork. The feed stays frozen. False when the feed has one history.
    ///
    /// # Errors
    /// [`LedgerError::Proof`].
    pub fn settle_fork(&self, feed: &FeedId, settled: Settled) -> Result<bool, LedgerError> {
        let shared = &self.inner.shared;
        let Some(fork) = shared.fork(feed) else { return Ok(false) };
        if let Some(proof) = &fork.proof {
            let written = shared.fork_files.write(proof, Some(&settled));
            written.map_err(|source| not_kept(feed, source))?;
        }
        shared.set_fork(Fork { settled: Some(settled), ..Fork::clone(&fork) });
        Ok(true)
    }

    /// Returns the groups to show to a peer that has `peer_has` records of a feed which has two histories here, or whose
    /// histories here and there do not fit: both of the proof, or that of ours at the place where the peer's copy ends.
    ///
    /// # Errors
    /// [`LedgerError::Feed`].
    pub fn groups_to_show(&self, feed: &FeedId, peer_has: u64) -> Result<Vec<SealedGroup>, LedgerError> {
        let shared = &self.inner.shared;
        let proof = shared.fork(feed).and_then(|fork| fork.proof.clone());
        if let Some(proof) = proof.filter(|proof| proof.shown_from() <= peer_has) {
            return Ok(vec![proof.ours, proof.theirs]);
        }
        let Some(index) = shared.feed(feed) else { return Ok(Vec::new()) };
        let at = peer_has.min(index.head().next_seq);
        let mut around = index.around(at).map_err(|source| unreadable(feed, source))?;
        around.retain(|group| group.claimed_start().is_some_and(|start| start <= peer_has));
        Ok(around)
    }
}

fn not_kept(feed: &FeedId, source: IoError) -> LedgerError {
    LedgerError::Proof { feed: feed.clone(), source: Arc::new(source) }
}

fn unreadable(feed: &FeedId, source: FeedFileError) -> LedgerError {
    LedgerError::Feed { feed: feed.clone(), source: Arc::new(source) }
}

impl Writer {
    /// Judges a group that does not follow: keeps the proof when it is of another history, which its node signed.
    pub(super) fn refuse(&self, feed: &FeedId, group: &SealedGroup, error: FeedError) -> IngestError {
        let Some(file) = self.feeds.get(feed) else { return IngestError::Feed(error) };
        if !self.is_signed(file, group, &error) {
            return IngestError::Feed(error);
        }
        let start = group.claimed_start().unwrap_or(0);
        let around = file.index().around(start).map_err(|source| unreadable(feed, source));
        let proof = match around {
            Ok(ours) => ForkProof::find(feed, &ours, group),
            Err(error) => return IngestError::Ledger(error),
        };
        let Some(proof) = proof else { return IngestError::Feed(error) };
        match self.freeze(proof) {
            Ok(()) => IngestError::Feed(FeedError::Fork { feed: feed.clone(), seq: start }),
            Err(error) => IngestError::Ledger(error),
        }
    }

    /// Says whether a refused group stands before our end and bears the signature of its node. Reads nothing: anybody can send any
    /// number of groups that nobody signed.
    fn is_signed(&self, file: &FeedFile, group: &SealedGroup, error: &FeedError) -> bool {
        match error {
            FeedError::Fork { .. } => true,
            // By the key that the feed has now. It may have had another one at that place.
            FeedError::Signature { seq, .. } if *seq < file.head().next_seq => {
                file.reader().has_signed(group, &file.index().certified_before(*seq), &*self.trust)
            }
            _ => false,
        }
    }

    /// Takes nothing more of a feed, and keeps what proves why.
    fn freeze(&self, proof: ForkProof) -> Result<(), LedgerError> {
        let feed = proof.feed.clone();
        let kept = self.shared.fork_files.write(&proof, None);
        // Whether or not it could be kept: the next one who shows it gives another chance.
        if kept.is_ok() {
            tracing::error!(%feed, record = proof.seq, "a feed has two histories, nothing more of it is taken");
            self.shared.set_fork(Fork { feed: feed.clone(), proof: Some(proof), settled: None });
            (self.on_change)(LedgerEvent::Forked { feed: feed.clone() });
        }
        kept.map_err(|source| not_kept(&feed, source))
    }
}
