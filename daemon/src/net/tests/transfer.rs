//! Objects and manifests, fetched from one node by another.

use std::collections::BTreeMap;

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList, BlockValue, block_count},
    close_code::CloseCode,
    hash::{ManifestId, ObjectHash},
    plan::{Missing, batches},
    wire::Want,
};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};

use super::studio::{Node, Studio, project, within};
use crate::net::{BlockSink, FetchError, PeerLink, SinkStopped, endpoint::DATAGRAM_MOST_BYTES};

/// Keeps what comes and checks it as a receiver must.
#[derive(Debug, Default)]
struct ToySink {
    lists: BTreeMap<ObjectHash, BlockList>,
    content: BTreeMap<ObjectHash, Vec<u8>>,
    not_found: Vec<ObjectHash>,
    /// Stops at this many blocks.
    stop_after: Option<usize>,
    /// Is never done with the first block.
    holds: bool,
    blocks: usize,
}

impl BlockSink for ToySink {
    fn list(
        &mut self,
        object: ObjectHash,
        size: u64,
        values: Vec<BlockValue>,
    ) -> BoxFuture<'_, Result<(), SinkStopped>> {
        self.lists.insert(object, BlockList::verified(object, size, values).unwrap());
        async { Ok(()) }.boxed()
    }

    fn block(
        &mut self,
        object: ObjectHash,
        index: u64,
        bytes: Bytes,
    ) -> BoxFuture<'_, Result<(), SinkStopped>> {
        let good = match self.lists.get(&object) {
            Some(list) => list.accepts(index, &bytes),
            None => ObjectHash::of(&bytes) == object,
        };
        assert!(good, "block {index} of {object}");
        self.content.entry(object).or_default().extend_from_slice(&bytes);
        self.blocks += 1;
        let stops = self.stop_after == Some(self.blocks);
        if self.holds {
            return std::future::pending().boxed();
        }
        async move { if stops { Err(SinkStopped) } else { Ok(()) } }.boxed()
    }

    fn not_found(&mut self, object: ObjectHash) -> BoxFuture<'_, Result<(), SinkStopped>> {
        self.not_found.push(object);
        async { Ok(()) }.boxed()
    }
}

fn content(seed: usize, size: usize) -> Bytes {
    (0..size).map(|i| u8::try_from((i / 3 + i % 7 + seed) % 251).unwrap()).collect()
}

fn want(bytes: &Bytes) -> Want {
    let size = bytes.len() as u64;
    let (object, blocks) = (ObjectHash::of(bytes), block_count(size));
    Want { object, size, first_block: 0, blocks, with_list: true }
}

