//! A catalog and objects in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use avalon_protocol::{
    access::{Action, Rights, Role},
    block::{BLOCK_BYTES, BlockList, block_value},
    drop::NotCounted,
    feed::{FeedHead, FeedId, Group, SealedGroup},
    hash::{ChainHash, ManifestId, ObjectHash},
    id::{NodeId, ProjectName},
    numbers::Answer,
    record::RawRecord,
    wire::{AskNumber, FetchProof, PieceEncoding, PieceHead, Records},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use super::studio::within;
use crate::net::seam::{
    Catalog, GroupsRead, ObjectSource, Objects, OpenObject, Permissions, Piece, ReadFailed, Small,
    StoreRefused, Vouched,
};

/// Feeds of groups with one record each, whose number stands in the group.
#[derive(Debug)]
pub(super) struct ToyCatalog {
    feeds: Mutex<BTreeMap<FeedId, Vec<SealedGroup>>>,
    manifests: Mutex<BTreeMap<(ProjectName, ManifestId), Vec<u8>>>,
    advanced: broadcast::Sender<(FeedId, FeedHead)>,
    changed: watch::Sender<()>,
}

/// What the toy takes for a signature.
const SIGNATURE: [u8; 4] = *b"good";

/// The fields of a [`Group`] in their order, the layout included, to make groups without a key.
#[derive(Serialize)]
struct ToyGroup<'a> {
    format: u16,
    feed: &'a FeedId,
    first_seq: u64,
    previous: ChainHash,
    written_at_ms: u64,
    records: Vec<RawRecord>,
}

pub(super) fn group(feed: &FeedId, first_seq: u64, text: &str) -> SealedGroup {
    let record = RawRecord { kind: 900, version: 1, payload: text.as_bytes().to_vec() };
    let previous = ChainHash::EMPTY;
    let group = ToyGroup { format: 1, feed, first_seq, previous, written_at_ms: 0, records: vec![record] };
    SealedGroup { body: postcard::to_stdvec(&group).unwrap(), signature: SIGNATURE.to_vec() }
}

fn text(group: &SealedGroup) -> String {
    let body: Group = postcard::from_bytes(&group.body).unwrap();
    String::from_utf8(body.records[0].payload.clone()).unwrap()
}

fn head(groups: &[SealedGroup]) -> FeedHead {
    let chain = groups.last().map_or(ChainHash::EMPTY, SealedGroup::chain);
    FeedHead { next_seq: groups.len() as u64, chain }
}

impl ToyCatalog {
    /// `queue` is how many notices of records a connection may lag behind.
    pub(super) fn new(queue: usize) -> Arc<Self> {
        Arc::new(Self {
            feeds: Mutex::default(),
            manifests: Mutex::default(),
            advanced: broadcast::Sender::new(queue),
            changed: watch::Sender::new(()),
        })
    }

    pub(super) fn advanced(&self) -> broadcast::Sender<(FeedId, FeedHead)> {
        self.advanced.clone()
    }

    pub(super) fn append(&self, feed: &FeedId, text: &str) {
        let mut feeds = self.feeds.lock().unwrap();
        let groups = feeds.entry(feed.clone()).or_default();
        groups.push(group(feed, groups.len() as u64, text));
        let head = head(groups);
        drop(feeds);
        self.tell(feed, head);
    }

    fn tell(&self, feed: &FeedId, head: FeedHead) {
        self.advanced.send((feed.clone(), head)).ok();
        self.changed.send_replace(());
    }

    fn count(&self, feed: &FeedId) -> usize {
        self.feeds.lock().unwrap().get(feed).map_or(0, Vec::len)
    }

    pub(super) fn texts(&self, feed: &FeedId) -> Vec<String> {
        let feeds = self.feeds.lock().unwrap();
        let groups = feeds.get(feed).cloned().unwrap_or_default();
        groups.iter().map(text).collect()
    }

    /// Waits until a feed has `count` records here.
    pub(super) async fn until(&self, feed: &FeedId, count: usize) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while self.count(feed) < count {
                changed.changed().await.unwrap();
            }
        };
        within(&format!("{count} records of {feed}"), waiting).await;
    }

    pub(super) fn add_manifest(&self, project: &str, bytes: &[u8]) -> ManifestId {
        let id = ManifestId::from_bytes(*ObjectHash::of(bytes).as_bytes());
        self.manifests.lock().unwrap().insert((project.parse().unwrap(), id), bytes.to_vec());
        id
    }

    fn add(&self, feed: &FeedId, groups: Vec<SealedGroup>) -> Result<FeedHead, StoreRefused> {
        let mut feeds = self.feeds.lock().unwrap();
        let held = feeds.entry(feed.clone()).or_default();
        for group in groups {
            if group.signature != SIGNATURE {
                let reason = format!("the signature of feed {feed} at record {} is wrong", held.len());
                return Err(StoreRefused::Refused { reason });
            }
            let seq = usize::try_from(group.claimed_end().unwrap() - 1).unwrap();
            match held.get(seq) {
                Some(known) if *known == group => {}
                Some(_) => return Err(StoreRefused::Fork),
                None if seq == held.len() => held.push(group),
                None => return Err(StoreRefused::Refused { reason: "a gap".into() }),
            }
        }
        Ok(head(held))
    }
}

impl Catalog for ToyCatalog {
    fn heads(&self) -> Vec<(FeedId, FeedHead)> {
        self.feeds.lock().unwrap().iter().map(|(feed, groups)| (feed.clone(), head(groups))).collect()
    }

