//! The audit: who did what at this node, when. One thread writes it; everybody else hands over what happened and goes on.
//!
//! [`Audit::note`] never waits. [`Audit::record`] waits until the entry is durable: calls that need the role admin are
//! written so before they are carried out, and refused while that is not possible. What cannot be written is kept for a
//! while, then counted, and the number stands in the next entry that can be.

mod follow;
mod heads;
mod sums;
mod writer;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use avalon_protocol::audit::{AuditAction, AuditFact};
use avalon_store::{
    audit::{AuditFiles, AuditReader, Mended, Written},
    fs::{Dir, IoError},
};
use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::oneshot;

pub(crate) use self::heads::heads_of;
pub use self::{follow::follow, heads::keep_heads, sums::Sum};
use self::{sums::Sums, writer::Writer};
use crate::{clock::Clock, health::HealthBoard};

/// Entries that may wait to be written: seconds of a node that does nothing else.
const QUEUE: usize = 4096;

/// Something that the writing thread is to do.
enum Order {
    /// Write this.
    Fact(String, Box<AuditFact>, Option<oneshot::Sender<Result<(), Unwritten>>>),
    /// Write what waits, and end.
    Close(oneshot::Sender<()>),
}

/// Why an entry is not durable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the audit cannot be written: {reason}")]
pub struct Unwritten {
    /// What the system says.
    pub reason: String,
    /// The disk is full.
    pub is_no_space: bool,
}

/// The audit of this node. Clones are the same one.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

struct Inner {
    orders: SyncSender<Order>,
    reader: AuditReader,
    written: Arc<Mutex<Written>>,
    /// Entries that nobody will write any more.
    lost: Arc<AtomicU64>,
    sums: Mutex<Sums>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("is_on", &self.0.is_some()).finish_non_exhaustive()
    }
}

impl Audit {
    /// Opens the audit in its directory and starts its thread. Blocks.
    ///
    /// # Errors
    /// [`IoError`] when what is there cannot be read or mended.
    pub fn open(
        dir: &Dir,
        node: &str,
        keep: Option<Duration>,
        clock: Arc<dyn Clock>,
        health: &HealthBoard,
    ) -> Result<Self, IoError> {
        let (files, mended) = AuditFiles::open(dir, node)?;
        let (orders, received) = sync_channel(QUEUE);
        let written = Arc::new(Mutex::new(files.written()));
        let lost = Arc::new(AtomicU64::new(0));
        let reader = files.reader();
        let writer = Writer {
            files,
            orders: received,
            waiting: Vec::new(),
            written: Arc::clone(&written),
            lost: Arc::clone(&lost),
            health: health.clone(),
            clock: Arc::clone(&clock),
            keep,
        };
        let started = std::thread::Builder::new().name("audit".into()).spawn(move || writer.run());
        started.map_err(|error| IoError::new("start the thread that writes", dir.path(), error))?;
        let sums = Mutex::default();
        let audit = Self(Some(Arc::new(Inner { orders, reader, written, lost, sums, clock })));
        for mended in mended {
            audit.note(told(&mended, health));
        }
        Ok(audit)
    }

    /// Writes that something happened. Never waits; when too much waits already, it is counted instead.
    pub fn note(&self, fact: AuditFact) {
        let Some(inner) = &self.0 else { return };
        match inner.orders.try_send(Order::Fact(inner.now(), Box::new(fact), None)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                inner.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Writes that something is about to happen; returns when that is durable. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Unwritten`]; then it must not happen.
    pub async fn record(&self, fact: AuditFact) -> Result<(), Unwritten> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let (reply, answer) = oneshot::channel();
        let busy = |_| Unwritten { reason: "too much waits to be written".into(), is_no_space: false };
        inner.orders.try_send(Order::Fact(inner.now(), Box::new(fact), Some(reply))).map_err(busy)?;
        let ended = || Unwritten { reason: "the daemon is stopping".into(), is_no_space: false };
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Adds to what is written once a minute, as one entry for all of the same kind.
    pub fn add(&self, sum: Sum, bytes: u64) {
        let Some(inner) = &self.0 else { return };
        let (now, at) = (inner.clock.monotonic(), inner.now());
        let due = inner.sums().add(sum, bytes, now, &at);
        due.into_iter().for_each(|fact| self.note(fact));
    }

    /// Takes the sums whose minute is over.
    fn due(&self) -> Vec<AuditFact> {
        let Some(inner) = &self.0 else { return Vec::new() };
        let now = inner.clock.monotonic();
        inner.sums().due(Some(now))
    }

    /// Returns how far it goes, durably; none when there is none.
    pub fn written(&self) -> Option<Written> {
        let inner = self.0.as_ref()?;
        Some(inner.written.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Returns what reads the files.
    pub fn reader(&self) -> Option<AuditReader> {
        self.0.as_ref().map(|inner| inner.reader.clone())
    }

    /// Writes what waits and ends the thread; nothing is written after that.
    pub async fn close(&self) {
        let Some(inner) = &self.0 else { return };
        let due = inner.sums().due(None);
        due.into_iter().for_each(|fact| self.note(fact));
        let (reply, done) = oneshot::channel();
        if inner.orders.try_send(Order::Close(reply)).is_ok() {
            // It ends without an answer only when it panicked.
            drop(done.await);
        }
    }
}

impl Inner {
    fn now(&self) -> String {
        at_text(Timestamp::try_from(self.clock.now()).unwrap_or_default())
    }

    fn sums(&self) -> std::sync::MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a time as entries have it: all of one length, so that they compare as times do.
pub fn at_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Says what was found wrong when the audit was opened.
fn told(mended: &Mended, health: &HealthBoard) -> AuditFact {
    let fact = AuditFact::daemon(AuditAction::Repair);
    match mended {
        Mended::Torn { file, bytes } => {
            tracing::warn!(file, bytes, "a crash had torn the end of the audit; it was cut off");
            fact.about(file).detail("torn_bytes", bytes.to_string())
        }
        Mended::Unended { file } => {
            tracing::warn!(file, "the last line of the audit had no end; it is whole, and has one now");
            fact.about(file).detail("unended", "1")
        }
        Mended::Damaged { file, line } => {
            heads::raise_damaged(health, &format!("{file}, line {line}, is not what was written"));
            fact.about(file).detail("damaged_from_line", line.to_string())
        }
    }
}

#[cfg(test)]
mod tests;
