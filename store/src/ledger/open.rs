//! Opening: feeds are read and checked, then the catalog is proved against them, caught up, or built anew.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::Builder,
    time::Duration,
};

use avalon_protocol::{access::Role, feed::FeedId, signing::RecordTrust};
use rayon::prelude::*;

use super::{
    CatalogCare, Inner, Ledger, LedgerConfig, OpenError, RebuildError, admit,
    care::Care,
    load::{FillError, Rebuilt, SourceRows, fill},
    own_role,
    replay::{self, RebuildProgress},
    shared::Shared,
    signer::SharedSigner,
    writer::{Job, Writer},
};
use crate::{
    catalog::{
        CatalogError, CatalogStore, Cause, Checkpoints, Generations, MemStore, Opened, Snapshot, SourceError,
        Unbuilt,
    },
    error_chain::ErrorChain,
    feed::{self, FeedFile, FeedFileError, ForkFiles, TornTail},
    fs::Dir,
    manifest_file::ManifestFiles,
    state_dir::StateDir,
};

/// How many jobs may wait before callers do; each is a publish, a batch of a peer or a scan's page.
const QUEUE_JOBS: usize = 1024;

/// What opening found and repaired.
#[derive(Debug, Default)]
pub struct OpenReport {
    /// Ends of feeds that a crash had torn; they are cut off.
    pub torn_tails: Vec<TornTail>,
    /// Feeds that were damaged; they are put aside and come back from a peer.
    pub quarantined: Vec<QuarantinedFeed>,
    /// Why the catalog was built anew, if it was. A first start is not reported.
    pub rebuilt: Option<Cause>,
    /// Why there is no catalog yet, if there is none: the thread that writes builds it, which takes long or needs room.
    pub rebuilding: Option<Cause>,
    /// How many records the catalog lacked; all that its checkpoint does not stand for where it was built anew.
    pub replayed_records: u64,
    /// How many records the checkpoint stood for that the catalog was built anew from; 0 without one.
    pub checkpoint_records: u64,
}

/// A feed that was damaged: a peer's, or this node's own where other nodes are known that may have it.
#[derive(Debug)]
pub struct QuarantinedFeed {
    /// Which feed.
    pub feed: FeedId,
    /// Where it lies now.
    pub moved_to: PathBuf,
    /// What is wrong with it.
    pub reason: FeedFileError,
    /// Of an own feed, how many records it had, as far as what is left says. Whoever opened the ledger lets nothing be written there before
    /// as many are back: else it would have two histories.
    pub own_records: Option<u64>,
}

pub(super) fn open(state: &StateDir, config: LedgerConfig) -> Result<(Ledger, OpenReport), OpenError> {
    let verify_rows = config.care.verify_at_open_rows;
    let generations = Generations::new(state.catalog.clone(), Arc::clone(&config.now), verify_rows);
    open_with(state, config, generations)
}