    fn read_groups<'a>(
        &'a self,
        feed: &'a FeedId,
        from_seq: u64,
    ) -> BoxFuture<'a, Result<GroupsRead, ReadFailed>> {
        let feeds = self.feeds.lock().unwrap();
        let from = usize::try_from(from_seq).unwrap();
        // Few at a time, so that a feed takes several frames.
        let rest = feeds.get(feed).and_then(|groups| groups.get(from..)).unwrap_or_default();
        let groups: Vec<SealedGroup> = rest.iter().take(3).cloned().collect();
        let next_seq = from_seq + groups.len() as u64;
        async move { Ok(GroupsRead { groups, next_seq, manifests: vec![] }) }.boxed()
    }

    fn store<'a>(&'a self, records: Records, _: &'a NodeId) -> BoxFuture<'a, Result<FeedHead, StoreRefused>> {
        async move {
            let head = self.add(&records.feed, records.groups)?;
            self.tell(&records.feed, head);
            Ok(head)
        }
        .boxed()
    }

    fn manifest_bytes<'a>(
        &'a self,
        project: &'a ProjectName,
        id: &'a ManifestId,
    ) -> BoxFuture<'a, Option<Vec<u8>>> {
        let bytes = self.manifests.lock().unwrap().get(&(project.clone(), *id)).cloned();
        async move { bytes }.boxed()
    }
}

/// Rights that a test gives and takes; whoever is not named may do everything.
#[derive(Debug)]
pub(super) struct ToyRights {
    rights: Mutex<BTreeMap<(NodeId, ProjectName), Rights>>,
    changed: watch::Sender<()>,
}

impl Default for ToyRights {
    fn default() -> Self {
        Self { rights: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl ToyRights {
    pub(super) fn set(&self, node: &str, project: &str, actions: &[Action]) {
        let about = (node.parse().unwrap(), project.parse().unwrap());
        self.rights.lock().unwrap().insert(about, Rights::of(actions.iter().copied()));
        self.changed.send_replace(());
    }
}

impl Permissions for ToyRights {
    fn rights(&self, node: &NodeId, _: Role, project: &ProjectName) -> Rights {
        let rights = self.rights.lock().unwrap();
        rights.get(&(node.clone(), project.clone())).copied().unwrap_or(Rights::ALL)
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// Objects in memory, each in one project.
#[derive(Debug, Default)]
pub(super) struct ToyObjects {
    objects: Mutex<BTreeMap<(ProjectName, ObjectHash), ToyObject>>,
    promised: AtomicUsize,
}

#[derive(Debug, Clone)]
struct ToyObject {
    bytes: Bytes,
    /// Reading fails from here on.
    breaks_at: u64,
}

impl ToyObjects {
    pub(super) fn add(&self, project: &str, bytes: Bytes) -> ObjectHash {
        self.add_breaking(project, bytes, u64::MAX)
    }

    /// Returns how often it was asked for a number.
    pub(super) fn promised(&self) -> usize {
        self.promised.load(Ordering::Relaxed)
    }

    pub(super) fn add_breaking(&self, project: &str, bytes: Bytes, breaks_at: u64) -> ObjectHash {
        let object = ObjectHash::of(&bytes);
        let toy = ToyObject { bytes, breaks_at };
        self.objects.lock().unwrap().insert((project.parse().unwrap(), object), toy);
        object
    }
}

impl Objects for ToyObjects {
    fn prove<'a>(
        &'a self,
        _: &'a FetchProof,
        _: Arc<AtomicU64>,
    ) -> BoxFuture<'a, Result<Vouched, NotCounted>> {
        Box::pin(std::future::ready(Err(NotCounted::NotHeld)))
    }

    fn promise<'a>(&'a self, _: &'a AskNumber, _: &'a NodeId) -> BoxFuture<'a, Answer> {
        self.promised.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Answer::Unsure))
    }

    fn open<'a>(
        &'a self,
        project: &'a ProjectName,
        object: &'a ObjectHash,
        size: u64,
        small: Small,
    ) -> BoxFuture<'a, Result<Option<OpenObject>, ReadFailed>> {
        let objects = self.objects.lock().unwrap();
        let found = objects.get(&(project.clone(), *object)).filter(|toy| toy.bytes.len() as u64 == size);
        let opened = found.map(|toy| {
            let is_read = small != Small::No && toy.bytes.len() as u64 <= toy.breaks_at;
            let head = PieceHead {
                blocks: 1,
                encoding: PieceEncoding::Raw,
                bytes: toy.bytes.len() as u64,
                base_offset: 0,
                base_bytes: 0,
            };
            let small = is_read.then(|| Piece { head, content: toy.bytes.clone() });
            OpenObject { source: Arc::new(toy.clone()), small }
        });
        async move { Ok(opened) }.boxed()
    }
}

impl ObjectSource for ToyObject {
    fn list(&self) -> BoxFuture<'_, Option<BlockList>> {
        let blocks = self.bytes.chunks(usize::try_from(BLOCK_BYTES).unwrap()).enumerate();
        let values = blocks.map(|(index, block)| block_value(index as u64, block)).collect();
        let list = BlockList::of_values(self.bytes.len() as u64, values);
        async move { Some(list) }.boxed()
    }

    fn read(&self, offset: u64, bytes: usize) -> BoxFuture<'_, Result<Bytes, ReadFailed>> {
        let start = usize::try_from(offset).unwrap();
        let read = if offset + bytes as u64 > self.breaks_at {
            Err(ReadFailed { what: "a toy".into(), source: "it breaks here".into() })
        } else {
            Ok(self.bytes.slice(start..start + bytes))
        };
        async move { read }.boxed()
    }
}
