//! What all threads see of the ledger: the heads, the catalog, and which manifests are missing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use avalon_protocol::{
    access::{Admission, Extract},
    feed::{FeedHead, FeedId},
    hash::{ChainHash, ManifestId},
    id::{NodeId, ProjectName, VersionId},
    record::Published,
    signing::RecordTrust,
};

use super::{
    RebuildError,
    lists::ReadLists,
    mending::Mending,
    own::{Allowed, CameBack},
};
use crate::{
    catalog::{CatalogError, CatalogStore, Cause},
    error_chain::ErrorChain,
    feed::{FeedIndex, Fork, ForkFiles},
    fs::Dir,
    manifest_file::ManifestFiles,
};

type Feeds = BTreeMap<ProjectName, BTreeMap<NodeId, Arc<FeedIndex>>>;
type Missing = BTreeMap<ProjectName, BTreeMap<ManifestId, VersionId>>;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) me: NodeId,
    /// Whether this node's certificate is a vendor's.
    pub(super) is_vendor: bool,
    /// Where the files of each project are; for learning anew which are here.
    pub(super) projects: BTreeMap<ProjectName, Dir>,
    pub(super) manifests: ManifestFiles,
    /// Whose signatures count.
    pub(super) trust: Arc<dyn RecordTrust>,
    /// The CA's lists that were read.
    pub(super) lists: ReadLists,
    feeds: RwLock<Feeds>,
    catalog: RwLock<Arc<dyn CatalogStore>>,
    missing: Mutex<Missing>,
    /// How many were put in there, ever.
    went_missing: AtomicU64,
    /// Which records count.
    admission: RwLock<Arc<Admission>>,
    /// Feeds with two histories, and where the proofs are kept.
    pub(super) forks: RwLock<BTreeMap<FeedId, Arc<Fork>>>,
    pub(super) fork_files: ForkFiles,
    /// Which own feeds may be written.
    pub(super) allowed: Allowed,
    /// How often peers gave back records of own feeds.
    pub(super) came_back: CameBack,
    /// What was told of the policy without the studio's feeds.
    extract: Mutex<Option<Extract>>,
    /// Held while it is read anew which records count: an older reading must not stand over a newer one.
    pub(super) refreshing: Mutex<()>,
    /// Chain hashes within feeds that were asked for. What is in a feed stays.
    chains: Mutex<BTreeMap<(FeedId, u64), ChainHash>>,
    /// The generation that was found damaged, and why.
    damage: Mutex<Option<(u64, Cause)>>,
    /// How many records the newest checkpoint stands for.
    checkpoint: AtomicU64,
    /// The thread that writes is at work that takes long: building, reading or writing all of the catalog.
    at_long_work: AtomicBool,
    /// The next generation, while it is built.
    pub(super) mending: Mending,
}