/// As [`open`], with these generations.
pub(super) fn open_with(
    state: &StateDir,
    config: LedgerConfig,
    generations: Generations,
) -> Result<(Ledger, OpenReport), OpenError> {
    let mut report = OpenReport::default();
    let feeds = open_feeds(state, &config, &mut report)?;
    let manifests = ManifestFiles::new(state.manifests.clone());
    // Whether they can be listed shows before anything is changed.
    manifests.ids_beginning(0).map_err(|source| OpenError::Manifests { source })?;
    let projects = config.projects.into_iter().filter_map(|(name, dir)| Some((name, dir?))).collect();
    let signer = SharedSigner::new(config.signer);
    let is_vendor = own_role(&signer, &*config.trust, &config.me) == Role::Vendor;
    let fork_files = ForkFiles::new(state.forks.clone());
    let forks = fork_files.all().map_err(|source| OpenError::Forks { source })?;
    let shared = Shared::new(
        (config.me, is_vendor, config.extract),
        Arc::clone(&config.trust),
        projects,
        manifests,
        fork_files,
        Arc::new(MemStore::default()),
    );
    forks.into_iter().for_each(|fork| shared.set_fork(fork));
    feeds.values().for_each(|file| shared.add_feed(Arc::clone(file.index())));
    admit::refresh(&shared).map_err(|source| OpenError::Catalog { source })?;
    let checkpoints = Checkpoints::new(state.catalog.clone());
    put_aside_newer(&shared, &checkpoints).map_err(|source| OpenError::Catalog { source })?;
    let (verified, took) = open_catalog(&shared, &generations, &checkpoints, config.care, &mut report)
        .map_err(|source| OpenError::Catalog { source })?;
    let newest = checkpoints.all().ok().and_then(|all| all.first().copied()).unwrap_or(0);
    shared.note_checkpoint(newest);
    let care = Care::new(config.care, &generations, shared.store().generation(), took, newest);
    if report.rebuilding.is_none() {
        let found = replay::find_missing(&shared, &*shared.store());
        found.map_err(|source| OpenError::Catalog { source: source.into() })?;
    }
    let (urgent, urgent_jobs) = sync_channel(QUEUE_JOBS);
    let writer = Writer {
        shared: Arc::new(shared),
        signer,
        trust: config.trust,
        on_change: config.on_change,
        feeds_dir: state.feeds.clone(),
        feeds,
        state_dir: state.root.clone(),
        catalog_dir: state.catalog.clone(),
        generations,
        checkpoints,
        rebuild_again_at: None,
        room_at_failure: None,
        care,
        is_missing_unknown: report.rebuilding.is_some(),
        compaction: None,
        parked: Vec::new(),
        urgent: urgent_jobs,
        is_amid: false,
        came_amid: false,
        max_feed_bytes: config.max_feed_bytes,
        is_to_judge_anew: false,
    };
    let ledger = start(writer, urgent).map_err(|source| OpenError::Thread { source })?;
    if !verified {
        verify_in_background(&ledger).map_err(|source| OpenError::Thread { source })?;
    }
    Ok((ledger, report))
}

/// Lets nobody wait for a catalog that a thread was to build which panicked.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.mending.end(true);
        self.0.mending.close();
    }
}

fn start(writer: Writer, urgent: SyncSender<Job>) -> std::io::Result<Ledger> {
    let (jobs, queue): (SyncSender<Job>, Receiver<Job>) = sync_channel(QUEUE_JOBS);
    let (shared, dir) = (Arc::clone(&writer.shared), writer.state_dir.clone());
    let signing = (writer.signer.clone(), Arc::clone(&writer.trust));
    let ended = Ended(Arc::clone(&shared));
    let thread = Builder::new().name("ledger".into()).spawn(move || {
        let _ended = ended;
        writer.run(&queue);
    })?;
    Ok(Ledger { inner: Arc::new(Inner::new(shared, (jobs, urgent), thread, dir, signing)) })
}

/// A large catalog proves that it has all its rows while it is in use already.
fn verify_in_background(ledger: &Ledger) -> std::io::Result<()> {
    let inner = Arc::downgrade(&ledger.inner);
    let verifying = Builder::new().name("catalog-verify".into()).spawn(move || {
        let Some(store) = inner.upgrade().map(|inner| inner.shared.store()) else { return };
        if let (Err(error), Some(inner)) = (store.verify(), inner.upgrade()) {
            inner.note(&error);
        }
    })?;
    drop(verifying);
    Ok(())
}

type OpenFeed = Result<(FeedFile, Option<TornTail>), FeedFileError>;

