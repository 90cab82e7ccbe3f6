//! The engine: sled 0.34.7, fenced in. No other file names it.
//!
//! One tree; the first byte of a key is its table, byte 0 is the row of sums. One thread commits with `apply_batch`,
//! nothing uses transactions, subscribers or merge operators. sled's own flush does not reach the disk on Linux, so
//! its files are fsynced afterwards. Whatever it does wrong (an error, a panic, a wrong byte, a missing row) makes the
//! generation fail for good.

use std::{
    fs::File,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, Builder, JoinHandle},
    time::Duration,
};

use avalon_protocol::id::ProjectName;

use super::{
    CatalogError, CatalogStore, Cause, FORMAT, MAX_PAGE_ROWS, Row, Table, WriteSet,
    api::Fsync,
    envelope::{self, RowMark, TableSum},
    tally::{Counts, Tally},
};
use crate::error_chain::ErrorChain;

/// The engine's page cache, at least and at most; it counts bytes on disk, and takes nearly three times as much memory. With
/// the least a catalog of 10,000 versions and 100,000 files answers as soon as with the most.
const MIN_CACHE_BYTES: u64 = 8 << 20;
const MAX_CACHE_BYTES: u64 = 64 << 20;
/// It is one part in so many of what the catalog takes on disk, whose rows are a fifth of that.
const CACHE_PART: u64 = 16;
/// How much an index may lag behind on disk; a power cut costs a replay of that.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Of so many changed rows, what they replace is freed in one round, which frees 512 things at most.
const ROWS_A_ROUND: usize = 64;
/// What is freed each second while nobody calls.
const ROUNDS_AT_REST: usize = 64;
/// How often and how long an open waits for the lock: 2 s.
const LOCK_TRIES: u32 = 200;
const LOCK_TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// The key of the row of sums; no table has it.
const SUMS_KEY: [u8; 1] = [0];

/// A catalog in sled.
#[derive(Debug)]
pub(super) struct SledStore {
    engine: Arc<Engine>,
    /// Goes last, and lets go of the engine.
    _flusher: Flusher,
}

/// Flushes every second; closes the engine, or abandons it.
#[derive(Debug)]
struct Flusher {
    engine: Option<Arc<Engine>>,
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
}

struct Engine {
    generation: u64,
    db: sled::Db,
    fsync: Fsync,
    books: Mutex<Books>,
    /// Held by the one scan that verifies.
    scanning: Mutex<()>,
    /// Held by the one flush, so that whoever waits for durability waits for the one under way too.
    flushing: Mutex<()>,
    failed: OnceLock<Cause>,
    dirty: AtomicBool,
    rows_read: AtomicU64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine(generation {}, {:?})", self.generation, self.failed.get())
    }
}

#[derive(Debug)]
struct Books {
    tally: Tally,
    /// A scan that is under way: how far it is, and what it added up so far.
    scan: Option<Scan>,
}

#[derive(Debug, Default)]
struct Scan {
    last_key: Vec<u8>,
    tally: Tally,
}

impl SledStore {
    /// Opens or creates a generation in `directory`, which exists. May hang or panic on a damaged one: the caller guards it.
    pub(super) fn open(directory: &Path, generation: u64) -> Result<Self, Cause> {
        Self::open_with(directory, generation, |fsync| fsync)
    }

    /// As [`SledStore::open`], with another fsync in the place of the real one.
    pub(super) fn open_with(
        directory: &Path,
        generation: u64,
        fsync: impl FnOnce(Fsync) -> Fsync,
    ) -> Result<Self, Cause> {
        let db = open_patiently(directory)?;
        let tally = match db.get(SUMS_KEY).map_err(cause_of)? {
            Some(value) => read_tally(&value, &db)?,
            None if db.is_empty() => Tally::default(),
            None => return Err(Cause::StrayRow),
        };
        let engine = Arc::new(Engine {
            generation,
            db,
            fsync: fsync(fsync_of(directory).map_err(|error| fsync_cause(&error))?),
            books: Mutex::new(Books { tally, scan: None }),
            scanning: Mutex::new(()),
            flushing: Mutex::new(()),
            failed: OnceLock::new(),
            dirty: AtomicBool::new(false),
            rows_read: AtomicU64::new(0),
        });
        let flusher = Flusher::spawn(&engine).map_err(|error| cause_of(sled::Error::Io(error)))?;
        Ok(Self { engine, _flusher: flusher })
    }
}

