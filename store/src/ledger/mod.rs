//! The ledger: feeds, manifests and the catalog as one thing, with one thread that writes.
//!
//! The order of every change is: append to the feed, fdatasync, and only then the catalog, the reply and the observer. A
//! [`Committed`] can be had from nowhere else, so nothing is announced that a power cut could take back. The catalog
//! may lag or be lost: it is caught up or built anew from the feeds.

mod admit;
mod care;
mod compact;
mod error;
mod export;
mod fork;
mod ingest;
mod lists;
mod load;
mod mending;
mod open;
mod own;
mod pack;
mod query;
mod rebuild;
mod replay;
mod shared;
mod signer;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use avalon_protocol::{
    access::{Action, Admission, Extract, Role},
    feed::{FeedHead, FeedId, SealedGroup},
    hash::{ChainHash, ManifestId},
    id::{NodeId, ProjectName, VersionId},
    record::Record,
    signing::{CertificateList, RecordSigner, RecordTrust, Signer, UntrustedList},
};

pub use self::{
    care::CatalogCare,
    error::{IngestError, LedgerError, OpenError, RebuildError},
    load::Rebuilt,
    open::{OpenReport, QuarantinedFeed},
    query::{CatalogStats, MAX_PLACES, VerifyReport},
    replay::RebuildProgress,
};
use self::{
    shared::Shared,
    signer::SharedSigner,
    writer::{Change, Commit, Ingest, Job},
};
pub use crate::feed::{Fork, Settled};
use crate::{
    catalog::{CatalogError, Cause, LocalChange},
    fs::Dir,
    state_dir::StateDir,
    time::Monotonic,
};

/// What the thread that writes calls with the outcome. It should only pass it on: while it runs nothing is written, and
/// waiting for the ledger in it would wait for ever.
pub type Reply<T, E> = Box<dyn FnOnce(Result<T, E>) + Send>;

/// What a ledger is opened with.
pub struct LedgerConfig {
    /// The node whose feeds are written.
    pub me: NodeId,
    /// Signs its groups.
    pub signer: Arc<dyn RecordSigner>,
    /// Says whose signatures count.
    pub trust: Arc<dyn RecordTrust>,
    /// The projects, each with its directory, or without when that is not there.
    pub projects: Vec<(ProjectName, Option<Dir>)>,
    /// Called by the thread that writes after each change of a feed; the same holds as for a [`Reply`].
    pub on_change: Arc<dyn Fn(LedgerEvent) + Send + Sync>,
    /// The time.
    pub now: Monotonic,
    /// When the catalog is looked after.
    pub care: CatalogCare,
    /// What this node was told of the policy, where it does not get the studio's feeds.
    pub extract: Option<Extract>,
    /// How many bytes of one feed of another node are taken: a member that writes without end must not fill every disk.
    pub max_feed_bytes: u64,
}

impl fmt::Debug for LedgerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerConfig")
            .field("me", &self.me)
            .field("projects", &self.projects)
            .finish_non_exhaustive()
    }
}

/// What happened to the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerEvent {
    /// Records of a feed became durable and, unless the catalog is being rebuilt, visible.
    Advanced {
        /// Which feed.
        feed: FeedId,
        /// How far it goes now.
        head: FeedHead,
        /// The versions that the new records are about.
        touched: Vec<VersionId>,
    },
    /// Who may do what, or which records count, has changed, and this is in effect.
    Rights,
    /// A record states nothing, because its author lacked the right.
    NotAllowed {
        /// Which feed it stands in.
        feed: FeedId,
        /// Its number there.
        seq: u64,
        /// What its author may not do.
        action: Action,
    },
    /// A feed was found to have two histories: nothing more of it is taken.
    Forked {
        /// Which feed.
        feed: FeedId,
    },
    /// The catalog is of no use and is built anew; again where an earlier try failed.
    Rebuilding {
        /// What is wrong with it.
        cause: Cause,
    },
    /// Another catalog is in use, built from the feeds: what could not be asked meanwhile can be asked again.
    Rebuilt,
}

/// Records that are durable: proof that fdatasync has returned. Only the ledger makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    feed: FeedId,
    head: FeedHead,
    first_seq: u64,
}

impl Committed {
    fn new(feed: FeedId, head: FeedHead, first_seq: u64) -> Self {
        Self { feed, head, first_seq }
    }

