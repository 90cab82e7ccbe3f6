//! Peers with stolen keys: what they send is well formed up to the lie.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use avalon_certs::{ANY_NODE, Identity};
use avalon_protocol::{
    feed::{FeedId, FeedReader, SealedGroup},
    hash::{ContentId, ManifestId, ObjectHash},
    manifest::Manifest,
    mode::ProjectMode,
    record::{Published, RawRecord, Record},
    signing::RecordSigner as _,
    wire::{
        Control, FEATURE_ENCODED, FRAME_HEADER_BYTES, FetchObjects, FrameHeader, Framed as _, Hello,
        ObjectReply, ObjectStatus, PIECES, PieceEncoding, PieceHead, ProjectHeads, Records, Request,
        ServedProject, Want,
    },
};
use avalon_store::object::encode::compress;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use tokio::time::{sleep, timeout};

use super::{
    attack::{Plan, Tally, one},
    half_open::{PEERS, client},
};
use crate::{
    daemons::PROJECT,
    fuzz::target::{RawFile, RawManifest},
};

/// A connection that was greeted.
struct Peer {
    connection: Connection,
    control: SendStream,
    /// Kept, or the daemon would see it end.
    _hears: RecvStream,
    identity: Identity,
    _endpoint: Endpoint,
}

/// Dials and greets; `window` is how much of a stream may come before it is read.
async fn greet(plan: &Plan, identity: &Path, window: u32) -> Option<Peer> {
    let (mut config, identity) = client(identity)?;
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(window.into()).keep_alive_interval(Some(Duration::from_secs(5)));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(SocketAddr::from((PEERS, 0))).ok()?;
    let connecting = endpoint.connect_with(config, plan.address, ANY_NODE).ok()?;
    let connection = timeout(Duration::from_secs(5), connecting).await.ok()?.ok()?;
    let (mut control, hears) = connection.open_bi().await.ok()?;
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        features: FEATURE_ENCODED,
        build: "hostile".into(),
        studio: identity.studio().clone(),
        node: identity.node().clone(),
        instance: 666,
        projects: vec![ServedProject { name: PROJECT.parse().ok()?, mode: ProjectMode::OnDemand }],
    };
    control.write_all(&Control::Hello(hello).to_frame()).await.ok()?;
    Some(Peer { connection, control, _hears: hears, identity, _endpoint: endpoint })
}

