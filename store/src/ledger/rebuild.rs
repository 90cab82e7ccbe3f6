//! Building the catalog anew, again where that failed, and what is taken meanwhile.
//!
//! A revocation must not wait until a catalog is built: what goes into the studio's feeds is appended, takes effect and is told amid
//! that work. The catalog gets it afterwards.

use std::sync::Arc;

use super::{
    LedgerEvent, RebuildError, admit,
    load::Rebuilt,
    open::{build_next, reopen},
    replay::{RebuildProgress, find_missing, replay_feeds},
    writer::{Change, Job, REBUILD_AGAIN_AFTER, Writer},
};
use crate::{
    catalog::{CatalogError, CatalogStore, Cause, Checkpoints},
    error_chain::ErrorChain,
    fs::path_of,
};

/// A build that failed for want of room is not tried for less than so much more.
const ROOM_WORTH_A_TRY: u64 = 1 << 20;

impl Writer {
    /// Rebuilds a catalog that was found damaged; once, and then again after a while if that fails, or as soon as there is room.
    pub(super) fn heal(&mut self) {
        let Some(cause) = self.shared.damage() else { return };
        let is_early = self.rebuild_again_at.is_some_and(|at| self.generations.now() < at);
        if is_early && !(cause == Cause::NoSpace && self.has_room_again()) {
            return;
        }
        (self.on_change)(LedgerEvent::Rebuilding { cause: cause.clone() });
        if cause == Cause::NoSpace && self.reopen() {
            return;
        }
        match self.rebuild(&cause, &mut |_| {}) {
            Ok(_) => {}
            Err(RebuildError::Stopped) => tracing::info!("catalog not rebuilt: the ledger closes"),
            Err(error) => tracing::error!(error = %ErrorChain(&error), "catalog not rebuilt"),
        }
    }

    /// Says whether there is much more room than when the last build failed. So one that fails again is not begun
    /// again and again on a disk that is nearly full.
    fn has_room_again(&self) -> bool {
        let free = self.room_at_failure.zip(self.catalog_dir.free_bytes().ok());
        free.is_some_and(|(then, now)| now >= then.saturating_mul(2).saturating_add(ROOM_WORTH_A_TRY))
    }

    /// Goes on with the generation that a start could not open for lack of room; false when it is of no use.
    fn reopen(&mut self) -> bool {
        // One that failed while in use holds the engine's lock, and its rows are in doubt.
        if !self.is_missing_unknown {
            return false;
        }
        let shared = Arc::clone(&self.shared);
        let reopened = shared.long_work(|| reopen(&shared, &self.generations));
        let Ok(Some(store)) = reopened else { return false };
        tracing::info!(generation = store.generation(), "catalog opened, now that there is room");
        self.is_to_judge_anew = false;
        self.find_missing(&*store);
        shared.clear_damage();
        shared.replace_store(store);
        self.in_use();
        true
    }

    /// Builds the next generation from the feeds and puts it in the place of this one.
    pub(super) fn rebuild(
        &mut self,
        cause: &Cause,
        progress: &mut dyn FnMut(RebuildProgress),
    ) -> Result<Rebuilt, RebuildError> {
        self.give_up_compaction("the catalog is built anew");
        self.restore_directory();
        let shared = Arc::clone(&self.shared);
        let (generations, checkpoints) = (self.generations.clone(), self.checkpoints.clone());
        let built = shared.long_work(|| {
            // Not by older rights: what it has would pass for judged by these, and nobody would notice.
            admit::refresh(&shared)?;
            self.amid(|writer| {
                build_next(&shared, &generations, &checkpoints, &mut |state| {
                    writer.serve_urgent();
                    progress(state);
                })
            })
        });
        let built = built.inspect_err(|_| self.shared.mending.end(true));
        self.rebuild_again_at = Some(self.generations.now() + REBUILD_AGAIN_AFTER);
        let (store, built) = match built {
            Ok(built) => built,
            Err(error) => {
                // What was begun is removed by now.
                self.room_at_failure = self.catalog_dir.free_bytes().ok();
                self.note_what_came_amid();
                return Err(error);
            }
        };
        // Before anybody asks it: whoever was told that a record is there finds it.
        let brought_up = self.take_what_came_amid(&*store);
        self.is_to_judge_anew = brought_up.is_err();
        if let Err(error) = &brought_up {
            self.shared.note_damage(error);
        }
        self.use_rebuilt(store);
        self.is_missing_unknown |= self.is_to_judge_anew;
        tracing::info!(generation = self.shared.store().generation(), %cause, ?built, "catalog rebuilt");
        Ok(built)
    }

