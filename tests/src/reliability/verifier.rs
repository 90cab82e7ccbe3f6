//! Looks at what daemons left on disk, and believes none of them.
//!
//! It reads the feeds by itself, checks frames, chains and signatures, folds what each node says it holds in a way of its
//! own (what comes last in that node's feed counts), reads every file that is held or that a loader could find, and
//! compares it with the manifests and with what was acknowledged. The catalog is not looked at, nor any code of the
//! daemon's. Formats are those of `docs/storage.md`. The daemons must not run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use avalon_certs::{Authority, StudioTrust};
use avalon_protocol::{
    feed::{FeedId, FeedReader, SealedGroup},
    hash::ManifestId,
    id::{NodeId, VersionSlot},
    manifest::{FileEntry, Manifest},
    record::Record,
};
use serde::Serialize;

use crate::daemons::{PROJECT, Studio, config::NodeConfig};

/// A file that somebody was told is published: where, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Which node said so.
    pub node: String,
    /// The path in the project.
    pub path: PathBuf,
    /// Its content.
    pub hash: blake3::Hash,
}

/// What was looked at, and what is wrong.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Verified {
    /// How many files were read.
    pub files: u64,
    /// How many records.
    pub records: u64,
    /// What is wrong, in words.
    pub faults: Vec<String>,
}

/// Looks at all nodes of a studio.
pub fn verify(studio: &Studio, nodes: &[&NodeConfig], acknowledged: &[Acknowledged]) -> Verified {
    let certificate = Authority::certificate_in(&studio.authority_dir()).expect("the studio's CA");
    let trust = StudioTrust::new(Arc::new(certificate));
    let (mut verified, mut heads) = (Verified::default(), Heads::new());
    for config in nodes {
        let node = config.node.parse().expect("a node's name");
        let mut site = Site { node, config, trust: &trust, verified: &mut verified };
        let said = site.read_feeds(&mut heads);
        site.check_held(&said);
        site.check_visible(&said);
        site.check_acknowledged(&said, acknowledged);
    }
    verified
}

/// Folds the feeds at a node in a way of the verifier's own: for each version, by its reference, who says that he holds what stands. Of versions
/// whose generations follow each other; of a conflict it knows nothing.
pub fn holders(studio: &Studio, config: &NodeConfig) -> BTreeMap<String, BTreeSet<NodeId>> {
    let certificate = Authority::certificate_in(&studio.authority_dir()).expect("the studio's CA");
    let trust = StudioTrust::new(Arc::new(certificate));
    let node = config.node.parse().expect("a node's name");
    let mut site = Site { node, config, trust: &trust, verified: &mut Verified::default() };
    let (mut versions, mut held) = (BTreeMap::new(), BTreeMap::new());
    for (by, record) in site.read_records(&mut Heads::new()) {
        match record {
            Record::Published(published) => {
                let generations: &mut BTreeMap<_, _> =
                    versions.entry(published.version.to_string()).or_default();
                generations.insert(published.manifest, published.predecessor);
                held.insert((by, published.manifest), true);
            }
            Record::Placed(placed) => drop(held.insert((by, placed.manifest), true)),
            Record::Dropped(dropped) => drop(held.insert((by, dropped.manifest), false)),
            _ => {}
        }
    }
    let who_holds = |generations: BTreeMap<ManifestId, Option<ManifestId>>| {
        let followed: BTreeSet<_> = generations.values().flatten().collect();
        let stands =
            |manifest: &ManifestId| generations.contains_key(manifest) && !followed.contains(manifest);
        let holding = held.iter().filter(|((_, manifest), holds)| **holds && stands(manifest));
        holding.map(|((by, _), _)| by.clone()).collect()
    };
    versions.into_iter().map(|(version, generations)| (version, who_holds(generations))).collect()
}

/// The head of each feed after each of its groups, and at which node it was seen first.
type Heads = BTreeMap<(FeedId, u64), (blake3::Hash, NodeId)>;

/// What the feeds at one node say.
#[derive(Default)]
struct Said {
    /// Every generation that was published, by its manifest, with the one before.
    published: BTreeMap<ManifestId, Option<ManifestId>>,
    /// Those that this node published itself.
    by_this_node: BTreeSet<ManifestId>,
    /// Whether this node holds it, by the last word in its own feed.
    held: BTreeMap<ManifestId, bool>,
}