    /// Returns the feed that has them.
    pub fn feed(&self) -> &FeedId {
        &self.feed
    }

    /// Returns a head of the feed that covers them.
    pub fn head(&self) -> FeedHead {
        self.head
    }

    /// Returns the number of the first of them.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }
}

/// What became of a peer's groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// How far the feed goes here now.
    pub head: FeedHead,
    /// Whether any of the groups was not here before.
    pub is_new: bool,
    /// The versions that the new records are about.
    pub touched: Vec<VersionId>,
    /// The manifests that came with them and are stored.
    pub manifests_stored: Vec<ManifestId>,
}

/// The ledger of a node. Clones share it; the last one that goes closes it.
///
/// Reading works from any thread. Writing is queued: the calls return at once unless 1024 are waiting.
#[derive(Debug, Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    jobs: Option<SyncSender<Job>>,
    /// What goes into the studio's feeds does not wait behind what takes long.
    urgent: Option<SyncSender<Job>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Where an export that is to be read back is kept meanwhile.
    state_dir: Dir,
    signer: SharedSigner,
    trust: Arc<dyn RecordTrust>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Inner {
    fn new(
        shared: Arc<Shared>,
        (jobs, urgent): (SyncSender<Job>, SyncSender<Job>),
        writer: JoinHandle<()>,
        state_dir: Dir,
        (signer, trust): (SharedSigner, Arc<dyn RecordTrust>),
    ) -> Self {
        Self {
            shared,
            jobs: Some(jobs),
            urgent: Some(urgent),
            writer: Mutex::new(Some(writer)),
            state_dir,
            signer,
            trust,
        }
    }

    fn send(&self, job: Job) {
        let is_urgent = match &job {
            Job::Ingest(ingest) => ingest.feed.is_of_studio(),
            Job::Change(Change::Commit(commit)) => commit.project.is_studio(),
            _ => false,
        };
        match if is_urgent { &self.urgent } else { &self.jobs } {
            Some(jobs) => match jobs.send(job) {
                Ok(()) if is_urgent => self.wake(),
                Ok(()) => {}
                Err(refused) => refused.0.refuse(),
            },
            None => job.refuse(),
        }
    }

    /// Notes damage of the catalog, and wakes the thread that repairs it.
    fn note(&self, error: &CatalogError) {
        if self.shared.note_damage(error) {
            self.wake();
        }
    }

    /// Lets the thread that writes look at what has changed.
    fn wake(&self) {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(Job::Wake)) {
            // A full queue is awake; of a closed one nobody wants anything.
            None | Some(Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => {}
        }
    }

    /// Waits for the thread that writes to end; from that thread itself there is nothing to wait for.
    fn join(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != thread::current().id())
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes the ledger panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.mending.close();
        drop((self.jobs.take(), self.urgent.take()));
        self.join();
    }
}

/// The role of this node's certificate; without one that the studio's CA issued, the one that may least.
fn own_role(signer: &SharedSigner, trust: &dyn RecordTrust, me: &NodeId) -> Role {
    own_signer(signer, trust, me).role
}

/// As [`own_role`], with the certificate itself.
fn own_signer(signer: &SharedSigner, trust: &dyn RecordTrust, me: &NodeId) -> Signer {
    let certified = trust.prove(signer.now().certificate(), me);
    certified.map_or(Role::Vendor.into(), |certified| certified.signer())
}

/// Turns an answer that comes by callback into one to wait for.
fn wait<T: Send + 'static, E: Send + 'static>(ask: impl FnOnce(Reply<T, E>)) -> Option<Result<T, E>> {
    let (answer, answered) = sync_channel(1);
    ask(Box::new(move |result| {
        if answer.send(result).is_err() {
            tracing::debug!("nobody waits for an answer of the ledger");
        }
    }));
    answered.recv().ok()
}

impl Ledger {
    /// Opens the ledger of a state directory: checks all feeds, repairs what a crash left, proves the catalog or builds it
    /// anew, and starts the thread that writes. Where building takes long ([`CatalogCare::build_at_open_records`]) or needs
    /// room that is not there, that thread does it, and the report says so: until [`Ledger::is_ready`], writing waits.
    ///
    /// # Errors
    /// [`OpenError`]; a damaged own feed is one, damaged feeds of peers and a damaged catalog are not.
    pub fn open(state: &StateDir, config: LedgerConfig) -> Result<(Self, OpenReport), OpenError> {
        open::open(state, config)
    }

