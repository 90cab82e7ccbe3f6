//! [`Tasks`], the only way to start a task, so that shutdown knows them all.

use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::clock::Clock;

/// A group of tasks that are stopped together. Clones are the same group.
///
/// A task is told to stop by the [`CancellationToken`] that it took from [`Tasks::token`], and ends by itself.
#[derive(Debug, Clone)]
pub struct Tasks {
    token: CancellationToken,
    /// This group first, then those that it is within.
    groups: Vec<Arc<Group>>,
}

#[derive(Debug, Default)]
struct Group {
    tracker: TaskTracker,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    tasks: BTreeMap<u64, (String, Option<AbortHandle>)>,
}

impl Group {
    fn running(&self) -> MutexGuard<'_, Running> {
        // Every change under the lock is one insertion or removal.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, name: &str) -> Entered {
        let mut running = self.running();
        let id = running.next;
        running.next += 1;
        running.tasks.insert(id, (name.to_owned(), None));
        Entered { group: self.clone(), id }
    }
}

/// Takes a task off the list when it ends, however it ends.
struct Entered {
    group: Arc<Group>,
    id: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.group.running().tasks.remove(&self.id);
    }
}

impl Tasks {
    /// Makes an empty group.
    pub fn new() -> Self {
        Self { token: CancellationToken::new(), groups: vec![Arc::default()] }
    }

    /// Makes a group within this one: it stops with this one, and can be stopped before.
    pub fn child(&self) -> Self {
        let groups = std::iter::once(Arc::default()).chain(self.groups.iter().cloned()).collect();
        Self { token: self.token.child_token(), groups }
    }

    /// Returns what tells the group's tasks to stop.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Tells all tasks of this group and of those within it to stop, and does not wait.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Starts a task. A panic in it is logged and ends only that task.
    pub fn spawn<F>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let entered: Vec<Entered> = self.groups.iter().map(|group| group.enter(&name)).collect();
        let places: Vec<(Arc<Group>, u64)> = entered.iter().map(|e| (e.group.clone(), e.id)).collect();
        let tokens: Vec<_> = self.groups.iter().map(|group| group.tracker.token()).collect();
        let Some(own) = self.groups.first() else { return };
        let task = own.tracker.spawn(async move {
            let ended = AssertUnwindSafe(future).catch_unwind().await;
            if ended.is_err() {
                tracing::error!(task = name, "a task panicked; this is a bug");
            }
            drop(entered);
            drop(tokens);
        });
        for (group, id) in places {
            if let Some((_, abort)) = group.running().tasks.get_mut(&id) {
                *abort = Some(task.abort_handle());
            }
        }
    }

    /// Returns the names of the tasks that run, in the order of their start.
    pub fn running(&self) -> Vec<String> {
        let Some(own) = self.groups.first() else { return Vec::new() };
        own.running().tasks.values().map(|(name, _)| name.clone()).collect()
    }

    /// Tells all tasks to stop and waits until they have; those that have not by `deadline` are aborted, and their names
    /// returned.
    pub async fn shutdown(&self, deadline: Duration, clock: &dyn Clock) -> Vec<String> {
        self.token.cancel();
        let Some(own) = self.groups.first() else { return Vec::new() };
        own.tracker.close();
        tokio::select! {
            () = own.tracker.wait() => Vec::new(),
            () = clock.sleep(deadline) => {
                let hung: Vec<_> = own.running().tasks.values().cloned().collect();
                for abort in hung.iter().filter_map(|(_, abort)| abort.as_ref()) {
                    abort.abort();
                }
                hung.into_iter().map(|(name, _)| name).collect()
            }
        }
    }
}

/// Runs work that waits for a disk on a thread that may wait, and returns what it returns.
///
/// A panic in it goes on here. Dropping the future does not end the work.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let mut background = Background::idle();
    background.start(work);
    background.finished().await
}

/// At most one piece of blocking work of a task that goes on meanwhile.
#[derive(Debug)]
pub struct Background<T>(Option<JoinHandle<T>>);

impl<T: Send + 'static> Background<T> {
    /// Has no work.
    pub fn idle() -> Self {
        Self(None)
    }

    /// Says whether there is no work.
    pub fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    /// Starts work on a thread that may wait. What ran before goes on, and its result is lost.
    pub fn start(&mut self, work: impl FnOnce() -> T + Send + 'static) {
        self.0 = Some(tokio::task::spawn_blocking(work));
    }

    /// Waits for the work to end and returns its result; without work, for ever. Dropping the future loses nothing.
    ///
    /// # Panics
    /// When the work panicked.
    pub async fn finished(&mut self) -> T {
        let Some(handle) = &mut self.0 else { return std::future::pending().await };
        let result = handle.await;
        self.0 = None;
        match result {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that is being dropped cancels blocking work: nobody is left to hear of it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const NEVER: Duration = Duration::from_secs(3600);

    async fn until_stopped(token: CancellationToken) {
        token.cancelled().await;
    }

    #[tokio::test]
    async fn shutdown_waits_for_the_tasks_of_all_groups() {
        let (tasks, clock) = (Tasks::new(), ManualClock::new());
        let child = tasks.child();
        tasks.spawn("watch", until_stopped(tasks.token()));
        child.spawn("settle", until_stopped(child.token()));
        assert_eq!(tasks.running(), ["watch", "settle"]);
        assert_eq!(child.running(), ["settle"]);
        assert!(tasks.shutdown(NEVER, &clock).await.is_empty());
        assert!(tasks.running().is_empty() && child.running().is_empty());
    }

    #[tokio::test]
    async fn a_child_is_stopped_alone() {
        let (tasks, clock) = (Tasks::new(), ManualClock::new());
        let child = tasks.child();
        tasks.spawn("watch", until_stopped(tasks.token()));
        child.spawn("settle", until_stopped(child.token()));
        assert!(child.shutdown(NEVER, &clock).await.is_empty());
        assert_eq!(tasks.running(), ["watch"]);
        assert!(!tasks.token().is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_named_and_aborted() {
        let (tasks, clock) = (Tasks::new(), ManualClock::new());
        tasks.spawn("good", until_stopped(tasks.token()));
        tasks.spawn("hung", std::future::pending());
        let stopping = tasks.shutdown(Duration::from_secs(10), &clock);
        let advance = async {
            while tasks.running().len() > 1 {
                tokio::task::yield_now().await;
            }
            clock.advance(Duration::from_secs(10));
        };
        let (hung, ()) = tokio::join!(stopping, advance);
        assert_eq!(hung, ["hung"]);
        assert!(tasks.shutdown(NEVER, &clock).await.is_empty(), "it was aborted");
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_only() {
        let (tasks, clock) = (Tasks::new(), ManualClock::new());
        tasks.spawn("bad", async { panic!("on purpose") });
        tasks.spawn("good", until_stopped(tasks.token()));
        while tasks.running().len() > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tasks.running(), ["good"]);
        assert!(tasks.shutdown(NEVER, &clock).await.is_empty());
    }
}