impl Said {
    fn take(&mut self, record: Record, is_own: bool) {
        match record {
            Record::Published(published) => {
                self.published.insert(published.manifest, published.predecessor);
                if is_own {
                    self.by_this_node.insert(published.manifest);
                    self.held.insert(published.manifest, true);
                }
            }
            Record::Placed(held) if is_own => drop(self.held.insert(held.manifest, true)),
            Record::Dropped(held) if is_own => drop(self.held.insert(held.manifest, false)),
            _ => {}
        }
    }

    /// Returns what this node holds and what no other that it holds has followed.
    fn held_now(&self) -> BTreeSet<ManifestId> {
        let held: BTreeSet<ManifestId> =
            self.held.iter().filter(|(_, held)| **held).map(|(manifest, _)| *manifest).collect();
        let followed: BTreeSet<ManifestId> =
            held.iter().filter_map(|manifest| *self.published.get(manifest)?).collect();
        held.difference(&followed).copied().collect()
    }
}

struct Site<'a> {
    node: NodeId,
    config: &'a NodeConfig,
    trust: &'a StudioTrust,
    verified: &'a mut Verified,
}

impl Site<'_> {
    fn fault(&mut self, what: &str) {
        self.verified.faults.push(format!("{}: {what}", self.node));
    }

    fn read_feeds(&mut self, heads: &mut Heads) -> Said {
        let mut said = Said::default();
        for (by, record) in self.read_records(heads) {
            said.take(record, by == self.node);
        }
        said
    }

    /// Returns all records with whose they are, each feed in its order.
    fn read_records(&mut self, heads: &mut Heads) -> Vec<(NodeId, Record)> {
        let dir = self.config.state_dir.join("feeds").join(PROJECT);
        let mut records = Vec::new();
        for name in names(&dir) {
            // What was put aside as damaged is no feed.
            let Ok(node) = name.parse::<NodeId>() else { continue };
            let feed = FeedId { project: PROJECT.parse().expect("a name"), node };
            let mut reader = FeedReader::new(feed.clone());
            for group in groups(&dir.join(&name)) {
                let body = match reader.accept(&group, self.trust) {
                    Ok(body) => body,
                    Err(error) => {
                        self.fault(&error.to_string());
                        break;
                    }
                };
                let head = blake3::Hash::from_bytes(*reader.head().chain.as_bytes());
                let known = heads.entry((feed.clone(), reader.head().next_seq));
                let (known, by) = known.or_insert_with(|| (head, self.node.clone())).clone();
                if known != head {
                    self.fault(&format!("feed {feed} has another history than at {by}"));
                }
                self.verified.records += body.records.len() as u64;
                let known = body.records.iter().filter_map(|raw| Record::in_feed(raw, &feed.project).ok());
                records.extend(known.map(|record| (feed.node.clone(), record)));
            }
        }
        records
    }

    fn manifest(&self, id: ManifestId) -> Option<Manifest> {
        let name = id.to_string();
        let bytes = fs::read(self.config.state_dir.join("manifests").join(&name[..2]).join(&name)).ok()?;
        Manifest::decode(&bytes).ok().filter(|manifest| manifest.id() == id)
    }

    fn place(&self, manifest: &Manifest) -> PathBuf {
        self.config.project_dir().join(manifest.dir().as_str())
    }

    /// What this node says it holds is there, every byte of it, with its times.
    fn check_held(&mut self, said: &Said) {
        for id in said.held_now() {
            let Some(manifest) = self.manifest(id) else {
                self.fault(&format!("it holds {id} and has not its manifest"));
                continue;
            };
            for file in manifest.files() {
                let path = self.place(&manifest).join(file.path.as_str());
                if let Err(why) = self.check_file(&path, file) {
                    self.fault(&format!("it holds {} and {} {why}", manifest.version(), path.display()));
                }
            }
        }
    }

    fn check_file(&mut self, path: &Path, file: &FileEntry) -> Result<(), String> {
        let hash = self.hash(path).ok_or("is not there")?;
        if hash.as_bytes() != file.hash.as_bytes() {
            return Err("has other content".to_owned());
        }
        let modified =
            fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(|e| e.to_string())?;
        let since = modified.duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
        if i128::try_from(since.as_nanos()) != Ok(i128::from(file.mtime_ns)) {
            return Err(format!("has another time: {} s", since.as_secs_f64()));
        }
        Ok(())
    }

    fn hash(&mut self, path: &Path) -> Option<blake3::Hash> {
        self.verified.files += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path).ok()?).ok()?;
        Some(hasher.finalize())
    }

    /// Where a loader finds the entry of a representation that somebody else published, all files of that representation
    /// are there, as one generation of the version has them. Artists of this site write as they like.
    fn check_visible(&mut self, said: &Said) {
        let mut versions: BTreeMap<PathBuf, Vec<Manifest>> = BTreeMap::new();
        for manifest in said.published.keys().filter_map(|id| self.manifest(*id)) {
            versions.entry(self.place(&manifest)).or_default().push(manifest);
        }
        for (dir, generations) in versions {
            let is_own = generations.iter().any(|manifest| said.by_this_node.contains(&manifest.id()));
            let is_hero = generations.iter().any(|manifest| manifest.version().slot == VersionSlot::Hero);
            if is_own || is_hero || !dir.exists() {
                continue;
            }
            let entries: BTreeSet<&str> = generations
                .iter()
                .flat_map(|manifest| manifest.representations().iter().map(|one| one.entry.as_str()))
                .collect();
            for entry in entries.into_iter().filter(|entry| dir.join(entry).exists()) {
                let is_whole = generations.iter().any(|manifest| self.is_whole(&dir, manifest, entry));
                if !is_whole {
                    self.fault(&format!("{} is visible and not whole", dir.join(entry).display()));
                }
            }
        }
    }

    fn is_whole(&mut self, dir: &Path, manifest: &Manifest, entry: &str) -> bool {
        let number = manifest.representations().iter().position(|one| one.entry.as_str() == entry);
        let Some(number) = number else { return false };
        let mut files = manifest.files().iter().filter(|file| usize::from(file.representation) == number);
        files.all(|file| self.check_file(&dir.join(file.path.as_str()), file).is_ok())
    }

    /// What was acknowledged here is in a version that this node holds, and in its tree.
    fn check_acknowledged(&mut self, said: &Said, acknowledged: &[Acknowledged]) {
        let held: Vec<Manifest> = said.held_now().into_iter().filter_map(|id| self.manifest(id)).collect();
        for file in acknowledged.iter().filter(|file| file.node == self.config.node) {
            let is_held = held.iter().any(|manifest| {
                manifest.files().iter().any(|entry| {
                    Path::new(manifest.dir().as_str()).join(entry.path.as_str()) == file.path
                        && entry.hash.as_bytes() == file.hash.as_bytes()
                })
            });
            let is_there = self.hash(&self.config.project_dir().join(&file.path)) == Some(file.hash);
            if !is_held || !is_there {
                self.fault(&format!(
                    "{} was acknowledged; in its feed: {is_held}, in its tree: {is_there}",
                    file.path.display()
                ));
            }
        }
    }
}