fn open_feeds(
    state: &StateDir,
    config: &LedgerConfig,
    report: &mut OpenReport,
) -> Result<BTreeMap<FeedId, FeedFile>, OpenError> {
    let found = feed::find(&state.feeds).map_err(|source| OpenError::Feeds { source })?;
    let trust: &dyn RecordTrust = &*config.trust;
    let opened: Vec<(FeedId, OpenFeed)> = found
        .into_par_iter()
        .map(|id| {
            let opened = feed::open(&state.feeds, &id, trust);
            (id, opened)
        })
        .collect();
    let mut feeds = BTreeMap::new();
    let others: Vec<FeedId> =
        opened.iter().map(|(id, _)| id).filter(|id| id.node != config.me).cloned().collect();
    for (id, opened) in opened {
        match opened {
            Ok((file, torn)) => {
                if let Some(torn) = torn {
                    tracing::warn!(feed = %id, segment = torn.segment, bytes = torn.bytes, "torn end cut off");
                    report.torn_tails.push(torn);
                }
                feeds.insert(id, file);
            }
            Err(source) if !source.is_damage() => {
                return Err(OpenError::Feed { feed: id, source: Box::new(source) });
            }
            // Nobody else has it: what is left is for a person to rescue.
            Err(source) if id.node == config.me && others.is_empty() => {
                let path = state.feeds.path().join(id.to_string());
                return Err(OpenError::OwnFeed { feed: id, path, source: Box::new(source) });
            }
            Err(reason) => {
                let own_records = (id.node == config.me).then(|| feed::newest_claimed(&state.feeds, &id));
                report
                    .quarantined
                    .push(QuarantinedFeed { own_records, ..quarantine(&state.feeds, id, reason)? });
            }
        }
    }
    Ok(feeds)
}

fn quarantine(feeds: &Dir, feed: FeedId, reason: FeedFileError) -> Result<QuarantinedFeed, OpenError> {
    let moved_to = feed::quarantine(feeds, &feed).map_err(|source| OpenError::Feeds { source })?;
    tracing::error!(%feed, moved_to = %moved_to.display(), error = %ErrorChain(&reason), "feed put aside");
    Ok(QuarantinedFeed { feed, moved_to, reason, own_records: None })
}

/// Puts the catalog into `shared`, equal to the feeds; says whether all its rows were proved, and how long the engine
/// took to open it.
fn open_catalog(
    shared: &Shared,
    generations: &Generations,
    checkpoints: &Checkpoints,
    care: CatalogCare,
    report: &mut OpenReport,
) -> Result<(bool, Duration), RebuildError> {
    generations.tidy().map_err(CatalogError::switch)?;
    let cause = match generations.open_current().map_err(CatalogError::switch)? {
        Err(cause) => cause,
        Ok(opened) => match catch_up(shared, &opened, report)? {
            None => {
                shared.replace_store(opened.store);
                return Ok((opened.verified, opened.took));
            }
            Some(cause) => cause,
        },
    };
    let current = generations.current().map_err(CatalogError::switch)?;
    if cause == Cause::NoSpace || shared.total_records() > care.build_at_open_records {
        return Ok(build_later(shared, current, cause, report));
    }
    let is_new = cause == Cause::Absent && shared.all_feeds().is_empty();
    if !is_new {
        tracing::warn!(error = %ErrorChain(&cause), "catalog is built anew from the feeds");
    }
    let (store, built) = match build_next(shared, generations, checkpoints, &mut |_| {}) {
        Ok(built) => built,
        Err(RebuildError::Catalog { source }) if source.is_no_space() && !is_new => {
            return Ok(build_later(shared, current, Cause::NoSpace, report));
        }
        Err(error) => return Err(error),
    };
    report.rebuilt = (!is_new).then_some(cause);
    report.replayed_records = built.replayed_records;
    report.checkpoint_records = built.loaded_records;
    if let Some(current) = current {
        generations.condemn(current);
    }
    shared.replace_store(store);
    Ok((true, Duration::ZERO))
}

/// Leaves it to the thread that writes: building takes long, or needs room that is not there.
fn build_later(
    shared: &Shared,
    current: Option<u64>,
    cause: Cause,
    report: &mut OpenReport,
) -> (bool, Duration) {
    tracing::warn!(error = %ErrorChain(&cause), "catalog is built from the feeds while the daemon runs");
    let generation = current.unwrap_or(0);
    shared.replace_store(Arc::new(Unbuilt::new(generation, cause.clone())));
    shared.note_damage(&CatalogError::damaged(generation, cause.clone()));
    report.rebuilding = Some(cause);
    (true, Duration::ZERO)
}

