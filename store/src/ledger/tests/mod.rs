//! The ledger against crashes, damage and peers that lie.

mod checkpoint;
mod commit;
mod compact;
mod damage;
mod dead_disk;
mod engine;
mod export;
mod failing;
mod fork;
mod fsck;
mod full_disk;
mod ingest;
mod meanwhile;
mod own;
mod readers;
mod rights;
mod standing;
mod studio;
mod work;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use avalon_protocol::{
    feed::SealedGroup,
    manifest::Manifest,
    record::{Record, RecordError},
};

use super::*;
use crate::{
    catalog::{Batch, CatalogStore, Judge, LocalFile, MemStore, Table},
    feed::body_of,
    toy::{self, Toy, ToyTrust},
};

const ME: &str = "ws1@london";
const PEER: &str = "ws2@montreal";

/// A node's state directory, its project tree, and what its ledger told.
struct World {
    temp: tempfile::TempDir,
    /// Copies of the state share the tree: inodes and times are in the catalog.
    tree: Arc<tempfile::TempDir>,
    events: Arc<Mutex<Vec<LedgerEvent>>>,
    /// The time, in seconds.
    clock: Arc<AtomicU64>,
    /// How long the engine takes to open, in seconds.
    open_takes: Arc<AtomicU64>,
    care: CatalogCare,
    max_feed_bytes: u64,
}

/// An open ledger with what keeps its directory locked.
struct Node {
    ledger: Ledger,
    report: OpenReport,
    _state: StateDir,
}

fn project() -> ProjectName {
    "lantern".parse().unwrap()
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let tree = Arc::new(tempfile::tempdir().unwrap());
        let (clock, open_takes) = (Arc::default(), Arc::default());
        Self {
            temp,
            tree,
            events: Arc::default(),
            clock,
            open_takes,
            care: CatalogCare::default(),
            max_feed_bytes: u64::MAX,
        }
    }

    fn tree_dir(&self) -> Dir {
        Dir::open(self.tree.path()).unwrap()
    }

    fn state_path(&self) -> std::path::PathBuf {
        self.temp.path().join("state")
    }

    fn config(&self, node: &str) -> LedgerConfig {
        let (events, clock) = (Arc::clone(&self.events), Arc::clone(&self.clock));
        let open_takes = Arc::clone(&self.open_takes);
        LedgerConfig {
            me: node.parse().unwrap(),
            signer: Arc::new(Toy::of(node)),
            trust: Arc::new(ToyTrust),
            projects: vec![(project(), Some(self.tree_dir()))],
            on_change: Arc::new(move |event| events.lock().unwrap().push(event)),
            now: Arc::new(move || {
                // The thread that opens looks at the time before and after.
                let opens = thread::current().name() == Some("catalog-open");
                let passed = if opens { open_takes.load(Ordering::Relaxed) } else { 0 };
                Duration::from_secs(clock.fetch_add(passed, Ordering::Relaxed))
            }),
            extract: None,
            max_feed_bytes: self.max_feed_bytes,
            care: self.care,
        }
    }

    fn open(&self) -> Node {
        self.try_open(ME).unwrap()
    }

    fn try_open(&self, node: &str) -> Result<Node, OpenError> {
        let state = StateDir::open(&self.state_path()).unwrap();
        let (ledger, report) = Ledger::open(&state, self.config(node))?;
        Ok(Node { ledger, report, _state: state })
    }

    /// Copies the state as a crash would leave it: without asking whoever has it open.
    fn crash_copy(&self) -> Self {
        let copy = Self { tree: Arc::clone(&self.tree), ..Self::new() };
        copy_tree(&self.state_path(), &copy.state_path());
        copy
    }

    /// Writes the files of a version into the project tree, as its manifest says.
    fn place(&self, manifest: &Manifest, contents: &[(&str, &[u8])]) {
        let dir = self.tree_dir();
        dir.create_dirs(manifest.dir()).unwrap();
        for ((_, content), entry) in contents.iter().zip(manifest.files()) {
            let path = manifest.dir().join(&entry.path).unwrap();
            dir.write_atomic(&path, content, crate::fs::WriteMode::Replace).unwrap();
            dir.set_mtime(&path, entry.mtime_ns).unwrap();
        }
    }

    fn local_changes(&self, manifest: &Manifest) -> Vec<LocalChange> {
        let dir = self.tree_dir();
        let puts = manifest.files().iter().map(|entry| {
            let path = manifest.dir().join(&entry.path).unwrap();
            let stat = dir.stat(&path).unwrap().unwrap();
            let file = LocalFile {
                hash: entry.hash,
                size: stat.size,
                mtime_ns: stat.mtime_ns,
                ctime_ns: stat.ctime_ns,
                inode: stat.inode,
                manifest: manifest.id(),
            };
            LocalChange::Put { project: project(), path, file }
        });
        puts.collect()
    }

    /// Publishes version `number` with two files, all the way.
    fn publish(&self, ledger: &Ledger, number: u32) -> Manifest {
        let text = format!("content of {number}");
        let contents = [("a.abc", text.as_bytes()), ("b.abc", &b"shared"[..])];
        let manifest = toy::manifest(number, &contents);
        self.place(&manifest, &contents);
        ledger.put_manifest(&manifest).unwrap();
        let records = vec![toy::published(&manifest)];
        ledger.commit_wait(&project(), records, self.local_changes(&manifest), 1000).unwrap();
        manifest
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn rows_of(store: &dyn CatalogStore) -> Rows {
    let mut rows = Rows::new();
    for table in Table::ALL {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(table, &[], after.as_deref(), 1000).unwrap();
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            rows.extend(page.into_iter().map(|(key, value)| ((table, key), value)));
        }
    }
    rows
}

impl Node {
    fn rows(&self) -> Rows {
        rows_of(&*self.ledger.inner.shared.store())
    }

    /// Compares the catalog with what it must be; says which rows differ, not all of them.
    fn check_rows(&self, expected: &Rows) {
        let rows = self.rows();
        let keys = rows.keys().chain(expected.keys());
        let different: Vec<String> = keys
            .filter(|key| rows.get(key) != expected.get(key))
            .map(|(table, key)| format!("{table} {}", String::from_utf8_lossy(key)))
            .collect();
        assert!(different.is_empty(), "{different:#?}");
    }

    fn groups(&self, node: &str) -> Vec<SealedGroup> {
        self.ledger.read_groups(&toy::feed(node), 0, usize::MAX).unwrap()
    }

    /// What the catalog must be: the fold of all groups, in the plainest way.
    fn expected_rows(&self, local: &[LocalChange]) -> Rows {
        let store = MemStore::default();
        for index in self.ledger.inner.shared.all_feeds() {
            for group in index.read(0, usize::MAX).unwrap() {
                let (body, head) = body_of(&group).unwrap();
                let mut batch = Batch::new(&store);
                let admission = self.ledger.admission();
                let judge = Judge { admission: &admission, signer: index.signer_at(body.first_seq).unwrap() };
                batch.apply_group(&body, head, judge).unwrap();
                store.commit(&batch.finish()).unwrap();
            }
        }
        let mut batch = Batch::new(&store);
        local.iter().for_each(|change| batch.apply_local(change).unwrap());
        store.commit(&batch.finish()).unwrap();
        rows_of(&store)
    }
}

fn placed(number: u32, manifest: u8) -> Record {
    Record::Placed(toy::held(number, manifest))
}