    /// Records facts of this node about a project, and what changed of its files with them. They get numbers in a row in
    /// their order; where several groups are needed (255 records or 1 MiB), a crash may leave the first of them.
    ///
    /// The reply comes when the records are durable and visible.
    pub fn commit(
        &self,
        project: &ProjectName,
        records: Vec<Record>,
        local: Vec<LocalChange>,
        written_at_ms: u64,
        reply: Reply<Committed, LedgerError>,
    ) {
        let project = project.clone();
        let records = records.iter().map(Record::to_raw).collect();
        let commit = Commit { project, came_back: None, records, local, written_at_ms, reply };
        self.inner.send(Job::Change(Change::Commit(commit)));
    }

    /// As [`Ledger::commit`], and waits.
    ///
    /// # Errors
    /// [`LedgerError`]; the records do not count then, though after a failed write some may turn up at the next start.
    pub fn commit_wait(
        &self,
        project: &ProjectName,
        records: Vec<Record>,
        local: Vec<LocalChange>,
        written_at_ms: u64,
    ) -> Result<Committed, LedgerError> {
        wait(|reply| self.commit(project, records, local, written_at_ms, reply))
            .unwrap_or(Err(LedgerError::Closed))
    }

    /// Takes groups of a feed from a peer, in their order, and manifests that they publish. All is checked before anything
    /// is stored; manifests are durable before the groups. Groups that are here already are passed over.
    pub fn ingest(
        &self,
        feed: FeedId,
        groups: Vec<SealedGroup>,
        manifests: Vec<Vec<u8>>,
        reply: Reply<Ingested, IngestError>,
    ) {
        self.inner.send(Job::Ingest(Ingest { feed, groups, manifests, reply }));
    }

    /// As [`Ledger::ingest`], and waits.
    ///
    /// # Errors
    /// [`IngestError`] says whether the peer or this node is to blame.
    pub fn ingest_wait(
        &self,
        feed: FeedId,
        groups: Vec<SealedGroup>,
        manifests: Vec<Vec<u8>>,
    ) -> Result<Ingested, IngestError> {
        let answer = wait(|reply| self.ingest(feed, groups, manifests, reply));
        answer.unwrap_or(Err(IngestError::Ledger(LedgerError::Closed)))
    }

    /// Changes what is known about local files. This is derived knowledge: a power cut may take back the last second.
    pub fn update_local(&self, changes: Vec<LocalChange>, reply: Reply<(), LedgerError>) {
        self.inner.send(Job::Change(Change::Local { changes, reply }));
    }

    /// As [`Ledger::update_local`], and waits.
    ///
    /// # Errors
    /// [`LedgerError::Catalog`] when nothing was changed; the catalog is being rebuilt then.
    pub fn update_local_wait(&self, changes: Vec<LocalChange>) -> Result<(), LedgerError> {
        wait(|reply| self.update_local(changes, reply)).unwrap_or(Err(LedgerError::Closed))
    }

    /// Builds the catalog anew, from the newest good checkpoint and the feeds, and waits for it. Reading goes on with the old
    /// one; writing waits.
    ///
    /// # Errors
    /// [`LedgerError::Rebuild`]; the old catalog stays then.
    pub fn rebuild(&self, progress: Box<dyn FnMut(RebuildProgress) + Send>) -> Result<Rebuilt, LedgerError> {
        wait(|reply| self.inner.send(Job::Rebuild { progress, reply })).unwrap_or(Err(LedgerError::Closed))
    }

    /// Returns which records count, by what the studio's feeds say here.
    pub fn admission(&self) -> Arc<Admission> {
        self.inner.shared.admission()
    }

    /// Goes by what was told of the policy, unless the studio's feeds have a newer one. Where it judges some of what the catalog has
    /// otherwise, that is built anew.
    ///
    /// # Errors
    /// [`LedgerError::Rebuild`] when the feeds cannot be read; it goes by what it went by before.
    pub fn go_by(&self, extract: Extract) -> Result<(), LedgerError> {
        wait(|reply| self.inner.send(Job::GoBy { extract, reply })).unwrap_or(Err(LedgerError::Closed))
    }

    /// Returns the chain hash of a feed behind the group with the record before `seq`; nothing when that is not here.
    pub fn chain_before(&self, feed: &FeedId, seq: u64) -> Option<ChainHash> {
        self.inner.shared.chain_before(feed, seq)
    }

