//! Stage 1a, watch: what the system says that changes in a project, as [`RawChange`]s for the settler.
//!
//! A hint and no more. Events are lost when queues overflow, never come for what another machine does on a network mount,
//! and stop at the system's limit of watches; so a scan ([`super::scan`]) runs besides, and wherever events may have been
//! lost, [`RawChange::Rescan`] says so.
//!
//! One watch per directory that concerns publishing, none for `work` areas or anything else. A directory is watched before
//! it is read: what is in it by then is reported, what comes later is an event.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self as std_mpsc, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use avalon_protocol::{rel_path::RelPath, template::TemplateSet};
use notify::{
    EventKind,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};
use thiserror::Error;
use tokio::sync::mpsc::{self, error::TrySendError as TokioTrySendError};

use super::watch_tree::{Report, WatchTree};

/// One thing that the watcher has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawChange {
    /// Something happened to this file or directory, or to what is in the directory.
    Touched(RelPath),
    /// Changes may have been missed: look at everything.
    Rescan(RescanReason),
    /// The project directory was removed, renamed or replaced. Nothing more comes.
    RootGone,
    /// The system gives no more watches. Changes in the other directories are found by scans only. It comes again when more
    /// are missing.
    LimitReached {
        /// How many directories are watched.
        watched: usize,
        /// How many should be; the limit is `fs.inotify.max_user_watches`.
        needed: usize,
    },
    /// The watcher broke. Nothing more comes.
    Stopped {
        /// Why, for people.
        why: String,
    },
}

/// Why [`RawChange::Rescan`] is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RescanReason {
    /// All directories are watched now; what happened before was not.
    Started,
    /// The system's queue or ours was full. All directories are watched anew.
    Overflow,
    /// The receiver did not keep up.
    Backlog,
}

/// Why a project cannot be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// There is no such directory.
    #[error("the project directory {} is not there", root.display())]
    RootMissing {
        /// The project directory.
        root: PathBuf,
    },
    /// The system refuses a watcher or the first watch.
    #[error("cannot watch {}; changes are found by scans only", root.display())]
    Refused {
        /// The project directory.
        root: PathBuf,
        /// What the system said.
        #[source]
        source: notify::Error,
    },
    /// There is no thread to be had.
    #[error("cannot start a thread to watch {}", root.display())]
    Thread {
        /// The project directory.
        root: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Starts watching; the seam at which tests replace the system.
pub trait Watcher: fmt::Debug + Send + Sync + 'static {
    /// Starts to send changes beneath `root` until the guard is dropped.
    ///
    /// # Errors
    /// [`WatchError`]; then nothing is sent.
    fn start(
        &self,
        root: PathBuf,
        templates: Arc<TemplateSet>,
        changes: mpsc::Sender<RawChange>,
    ) -> Result<Box<dyn Watching>, WatchError>;
}

/// Goes on until it is dropped.
pub trait Watching: Send {
    /// Has directories watched that the system gave no watch, if it gives some by now. For after each scan: it may take as long as one.
    fn look_for_room(&self);
}

/// The watcher of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemWatcher;

impl Watcher for SystemWatcher {
    fn start(
        &self,
        root: PathBuf,
        templates: Arc<TemplateSet>,
        changes: mpsc::Sender<RawChange>,
    ) -> Result<Box<dyn Watching>, WatchError> {
        Ok(Box::new(ProjectWatcher::start(root, templates, changes)?))
    }
}

/// How many events wait for the thread that keeps the watches. Beyond that they are dropped and everything is looked at:
/// 50,000 creates in ten seconds are normal in a storm, and each costs about a microsecond here.
const INBOX_EVENTS: usize = 16_384;
/// How many events are taken at once, so that many about one file become one.
const BATCH_EVENTS: usize = 1_024;
/// How soon the receiver is tried again while it owes us room.
const RETRY: Duration = Duration::from_millis(50);

/// Watches one project until it is dropped.
///
/// Neither the system's thread nor its queue ever waits for the receiver: when that is full, changes are dropped and one
/// [`RawChange::Rescan`] follows as soon as there is room.
#[derive(Debug)]
pub struct ProjectWatcher {
    stop: Arc<AtomicBool>,
    inbox: SyncSender<Notice>,
}

/// What the system's thread hands over.
#[derive(Debug)]
pub(super) enum Notice {
    /// A file changed.
    Touched(PathBuf),
    /// A directory may have come or gone.
    Moved(PathBuf),
    /// The system lost events.
    Overflow,
    /// There may be watches again.
    LookForRoom,
    /// Look at the flags.
    Wake,
}