    /// Makes the directory of the catalog again, where somebody has removed it.
    fn restore_directory(&mut self) {
        let name = path_of("catalog");
        if self.state_dir.open_dir(&name).is_ok_and(|there| there.is_same(&self.catalog_dir)) {
            return;
        }
        match self.state_dir.create_dirs(&name) {
            Ok(dir) => {
                tracing::warn!(path = %dir.path().display(), "the directory of the catalog was removed, it is made again");
                self.generations.moved_to(dir.clone(), self.shared.store().generation());
                self.checkpoints = Checkpoints::new(dir.clone());
                self.catalog_dir = dir;
            }
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "the directory of the catalog is not there")
            }
        }
    }

    /// Notes, once, which manifests are missing: a ledger that was opened without a catalog could not.
    fn find_missing(&mut self, store: &dyn CatalogStore) {
        if !std::mem::take(&mut self.is_missing_unknown) {
            return;
        }
        if let Err(error) = find_missing(&self.shared, store) {
            self.is_missing_unknown = true;
            self.shared.note_damage(&error);
            tracing::warn!(error = %ErrorChain(&error), "missing manifests not looked for");
        }
    }

    /// Puts a new generation, which counts already, in the place of the one in use.
    pub(super) fn use_rebuilt(&mut self, store: Arc<dyn CatalogStore>) {
        self.find_missing(&*store);
        let old = self.shared.replace_store(store);
        self.generations.condemn(old.generation());
        self.in_use();
    }

    fn in_use(&mut self) {
        self.care.switched(self.generations.now(), None);
        self.rebuild_again_at = None;
        self.room_at_failure = None;
        (self.on_change)(LedgerEvent::Rebuilt);
    }

    /// Takes what goes into the studio's feeds.
    pub(super) fn serve_urgent(&mut self) {
        while let Ok(job) = self.urgent.try_recv() {
            match job {
                Job::Ingest(ingest) => self.ingest(ingest),
                Job::Change(change @ Change::Commit(_)) => {
                    // What waits for another feed is not done amid this.
                    let parked = if self.is_amid { std::mem::take(&mut self.parked) } else { Vec::new() };
                    self.change(vec![change]);
                    self.parked.splice(0..0, parked);
                }
                other => other.refuse(),
            }
        }
    }

    /// Does work during which [`Writer::serve_urgent`] leaves the catalog alone.
    pub(super) fn amid<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.is_amid = true;
        let done = work(self);
        self.is_amid = false;
        done
    }

    /// Applies to a store what came while it was at work that takes long. An error when it has to be built anew for that.
    pub(super) fn take_what_came_amid(&mut self, store: &dyn CatalogStore) -> Result<(), CatalogError> {
        // More may come amid that.
        while std::mem::take(&mut self.came_amid) {
            if self.is_judged_otherwise(store) {
                return Err(CatalogError::damaged(store.generation(), Cause::Rights));
            }
            let replayed = replay_feeds(&self.shared, store, &mut |_| {}, &mut |_| {});
            replayed.map_err(|error| match error {
                RebuildError::Catalog { source } => source,
                error => {
                    tracing::error!(error = %ErrorChain(&error), "records are not applied to the catalog");
                    CatalogError::damaged(store.generation(), Cause::Rights)
                }
            })?;
        }
        Ok(())
    }

    /// As [`Writer::take_what_came_amid`] for the store that stays in use.
    fn note_what_came_amid(&mut self) {
        let store = self.shared.store();
        let taken = match self.shared.damage().filter(|_| self.came_amid) {
            // Its cursors must not go on without what came.
            Some(cause) => Err(CatalogError::damaged(store.generation(), cause)),
            None => self.take_what_came_amid(&*store),
        };
        if let Err(error) = taken {
            self.is_to_judge_anew = true;
            self.shared.note_damage(&error);
        }
    }
}
