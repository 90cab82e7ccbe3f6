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
    access::{Extract, Role},
    feed::{FeedHead, FeedId, Group, SealedGroup},
    id::{ProjectName, VersionId},
    record::RawRecord,
    signing::RecordTrust,
};

use super::{
    Committed, IngestError, Ingested, LedgerError, LedgerEvent, Reply, admit,
    care::Care,
    compact::Compaction,
    export::ImportRows,
    load::Rebuilt,
    pack::{Packed, PackedGroup},
    replay::{RebuildProgress, versions_of},
    shared::Shared,
    signer::SharedSigner,
};
use crate::{
    catalog::{Batch, CatalogError, CatalogStore, Cause, Checkpoints, Generations, Judge, LocalChange},
    error_chain::ErrorChain,
    feed::{self, FeedFile, Staged, body_of},
    fs::Dir,
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
    /// Goes by this extract of the policy.
    GoBy {
        extract: Extract,
        reply: Reply<(), LedgerError>,
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
    /// How often own records had come back when these were concluded from the catalog, if they were.
    pub(super) came_back: Option<u64>,
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
            Self::Change(Change::Local { reply, .. })
            | Self::GoBy { reply, .. }
            | Self::Sync { reply }
            | Self::Close { reply } => reply(Err(LedgerError::Closed)),
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
    /// How many bytes were free after it failed.
    pub(super) room_at_failure: Option<u64>,
    pub(super) care: Care,
    /// It was opened without a catalog, so nobody knows yet which manifests are missing.
    pub(super) is_missing_unknown: bool,
    /// The copy of the catalog that is under way.
    pub(super) compaction: Option<Compaction>,
    /// Commits that wait until their feed may be written.
    pub(super) parked: Vec<Commit>,
    /// What goes into the studio's feeds: it is taken also amid work that takes long.
    pub(super) urgent: Receiver<Job>,
    /// Work is under way during which only that is taken,
    pub(super) is_amid: bool,
    /// and some was, which the catalog does not have yet.
    pub(super) came_amid: bool,
    /// How long a feed of another node may become.
    pub(super) max_feed_bytes: u64,
    /// Rows of the catalog in use wait to be judged anew.
    pub(super) is_to_judge_anew: bool,
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
            // Whoever asks for something after that finds it done.
            self.serve_urgent();
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
                Job::GoBy { extract, reply } => {
                    reply(self.go_by(extract).map_err(|source| LedgerError::Rebuild { source }));
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
        self.urgent.try_iter().chain(jobs.try_iter()).for_each(Job::refuse);
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
        self.announce(&applied, |feed| !feed.is_of_studio());
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
            let may = self.knew_own(&feed, &commit).and_then(|()| self.may_say(&feed, &commit.records));
            match may {
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
        let is_about_rights = self.heed(applied);
        if self.is_amid {
            self.came_amid = true;
            return Ok(());
        }
        let store = self.shared.store();
        let result = match self.judge_anew(&*store, is_about_rights) {
            Ok(()) => index_into(&self.shared, &*store, applied, local, &*self.on_change),
            Err(error) => Err(error),
        };
        let result = result.and_then(|()| {
            let taken = self.take_what_came_amid(&*store);
            self.is_to_judge_anew |= taken.is_err();
            taken
        });
        if let Err(error) = &result {
            self.shared.note_damage(error);
        }
        result
    }

    /// Tells the observer how far those of the feeds have come.
    pub(super) fn announce(&self, applied: &Applied, of: impl Fn(&FeedId) -> bool) {
        let mut advanced: BTreeMap<&FeedId, (FeedHead, BTreeSet<VersionId>)> = BTreeMap::new();
        for (body, head) in applied.iter().filter(|(body, _)| of(&body.feed)) {
            let entry = advanced.entry(&body.feed).or_insert((*head, BTreeSet::new()));
            entry.0 = *head;
            entry.1.extend(versions_of(body));
        }
        for (feed, (head, touched)) in advanced {
            let touched = touched.into_iter().collect();
            (self.on_change)(LedgerEvent::Advanced { feed: feed.clone(), head, touched });
        }
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
        let index = shared.feed(&body.feed);
        let signer = index.map_or(Role::Vendor.into(), |index| admit::signer_of(&index, body));
        batch.apply_group(body, *head, Judge { admission: &admission, signer })?;
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