impl ProjectWatcher {
    /// Starts to watch the directories beneath `root` that concern publishing by the templates, and `root` itself. Returns at once; when all
    /// are watched, [`RawChange::Rescan`] with [`RescanReason::Started`] says so.
    ///
    /// # Errors
    /// [`WatchError`] when the root cannot be watched.
    pub fn start(
        root: PathBuf,
        templates: Arc<TemplateSet>,
        changes: mpsc::Sender<RawChange>,
    ) -> Result<Self, WatchError> {
        if !root.is_dir() {
            return Err(WatchError::RootMissing { root });
        }
        let (inbox, notices) = std_mpsc::sync_channel(INBOX_EVENTS);
        let lost = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Handler { inbox: inbox.clone(), lost: lost.clone() };
        let tree = WatchTree::new(root.clone(), templates, handler)
            .map_err(|source| WatchError::Refused { root: root.clone(), source })?;
        let worker = Worker {
            tree,
            notices,
            lost,
            stop: stop.clone(),
            outbox: Outbox { changes, owed: Vec::new(), is_closed: false },
        };
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || worker.run())
            .map_err(|source| WatchError::Thread { root, source })?;
        Ok(Self { stop, inbox })
    }
}

impl Watching for ProjectWatcher {
    fn look_for_room(&self) {
        // When the queue is full, there is another scan.
        self.inbox.try_send(Notice::LookForRoom).ok();
    }
}

impl Drop for ProjectWatcher {
    /// Tells the thread to end; it may still be at its last batch.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // When the queue is full, the thread wakes anyway; when it is gone, nobody need wake.
        self.inbox.try_send(Notice::Wake).ok();
    }
}

/// Runs on the thread of the system's watcher: sorts events, and never waits.
#[derive(Debug, Clone)]
pub(super) struct Handler {
    inbox: SyncSender<Notice>,
    lost: Arc<AtomicBool>,
}

impl notify::EventHandler for Handler {
    fn handle_event(&mut self, event: notify::Result<notify::Event>) {
        let notices = match event {
            Ok(event) => notices_of(event),
            Err(_) => vec![Notice::Overflow],
        };
        for notice in notices {
            if self.inbox.try_send(notice).is_err() {
                self.lost.store(true, Ordering::Release);
            }
        }
    }
}

/// Opening and reading is not changing: we do it ourselves when we look.
fn notices_of(event: notify::Event) -> Vec<Notice> {
    if event.need_rescan() {
        return vec![Notice::Overflow];
    }
    let notice: fn(PathBuf) -> Notice = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Create(CreateKind::File) => {
            Notice::Touched
        }
        // It repeats two events that came before.
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return Vec::new(),
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => Notice::Moved,
        EventKind::Modify(_) | EventKind::Any | EventKind::Other => Notice::Touched,
    };
    event.paths.into_iter().map(notice).collect()
}

/// The thread that keeps the watches and tells the receiver.
struct Worker {
    tree: WatchTree,
    notices: std_mpsc::Receiver<Notice>,
    lost: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    outbox: Outbox,
}

