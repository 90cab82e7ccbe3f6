//! What is known of the next generation while it is built: who waits for it, how far it is, and what it can answer.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::replay::RebuildProgress;
use crate::catalog::CatalogStore;

/// Shared by the thread that builds and those that wait.
#[derive(Debug, Default)]
pub(super) struct Mending {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many generations have come into use.
    switches: u64,
    /// The last try to build one failed: who waits for it waits for minutes.
    has_failed: bool,
    /// The ledger closes: nothing is built any more.
    is_closing: bool,
    next: Option<Next>,
}

#[derive(Debug)]
struct Next {
    store: Arc<dyn CatalogStore>,
    progress: RebuildProgress,
}

impl Mending {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// A generation is being filled from here on.
    pub(super) fn begin(&self, store: Arc<dyn CatalogStore>) {
        self.change(|state| {
            state.has_failed = false;
            state.next = Some(Next { store, progress: RebuildProgress::default() });
        });
    }

    /// Notes how far it is.
    pub(super) fn advanced(&self, progress: RebuildProgress) {
        if let Some(next) = &mut self.state().next {
            next.progress = progress;
        }
    }

    /// It is filled, or given up.
    pub(super) fn end(&self, has_failed: bool) {
        self.change(|state| {
            state.has_failed = has_failed;
            state.next = None;
        });
    }

    /// Another generation is in use.
    pub(super) fn switched(&self) {
        self.change(|state| state.switches += 1);
    }

    /// Lets nobody wait any more, and ends what is being built.
    pub(super) fn close(&self) {
        self.change(|state| state.is_closing = true);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().is_closing
    }

    pub(super) fn switches(&self) -> u64 {
        self.state().switches
    }

    /// Returns the generation that is being filled. What it knows is right; it does not know everything.
    pub(super) fn next(&self) -> Option<Arc<dyn CatalogStore>> {
        self.state().next.as_ref().map(|next| Arc::clone(&next.store))
    }

    pub(super) fn progress(&self) -> Option<RebuildProgress> {
        self.state().next.as_ref().map(|next| next.progress)
    }

    /// Waits until more than `seen` generations have come into use; false when that will not be soon.
    pub(super) fn wait_for_switch(&self, seen: u64, patience: Duration) -> bool {
        let waits = |state: &mut State| state.switches == seen && !state.has_failed && !state.is_closing;
        let waited = self.changed.wait_timeout_while(self.state(), patience, waits);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.switches > seen
    }

    /// Waits, for as long as it takes, until `is_mended`, which is asked at each change; false when the ledger closes
    /// before.
    pub(super) fn wait_until(&self, is_mended: impl Fn() -> bool) -> bool {
        let mut state = self.state();
        while !state.is_closing {
            let switches = state.switches;
            drop(state);
            if is_mended() {
                return true;
            }
            state = self.state();
            if state.switches == switches && !state.is_closing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::catalog::MemStore;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn who_waits_for_the_next_generation_is_woken_by_it_by_a_failure_and_by_the_end() {
        type End = fn(&Mending);
        let ends: [End; 3] = [Mending::switched, |mending| mending.end(true), Mending::close];
        for (end, expected) in ends.into_iter().zip([true, false, false]) {
            let mending = Arc::new(Mending::default());
            let waiting = {
                let mending = Arc::clone(&mending);
                thread::spawn(move || mending.wait_for_switch(0, LONG))
            };
            end(&mending);
            assert_eq!(waiting.join().unwrap(), expected);
        }
        assert!(!Mending::default().wait_for_switch(0, Duration::from_millis(1)), "it takes longer");
    }

    #[test]
    fn what_is_built_can_be_asked_until_it_is_in_use_or_given_up() {
        let mending = Mending::default();
        assert!(mending.next().is_none() && mending.progress().is_none());
        mending.begin(Arc::new(MemStore::default()));
        mending.advanced(RebuildProgress { records: 7, ..RebuildProgress::default() });
        assert_eq!((mending.next().is_some(), mending.progress().unwrap().records), (true, 7));
        mending.end(false);
        assert!(mending.next().is_none() && mending.progress().is_none());
    }
}
