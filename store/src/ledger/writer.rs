//! The one thread that writes: feeds first, the catalog after them, replies last.
//!
//! It takes everything that waits, puts the records of one feed together into groups, and makes each group durable with
//! one fdatasync. While the disk works, the next group gathers: under load many commits share one fdatasync.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use avalon_protocol::{
    access::Role,
    feed::{FeedHead, FeedId, Group, SealedGroup},
    id::{ProjectName, VersionId},
    record::{RawRecord, Record},
    signing::RecordTrust,
};

use super::{
    Committed, IngestError, Ingested, LedgerError, LedgerEvent, RebuildError, Reply, admit,
    care::Care,
    compact::Compaction,
    export::ImportRows,
    load::Rebuilt,
    open::{build_next, reopen},
    own_role,
    pack::{Packed, PackedGroup},
    replay::{RebuildProgress, find_missing, versions_of},
    shared::Shared,
    signer::SharedSigner,
};
use crate::{
    catalog::{Batch, CatalogError, CatalogStore, Cause, Checkpoints, Generations, Judge, LocalChange},
    error_chain::ErrorChain,
    feed::{self, FeedFile, Staged, body_of},
    fs::{Dir, path_of},
};

/// Most changes that one round takes together.
const ROUND_CHANGES: usize = 1024;
/// A rebuild that failed, on a full disk for instance, is tried again after so long.
pub(super) const REBUILD_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How soon the end of a copy of the catalog, or the time for another rebuild, is noticed when nothing else happens,
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// and how soon everything else.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// What the thread is asked to do.
pub(super) enum Job {
    Change(Change),
    Ingest(Ingest),
    Rebuild {
        progress: Box<dyn FnMut(RebuildProgress) + Send>,
        reply: Reply<Rebuilt, LedgerError>,
    },
    /// Takes the catalog as it is into a file, for an export.
    Snapshot {
        reply: Reply<File, LedgerError>,
    },
    Import {
        rows: ImportRows,
        reply: Reply<Rebuilt, LedgerError>,
    },
    Sync {
        reply: Reply<(), LedgerError>,
    },
    Close {
        reply: Reply<(), LedgerError>,
    },
    /// Damage was noted.
    Wake,
}

/// Changes that may share a round with others.
pub(super) enum Change {
    Commit(Commit),
    Local { changes: Vec<LocalChange>, reply: Reply<(), LedgerError> },
}

type CommitReply = Reply<Committed, LedgerError>;

pub(super) struct Commit {
    pub(super) project: ProjectName,
    pub(super) records: Vec<RawRecord>,
    pub(super) local: Vec<LocalChange>,
    pub(super) written_at_ms: u64,
    pub(super) reply: CommitReply,
}

pub(super) struct Ingest {
    pub(super) feed: FeedId,
    pub(super) groups: Vec<SealedGroup>,
    pub(super) manifests: Vec<Vec<u8>>,
    pub(super) reply: Reply<Ingested, IngestError>,
}

impl Job {
    /// Answers a job that nobody does any more.
    pub(super) fn refuse(self) {
        match self {
            Self::Change(Change::Commit(commit)) => (commit.reply)(Err(LedgerError::Closed)),
            Self::Change(Change::Local { reply, .. }) | Self::Sync { reply } | Self::Close { reply } => {
                reply(Err(LedgerError::Closed))
            }
            Self::Rebuild { reply, .. } | Self::Import { reply, .. } => reply(Err(LedgerError::Closed)),
            Self::Snapshot { reply } => reply(Err(LedgerError::Closed)),
            Self::Ingest(ingest) => (ingest.reply)(Err(IngestError::Ledger(LedgerError::Closed))),
            Self::Wake => {}
        }
    }
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) signer: SharedSigner,
    pub(super) trust: Arc<dyn RecordTrust>,
    pub(super) on_change: Arc<dyn Fn(LedgerEvent) + Send + Sync>,
    pub(super) feeds_dir: Dir,
    pub(super) feeds: BTreeMap<FeedId, FeedFile>,
    /// The state directory, and that of the catalog in it.
    pub(super) state_dir: Dir,
    pub(super) catalog_dir: Dir,
    pub(super) generations: Generations,
    pub(super) checkpoints: Checkpoints,
    /// When a rebuild that failed is tried again.
    pub(super) rebuild_again_at: Option<Duration>,
    pub(super) care: Care,
    /// It was opened without a catalog, so nobody knows yet which manifests are missing.
    pub(super) is_missing_unknown: bool,
    /// The copy of the catalog that is under way.
    pub(super) compaction: Option<Compaction>,
    /// Commits that wait until their feed may be written.
    pub(super) parked: Vec<Commit>,
}

