//! Hooks: programs of the studio's own that run when a version is published, placed, failed or in conflict.
//!
//! They hear of what happened and change nothing about it: a hook cannot block or fail a publish, and what waits for a turn is
//! bounded. Which programs may run stands in the configuration, which only the operator writes; what others choose (names, people, comments)
//! reaches a program as whole arguments, variables and JSON, never through a shell.

mod allowed;
mod happening;
mod process;
mod spec;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use avalon_protocol::audit::{AuditAction, AuditActor, AuditFact, AuditOutcome};
use avalon_protocol::control::{Event, Health, Severity};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::{
    allowed::check_program,
    spec::{Arg, Hook, HookEvent, Matching, PLACEHOLDERS},
};
use self::{
    happening::Happening,
    process::{Ended, Run},
};
use crate::{
    core::{Core, blocking},
    events::Follower,
    tasks::Tasks,
};

/// How many hooks run at a time: they share the machine with transfers.
const AT_ONCE: usize = 4;
/// How many wait for their turn; beyond it, events pass without their hook. Each is a few KiB.
const QUEUE: usize = 256;
/// After how many failures in a row somebody should look at it.
const FAILURES_TO_TELL: u32 = 3;
/// The health code of a hook that fails again and again.
const HOOK_FAILS: &str = "hook-fails";

/// How the hooks of a running daemon are changed.
#[derive(Debug, Clone)]
pub struct HooksHandle(watch::Sender<Arc<Vec<Hook>>>);

impl HooksHandle {
    /// Takes other hooks from now on; what runs goes on.
    pub fn configure(&self, hooks: &[Hook]) {
        self.0.send_replace(Arc::new(hooks.to_vec()));
    }
}

/// Starts to run hooks for what happens from now on.
pub fn start(core: &Arc<Core>, hooks: &[Hook], tasks: &Tasks) -> HooksHandle {
    let (sender, hooks) = watch::channel(Arc::new(hooks.to_vec()));
    let runner = Runner {
        core: Arc::clone(core),
        hooks,
        events: core.events.follow(),
        queue: VecDeque::new(),
        dropped: 0,
        failures: BTreeMap::new(),
    };
    tasks.spawn("hooks", runner.run(tasks.token()));
    HooksHandle(sender)
}

struct Runner {
    core: Arc<Core>,
    hooks: watch::Receiver<Arc<Vec<Hook>>>,
    events: Follower,
    queue: VecDeque<Run>,
    /// How many did not get into the queue since one did.
    dropped: u64,
    /// How often in a row each hook failed, by its name.
    failures: BTreeMap<String, u32>,
}

impl Runner {
    async fn run(mut self, stop: CancellationToken) {
        let mut running: FuturesUnordered<BoxFuture<'static, Ended>> = FuturesUnordered::new();
        loop {
            while running.len() < AT_ONCE
                && let Some(run) = self.queue.pop_front()
            {
                running.push(Box::pin(run.finish(Arc::clone(&self.core.clock))));
            }
            tokio::select! {
                // What runs is killed with all that it has started.
                () = stop.cancelled() => return,
                Some(ended) = running.next() => self.ended(&ended),
                event = self.events.next() => self.take(&event).await,
            }
        }
    }

    async fn take(&mut self, event: &Arc<Event>) {
        let hooks = Arc::clone(&self.hooks.borrow());
        let Some(kind) = HookEvent::of(&event.kind) else { return };
        if !hooks.iter().any(|hook| hook.on.contains(&kind)) {
            return;
        }
        let (core, event_there) = (Arc::clone(&self.core), Arc::clone(event));
        let happening = blocking(move || Happening::of(&core, kind, &event_there)).await;
        for hook in hooks.iter().filter(|hook| happening.concerns(hook)) {
            if self.queue.len() < QUEUE {
                self.dropped = 0;
                self.queue.push_back(Run::new(hook, &happening));
            } else {
                self.dropped += 1;
                tracing::warn!(hook = hook.name(), event = %kind, version = happening.reference(), dropped = self.dropped, "too many hooks wait; this one does not run");
            }
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let board = self.core.health.about(&ended.hook);
        self.core.audit.note(fact_of(ended));
        let Some(why) = &ended.failed else {
            tracing::info!(hook = ended.hook, event = %ended.event, version = ended.reference, elapsed_ms = ended.elapsed_ms(), output = ended.output, "hook ran");
            self.failures.remove(&ended.hook);
            board.clear(HOOK_FAILS);
            return;
        };
        tracing::warn!(hook = ended.hook, event = %ended.event, version = ended.reference, elapsed_ms = ended.elapsed_ms(), output = ended.output, error = why, "a hook failed");
        let failures = self.failures.entry(ended.hook.clone()).or_default();
        *failures = failures.saturating_add(1);
        if *failures >= FAILURES_TO_TELL {
            board.raise(Health {
                code: HOOK_FAILS.into(),
                severity: Severity::Warning,
                message: format!("the hook {} failed {FAILURES_TO_TELL} times or more in a row, the last time: {why}", ended.hook),
                hint: Some("what was published is published all the same; see the daemon's log for what the hook said".into()),
            });
        }
    }
}

/// Says in the audit what ran.
fn fact_of(ended: &Ended) -> AuditFact {
    let outcome = if ended.failed.is_some() { AuditOutcome::Failed } else { AuditOutcome::Done };
    let fact = AuditFact::new(AuditActor::Daemon, AuditAction::Hook, outcome).about(&ended.reference);
    let fact = fact.detail("hook", &ended.hook).detail("event", ended.event.to_string());
    match &ended.failed {
        Some(why) => fact.detail("why", why),
        None => fact,
    }
}

/// How long a hook may run unless it says so.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