async fn pair(studio: &Studio) -> (Node, Node, PeerLink) {
    let hub = studio.node("srv@montreal").start();
    let mut one = studio.node("ws1@london").dialling(&[&hub]).start();
    let link = one.peer_up("srv@montreal").await;
    (hub, one, link)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_small_objects_come_in_two_requests_and_a_large_one_by_blocks() {
    let studio = Studio::new();
    let (hub, one, link) = pair(&studio).await;
    let lantern = project("lantern");
    let size = 5 * usize::try_from(BLOCK_BYTES).unwrap() + 7;
    let mut all: Vec<Bytes> =
        (0..5000).map(|i: usize| Bytes::from(format!("object {i} {}", "x".repeat(i % 900)))).collect();
    all.extend([content(1, size), Bytes::new()]);
    let mut missing = Vec::new();
    for bytes in &all {
        let object = hub.setup.objects.add("lantern", bytes.clone());
        let size = bytes.len() as u64;
        missing.push(Missing { object, size, blocks: vec![0..block_count(size)], list_known: false });
    }
    let requests = batches(&missing);
    assert_eq!(requests.len(), 2);
    let mut sink = ToySink::default();
    let mut found = 0;
    for wants in requests {
        let fetching = link.fetch_objects(&lantern, wants, &mut sink);
        found += within("the objects", fetching).await.unwrap().found;
    }
    assert_eq!(found, 5002);
    for bytes in &all {
        assert_eq!(&sink.content[&ObjectHash::of(bytes)], bytes);
    }
    assert_eq!(sink.lists.len(), 1);
    let total: u64 = all.iter().map(|bytes| bytes.len() as u64).sum();
    assert_eq!(hub.net.metrics().bytes_served.value(), total);
    assert_eq!(one.net.metrics().bytes_fetched.value(), total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_grow_to_what_is_tried_at_most_and_still_arrive() {
    let studio = Studio::new();
    let (mut hub, _one, link) = pair(&studio).await;
    let sender = hub.peer_up("ws1@london").await;
    let bytes = content(1, 3 * usize::try_from(BLOCK_BYTES).unwrap());
    hub.setup.objects.add("lantern", bytes.clone());
    let datagram_bytes = || sender.channel().quinn().stats().path.current_mtu;
    // The search ends within 20 bytes of the bound; a batch of such datagrams that the kernel refused would be lost whole.
    let lantern = project("lantern");
    let mut fetched_with = 0;
    while fetched_with < DATAGRAM_MOST_BYTES - 20 {
        fetched_with = datagram_bytes();
        let mut sink = ToySink::default();
        let fetching = link.fetch_objects(&lantern, vec![want(&bytes)], &mut sink);
        within("the object", fetching).await.unwrap();
        assert_eq!(sink.content[&ObjectHash::of(&bytes)], bytes);
    }
    assert_eq!(sender.channel().quinn().stats().path.black_holes_detected, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_blocks_comes_with_or_without_its_list_and_the_list_alone() {
    let studio = Studio::new();
    let (hub, _one, link) = pair(&studio).await;
    let block = usize::try_from(BLOCK_BYTES).unwrap();
    let bytes = content(2, 3 * block + 9);
    let object = hub.setup.objects.add("lantern", bytes.clone());
    let all = want(&bytes);
    let wants = vec![Want { blocks: 0, ..all }, Want { first_block: 2, blocks: 2, with_list: false, ..all }];
    let mut sink = ToySink::default();
    let lantern = project("lantern");
    let fetching = link.fetch_objects(&lantern, wants, &mut sink);
    let summary = within("the blocks", fetching).await.unwrap();
    assert_eq!((summary.found, summary.bytes), (2, BLOCK_BYTES + 9));
    assert_eq!(sink.content[&object], bytes[2 * block..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_and_what_is_not_allowed_look_the_same() {
    let studio = Studio::new();
    let (hub, _one, link) = pair(&studio).await;
    let (secret, known) = (Bytes::from_static(b"of another project"), Bytes::from_static(b"known"));
    let absent = Bytes::from_static(b"nowhere");
    hub.setup.objects.add("secret", secret.clone());
    hub.setup.objects.add("lantern", known.clone());
    let manifest = hub.setup.catalog.add_manifest("lantern", b"a manifest");
    let hidden = hub.setup.catalog.add_manifest("secret", b"a hidden manifest");
    let other = ManifestId::from_bytes([7; 32]);

    let fetch = async |of: &str, bytes: &[&Bytes]| {
        let mut sink = ToySink::default();
        let wants = bytes.iter().map(|bytes| want(bytes)).collect();
        let name = project(of);
        let fetching = link.fetch_objects(&name, wants, &mut sink);
        (within("the answer", fetching).await.unwrap(), sink)
    };
    let (summary, sink) = fetch("secret", &[&secret, &known]).await;
    assert_eq!((summary.found, summary.not_found, sink.not_found.len()), (0, 2, 2));
    let (summary, sink) = fetch("lantern", &[&secret, &absent, &known]).await;
    assert_eq!((summary.found, summary.not_found), (1, 2));
    assert_eq!(sink.content[&ObjectHash::of(&known)], known);

    let manifests = async |of: &str, ids: &[ManifestId]| {
        let name = project(of);
        let fetching = link.fetch_manifests(&name, ids.to_vec());
        within("the manifests", fetching).await.unwrap()
    };
    assert_eq!(
        manifests("lantern", &[hidden, manifest, other]).await,
        [None, Some(b"a manifest".to_vec()), None]
    );
    assert_eq!(manifests("secret", &[hidden]).await, [None]);
    let wrong_size = Want { size: 6, ..want(&known) };
    let mut sink = ToySink::default();
    link.fetch_objects(&project("lantern"), vec![wrong_size], &mut sink).await.unwrap();
    assert_eq!(sink.not_found.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_while_it_is_read_ends_the_answer_and_not_the_connection() {
    let studio = Studio::new();
    let (hub, _one, link) = pair(&studio).await;
    let bytes = content(3, 3 * usize::try_from(BLOCK_BYTES).unwrap());
    hub.setup.objects.add_breaking("lantern", bytes.clone(), BLOCK_BYTES + 5);
    let lantern = project("lantern");
    let mut sink = ToySink::default();
    let fetching = link.fetch_objects(&lantern, vec![want(&bytes)], &mut sink);
    let error = within("the end", fetching).await.unwrap_err();
    assert!(matches!(error, FetchError::GivenUp { code: Some(CloseCode::Busy), .. }), "{error:?}");
    let small = Bytes::from_static(b"still served");
    hub.setup.objects.add("lantern", small.clone());
    link.fetch_objects(&lantern, vec![want(&small)], &mut sink).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_stops_and_a_fetch_that_is_dropped_cancel_the_request_alone() {
    let studio = Studio::new();
    let (hub, _one, link) = pair(&studio).await;
    let bytes = content(4, 8 * usize::try_from(BLOCK_BYTES).unwrap());
    hub.setup.objects.add("lantern", bytes.clone());
    let lantern = project("lantern");
    let mut sink = ToySink { stop_after: Some(2), ..ToySink::default() };
    let fetching = link.fetch_objects(&lantern, vec![want(&bytes)], &mut sink);
    let error = within("the stop", fetching).await.unwrap_err();
    assert!(matches!(error, FetchError::Stopped { .. }), "{error:?}");
    // More than the peer answers at once, so those that were dropped must have ended there.
    for _ in 0..100 {
        let mut sink = ToySink { holds: true, ..ToySink::default() };
        let fetching = link.fetch_objects(&lantern, vec![want(&bytes)], &mut sink);
        assert!(fetching.now_or_never().is_none());
    }
    let mut sink = ToySink::default();
    let fetching = link.fetch_objects(&lantern, vec![want(&bytes)], &mut sink);
    within("an answer afterwards", fetching).await.unwrap();
    assert_eq!(sink.content[&ObjectHash::of(&bytes)], bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_ends_with_its_connection() {
    let studio = Studio::new();
    let (hub, one, link) = pair(&studio).await;
    let bytes = content(5, 8 * usize::try_from(BLOCK_BYTES).unwrap());
    hub.setup.objects.add("lantern", bytes.clone());
    hub.shutdown().await;
    let mut sink = ToySink::default();
    let lantern = project("lantern");
    let fetching = link.fetch_objects(&lantern, vec![want(&bytes)], &mut sink);
    let error = within("the end", fetching).await.unwrap_err();
    assert!(matches!(error, FetchError::Closed { .. }), "{error:?}");
    one.until("offline", || one.net.links().is_empty()).await;
}
