//! An engine that does what a test wants, between the ledger and the real one.

use std::sync::{
    atomic::AtomicBool,
    mpsc::{Receiver, Sender, channel},
};

use super::*;
use crate::catalog::{CatalogError, Cause, Generations, Opened, Opener, Row, TableSum, WriteSet};

/// What is called before the real store does something.
type Hook = Box<dyn Fn() + Send + Sync>;

/// A store that calls a test before it does something.
pub(super) struct Hooked {
    pub(super) inner: Arc<dyn CatalogStore>,
    pub(super) commit: Hook,
    pub(super) verify: Hook,
    /// Goes with the store, after what is in it.
    pub(super) gone: Option<Farewell>,
}

/// Tells when it goes.
pub(super) struct Farewell(pub(super) Sender<()>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // The test may be over.
        self.0.send(()).ok();
    }
}

/// Ends the thread that looks at it, also when the test fails.
pub(super) struct StopOnDrop<'a>(pub(super) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for what a thread tells; fails rather than to wait for ever.
pub(super) fn told<T>(by: &Receiver<T>) -> T {
    by.recv_timeout(Duration::from_mins(2)).unwrap()
}

impl Hooked {
    pub(super) fn new(inner: Arc<dyn CatalogStore>) -> Self {
        Self { inner, commit: Box::new(|| {}), verify: Box::new(|| {}), gone: None }
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl CatalogStore for Hooked {
    fn generation(&self) -> u64 {
        self.inner.generation()
    }
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        self.inner.get(table, key)
    }
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, CatalogError> {
        self.inner.scan(table, prefix, after, limit)
    }
    fn commit(&self, set: &WriteSet) -> Result<(), CatalogError> {
        (self.commit)();
        self.inner.commit(set)
    }
    fn sync(&self) -> Result<(), CatalogError> {
        self.inner.sync()
    }
    fn sum(&self, table: Table) -> TableSum {
        self.inner.sum(table)
    }
    fn versions_in(&self, project: &ProjectName) -> Result<u64, CatalogError> {
        self.inner.versions_in(project)
    }
    fn rows_read(&self) -> u64 {
        self.inner.rows_read()
    }
    fn disk_bytes(&self) -> Result<u64, CatalogError> {
        self.inner.disk_bytes()
    }
    fn verify(&self) -> Result<u64, CatalogError> {
        (self.verify)();
        self.inner.verify()
    }
}

/// Where a thread waits until the test lets it go on. It goes on too when the test is over.
pub(super) struct Gate(Mutex<Receiver<()>>);

impl Gate {
    pub(super) fn new() -> (Sender<()>, Arc<Self>) {
        let (open, closed) = channel();
        (open, Arc::new(Self(Mutex::new(closed))))
    }

    pub(super) fn wait(&self) {
        self.0.lock().unwrap().recv().ok();
    }
}

/// No engine is too slow for this.
pub(super) const PATIENT: fn(u64) -> Duration = |_| Duration::from_hours(1);

impl World {
    /// Opens with `engine` in the place of the real one, which it gets.
    pub(super) fn try_open_by(
        &self,
        deadline: impl Fn(u64) -> Duration + Send + Sync + 'static,
        engine: impl FnOnce(Opener) -> Opener,
    ) -> Result<Node, OpenError> {
        let state = StateDir::open(&self.state_path()).unwrap();
        let config = self.config(ME);
        let (now, verify_rows) = (Arc::clone(&config.now), config.care.verify_at_open_rows);
        let generations = Generations::new(state.catalog.clone(), now, verify_rows);
        let (ledger, report) = open::open_with(&state, config, generations.opened_by(engine, deadline))?;
        Ok(Node { ledger, report, _state: state })
    }

    /// Opens with stores that `hook` has put hooks on.
    pub(super) fn open_hooked(&self, hook: impl Fn(&mut Hooked) + Send + Sync + 'static) -> Node {
        let engine = |real: Opener| -> Opener {
            Arc::new(move |directory, number| {
                let opened: Result<Opened, Cause> = real(directory, number);
                opened.map(|opened| {
                    let mut hooked = Hooked::new(opened.store);
                    hook(&mut hooked);
                    Opened { store: Arc::new(hooked), ..opened }
                })
            })
        };
        self.try_open_by(PATIENT, engine).unwrap()
    }

    /// What is in the directory of the catalog, without the checkpoints.
    pub(super) fn catalog_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state_path().join("catalog")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(super) fn current(&self) -> String {
        fs::read_to_string(self.state_path().join("catalog/CURRENT")).unwrap()
    }
}

impl Node {
    /// Waits until the catalog is of another generation than `before`, without asking it anything.
    pub(super) fn until_rebuilt(&self, before: u64) {
        for _ in 0..30_000 {
            if self.ledger.inner.shared.store().generation() != before {
                return;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        panic!("the catalog is still generation {before}");
    }
}