impl Shared {
    /// Does work that takes long; meanwhile [`Shared::is_at_long_work`].
    pub(super) fn long_work<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Also when the work panics: a watchdog that is told to wait for a dead thread never barks.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        self.at_long_work.store(true, Ordering::Release);
        let _done = Done(&self.at_long_work);
        work()
    }

    pub(super) fn is_at_long_work(&self) -> bool {
        self.at_long_work.load(Ordering::Acquire)
    }

    pub(super) fn new(
        (me, is_vendor, extract): (NodeId, bool, Option<Extract>),
        trust: Arc<dyn RecordTrust>,
        projects: BTreeMap<ProjectName, Dir>,
        manifests: ManifestFiles,
        fork_files: ForkFiles,
        store: Arc<dyn CatalogStore>,
    ) -> Self {
        Self {
            forks: RwLock::default(),
            fork_files,
            allowed: Allowed::default(),
            came_back: CameBack::default(),
            me,
            is_vendor,
            projects,
            manifests,
            trust,
            lists: ReadLists::default(),
            feeds: RwLock::default(),
            catalog: RwLock::new(store),
            missing: Mutex::default(),
            went_missing: AtomicU64::new(0),
            admission: RwLock::default(),
            extract: Mutex::new(extract),
            refreshing: Mutex::default(),
            chains: Mutex::default(),
            damage: Mutex::new(None),
            checkpoint: AtomicU64::new(0),
            at_long_work: AtomicBool::new(false),
            mending: Mending::default(),
        }
    }

    pub(super) fn own_feed(&self, project: &ProjectName) -> FeedId {
        FeedId { project: project.clone(), node: self.me.clone() }
    }

    pub(super) fn add_feed(&self, index: Arc<FeedIndex>) {
        let FeedId { project, node } = index.feed().clone();
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        feeds.entry(project).or_default().insert(node, index);
    }

    pub(super) fn feed(&self, feed: &FeedId) -> Option<Arc<FeedIndex>> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        feeds.get(&feed.project)?.get(&feed.node).cloned()
    }

    pub(super) fn all_feeds(&self) -> Vec<Arc<FeedIndex>> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        feeds.values().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn feeds_of(&self, project: &ProjectName) -> Vec<Arc<FeedIndex>> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        feeds.get(project).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn admission(&self) -> Arc<Admission> {
        Arc::clone(&self.admission.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_admission(&self, admission: Arc<Admission>) {
        *self.admission.write().unwrap_or_else(PoisonError::into_inner) = admission;
    }

    pub(super) fn extract(&self) -> Option<Extract> {
        self.extract.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_extract(&self, extract: Option<Extract>) {
        *self.extract.lock().unwrap_or_else(PoisonError::into_inner) = extract;
    }

    /// Returns the chain hash of a feed behind the group with the record before `seq`; nothing when that is not here.
    pub(super) fn chain_before(&self, feed: &FeedId, seq: u64) -> Option<ChainHash> {
        let place = (feed.clone(), seq);
        if let Some(chain) = self.chains.lock().unwrap_or_else(PoisonError::into_inner).get(&place) {
            return Some(*chain);
        }
        let chain = self.feed(feed)?.chain_before(seq).unwrap_or_else(|error| {
            tracing::warn!(%feed, seq, error = %ErrorChain(&error), "a place in a feed cannot be read");
            None
        })?;
        self.chains.lock().unwrap_or_else(PoisonError::into_inner).insert(place, chain);
        Some(chain)
    }

    pub(super) fn note_checkpoint(&self, records: u64) {
        self.checkpoint.store(records, Ordering::Relaxed);
    }

    pub(super) fn checkpoint(&self) -> u64 {
        self.checkpoint.load(Ordering::Relaxed)
    }

    /// Returns how many records all feeds have.
    pub(super) fn total_records(&self) -> u64 {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        feeds.values().flat_map(BTreeMap::values).map(|index| index.head().next_seq).sum()
    }

    pub(super) fn heads(&self, project: &ProjectName) -> Vec<(NodeId, FeedHead)> {
        let feeds = self.feeds.read().unwrap_or_else(PoisonError::into_inner);
        let of_project = feeds.get(project).into_iter().flatten();
        of_project.map(|(node, index)| (node.clone(), index.head())).collect()
    }

    pub(super) fn store(&self) -> Arc<dyn CatalogStore> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a new generation in the place of the old one, which is returned.
    pub(super) fn replace_store(&self, store: Arc<dyn CatalogStore>) -> Arc<dyn CatalogStore> {
        let old = {
            let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *catalog, store)
        };
        self.mending.switched();
        old
    }

    /// Ends what takes long when the ledger closes: the next start does it anew.
    pub(super) fn go_on(&self) -> Result<(), RebuildError> {
        if self.mending.is_closing() { Err(RebuildError::Stopped) } else { Ok(()) }
    }

    /// Notes that a generation is of no use, if the error says so; returns true when that is news.
    pub(super) fn note_damage(&self, error: &CatalogError) -> bool {
        let CatalogError::Damaged { generation, cause } = error else { return false };
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let known = damage.as_ref().is_some_and(|(known, _)| known >= generation);
        if !known {
            tracing::error!(generation, error = %ErrorChain(cause), "catalog damaged, rebuilding");
            *damage = Some((*generation, cause.clone()));
        }
        !known
    }

    /// Returns what is wrong with the generation in use, if something is; or with the next one, which comes into use all the same
    /// when what came while it was built is not in it: between the note and the switch nobody may take the old one for mended.
    pub(super) fn damage(&self) -> Option<Cause> {
        let current = self.store().generation();
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        damage.as_ref().filter(|(generation, _)| *generation >= current).map(|(_, cause)| cause.clone())
    }

    /// The generation in use was only out of room, and has it now.
    pub(super) fn clear_damage(&self) {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes a generation whose manifest may not be here.
    ///
    /// First noted, then looked for: whoever stores it meanwhile takes the note away before or after, never between.
    pub(super) fn note_published(&self, published: &Published) {
        let Published { manifest, version, .. } = published;
        self.note_missing(*manifest, version.clone());
        if self.manifests.has(*manifest).unwrap_or(false) {
            self.note_stored(*manifest, &version.project);
        }
    }

    pub(super) fn note_missing(&self, manifest: ManifestId, version: VersionId) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.entry(version.project.clone()).or_default().insert(manifest, version).is_none() {
            self.went_missing.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn went_missing(&self) -> u64 {
        self.went_missing.load(Ordering::Relaxed)
    }

    pub(super) fn note_stored(&self, manifest: ManifestId, project: &ProjectName) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_project) = missing.get_mut(project) {
            of_project.remove(&manifest);
        }
    }

    pub(super) fn missing(&self, project: &ProjectName, limit: usize) -> Vec<(ManifestId, VersionId)> {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let of_project = missing.get(project).into_iter().flatten().take(limit);
        of_project.map(|(manifest, version)| (*manifest, version.clone())).collect()
    }

    pub(super) fn missing_version(&self, project: &ProjectName, manifest: &ManifestId) -> Option<VersionId> {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.get(project)?.get(manifest).cloned()
    }
}