/// The files are opened once, so that no error of an earlier write goes unseen.
fn fsync_of(directory: &Path) -> io::Result<Fsync> {
    let mut files = vec![File::open(directory.join("db"))?, File::open(directory)?];
    let blobs = directory.join("blobs");
    if blobs.is_dir() {
        files.push(File::open(blobs)?);
    }
    Ok(Box::new(move || files.iter().try_for_each(File::sync_all)))
}

/// Threads of the engine may hold the lock of a generation a little longer than whoever dropped it. Another process
/// cannot: the state directory is ours.
fn open_patiently(directory: &Path) -> Result<sled::Db, Cause> {
    let config = sled::Config::new()
        .path(directory)
        .cache_capacity(cache_bytes(greatest_db(directory)))
        .flush_every_ms(None);
    let mut tries = 0;
    loop {
        // The engine would make it again where it was put aside because this call came too late.
        if !directory.is_dir() {
            return Err(Cause::Absent);
        }
        match config.open() {
            Err(sled::Error::Io(error)) if tries < LOCK_TRIES && is_locked(&error) => tries += 1,
            opened => return opened.map_err(cause_of),
        }
        thread::sleep(LOCK_TRY_AGAIN_AFTER);
    }
}

/// Returns the page cache for a generation that takes so many bytes on disk.
pub(super) fn cache_bytes(disk_bytes: u64) -> u64 {
    (disk_bytes / CACHE_PART).clamp(MIN_CACHE_BYTES, MAX_CACHE_BYTES)
}

/// Returns what the greatest generation beside this one takes, or it itself: a new one is filled with the same rows.
pub(super) fn greatest_db(directory: &Path) -> u64 {
    let siblings =
        directory.parent().and_then(|parent| parent.read_dir().ok()).into_iter().flatten().flatten();
    let all = siblings.map(|entry| entry.path()).chain([directory.to_owned()]);
    let bytes = all.filter_map(|path| path.join("db").metadata().ok()).map(|metadata| metadata.len());
    bytes.max().unwrap_or(0)
}

/// The engine says it in words only.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn read_tally(value: &[u8], db: &sled::Db) -> Result<Tally, Cause> {
    let [tag] = SUMS_KEY;
    let (payload, _) = envelope::open(tag, &[], value).ok_or(Cause::StrayRow)?;
    let (found, _) = postcard::take_from_bytes::<u16>(payload).map_err(|_| Cause::StrayRow)?;
    if found != FORMAT {
        return Err(Cause::OtherFormat { found, expected: FORMAT });
    }
    let (sums, versions) = Tally::from_bytes(payload).ok_or(Cause::StrayRow)?;
    let versions = versions.map_or_else(|| count_versions(db), Ok)?;
    Ok(Tally { sums, versions })
}

/// Of a catalog of an earlier version, which did not count them.
fn count_versions(db: &sled::Db) -> Result<Counts, Cause> {
    let mut counts = Counts::default();
    for item in db.scan_prefix([Table::Versions.tag()]) {
        let (full, _) = item.map_err(cause_of)?;
        counts.replace(split_key(&full)?.1, false, true);
    }
    Ok(counts)
}

impl Flusher {
    fn spawn(engine: &Arc<Engine>) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let flushed = Arc::clone(engine);
        let thread = Builder::new().name("catalog-flush".into()).spawn(move || {
            while stopped.recv_timeout(FLUSH_EVERY) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = flushed.sync().and_then(|()| flushed.tidy()) {
                    tracing::error!(error = %ErrorChain(&error), "catalog cannot be flushed");
                    break;
                }
            }
            let_go(flushed);
        })?;
        Ok(Self { engine: Some(Arc::clone(engine)), thread: Some((stop, thread)) })
    }
}

/// Frees what the engine has replaced: old pages, and buffers of 512 KiB.
///
/// It puts them aside until nobody can read them any more, and then looks at a few after each 128 calls. A batch of many
/// rows is one call, so that far more is put aside than freed, and nothing is while nobody calls.
fn free_garbage(rounds: usize) {
    (0..rounds).for_each(|_| sled::crossbeam_pin().flush());
}

/// Puts something aside in this thread as the engine does, which is called when it is freed.
#[cfg(test)]
pub(super) fn put_aside(freed: impl FnOnce() + Send + 'static) {
    sled::crossbeam_pin().defer(freed);
}