/// Returns the names in a directory, in order; none when there is no such directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const SEGMENT_HEADER: usize = 16;
const FRAME_HEADER: usize = 8;
const SIGNATURE: usize = 64;

/// Reads the frames of a feed up to the first that is not whole: a daemon cuts that off at its start, or says that it is
/// damaged.
fn groups(dir: &Path) -> Vec<SealedGroup> {
    let mut groups = Vec::new();
    for name in names(dir).into_iter().filter(|name| name.ends_with(".alog")) {
        let bytes = fs::read(dir.join(&name)).expect("a segment");
        let mut rest = bytes.get(SEGMENT_HEADER..).filter(|_| bytes.starts_with(b"AVLF")).unwrap_or_default();
        while let Some((group, length)) = frame(rest) {
            groups.push(group);
            rest = &rest[length..];
        }
    }
    groups
}

fn frame(bytes: &[u8]) -> Option<(SealedGroup, usize)> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let end = FRAME_HEADER + usize::try_from(number(0)?).ok()?;
    let payload = bytes.get(FRAME_HEADER..end)?;
    if crc32c::crc32c(payload) != number(4)? {
        return None;
    }
    let body_end = 4 + usize::try_from(number(8)?).ok()?;
    let body = payload.get(4..body_end)?.to_vec();
    let signature = payload.get(body_end..).filter(|signature| signature.len() == SIGNATURE)?.to_vec();
    Some((SealedGroup { body, signature }, end))
}
