//! A state directory of any size: manifests, signed feeds of the workstations that published, and of the server that holds what
//! they did. No content is written: where the server is to hold files, they are holes of the right size and time.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use avalon_certs::Identity;
use avalon_protocol::{
    feed::{FeedId, FeedReader, SealedGroup},
    hash::ObjectHash,
    id::{VersionId, VersionSlot},
    manifest::{Completeness, FileEntry, Manifest, ManifestDraft, Representation},
    record::{Held, Published, Record},
};
use avalon_store::{
    ledger::{CatalogCare, Ledger, LedgerConfig},
    state_dir::StateDir,
};

use crate::daemons::{PROJECT, Studio, daemon::Daemon, now};

/// Who publishes.
const WORKSTATIONS: u64 = 4;
/// An asset has so many subsets, with so many versions each, however many assets there are.
pub(super) const SUBSETS: u64 = 10;
pub(super) const SLOTS: u64 = 10;
/// How many groups of a feed are handed over together.
const GROUPS: usize = 1000;
/// Over how long a time everything was published.
const YEARS_MS: u64 = 2 * 365 * 24 * 3_600_000;

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How many versions.
    pub(super) versions: u64,
    /// How many files each has.
    pub(super) files: u64,
    /// How many records one group has: 1 where each was published by itself.
    pub(super) group: u64,
    /// Whether the server holds all of them.
    pub(super) held: bool,
}

/// What it took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    /// Manifests and files.
    pub(super) files: Duration,
    /// Records: sealed, checked, durable and in a catalog.
    pub(super) records: Duration,
}

/// Names the version with this number.
pub(super) fn version(number: u64) -> VersionId {
    let (rest, slot) = (number / SLOTS, number % SLOTS);
    let (asset, subset) = (rest / SUBSETS, rest % SUBSETS);
    let id = format!("sh{:03}_{:04}", asset / 200, asset % 200 * 10);
    VersionId {
        project: PROJECT.parse().unwrap(),
        asset: id.parse().unwrap(),
        subset: format!("renderLayer{subset}").parse().unwrap(),
        slot: VersionSlot::Number(slot as u32 + 1),
    }
}

/// A number that looks drawn.
fn drawn(number: u64) -> u64 {
    let hash = blake3::hash(&number.to_le_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap())
}