/// Durable groups that the catalog does not have yet.
pub(super) type Applied = Vec<(Group, FeedHead)>;

impl Writer {
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut waiting = None;
        let closed = loop {
            self.heal();
            self.look_after_catalog();
            self.unpark();
            let is_soon = self.compaction.is_some() || self.rebuild_again_at.is_some();
            let pause = if is_soon { SHORT_PAUSE } else { LONG_PAUSE };
            let job = match waiting.take() {
                Some(job) => job,
                None => match jobs.recv_timeout(pause) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => break None,
                },
            };
            match job {
                Job::Change(first) => {
                    let mut round = vec![first];
                    while waiting.is_none() && round.len() < ROUND_CHANGES {
                        match jobs.try_recv() {
                            Ok(Job::Change(change)) => round.push(change),
                            Ok(other) => waiting = Some(other),
                            Err(_) => break,
                        }
                    }
                    self.change(round);
                }
                Job::Ingest(ingest) => self.ingest(ingest),
                Job::Rebuild { mut progress, reply } => {
                    let rebuilt = self.rebuild(&Cause::Asked, &mut *progress);
                    reply(rebuilt.map_err(|source| LedgerError::Rebuild { source }));
                }
                Job::Snapshot { reply } => {
                    let shared = Arc::clone(&self.shared);
                    reply(shared.long_work(|| self.snapshot()));
                }
                Job::Import { rows, reply } => {
                    let shared = Arc::clone(&self.shared);
                    reply(shared.long_work(|| self.import(rows)));
                }
                Job::Sync { reply } => reply(self.sync()),
                Job::Close { reply } => break Some(reply),
                Job::Wake => {}
            }
        };
        self.give_up_compaction("the ledger closes");
        let is_told = self.shared.damage().is_some();
        let synced = self.sync();
        if let Err(error) = &synced
            && !is_told
        {
            tracing::warn!(error = %ErrorChain(error), "catalog not flushed on close");
        }
        if let Some(reply) = closed {
            reply(synced);
        }
        let parked = std::mem::take(&mut self.parked).into_iter();
        parked.for_each(|commit| Job::Change(Change::Commit(commit)).refuse());
        jobs.try_iter().for_each(Job::refuse);
    }

    /// Makes the catalog durable; also tells of a feed that is closed after a failed write.
    fn sync(&self) -> Result<(), LedgerError> {
        if let Some((feed, _)) = self.feeds.iter().find(|(_, file)| file.is_poisoned()) {
            return Err(LedgerError::Poisoned { feed: feed.clone() });
        }
        self.shared.store().sync().map_err(|source| {
            self.shared.note_damage(&source);
            LedgerError::Catalog { source }
        })
    }

    /// Does one round of changes: all feeds, then the catalog in one batch, then the replies.
    pub(super) fn change(&mut self, round: Vec<Change>) {
        let round = self.admit(round);
        let mut commits: BTreeMap<ProjectName, Vec<(usize, Commit)>> = BTreeMap::new();
        let mut local: Vec<Vec<LocalChange>> = Vec::new();
        let mut local_replies = Vec::new();
        for (place, change) in round.into_iter().enumerate() {
            match change {
                Change::Commit(mut commit) => {
                    local.push(std::mem::take(&mut commit.local));
                    commits.entry(commit.project.clone()).or_default().push((place, commit));
                }
                Change::Local { changes, reply } => {
                    local.push(changes);
                    local_replies.push(reply);
                }
            }
        }
        let mut applied = Applied::new();
        let mut replies = Vec::new();
        for (project, commits) in commits {
            for (place, reply, result) in self.commit(&project, commits, &mut applied) {
                if let (Err(_), Some(changes)) = (&result, local.get_mut(place)) {
                    changes.clear();
                }
                replies.push((reply, result));
            }
        }
        let indexed = self.index(&applied, &local.concat());
        replies.into_iter().for_each(|(reply, result)| reply(result));
        for reply in local_replies {
            reply(indexed.clone().map_err(|source| LedgerError::Catalog { source }));
        }
        self.announce(&applied);
    }

    /// Makes the records of commits to one project durable, in their order; returns what to tell each.
    fn commit(
        &mut self,
        project: &ProjectName,
        commits: Vec<(usize, Commit)>,
        applied: &mut Applied,
    ) -> Vec<(usize, CommitReply, Result<Committed, LedgerError>)> {
        let mut packed = Packed::default();
        let feed = self.shared.own_feed(project);
        let mut refused = Vec::new();
        let mut parts = Vec::new();
        for (place, commit) in commits {
            match self.may_say(&feed, &commit.records) {
                Ok(()) => {
                    let part = packed.add(commit.records, commit.written_at_ms);
                    parts.push((place, part, commit.reply));
                }
                Err(error) => refused.push((place, commit.reply, Err(error))),
            }
        }
        let (ends, failure) = self.write_own(&feed, packed, applied);
        let start = self.feeds.get(&feed).map_or(FeedHead::EMPTY, FeedFile::head);
        let results = parts.into_iter().map(|(place, part, reply)| {
            let result = match (part, &failure) {
                (Err(bytes), _) => Err(LedgerError::RecordTooLarge { bytes }),
                (Ok(None), _) => Ok(Committed::new(feed.clone(), start, start.next_seq)),
                (Ok(Some(part)), failure) => match (ends.get(part.first_group), ends.get(part.last_group)) {
                    (Some((first_seq, _)), Some((_, head))) => {
                        Ok(Committed::new(feed.clone(), *head, first_seq + part.first_record as u64))
                    }
                    _ => Err(failure.clone().unwrap_or(LedgerError::Closed)),
                },
            };
            (place, reply, result)
        });
        results.chain(refused).collect()
    }

    /// Refuses what would count nowhere, because this node lacks the right to it. What it holds it may always say: nobody waits for
    /// an answer to that.
    fn may_say(&self, feed: &FeedId, records: &[RawRecord]) -> Result<(), LedgerError> {
        let admission = self.shared.admission();
        let mut role = None;
        let next_seq = self.feeds.get(feed).map_or(0, |file| file.head().next_seq);
        for raw in records {
            let Ok(record) = Record::in_feed(raw, &feed.project) else { continue };
            if matches!(
                record,
                Record::Key(_) | Record::AuditHead(_) | Record::Placed(_) | Record::Dropped(_)
            ) {
                continue;
            }
            let role = *role.get_or_insert_with(|| own_role(&self.signer, &*self.trust, &feed.node));
            admission.admits(feed, next_seq, role, &record).map_err(|action| LedgerError::NotAllowed {
                node: feed.node.clone(),
                action,
                project: feed.project.clone(),
            })?;
        }
        Ok(())
    }

    /// Writes groups of this node's own feed, each with an fdatasync of its own: a tail that a crash tears is then never
    /// longer than one frame. Returns for each durable group the number of our first record and the head after it.
    fn write_own(
        &mut self,
        feed: &FeedId,
        packed: Packed,
        applied: &mut Applied,
    ) -> (Vec<(u64, FeedHead)>, Option<LedgerError>) {
        let mut ends = Vec::new();
        for group in packed.groups {
            let ours = group.records.len() as u64;
            match self.write_group(feed, group) {
                Ok((body, head)) => {
                    ends.push((head.next_seq - ours, head));
                    applied.push((body, head));
                }
                Err(error) => {
                    tracing::error!(%feed, error = %ErrorChain(&error), "records not written");
                    return (ends, Some(error));
                }
            }
        }
        (ends, None)
    }

    fn write_group(&mut self, feed: &FeedId, packed: PackedGroup) -> Result<(Group, FeedHead), LedgerError> {
        let (signer, trust) = (self.signer.now(), Arc::clone(&self.trust));
        let file = self.feed_mut(feed)?;
        let mut after = file.reader().clone();
        let group = after.seal(packed.records, packed.written_at_ms, &*signer, &*trust);
        let body = after
            .accept(&group, &*trust)
            .map_err(|source| LedgerError::Refused { feed: feed.clone(), source })?;
        let head = file.append(vec![Staged { group, after }]).map_err(LedgerError::append)?;
        Ok((body, head))
    }

    /// Returns a feed for writing; one that is not there yet is created.
    pub(super) fn feed_mut(&mut self, feed: &FeedId) -> Result<&mut FeedFile, LedgerError> {
        if !self.feeds.contains_key(feed) {
            let created = feed::create(&self.feeds_dir, feed);
            let file = created.map_err(|source| LedgerError::write(feed.clone(), source))?;
            self.shared.add_feed(Arc::clone(file.index()));
            self.feeds.insert(feed.clone(), file);
        }
        self.feeds.get_mut(feed).ok_or(LedgerError::Closed)
    }

    /// Brings the catalog up to groups that are durable, and adds changes of local files. When it fails the feeds still
    /// have everything, and the catalog is built anew from them.
    pub(super) fn index(&mut self, applied: &Applied, local: &[LocalChange]) -> Result<(), CatalogError> {
        let store = self.shared.store();
        let result = match self.judge_anew(&*store, applied) {
            Ok(()) => index_into(&self.shared, &*store, applied, local, &*self.on_change),
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.shared.note_damage(error);
        }
        result
    }

    /// Reads which records count by what these groups say. An error when the store has to be built anew for it.
    fn judge_anew(&mut self, store: &dyn CatalogStore, applied: &Applied) -> Result<(), CatalogError> {
        if !applied.iter().any(|(body, _)| admit::is_about_rights(body)) {
            // Cursors that go on would hide that rows wait to be judged anew.
            return match self.shared.damage() {
                Some(Cause::Rights) => Err(CatalogError::damaged(store.generation(), Cause::Rights)),
                _ => Ok(()),
            };
        }
        let shared = Arc::clone(&self.shared);
        let changed = shared.long_work(|| {
            admit::refresh(&shared)?;
            admit::has_changed(&shared, store)
        });
        match changed {
            Ok(false) => Ok(()),
            Ok(true) => {
                // Manifests of records that begin to count were not taken.
                self.is_missing_unknown = true;
                Err(CatalogError::damaged(store.generation(), Cause::Rights))
            }
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "what changes who may do what cannot be read");
                Err(CatalogError::damaged(store.generation(), Cause::Rights))
            }
        }
    }

    /// Tells the observer how far feeds have come.
    pub(super) fn announce(&self, applied: &Applied) {
        let mut advanced: BTreeMap<&FeedId, (FeedHead, BTreeSet<VersionId>)> = BTreeMap::new();
        for (body, head) in applied {
            let entry = advanced.entry(&body.feed).or_insert((*head, BTreeSet::new()));
            entry.0 = *head;
            entry.1.extend(versions_of(body));
        }
        for (feed, (head, touched)) in advanced {
            let touched = touched.into_iter().collect();
            (self.on_change)(LedgerEvent::Advanced { feed: feed.clone(), head, touched });
        }
    }

    /// Rebuilds a catalog that was found damaged; once, and then again after a while if that fails.
    fn heal(&mut self) {
        let Some(cause) = self.shared.damage() else { return };
        if self.rebuild_again_at.is_some_and(|at| self.generations.now() < at) {
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
        self.find_missing(&*store);
        shared.clear_damage();
        shared.replace_store(store);
        self.in_use();
        true
    }

    /// Builds the next generation from the feeds and puts it in the place of this one.
    fn rebuild(
        &mut self,
        cause: &Cause,
        progress: &mut dyn FnMut(RebuildProgress),
    ) -> Result<Rebuilt, RebuildError> {
        self.give_up_compaction("the catalog is built anew");
        self.restore_directory();
        admit::refresh_or_keep(&self.shared);
        let build = || build_next(&self.shared, &self.generations, &self.checkpoints, progress);
        let built = self.shared.long_work(build).inspect_err(|_| self.shared.mending.end(true));
        self.rebuild_again_at = Some(self.generations.now() + REBUILD_AGAIN_AFTER);
        let (store, built) = built?;
        self.use_rebuilt(store);
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
        let stored = self.shared.manifests.ids();
        let found =
            stored.map_err(CatalogError::switch).and_then(|ids| find_missing(&self.shared, store, &ids));
        if let Err(error) = found {
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
        (self.on_change)(LedgerEvent::Rebuilt);
    }

    /// Returns the bodies and heads of the groups that a feed has now, of those that were to be appended.
    pub(super) fn durable(&self, feed: &FeedId, staged: &[SealedGroup]) -> Applied {
        let head = self.feeds.get(feed).map_or(FeedHead::EMPTY, FeedFile::head);
        staged.iter().filter_map(body_of).filter(|(_, after)| after.next_seq <= head.next_seq).collect()
    }
}

fn index_into(
    shared: &Shared,
    store: &dyn CatalogStore,
    applied: &Applied,
    local: &[LocalChange],
    on_change: &(dyn Fn(LedgerEvent) + Send + Sync),
) -> Result<(), CatalogError> {
    let (mut batch, admission) = (Batch::new(store), shared.admission());
    for (body, head) in applied {
        let role = shared.feed(&body.feed).map_or(Role::Vendor, |index| admit::role_of(&index, body));
        batch.apply_group(body, *head, Judge { admission: &admission, role })?;
    }
    for (feed, seq, action) in std::mem::take(&mut batch.refused) {
        on_change(LedgerEvent::NotAllowed { feed, seq, action });
    }
    for change in local {
        batch.apply_local(change)?;
    }
    batch.published.iter().for_each(|published| shared.note_published(published));
    store.commit(&batch.finish())
}
