//! The thread that writes the audit.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use avalon_protocol::{
    audit::{AuditAction, AuditFact},
    control::{Health, Severity},
};
use avalon_store::{
    audit::{AuditFiles, Written},
    fs::IoError,
};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Order, QUEUE, Unwritten, at_text};
use crate::{clock::Clock, health::HealthBoard, log::ErrorChain};

/// Written and made durable together at most.
const GROUP: usize = 512;
/// How long what could not be written waits for the next attempt.
const AGAIN: Duration = Duration::from_secs(5);
/// How often old files are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(6 * 3600);

const AUDIT_FAILED: &str = "audit-failed";

type Reply = oneshot::Sender<Result<(), Unwritten>>;

pub(super) struct Writer {
    pub(super) files: AuditFiles,
    pub(super) orders: Receiver<Order>,
    /// What could not be written, oldest first.
    pub(super) waiting: Vec<(String, AuditFact)>,
    pub(super) written: Arc<Mutex<Written>>,
    pub(super) lost: Arc<AtomicU64>,
    pub(super) health: HealthBoard,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) keep: Option<Duration>,
}

impl Writer {
    pub(super) fn run(mut self) {
        let mut forgot = None;
        loop {
            let first = match self.orders.recv_timeout(AGAIN) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (mut replies, mut close) = (Vec::new(), None);
            let more = std::iter::from_fn(|| self.orders.try_recv().ok()).take(GROUP);
            for order in first.into_iter().chain(more) {
                match order {
                    Order::Fact(at, fact, reply) => {
                        self.waiting.push((at, *fact));
                        replies.extend(reply);
                    }
                    Order::Close(reply) => close = Some(reply),
                }
            }
            self.write(replies);
            if let Some(done) = close {
                if let Err(error) = self.files.note_end() {
                    tracing::warn!(error = %ErrorChain(&error), "where the audit ends is not noted");
                }
                // Nobody may wait for it any more.
                done.send(()).ok();
                return;
            }
            let now = self.clock.monotonic();
            if forgot.is_none_or(|last| now.saturating_sub(last) >= FORGET_EVERY) {
                forgot = Some(now);
                self.forget();
            }
        }
    }

    fn write(&mut self, replies: Vec<Reply>) {
        let lost = self.lost.load(Ordering::Relaxed);
        if self.waiting.is_empty() && lost == 0 {
            return;
        }
        let mut facts = self.waiting.clone();
        if lost > 0 {
            let at = at_text(Timestamp::try_from(self.clock.now()).unwrap_or_default());
            facts.push((at, AuditFact::daemon(AuditAction::Lost).detail("entries", lost.to_string())));
        }
        let result = self.files.append(&facts);
        // A file may have been begun even when the entries were not written.
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = self.files.written();
        match result {
            Ok(()) => {
                self.waiting.clear();
                self.lost.fetch_sub(lost, Ordering::Relaxed);
                self.health.clear(AUDIT_FAILED);
                for reply in replies {
                    reply.send(Ok(())).ok();
                }
            }
            Err(error) => self.failed(&error, replies),
        }
    }

    /// Keeps what waits for a while. Whoever waits for it hears that it is not durable; that they asked is written all the
    /// same, when that is possible again.
    fn failed(&mut self, error: &IoError, replies: Vec<Reply>) {
        let why = Unwritten { reason: ErrorChain(error).to_string(), is_no_space: error.is_no_space() };
        if let Some(too_many) = self.waiting.len().checked_sub(QUEUE).filter(|more| *more > 0) {
            self.waiting.drain(..too_many);
            self.lost.fetch_add(too_many as u64, Ordering::Relaxed);
        }
        self.health.raise(Health {
            code: AUDIT_FAILED.into(),
            severity: Severity::Error,
            message: format!(
                "the audit cannot be written, so calls that need the role admin are refused: {}",
                why.reason
            ),
            hint: Some(
                "make room on the volume of the state directory, or check it; it goes on by itself".into(),
            ),
        });
        // Last, so that who hears of it finds it in the status too.
        for reply in replies {
            reply.send(Err(why.clone())).ok();
        }
    }

    fn forget(&mut self) {
        let Some(keep) = self.keep else { return };
        let oldest = self.clock.now().checked_sub(keep).and_then(|time| Timestamp::try_from(time).ok());
        let Some(oldest) = oldest else { return };
        let forgotten = self.files.forgettable(&at_text(oldest)).and_then(|first| {
            let Some(first) = first else { return Ok(()) };
            let at = at_text(Timestamp::try_from(self.clock.now()).unwrap_or_default());
            let fact = AuditFact::daemon(AuditAction::Forget).detail("before", first.to_string());
            self.files.append(&[(at, fact)])?;
            *self.written.lock().unwrap_or_else(PoisonError::into_inner) = self.files.written();
            self.files.forget_before(first)
        });
        if let Err(error) = forgotten {
            tracing::warn!(error = %ErrorChain(&error), "old files of the audit stay");
        }
    }
}