fn manifest(number: u64, plan: Plan, now_ms: u64) -> Manifest {
    let version = version(number);
    let subset = version.subset.to_string();
    let VersionSlot::Number(slot) = version.slot else { unreachable!() };
    let published_at_ms = now_ms - drawn(number) % YEARS_MS;
    let files = (0..plan.files).map(|file| FileEntry {
        path: format!("{subset}.exr/{subset}.{:04}.exr", 1001 + file).parse().unwrap(),
        size: 1_000_000 + drawn(number * 1000 + file) % 9_000_000,
        hash: ObjectHash::of(format!("{number} {file}").as_bytes()),
        mtime_ns: published_at_ms as i64 * 1_000_000 + file as i64,
        representation: 0,
    });
    let draft = ManifestDraft {
        silo: Some("film".parse().unwrap()),
        generation: 1,
        predecessor: None,
        dir: format!("film/{}/publish/{subset}/v{slot:03}", version.asset).parse().unwrap(),
        representations: vec![Representation {
            name: "exr".parse().unwrap(),
            entry: format!("{subset}.exr").parse().unwrap(),
        }],
        files: files.collect(),
        completeness: Completeness::EndMarks,
        author: format!("artist{}", number % 40),
        comment: "notes of the dailies are in".into(),
        published_at_ms,
        inputs: (0..3).map(|input| format!("{PROJECT}:asset{input}/modelDefault@v{slot:03}")).collect(),
        metadata: [("fps", "24"), ("family", "render"), ("task", "lighting")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        version,
    };
    draft.finish().expect("a manifest as studios have them")
}

/// Makes the state of `server`, which is not started yet.
pub(super) fn generate(studio: &Studio, server: &Daemon, plan: Plan) -> Made {
    let state = StateDir::open(&server.config.state_dir).unwrap();
    let identity = Identity::load(&server.config.identity_dir(), now()).unwrap();
    let workstations: Vec<Identity> = (1..=WORKSTATIONS)
        .map(|number| {
            let dir = studio.dir().join(format!("ws{number}"));
            studio.issue(&format!("ws{number}@london"), &dir, now());
            Identity::load(&dir, now()).unwrap()
        })
        .collect();
    let now_ms = now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let config = LedgerConfig {
        me: identity.node().clone(),
        signer: identity.signer(),
        trust: Arc::new(identity.trust()),
        projects: vec![(PROJECT.parse().unwrap(), None)],
        on_change: Arc::new(drop),
        now: Arc::new(Duration::default),
        extract: None,
        max_feed_bytes: u64::MAX,
        care: CatalogCare { checkpoint_records: u64::MAX, ..CatalogCare::default() },
    };
    let (ledger, _) = Ledger::open(&state, config).unwrap();
    let mut made = Made { files: Duration::ZERO, records: Duration::ZERO };
    let trust = identity.trust();
    let mut feeds: Vec<FeedReader> = workstations
        .iter()
        .map(|node| FeedReader::new(FeedId { project: PROJECT.parse().unwrap(), node: node.node().clone() }))
        .collect();
    let batch = GROUPS as u64 * plan.group;
    let mut first = 0;
    while first < plan.versions {
        let numbers = first..(first + batch).min(plan.versions);
        first = numbers.end;
        let start = Instant::now();
        let manifests: Vec<Manifest> = numbers.clone().map(|number| manifest(number, plan, now_ms)).collect();
        for manifest in &manifests {
            write_manifest(state.manifests.path(), manifest);
            if plan.held {
                write_holes(&server.config.project_dir(), manifest);
            }
        }
        made.files += start.elapsed();
        let start = Instant::now();
        // One batch of one workstation after the other.
        let who = (numbers.start / batch % WORKSTATIONS) as usize;
        let mut groups: Vec<SealedGroup> = Vec::with_capacity(GROUPS);
        for some in manifests.chunks(plan.group as usize) {
            let records = some.iter().map(|manifest| published(manifest).to_raw()).collect();
            let group = feeds[who].seal(records, now_ms, &*workstations[who].signer(), &trust);
            feeds[who].accept(&group, &trust).unwrap();
            groups.push(group);
        }
        ledger.ingest_wait(feeds[who].feed().clone(), groups, Vec::new()).unwrap();
        if plan.held {
            for some in manifests.chunks(64) {
                let placed = some.iter().map(|manifest| {
                    Record::Placed(Held { version: manifest.version().clone(), manifest: manifest.id() })
                });
                ledger.commit_wait(&PROJECT.parse().unwrap(), placed.collect(), Vec::new(), now_ms).unwrap();
            }
        }
        made.records += start.elapsed();
    }
    ledger.close().unwrap();
    made
}

fn published(manifest: &Manifest) -> Record {
    let draft = manifest.draft();
    Record::Published(Published {
        version: manifest.version().clone(),
        manifest: manifest.id(),
        content: manifest.content(),
        generation: draft.generation,
        predecessor: draft.predecessor,
        files: manifest.files().len() as u64,
        bytes: manifest.files().iter().map(|file| file.size).sum(),
        representations: manifest.representations().iter().map(|one| one.name.clone()).collect(),
        author: draft.author.clone(),
        published_at_ms: draft.published_at_ms,
    })
}

/// As the store does it, without a sync for each.
fn write_manifest(dir: &Path, manifest: &Manifest) {
    let name = manifest.id().to_string();
    let dir = dir.join(&name[..2]);
    let path = dir.join(&name);
    let mut file = File::create(&path).unwrap_or_else(|_| {
        fs::create_dir_all(&dir).unwrap();
        File::create(&path).unwrap()
    });
    file.write_all(&manifest.encode()).unwrap();
}

/// Makes files without content that look like those of the manifest until somebody reads them.
fn write_holes(project: &Path, manifest: &Manifest) {
    let dir = project.join(manifest.dir().as_str());
    for (index, file) in manifest.files().iter().enumerate() {
        let path = dir.join(file.path.as_str());
        if index == 0 {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let hole = File::create(path).unwrap();
        hole.set_len(file.size).unwrap();
        hole.set_modified(UNIX_EPOCH + Duration::from_nanos(file.mtime_ns as u64)).unwrap();
    }
}