    /// Returns the role of the certificate under which a record was signed; none where there is no such record.
    pub fn role_at(&self, feed: &FeedId, seq: u64) -> Option<Role> {
        let index = self.inner.shared.feed(feed)?;
        index.role_at(seq).filter(|_| seq < index.head().next_seq)
    }

    /// Returns under what a record was signed, as far as that decides about rights; none where there is no such record.
    pub fn signer_at(&self, feed: &FeedId, seq: u64) -> Option<Signer> {
        let index = self.inner.shared.feed(feed)?;
        index.signer_at(seq).filter(|_| seq < index.head().next_seq)
    }

    /// Returns under what a feed is signed from which record on, as far as that decides about rights.
    pub fn signers(&self, feed: &FeedId) -> Vec<(u64, Signer)> {
        self.inner.shared.feed(feed).map_or_else(Vec::new, |index| index.signers())
    }

    /// Reads a list of revoked certificates that the studio's CA signed.
    ///
    /// # Errors
    /// [`UntrustedList`] when it is none.
    pub fn certificate_list(&self, der: &[u8]) -> Result<CertificateList, UntrustedList> {
        self.inner.trust.certificate_list(der)
    }

    /// Returns this node's certificate, as far as it decides about rights.
    pub fn own_signer(&self) -> Signer {
        own_signer(&self.inner.signer, &*self.inner.trust, &self.inner.shared.me)
    }

    /// Returns the role of this node's certificate.
    pub fn own_role(&self) -> Role {
        own_role(&self.inner.signer, &*self.inner.trust, &self.inner.shared.me)
    }

    /// Says whether a record of a feed counts that its author said.
    ///
    /// # Errors
    /// What its author may not do.
    pub fn admits(&self, feed: &FeedId, seq: u64, record: &Record) -> Result<(), Action> {
        // What is not here yet cannot be judged.
        let signer = self.signer_at(feed, seq).unwrap_or(Role::Vendor.into());
        self.admission().admits(feed, seq, signer, record)
    }

    /// Says whether the thread that writes is at work that takes long, so that [`Ledger::sync`] has to wait for it.
    pub fn is_at_long_work(&self) -> bool {
        self.inner.shared.is_at_long_work()
    }

    /// Makes the catalog durable up to here. The feeds always are.
    ///
    /// # Errors
    /// [`LedgerError::Catalog`] when an fsync failed; the catalog is being rebuilt then.
    pub fn sync(&self) -> Result<(), LedgerError> {
        wait(|reply| self.inner.send(Job::Sync { reply })).unwrap_or(Err(LedgerError::Closed))
    }

    /// Says whether the catalog can be asked. While it is built anew, feeds, manifests and [`Ledger::locate_meanwhile`] can.
    pub fn is_ready(&self) -> bool {
        self.inner.shared.damage().is_none()
    }

    /// Says whether the catalog cannot be asked because its disk is full: nobody knows how long that takes.
    pub fn lacks_room(&self) -> bool {
        self.inner.shared.damage() == Some(Cause::NoSpace)
    }

    /// Waits until the catalog can be asked, for as long as that takes; false when the ledger closes before.
    pub fn wait_ready(&self) -> bool {
        let shared = &self.inner.shared;
        shared.mending.wait_until(|| shared.damage().is_none())
    }

    /// Returns how far the catalog is that is being built, if one is.
    pub fn rebuild_progress(&self) -> Option<RebuildProgress> {
        self.inner.shared.mending.progress()
    }

    /// Signs with another key of this node from the next group on. Each feed gets the certificate in front of the first group
    /// that it signs.
    pub fn set_signer(&self, signer: Arc<dyn RecordSigner>) {
        self.inner.signer.replace(signer);
    }

    /// Finishes what is queued, flushes the catalog and ends the thread that writes. Clones can still read; what they
    /// write is refused.
    ///
    /// # Errors
    /// [`LedgerError::Catalog`] when the catalog could not be flushed, which the next start repairs.
    pub fn close(self) -> Result<(), LedgerError> {
        self.inner.shared.mending.close();
        let closed = wait(|reply| self.inner.send(Job::Close { reply })).unwrap_or(Err(LedgerError::Closed));
        self.inner.join();
        closed
    }
}