fn cause_of(error: sled::Error) -> Cause {
    match error {
        sled::Error::Io(error) if is_full(&error) => Cause::NoSpace,
        other => Cause::Engine { text: other.to_string() },
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A volume without room may say so as late as here.
fn fsync_cause(error: &io::Error) -> Cause {
    if is_full(error) { Cause::NoSpace } else { Cause::Fsync { text: error.to_string() } }
}

/// Runs a call into the engine; a panic becomes a cause.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, Cause>) -> Result<T, Cause> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Cause::Panic { text: text.unwrap_or_default() })
    })
}

fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table.tag()], key].concat()
}

fn split_key(full: &[u8]) -> Result<(Table, &[u8]), Cause> {
    let (tag, key) = full.split_first().ok_or(Cause::StrayRow)?;
    let table = Table::ALL.into_iter().find(|table| table.tag() == *tag).ok_or(Cause::StrayRow)?;
    Ok((table, key))
}

fn open_row<'a>(table: Table, key: &[u8], value: &'a [u8]) -> Result<(&'a [u8], RowMark), Cause> {
    envelope::open(table.tag(), key, value).ok_or(Cause::Row { table })
}

/// A row that changes: its table and key, and what it adds to the sums before and after.
type Change<'a> = (Table, &'a [u8], Option<RowMark>, Option<RowMark>);

