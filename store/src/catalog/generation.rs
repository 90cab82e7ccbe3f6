//! Which generation counts, and opening it without trusting it.

use std::{
    path::Path,
    sync::{Arc, mpsc::sync_channel},
    thread::Builder,
    time::Duration,
};

use avalon_protocol::rel_path::RelPath;

use super::{
    CatalogError, CatalogStore, Cause, Table,
    sled::{SledStore, guarded},
};
use crate::{
    error_chain::ErrorChain,
    fs::{Dir, FileKind, IoError, Overwrite, WriteMode, path_of},
    time::Monotonic,
};

/// How long the engine may take to open, whatever its size, and how much longer for each started GiB.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);
const OPEN_DEADLINE_PER_GIB: Duration = Duration::from_secs(10);
const CURRENT: &str = "CURRENT";
const COMPACTED: &str = "COMPACTED";
const GOOD: &str = "gen-";
const BAD: &str = "bad-gen-";

/// Opens or creates the generation of this number in this directory. May hang or panic: the caller guards it.
pub(crate) type Opener = Arc<dyn Fn(&Path, u64) -> Result<Opened, Cause> + Send + Sync>;

/// The directory of the catalog.
#[derive(Clone)]
pub(crate) struct Generations {
    dir: Dir,
    /// The next generation has a greater number than this one, though nothing of it is in the directory.
    used: u64,
    now: Monotonic,
    opener: Opener,
    /// How long the opening of this generation may take, whatever its size.
    deadline: Deadline,
}

type Deadline = Arc<dyn Fn(u64) -> Duration + Send + Sync>;

/// A generation that opened, and whether every row in it was seen.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn CatalogStore>,
    pub(crate) verified: bool,
    /// How long the engine took, without the look at the rows.
    pub(crate) took: Duration,
}

impl Generations {
    /// Uses a directory. Up to `verify_rows` rows a generation proves at open that it has all of them; above, the ledger
    /// has it done in the background.
    pub(crate) fn new(dir: Dir, now: Monotonic, verify_rows: u64) -> Self {
        let clock = Arc::clone(&now);
        let opener = move |directory: &Path, number: u64| {
            open(directory, number, SledStore::open, &clock, verify_rows)
        };
        Self { dir, used: 0, now, opener: Arc::new(opener), deadline: Arc::new(|_| OPEN_DEADLINE) }
    }

    /// Puts something between the ledger and the engine, and other deadlines.
    #[cfg(test)]
    pub(crate) fn opened_by(
        self,
        opener: impl FnOnce(Opener) -> Opener,
        deadline: impl Fn(u64) -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self { opener: opener(self.opener), deadline: Arc::new(deadline), ..self }
    }

    /// The directory was made again; generation `used` was in use.
    pub(crate) fn moved_to(&mut self, dir: Dir, used: u64) {
        (self.dir, self.used) = (dir, used);
    }

    /// Returns the time.
    pub(crate) fn now(&self) -> Duration {
        (self.now)()
    }

    /// Returns the room that is left on the volume, in bytes.
    pub(crate) fn free_bytes(&self) -> Result<u64, IoError> {
        self.dir.free_bytes()
    }

    /// Opens the generation that counts. One that cannot be used is the inner error.
    pub(crate) fn open_current(&self) -> Result<Result<Opened, Cause>, IoError> {
        let Some(number) = self.current()? else { return Ok(Err(Cause::Absent)) };
        if self.dir.stat(&generation_path(number))?.is_none() {
            return Ok(Err(Cause::Absent));
        }
        Ok(self.open_guarded(number))
    }

    /// Creates the next generation, empty. It does not count before [`Generations::switch`].
    pub(crate) fn create_next(&self) -> Result<Arc<dyn CatalogStore>, CatalogError> {
        let highest = self.highest().map_err(CatalogError::switch)?.unwrap_or(0);
        // What a damaged `CURRENT` says may be the last number there is.
        let number = highest.checked_add(1).unwrap_or(1);
        self.dir.create_dirs(&generation_path(number)).map_err(CatalogError::switch)?;
        self.open_guarded(number).map(|opened| opened.store).map_err(|cause| {
            // The next try takes the next number: on a full disk each would leave something.
            self.discard(number);
            CatalogError::damaged(number, cause)
        })
    }

