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

use avalon_protocol::rel_path::RelPath;
use notify::{
    EventKind,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode},
};
use thiserror::Error;
use tokio::sync::mpsc::{self, error::TrySendError as TokioTrySendError};

use super::watch_tree::{Report, WatchTree};

/// Says of a directory, relative to the project, whether changes in it are wanted.
pub type Interest = Arc<dyn Fn(&RelPath) -> bool + Send + Sync>;

/// One thing that the watcher has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawChange {
    /// Something happened to this file or directory, or to what is in the directory.
    Touched(RelPath),
    /// Changes may have been missed: look at everything.
    Rescan(RescanReason),
    /// The project directory was removed, renamed or replaced. Nothing more comes.
    RootGone,
    /// The system gives no more watches. Changes in the other directories are found by scans only.
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
    /// The system's queue or ours was full.
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
        interest: Interest,
        changes: mpsc::Sender<RawChange>,
    ) -> Result<Box<dyn Send>, WatchError>;
}

/// The watcher of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemWatcher;

impl Watcher for SystemWatcher {
    fn start(
        &self,
        root: PathBuf,
        interest: Interest,
        changes: mpsc::Sender<RawChange>,
    ) -> Result<Box<dyn Send>, WatchError> {
        Ok(Box::new(ProjectWatcher::start(root, interest, changes)?))
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
    /// Look at the flags.
    Wake,
}

impl ProjectWatcher {
    /// Starts to watch the directories beneath `root` that `interest` wants, and `root` itself. Returns at once; when all
    /// are watched, [`RawChange::Rescan`] with [`RescanReason::Started`] says so.
    ///
    /// # Errors
    /// [`WatchError`] when the root cannot be watched.
    pub fn start(
        root: PathBuf,
        interest: Interest,
        changes: mpsc::Sender<RawChange>,
    ) -> Result<Self, WatchError> {
        if !root.is_dir() {
            return Err(WatchError::RootMissing { root });
        }
        let (inbox, notices) = std_mpsc::sync_channel(INBOX_EVENTS);
        let lost = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Handler { inbox: inbox.clone(), lost: lost.clone() };
        let tree = WatchTree::new(root.clone(), interest, handler)
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
        self.report_limit();
        self.outbox.send(RawChange::Rescan(RescanReason::Started));
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
        self.report_limit();
        self.outbox.send(RawChange::Rescan(RescanReason::Overflow));
        true
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

    /// Remembers a change; a rescan stands for any number of touches, and one is enough.
    fn owe(&mut self, change: RawChange) {
        let owed = match change {
            RawChange::Touched(_) => RawChange::Rescan(RescanReason::Backlog),
            other => other,
        };
        let is_rescan = matches!(owed, RawChange::Rescan(_));
        if !(is_rescan && self.owed.iter().any(|change| matches!(change, RawChange::Rescan(_)))) {
            self.owed.push(owed);
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
mod tests {
    use std::fs;

    use avalon_protocol::template::{DEFAULT_PUBLISH, Template, TemplateSet};
    use notify::event::Flag;

    use super::{super::area, *};

    /// Only hung code waits that long.
    const PATIENCE: Duration = Duration::from_secs(20);
    const MODEL: &str = "assets/robot/publish/model";

    /// A project that is watched by the system.
    struct Project {
        temp: tempfile::TempDir,
        changes: mpsc::Receiver<RawChange>,
        watcher: Option<ProjectWatcher>,
    }

    fn interest() -> Interest {
        let templates = TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap();
        Arc::new(move |dir| area::concerns_publishing(&templates, dir))
    }

    impl Project {
        /// A project with the version `v001` of a model, watched with room for `capacity` changes.
        async fn watched(capacity: usize) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path().join("lantern");
            fs::create_dir_all(root.join(MODEL).join("v001")).unwrap();
            let (sender, changes) = mpsc::channel(capacity);
            let watcher = ProjectWatcher::start(root, interest(), sender).unwrap();
            let mut project = Self { temp, changes, watcher: Some(watcher) };
            assert_eq!(project.next().await, RawChange::Rescan(RescanReason::Started));
            project
        }

        fn path(&self, inside: &str) -> PathBuf {
            self.temp.path().join("lantern").join(inside)
        }

        fn write(&self, inside: &str) {
            let path = self.path(inside);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(path).unwrap();
        }

        async fn next(&mut self) -> RawChange {
            tokio::time::timeout(PATIENCE, self.changes.recv()).await.unwrap().unwrap()
        }

        /// Waits until `path` is touched and returns what was touched up to then.
        async fn touched_until(&mut self, path: &str) -> Vec<String> {
            let mut touched = Vec::new();
            while touched.last().map(String::as_str) != Some(path) {
                match self.next().await {
                    RawChange::Touched(path) => touched.push(path.to_string()),
                    other => panic!("expected {path} to be touched, got {other:?}"),
                }
            }
            touched
        }
    }

    #[tokio::test]
    async fn a_hard_link_is_noticed() {
        let mut project = Project::watched(1000).await;
        project.write("assets/robot/work/stage/a.abc");
        let published = format!("{MODEL}/v001/a.abc");
        fs::hard_link(project.path("assets/robot/work/stage/a.abc"), project.path(&published)).unwrap();
        project.touched_until(&published).await;
    }

    #[tokio::test]
    async fn a_directory_that_is_renamed_into_place_is_noticed_with_all_that_is_in_it() {
        let mut project = Project::watched(1000).await;
        project.write(".avalon/incoming/1/tex/a.exr");
        let version = format!("{MODEL}/v002");
        fs::rename(project.path(".avalon/incoming/1"), project.path(&version)).unwrap();
        let touched = project.touched_until(&format!("{version}/tex")).await;
        assert!(touched.contains(&version), "{touched:?}");
        project.write(&format!("{version}/tex/b.exr"));
        project.touched_until(&format!("{version}/tex/b.exr")).await;
    }

    #[tokio::test]
    async fn what_is_written_before_its_new_directory_is_watched_is_noticed() {
        let mut project = Project::watched(1000).await;
        project.write("film/sh010/publish/beauty/v001/beauty.exr/beauty.1001.exr");
        project.touched_until("film/sh010/publish/beauty/v001/beauty.exr").await;
    }

    #[tokio::test]
    async fn work_areas_and_reading_are_not_noticed() {
        let mut project = Project::watched(1000).await;
        let file = format!("{MODEL}/v001/a.abc");
        project.write(&file);
        project.touched_until(&file).await;
        project.write("assets/robot/work/model/a.ma");
        project.write(".avalon/incoming/a");
        fs::read(project.path(&file)).unwrap();
        fs::read_dir(project.path(MODEL)).unwrap().count();
        let marker = format!("{MODEL}/v001/marker");
        project.write(&marker);
        let mut touched = project.touched_until(&marker).await;
        // The directories that appeared in watched ones are told, what happens in them is not.
        touched.retain(|path| {
            !["assets/robot/work", ".avalon", file.as_str(), marker.as_str()].contains(&path.as_str())
        });
        assert_eq!(touched, [""; 0]);
    }

    #[tokio::test]
    async fn a_hero_that_is_swapped_is_watched_on_and_its_backup_is_not() {
        let mut project = Project::watched(1000).await;
        let hero = format!("{MODEL}/hero");
        for round in 0..3 {
            fs::create_dir(project.path(&hero)).unwrap();
            let file = format!("{hero}/{round}.abc");
            project.write(&file);
            project.touched_until(&hero).await;
            let again = format!("{hero}/again{round}.abc");
            project.write(&again);
            project.touched_until(&again).await;
            let backup = format!("{MODEL}/hero.BACKUP{round}");
            fs::rename(project.path(&hero), project.path(&backup)).unwrap();
            project.touched_until(&backup).await;
            project.write(&format!("{backup}/late.abc"));
        }
        let marker = format!("{MODEL}/v001/marker");
        project.write(&marker);
        let touched = project.touched_until(&marker).await;
        assert!(!touched.iter().any(|path| path.ends_with("late.abc")), "{touched:?}");
    }

    #[tokio::test]
    async fn a_version_that_is_renamed_away_and_back_is_watched_on() {
        let mut project = Project::watched(1000).await;
        let (version, aside) = (format!("{MODEL}/v001"), format!("{MODEL}/aside"));
        for round in 0..20 {
            fs::rename(project.path(&version), project.path(&aside)).unwrap();
            fs::rename(project.path(&aside), project.path(&version)).unwrap();
            let marker = format!("{MODEL}/marker{round}");
            project.write(&marker);
            project.touched_until(&marker).await;
            let file = format!("{version}/{round}.abc");
            project.write(&file);
            project.touched_until(&file).await;
        }
    }

    #[tokio::test]
    async fn a_file_whose_name_cannot_be_published_touches_its_directory() {
        let mut project = Project::watched(1000).await;
        project.write(&format!("{MODEL}/v001/a:b.abc"));
        project.touched_until(&format!("{MODEL}/v001")).await;
    }

    #[tokio::test]
    async fn a_root_that_is_renamed_away_is_gone() {
        let mut project = Project::watched(1000).await;
        fs::rename(project.path(""), project.temp.path().join("elsewhere")).unwrap();
        while project.next().await != RawChange::RootGone {}
        assert!(tokio::time::timeout(PATIENCE, project.changes.recv()).await.unwrap().is_none(), "it ended");
    }

    #[tokio::test]
    async fn a_root_that_is_missing_is_an_error_that_names_it() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("lantern");
        let (sender, _changes) = mpsc::channel(1);
        let error = ProjectWatcher::start(root.clone(), interest(), sender).unwrap_err();
        assert!(matches!(&error, WatchError::RootMissing { root: named } if *named == root));
    }

    #[tokio::test]
    async fn a_receiver_that_is_too_slow_gets_a_rescan_for_what_it_missed() {
        let mut project = Project::watched(1).await;
        for number in 0..50 {
            project.write(&format!("{MODEL}/v001/{number}.abc"));
        }
        while project.next().await != RawChange::Rescan(RescanReason::Backlog) {}
    }

    #[tokio::test]
    async fn the_thread_ends_with_the_watcher() {
        let mut project = Project::watched(1000).await;
        drop(project.watcher.take());
        while tokio::time::timeout(PATIENCE, project.changes.recv()).await.unwrap().is_some() {}
    }

    #[tokio::test]
    async fn an_overflow_sets_all_watches_anew_and_asks_for_a_rescan() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().to_owned();
        let (inbox, notices) = std_mpsc::sync_channel(1000);
        let lost = Arc::new(AtomicBool::new(false));
        let handler = Handler { inbox, lost: lost.clone() };
        let (changes, mut received) = mpsc::channel(1000);
        let mut worker = Worker {
            tree: WatchTree::new(root.clone(), interest(), handler.clone()).unwrap(),
            notices,
            lost,
            stop: Arc::default(),
            outbox: Outbox { changes, owed: Vec::new(), is_closed: false },
        };
        fs::create_dir_all(root.join(MODEL)).unwrap();
        let overflow = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        notify::EventHandler::handle_event(&mut handler.clone(), Ok(overflow));
        let batch: Vec<Notice> =
            worker.notices.try_iter().filter(|n| matches!(n, Notice::Overflow)).collect();
        assert!(worker.handle(batch));
        assert_eq!(received.recv().await, Some(RawChange::Rescan(RescanReason::Overflow)));
        fs::create_dir(root.join(MODEL).join("v001")).unwrap();
        // The old watches may still have told of the directories above.
        let is_version =
            |notice: &Notice| matches!(notice, Notice::Moved(path) if path.ends_with("model/v001"));
        while !is_version(&worker.notices.recv_timeout(PATIENCE).unwrap()) {}
    }

    #[test]
    fn events_that_do_not_fit_are_remembered_as_lost() {
        let (inbox, _notices) = std_mpsc::sync_channel(1);
        let lost = Arc::new(AtomicBool::new(false));
        let mut handler = Handler { inbox, lost: lost.clone() };
        for _ in 0..2 {
            assert!(!lost.load(Ordering::Acquire));
            let event = notify::Event::new(EventKind::Any).add_path("a".into());
            notify::EventHandler::handle_event(&mut handler, Ok(event));
        }
        assert!(lost.load(Ordering::Acquire));
    }
}