impl Worker {
    fn run(mut self) {
        let stop = self.stop.clone();
        self.tree.add_all(&|| stop.load(Ordering::Acquire));
        self.outbox.send(RawChange::Rescan(RescanReason::Started));
        self.report_limit();
        while !stop.load(Ordering::Acquire) && !self.outbox.is_closed {
            let batch = match self.receive() {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.outbox.settle_debts();
            if !self.handle(batch) {
                return;
            }
        }
    }

    /// Waits for events and takes those that are there.
    fn receive(&self) -> Result<Vec<Notice>, RecvTimeoutError> {
        let first = if self.outbox.owed.is_empty() {
            self.notices.recv().map_err(|_| RecvTimeoutError::Disconnected)?
        } else {
            self.notices.recv_timeout(RETRY)?
        };
        Ok(std::iter::once(first).chain(self.notices.try_iter().take(BATCH_EVENTS)).collect())
    }

    /// Returns whether to go on.
    fn handle(&mut self, batch: Vec<Notice>) -> bool {
        let mut touched = Vec::new();
        let mut overflow = self.lost.swap(false, Ordering::AcqRel);
        for notice in batch {
            match notice {
                Notice::Touched(path) => touched.extend(self.tree.concerned(&path)),
                Notice::Moved(path) if path == self.tree.root() => {
                    self.outbox.send_surely(RawChange::RootGone, &self.stop);
                    return false;
                }
                Notice::Moved(path) => touched.extend(self.tree.refresh(&path, Report::Touched)),
                Notice::Overflow => overflow = true,
                Notice::LookForRoom => self.look_for_room(),
                Notice::Wake => {}
            }
        }
        if overflow {
            return self.start_again();
        }
        self.report_limit();
        touched.sort();
        touched.dedup();
        for path in touched {
            self.outbox.send(RawChange::Touched(path));
        }
        true
    }

    /// Watches everything anew: directories came, went and were renamed without our hearing of it, so that a watch may
    /// now stand for another path.
    fn start_again(&mut self) -> bool {
        let stop = self.stop.clone();
        if let Err(error) = self.tree.restart(&|| stop.load(Ordering::Acquire)) {
            tracing::warn!(root = %self.tree.root().display(), %error, "the watcher cannot be started again");
            self.outbox.send_surely(RawChange::Stopped { why: error.to_string() }, &self.stop);
            return false;
        }
        self.outbox.send(RawChange::Rescan(RescanReason::Overflow));
        self.report_limit();
        true
    }

    fn look_for_room(&mut self) {
        let stop = self.stop.clone();
        if self.tree.is_there_room() && self.tree.fill(&|| stop.load(Ordering::Acquire)) {
            self.outbox.send(RawChange::Rescan(RescanReason::Started));
        }
    }

    fn report_limit(&mut self) {
        if let Some((watched, needed)) = self.tree.take_limit() {
            self.outbox.send(RawChange::LimitReached { watched, needed });
        }
    }
}

/// The way to the receiver, which may be slow.
struct Outbox {
    changes: mpsc::Sender<RawChange>,
    /// What did not fit; sent before anything else.
    owed: Vec<RawChange>,
    is_closed: bool,
}

impl Outbox {
    fn send(&mut self, change: RawChange) {
        self.settle_debts();
        if self.owed.is_empty() {
            self.try_send(change);
        } else {
            self.owe(change);
        }
    }

    /// Sends what is owed as far as there is room.
    fn settle_debts(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        for change in owed {
            if self.owed.is_empty() {
                self.try_send(change);
            } else {
                self.owe(change);
            }
        }
    }

    fn try_send(&mut self, change: RawChange) {
        match self.changes.try_send(change) {
            Ok(()) => {}
            Err(TokioTrySendError::Full(change)) => self.owe(change),
            Err(TokioTrySendError::Closed(_)) => self.is_closed = true,
        }
    }

    /// Remembers a change; a rescan stands for any number of touches, and one is enough. Of the limit the last word counts.
    fn owe(&mut self, change: RawChange) {
        if let RawChange::LimitReached { .. } = change {
            self.owed.retain(|owed| !matches!(owed, RawChange::LimitReached { .. }));
        }
        let owed = match change {
            RawChange::Touched(_) => RawChange::Rescan(RescanReason::Backlog),
            other => other,
        };
        let before = self.owed.iter_mut().find(|change| matches!(change, RawChange::Rescan(_)));
        match (&owed, before) {
            // That all watches are new is told besides.
            (RawChange::Rescan(_), Some(before)) if *before == RawChange::Rescan(RescanReason::Backlog) => {
                *before = owed;
            }
            (RawChange::Rescan(_), Some(_)) => {}
            _ => self.owed.push(owed),
        }
    }

    /// Sends the last word, however long the receiver takes.
    fn send_surely(&mut self, change: RawChange, stop: &AtomicBool) {
        self.send(change);
        while !self.owed.is_empty() && !self.is_closed && !stop.load(Ordering::Acquire) {
            thread::park_timeout(RETRY);
            self.settle_debts();
        }
    }
}

/// Makes the path relative to `root`; `None` for the root itself, for what is not beneath it and for names that cannot be
/// published.
pub(super) fn relative(root: &Path, path: &Path) -> Option<RelPath> {
    path.strip_prefix(root).ok()?.to_str()?.parse().ok()
}

/// As [`relative`]; where a name cannot be published, the directory that the first such lies in.
pub(super) fn usable_part(root: &Path, path: &Path) -> Option<RelPath> {
    path.ancestors().take_while(|part| part.starts_with(root)).find_map(|part| relative(root, part))
}

#[cfg(test)]
mod tests;