    /// Opens and verifies in a thread of its own: a damaged file may make the engine panic or never return. One that comes
    /// too late is closed again; by then its directory has another name, or none.
    fn open_guarded(&self, number: u64) -> Result<Opened, Cause> {
        let (done, opened) = sync_channel(1);
        let (directory, opener) = (self.path_of(number), Arc::clone(&self.opener));
        let helper = Builder::new().name("catalog-open".into()).spawn(move || {
            let result = guarded(|| opener(&directory, number));
            if done.send(result).is_err() {
                tracing::warn!(number, "catalog opened after its deadline");
            }
        });
        let thread = helper.map_err(|error| Cause::Engine { text: error.to_string() })?;
        let deadline = self.deadline_of(number);
        let result = opened.recv_timeout(deadline);
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!(number, "catalog opener panicked");
        }
        result.unwrap_or(Err(Cause::Timeout { seconds: deadline.as_secs() }))
    }

    /// Makes a generation, all of it durable by now, the one that counts.
    pub(crate) fn switch(&self, number: u64) -> Result<(), IoError> {
        self.dir.write_atomic(&path_of(CURRENT), format!("{number}\n").as_bytes(), WriteMode::Replace)
    }

    /// Puts a generation aside for diagnosis and removes those put aside earlier, and what unfinished builds left.
    /// Failures here cost room on disk, nothing else.
    pub(crate) fn condemn(&self, number: u64) {
        if let Err(error) = self.try_condemn(number) {
            tracing::warn!(number, error = %ErrorChain(&error), "old generation of the catalog stays");
        }
    }

    fn try_condemn(&self, number: u64) -> Result<(), IoError> {
        for (name, _) in self.names(BAD)? {
            self.dir.remove_tree(&name)?;
        }
        let from = generation_path(number);
        if let Some(stat) = self.dir.stat(&from)? {
            let to = path_of(&format!("{BAD}{number}-{}", stat.mtime_ns / 1_000_000));
            self.dir.rename(&from, &self.dir, &to, Overwrite::Refuse)?;
        }
        self.dir.sync()
    }

    /// Notes that a generation was made by copying another one, and what it took on disk then: it is not copied again
    /// before it has grown, also after a restart.
    pub(crate) fn note_compacted(&self, number: u64, disk_bytes: u64) {
        let text = format!("{number} {disk_bytes}\n");
        if let Err(error) = self.dir.write_derived(&path_of(COMPACTED), text.as_bytes()) {
            tracing::warn!(number, error = %ErrorChain(&error), "size of the catalog after its copy not noted");
        }
    }

    /// Returns what a generation took on disk after it was copied, if it was.
    pub(crate) fn compacted(&self, number: u64) -> Option<u64> {
        let file = self.dir.open_file(&path_of(COMPACTED)).ok()?;
        let text = std::io::read_to_string(file).ok()?;
        let (of, bytes) = text.trim_end().split_once(' ')?;
        (of.parse() == Ok(number)).then(|| bytes.parse().ok()).flatten()
    }

    /// Removes a generation that was not finished, or that another has taken the place of.
    pub(crate) fn discard(&self, number: u64) {
        if let Err(error) = self.dir.remove_tree(&generation_path(number)) {
            tracing::warn!(number, error = %ErrorChain(&error), "unfinished generation of the catalog stays");
        }
    }

    /// Removes generations that do not count, and files without their final name: what a crash ended.
    pub(crate) fn tidy(&self) -> Result<(), IoError> {
        self.dir.remove_temporaries()?;
        self.remove_what_is_no_file(CURRENT)?;
        let current = self.current()?;
        for (name, number) in self.names(GOOD)? {
            if Some(number) != current {
                self.dir.remove_tree(&name)?;
            }
        }
        Ok(())
    }

    /// Something else in the place of a file would be in the way of the next one.
    fn remove_what_is_no_file(&self, name: &str) -> Result<(), IoError> {
        let path = path_of(name);
        match self.dir.stat(&path)? {
            Some(stat) if stat.kind != FileKind::File => self.dir.remove_tree(&path),
            _ => Ok(()),
        }
    }

    /// Returns the number in `CURRENT`; a file that is not ours counts as none.
    pub(crate) fn current(&self) -> Result<Option<u64>, IoError> {
        let file = match self.dir.open_file(&path_of(CURRENT)) {
            Err(error) if error.is_not_found() => return Ok(None),
            file => file?,
        };
        let text = std::io::read_to_string(file);
        Ok(text.ok().and_then(|text| text.trim_end().parse().ok()))
    }

    fn highest(&self) -> Result<Option<u64>, IoError> {
        let numbers = self.names(GOOD)?.into_iter().chain(self.names(BAD)?).map(|(_, number)| number);
        Ok(numbers.chain(self.current()?).chain((self.used > 0).then_some(self.used)).max())
    }

    /// Lists the entries of the form `<prefix><number>[-...]`.
    fn names(&self, prefix: &str) -> Result<Vec<(RelPath, u64)>, IoError> {
        let entries = self.dir.list(None)?;
        let numbered = entries.iter().filter_map(|entry| {
            let name = entry.rel_path().ok()?;
            let number = name.as_str().strip_prefix(prefix)?.split('-').next()?.parse().ok()?;
            Some((name, number))
        });
        Ok(numbered.collect())
    }

    fn path_of(&self, number: u64) -> std::path::PathBuf {
        self.dir.path().join(generation_path(number).as_str())
    }

    fn deadline_of(&self, number: u64) -> Duration {
        let db = self.path_of(number).join("db");
        let bytes = db.metadata().map_or(0, |metadata| metadata.len());
        (self.deadline)(number) + OPEN_DEADLINE_PER_GIB * u32::try_from(bytes >> 30).unwrap_or(u32::MAX)
    }
}

fn generation_path(number: u64) -> RelPath {
    path_of(&format!("{GOOD}{number}"))
}

/// Opens with this call of the engine, and verifies up to so many rows.
fn open(
    directory: &Path,
    number: u64,
    engine: impl FnOnce(&Path, u64) -> Result<SledStore, Cause>,
    now: &Monotonic,
    verify_rows: u64,
) -> Result<Opened, Cause> {
    let start = now();
    let store = engine(directory, number)?;
    let took = now().saturating_sub(start);
    let rows: u64 = Table::ALL.into_iter().map(|table| store.row_count(table)).sum();
    let verified = rows <= verify_rows;
    if verified {
        store.verify().map_err(CatalogError::into_cause)?;
    }
    Ok(Opened { store: Arc::new(store), verified, took })
}

/// Opens with another fsync in the place of the real one.
#[cfg(test)]
pub(crate) fn open_syncing(
    directory: &Path,
    number: u64,
    fsync: impl FnOnce(super::Fsync) -> super::Fsync,
) -> Result<Opened, Cause> {
    let now: Monotonic = Arc::new(|| Duration::ZERO);
    open(
        directory,
        number,
        |directory, number| SledStore::open_with(directory, number, fsync),
        &now,
        u64::MAX,
    )
}