impl Engine {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call unless this generation has failed; when the call fails, so has the generation.
    fn run<T>(&self, call: impl FnOnce() -> Result<T, Cause>) -> Result<T, CatalogError> {
        let result = match self.failed.get() {
            Some(cause) => Err(cause.clone()),
            None => guarded(call),
        };
        result.map_err(|cause| {
            let first = self.failed.get_or_init(|| cause);
            CatalogError::damaged(self.generation, first.clone())
        })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<(Vec<u8>, RowMark)>, Cause> {
        self.rows_read.fetch_add(1, Ordering::Relaxed);
        let Some(value) = self.db.get(full_key(table, key)).map_err(cause_of)? else { return Ok(None) };
        let (payload, hash) = open_row(table, key, &value)?;
        Ok(Some((payload.to_vec(), hash)))
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Cause> {
        let prefix = full_key(table, prefix);
        let first = match after {
            Some(after) if full_key(table, after) >= prefix => Bound::Excluded(full_key(table, after)),
            _ => Bound::Included(prefix.clone()),
        };
        let mut rows = Vec::new();
        for item in self.db.range((first, Bound::Unbounded)).take(limit.min(MAX_PAGE_ROWS)) {
            let (full, value) = item.map_err(cause_of)?;
            if !full.starts_with(&prefix) {
                break;
            }
            self.rows_read.fetch_add(1, Ordering::Relaxed);
            let (_, key) = split_key(&full)?;
            rows.push((key.to_vec(), open_row(table, key, &value)?.0.to_vec()));
        }
        Ok(rows)
    }

    fn commit(&self, set: &WriteSet) -> Result<(), Cause> {
        let mut books = self.books();
        let mut tally = books.tally.clone();
        let mut batch = sled::Batch::default();
        let mut seen: Vec<Change<'_>> = Vec::new();
        let scanned = books.scan.as_ref().map(|scan| scan.last_key.clone());
        for (table, key, value) in set.iter() {
            let full = full_key(table, key);
            let old = self.get(table, key)?.map(|(_, hash)| hash);
            let sealed = value.map(|value| envelope::seal(table.tag(), key, value));
            let new = sealed.as_ref().map(|(_, hash)| *hash);
            tally.replace(table, key, old, new);
            if scanned.as_ref().is_some_and(|last| full <= *last) {
                seen.push((table, key, old, new));
            }
            match sealed {
                Some((value, _)) => batch.insert(full, value),
                None => batch.remove(full),
            }
        }
        batch.insert(&SUMS_KEY, seal_tally(&tally)?);
        self.db.apply_batch(batch).map_err(cause_of)?;
        free_garbage(1 + set.len() / ROWS_A_ROUND);
        books.tally = tally;
        if let Some(scan) = &mut books.scan {
            seen.into_iter().for_each(|(table, key, old, new)| scan.tally.replace(table, key, old, new));
        }
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    fn sync(&self) -> Result<(), CatalogError> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return self.run(|| Ok(()));
        }
        self.run(|| {
            self.db.flush().map_err(cause_of)?;
            (self.fsync)().map_err(|error| fsync_cause(&error))
        })
    }

    /// Frees what is left from calls of others, also when nobody calls any more.
    fn tidy(&self) -> Result<(), CatalogError> {
        self.run(|| {
            free_garbage(ROUNDS_AT_REST);
            Ok(())
        })
    }

    /// Adds up one more page; says whether there was one.
    fn scan_page(&self) -> Result<bool, Cause> {
        let mut books = self.books();
        let scan = books.scan.get_or_insert_default();
        let first = if scan.last_key.is_empty() {
            Bound::Excluded(SUMS_KEY.to_vec())
        } else {
            Bound::Excluded(scan.last_key.clone())
        };
        let mut rows = 0;
        for item in self.db.range((first, Bound::Unbounded)).take(MAX_PAGE_ROWS) {
            let (full, value) = item.map_err(cause_of)?;
            let (table, key) = split_key(&full)?;
            scan.tally.replace(table, key, None, Some(open_row(table, key, &value)?.1));
            scan.last_key = full.to_vec();
            rows += 1;
        }
        if rows > 0 {
            return Ok(true);
        }
        let scan = books.scan.take().unwrap_or_default();
        let difference = scan.tally.difference(&books.tally);
        difference.map_or(Ok(false), |table| Err(Cause::Rows { table }))
    }
}

fn seal_tally(tally: &Tally) -> Result<Vec<u8>, Cause> {
    let [tag] = SUMS_KEY;
    let payload = tally.to_bytes().map_err(|error| Cause::Engine { text: error.to_string() })?;
    Ok(envelope::seal(tag, &[], &payload).0)
}

impl CatalogStore for SledStore {
    fn generation(&self) -> u64 {
        self.engine.generation
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        let row = self.engine.run(|| self.engine.get(table, key))?;
        Ok(row.map(|(payload, _)| payload))
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, CatalogError> {
        self.engine.run(|| self.engine.scan(table, prefix, after, limit))
    }

    fn commit(&self, set: &WriteSet) -> Result<(), CatalogError> {
        self.engine.run(|| self.engine.commit(set))
    }

    fn sync(&self) -> Result<(), CatalogError> {
        self.engine.sync()
    }

    fn sum(&self, table: Table) -> TableSum {
        *self.engine.books().tally.sums.of(table)
    }

    fn versions_in(&self, project: &ProjectName) -> Result<u64, CatalogError> {
        self.engine.run(|| Ok(self.engine.books().tally.versions.of(project.as_str().as_bytes())))
    }

    fn rows_read(&self) -> u64 {
        self.engine.rows_read.load(Ordering::Relaxed)
    }

    fn disk_bytes(&self) -> Result<u64, CatalogError> {
        self.engine.run(|| self.engine.db.size_on_disk().map_err(cause_of))
    }

    fn verify(&self) -> Result<u64, CatalogError> {
        let _one_at_a_time = self.engine.scanning.lock().unwrap_or_else(PoisonError::into_inner);
        self.engine.books().scan = None;
        while self.engine.run(|| self.engine.scan_page())? {}
        Ok(Table::ALL.into_iter().map(|table| self.row_count(table)).sum())
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        let (Some(engine), Some((stop, thread))) = (self.engine.take(), self.thread.take()) else { return };
        drop(stop);
        if engine.failed.get().is_some() {
            abandon(engine);
            return;
        }
        if thread.join().is_err() {
            tracing::error!(generation = engine.generation, "catalog flusher panicked");
        }
        if let Err(error) = engine.sync() {
            tracing::warn!(error = %ErrorChain(&error), "catalog not flushed on close");
            abandon(engine);
            return;
        }
        let_go(engine);
    }
}

/// Lets go of a failed engine where it may hang or panic without harm.
fn abandon(engine: Arc<Engine>) {
    let dropping = Builder::new().name("catalog-abandon".into()).spawn(move || let_go(engine));
    if let Err(error) = dropping {
        tracing::warn!(%error, "failed catalog let go in place");
    }
}

/// The engine fsyncs when the last one lets go of it, and panics when that fails.
fn let_go(engine: Arc<Engine>) {
    let generation = engine.generation;
    let gone = guarded(|| {
        drop(engine);
        Ok(())
    });
    if let Err(cause) = gone {
        tracing::warn!(generation, error = %ErrorChain(&cause), "catalog not closed as it should be");
    }
}