/// Opens the generation that counts once more: it lacked room, and may be good. None when it is not.
pub(super) fn reopen(
    shared: &Shared,
    generations: &Generations,
) -> Result<Option<Arc<dyn CatalogStore>>, RebuildError> {
    let Ok(opened) = generations.open_current().map_err(CatalogError::switch)? else { return Ok(None) };
    if catch_up(shared, &opened, &mut OpenReport::default())?.is_some() {
        return Ok(None);
    }
    if !opened.verified && opened.store.verify().is_err() {
        return Ok(None);
    }
    Ok(Some(opened.store))
}

/// Checks the cursors and applies what is behind them; returns why the generation is of no use, if it is not.
fn catch_up(
    shared: &Shared,
    opened: &Opened,
    report: &mut OpenReport,
) -> Result<Option<Cause>, RebuildError> {
    let store = &*opened.store;
    let result = replay::check_cursors(shared, store).and_then(|cause| match cause {
        None if is_judged_otherwise(shared, store)? => Ok(Err(Cause::Rights)),
        None => replay::catch_up(shared, store).map(Ok),
        Some(cause) => Ok(Err(cause)),
    });
    match result {
        Ok(Ok(records)) => {
            report.replayed_records = records;
            Ok(None)
        }
        Ok(Err(cause)) | Err(RebuildError::Catalog { source: CatalogError::Damaged { cause, .. } }) => {
            Ok(Some(cause))
        }
        Err(error) => Err(error),
    }
}

fn is_judged_otherwise(shared: &Shared, store: &dyn CatalogStore) -> Result<bool, RebuildError> {
    let (then, now) = (admit::judged_by(shared, store)?, shared.admission());
    admit::has_changed(shared, store, (&then, &now), &mut || {})
}

/// Puts checkpoints aside that stand for more records than the feeds have: the feeds are those of a backup.
fn put_aside_newer(shared: &Shared, checkpoints: &Checkpoints) -> Result<(), RebuildError> {
    let total = shared.total_records();
    let all = checkpoints.all().map_err(CatalogError::switch)?;
    let newer = all.iter().filter(|records| **records > total);
    newer.for_each(|records| {
        checkpoints.put_aside(*records, &SourceError::AheadOfFeeds { records: *records, total })
    });
    Ok(())
}

/// Builds the next generation and makes it the one that counts: from the newest good checkpoint, or from the feeds alone.
pub(super) fn build_next(
    shared: &Shared,
    generations: &Generations,
    checkpoints: &Checkpoints,
    progress: &mut dyn FnMut(RebuildProgress),
) -> Result<(Arc<dyn CatalogStore>, Rebuilt), RebuildError> {
    for records in checkpoints.all().map_err(CatalogError::switch)? {
        let rows = checkpoints.open(records).and_then(Snapshot::rows);
        let built = rows
            .map_err(FillError::Source)
            .and_then(|mut rows| build_from(shared, generations, Some(&mut rows), progress));
        match built {
            Ok(built) => return Ok(built),
            Err(FillError::Source(why)) => checkpoints.put_aside(records, &why),
            Err(FillError::Rebuild(error)) => return Err(error),
        }
    }
    build_from(shared, generations, None, progress).map_err(|error| match error {
        FillError::Rebuild(error) => error,
        FillError::Source(source) => RebuildError::Source { source: Arc::new(source) },
    })
}

/// Builds the next generation from these rows and the feeds, and makes it the one that counts.
pub(super) fn build_from(
    shared: &Shared,
    generations: &Generations,
    source: Option<SourceRows<'_>>,
    progress: &mut dyn FnMut(RebuildProgress),
) -> Result<(Arc<dyn CatalogStore>, Rebuilt), FillError> {
    let store = generations.create_next()?;
    shared.mending.begin(Arc::clone(&store));
    let filled = fill(shared, &*store, source, &mut |state| {
        shared.mending.advanced(state);
        progress(state);
    });
    let built = filled.and_then(|built| {
        generations.switch(store.generation()).map_err(CatalogError::switch)?;
        Ok(built)
    });
    shared.mending.end(built.is_err());
    match built {
        Ok(built) => Ok((store, built)),
        Err(error) => {
            // On a full disk the half of it would be in the way.
            generations.discard(store.generation());
            Err(error)
        }
    }
}