/// Asks for content and takes a byte a second of each answer; begins requests and a frame and goes on by a byte a second; and
/// sends what nobody asked for.
pub(super) async fn slow(plan: Arc<Plan>, tally: Arc<Tally>) {
    loop {
        if let Some(mut peer) = greet(&plan, &plan.slow, 1 << 20).await {
            for _ in 0..40 {
                tokio::task::spawn_local(read_slowly(
                    peer.connection.clone(),
                    Arc::clone(&plan),
                    Arc::clone(&tally),
                ));
            }
            for _ in 0..10 {
                tokio::task::spawn_local(write_slowly(peer.connection.clone(), Arc::clone(&tally)));
            }
            tokio::task::spawn_local(flood(peer.connection.clone(), Arc::clone(&tally)));
            // A records frame of 4 MiB that never gets on.
            peer.control.write_all(&[0, 0, 0x40, 0, 3, 0]).await.ok();
            while peer.connection.close_reason().is_none() {
                peer.control.write_all(&[1]).await.ok();
                sleep(Duration::from_secs(1)).await;
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn read_slowly(connection: Connection, plan: Arc<Plan>, tally: Arc<Tally>) -> Option<()> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    let (object, blocks) = (plan.bait.parse().ok()?, plan.bait_bytes >> 20);
    let want = Want { object, size: plan.bait_bytes, first_block: 0, blocks, with_list: true };
    let fetch = FetchObjects { project: PROJECT.parse().ok()?, wants: vec![want; 100] };
    send.write_all(&Request::Objects(fetch).to_frame()).await.ok()?;
    send.finish().ok()?;
    one(&tally.slow_reads);
    let mut byte = [0];
    while receive.read_exact(&mut byte).await.is_ok() {
        sleep(Duration::from_secs(1)).await;
    }
    Some(())
}

async fn write_slowly(connection: Connection, tally: Arc<Tally>) -> Option<()> {
    loop {
        let (mut send, _receive) = connection.open_bi().await.ok()?;
        one(&tally.slow_writes);
        send.write_all(&[0, 0, 1, 0, 16, 0]).await.ok()?;
        while send.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        connection.close_reason().is_none().then_some(())?;
    }
}

/// Writes requests that are as long as a frame may be, and as many as there are streams.
async fn flood(connection: Connection, tally: Arc<Tally>) -> Option<()> {
    let noise = vec![0; 64 << 10];
    loop {
        let (mut send, _receive) = connection.open_bi().await.ok()?;
        send.write_all(&[0xff, 0xff, 0x3f, 0, 16, 0]).await.ok()?;
        while timeout(Duration::from_secs(5), send.write_all(&noise)).await.is_ok_and(|sent| sent.is_ok()) {
            tally.flooded_bytes.fetch_add(noise.len() as u64, std::sync::atomic::Ordering::Relaxed);
            // 1 MiB/s: it is not to fill the processor.
            sleep(Duration::from_millis(60)).await;
        }
    }
}

/// Different lies.
pub(super) const LIES: usize = 8;

/// Sends one lie, is thrown out, and comes again.
pub(super) async fn liar(plan: Arc<Plan>, tally: Arc<Tally>, first: usize) {
    let Some(identity) = plan.liars.get(first).cloned() else { return };
    for number in first.. {
        if let Some(mut peer) = greet(&plan, &identity, 1 << 20).await {
            lie(&plan, &tally, &mut peer, number % LIES).await;
            // It closes, or is not closed because the lie was none.
            timeout(Duration::from_secs(2), peer.connection.closed()).await.ok();
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn lie(plan: &Plan, tally: &Tally, peer: &mut Peer, number: usize) -> Option<()> {
    let own = FeedId { project: PROJECT.parse().ok()?, node: peer.identity.node().clone() };
    let theirs = FeedId { node: plan.near.parse().ok()?, ..own.clone() };
    let (signer, trust) = (peer.identity.signer(), peer.identity.trust());
    let seal = |feed: &FeedId, records| FeedReader::new(feed.clone()).seal(records, 1, &*signer, &trust);
    let nothing = RawRecord { kind: 900, version: 1, payload: vec![1] };
    let records = |feed: FeedId, groups: Vec<SealedGroup>, manifests: Vec<Vec<u8>>| {
        Control::Records(Records { feed, groups, manifests }).to_frame()
    };
    let frame = match number {
        0 => vec![0xff, 0xff, 0xff, 0xff, 3, 0],
        1 => vec![3, 0, 0, 0, 3, 0, 255, 255, 255],
        2 => vec![0, 0, 0, 0, 99, 0],
        3 => {
            records(theirs, vec![SealedGroup { signature: vec![0; 64], ..seal(&own, vec![nothing]) }], vec![])
        }
        4 => records(theirs.clone(), vec![seal(&theirs, vec![nothing])], vec![]),
        5 => {
            let group = seal(&own, vec![nothing]);
            let mut changed = group.clone();
            *changed.body.last_mut()? ^= 1;
            records(own, vec![group.clone(), group, changed], vec![])
        }
        6 => {
            let escaping = RawManifest { dir: "../../../canary".into(), ..RawManifest::good() };
            records(own.clone(), vec![seal(&own, vec![nothing])], vec![escaping.to_bytes()])
        }
        _ => {
            let mut escaping = RawManifest::good();
            escaping.files[0].path = "../../../../../canary/bird".into();
            let bytes = escaping.to_bytes();
            let id = ManifestId::from_bytes(*blake3::hash(&bytes).as_bytes());
            let published = published(&peer.identity, "escape", id)?;
            records(own.clone(), vec![seal(&own, vec![published])], vec![bytes])
        }
    };
    // A good one before, so that the session has begun.
    let heads = ProjectHeads { project: PROJECT.parse().ok()?, heads: vec![] };
    peer.control.write_all(&Control::Heads(heads).to_frame()).await.ok()?;
    peer.control.write_all(&frame).await.ok()?;
    one(if number < 3 { &tally.bad_frames } else { &tally.forged });
    Some(())
}

fn published(identity: &Identity, asset: &str, manifest: ManifestId) -> Option<RawRecord> {
    let version = avalon_protocol::id::VersionId {
        project: PROJECT.parse().ok()?,
        asset: asset.parse().ok()?,
        subset: "cache".parse().ok()?,
        slot: "v001".parse().ok()?,
    };
    let published = Published {
        version,
        manifest,
        content: ContentId::from_bytes([0; 32]),
        generation: 1,
        predecessor: None,
        files: 1,
        bytes: 1 << 20,
        representations: vec!["abc".parse().ok()?],
        author: identity.node().to_string(),
        published_at_ms: 1,
    };
    Some(Record::Published(published).to_raw())
}

/// How long what one bomb says it is; it becomes 256 times as much.
const SAID_BYTES: u64 = 1 << 20;

/// Publishes a version as an honest node would, and answers who fetches it with content that does not stop.
pub(super) async fn bomb(plan: Arc<Plan>, tally: Arc<Tally>) {
    let bomb: Arc<Vec<u8>> = Arc::new(compress(&vec![0; 256 << 20]).unwrap_or_default());
    loop {
        if let Some(mut peer) = greet(&plan, &plan.bomb, 1 << 20).await {
            if offer(&mut peer).await.is_none() {
                continue;
            }
            while let Ok((send, receive)) = peer.connection.accept_bi().await {
                tokio::task::spawn_local(explode(send, receive, Arc::clone(&bomb), Arc::clone(&tally)));
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn offer(peer: &mut Peer) -> Option<()> {
    let mut raw = RawManifest::good();
    raw.version = [PROJECT, "bomb", "cache", "v001"].map(str::to_owned);
    raw.dir = "assets/bomb/publish/cache/v001".into();
    raw.representations = vec![("abc".into(), "cache.abc".into())];
    let hash = *ObjectHash::of(b"never seen").as_bytes();
    raw.files =
        vec![RawFile { path: "cache.abc".into(), size: SAID_BYTES, hash, mtime_ns: 1, representation: 0 }];
    let bytes = raw.to_bytes();
    let manifest = Manifest::decode(&bytes).ok()?;
    let published = published(&peer.identity, "bomb", manifest.id())?;
    let Ok(Record::Published(facts)) = Record::from_raw(&published) else { return None };
    let published = Record::Published(Published { content: manifest.content(), ..facts }).to_raw();
    let feed = FeedId { project: PROJECT.parse().ok()?, node: peer.identity.node().clone() };
    let (signer, trust) = (peer.identity.signer(), peer.identity.trust());
    let key =
        Record::Key(avalon_protocol::record::Key { certificate: signer.certificate().to_vec() }).to_raw();
    let group = FeedReader::new(feed.clone()).seal(vec![key, published], 1, &*signer, &trust);
    let heads = ProjectHeads { project: feed.project.clone(), heads: vec![] };
    peer.control.write_all(&Control::Heads(heads).to_frame()).await.ok()?;
    let records = Records { feed, groups: vec![group], manifests: vec![bytes] };
    peer.control.write_all(&Control::Records(records).to_frame()).await.ok()
}

async fn explode(
    mut send: SendStream,
    mut receive: RecvStream,
    bomb: Arc<Vec<u8>>,
    tally: Arc<Tally>,
) -> Option<()> {
    let mut header = [0; FRAME_HEADER_BYTES];
    receive.read_exact(&mut header).await.ok()?;
    let header = FrameHeader::parse(header).ok()?;
    let mut payload = vec![0; header.payload_bytes];
    receive.read_exact(&mut payload).await.ok()?;
    let wants = match Request::from_payload(header.kind, &payload).ok()? {
        Request::Encoded(fetch) => fetch.wants,
        _ => return None,
    };
    for _ in wants {
        let reply =
            ObjectReply { status: ObjectStatus::Found, list_values: 0, body_bytes: 0, encoding: PIECES };
        let bytes = bomb.len() as u64;
        let head =
            PieceHead { blocks: 1, encoding: PieceEncoding::Zstd, bytes, base_offset: 0, base_bytes: 0 };
        send.write_all(&[reply.to_frame(), head.to_frame()].concat()).await.ok()?;
        send.write_all(&bomb).await.ok()?;
        one(&tally.bombs);
    }
    send.finish().ok()
}
