//! Stage 6: what is durable here is told to peers, and what they tell is made durable here.
//!
//! The sessions in [`crate::net`] decide what to send; this is their view of the ledger. Nothing can be announced that
//! is not in a feed after its fsync, because only that can be read here.

use std::sync::Arc;

use avalon_protocol::{
    control::{Health, Severity},
    feed::{FeedError, FeedHead, FeedId, Group, SealedGroup},
    hash::ManifestId,
    id::{NodeId, ProjectName},
    limits::{INLINE_MANIFEST_BYTES, RECORDS_FRAME_TARGET_BYTES},
    manifest::Manifest,
    record::Record,
    wire::Records,
};
use avalon_store::ledger::{IngestError, Ledger, LedgerError};
use futures_util::future::BoxFuture;

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    net::{Catalog, GroupsRead, ReadFailed, StoreRefused},
};

/// The ledger as sessions see it.
#[derive(Debug)]
pub struct LedgerCatalog(pub Arc<Core>);

impl Catalog for LedgerCatalog {
    fn heads(&self) -> Vec<(FeedId, FeedHead)> {
        let mut heads = Vec::new();
        for project in self.0.feed_projects() {
            let of_project = self.0.ledger.heads(&project).into_iter();
            heads.extend(of_project.map(|(node, head)| (FeedId { project: project.clone(), node }, head)));
        }
        heads
    }

    fn read_groups<'a>(
        &'a self,
        feed: &'a FeedId,
        from_seq: u64,
    ) -> BoxFuture<'a, Result<GroupsRead, ReadFailed>> {
        let (ledger, feed) = (self.0.ledger.clone(), feed.clone());
        Box::pin(blocking(move || read_groups(&ledger, &feed, from_seq)))
    }

    fn forked_from(&self, feed: &FeedId) -> Option<u64> {
        // Without a readable proof there is nothing to show.
        Some(self.0.ledger.fork(feed)?.proof.as_ref()?.shown_from())
    }

    fn read_proof<'a>(
        &'a self,
        feed: &'a FeedId,
        peer_has: u64,
    ) -> BoxFuture<'a, Result<Vec<SealedGroup>, ReadFailed>> {
        let (ledger, feed) = (self.0.ledger.clone(), feed.clone());
        let what = format!("feed {feed}");
        Box::pin(blocking(move || {
            let shown = ledger.groups_to_show(&feed, peer_has);
            shown.map_err(|source| ReadFailed { what, source: Box::new(source) })
        }))
    }

    fn store<'a>(
        &'a self,
        records: Records,
        from: &'a NodeId,
    ) -> BoxFuture<'a, Result<FeedHead, StoreRefused>> {
        Box::pin(async move {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let ledger = self.0.ledger.clone();
            let Records { feed, groups, manifests } = records;
            let named = feed.clone();
            // The ledger's queue is bounded: handing over may wait.
            blocking(move || {
                ledger.ingest(feed, groups, manifests, Box::new(|stored| drop(reply.send(stored))))
            })
            .await;
            match answer.await {
                Ok(Ok(ingested)) => {
                    self.0.health.clear(NOT_STORED);
                    if ingested.is_new {
                        self.0.own.came(&named, from, ingested.head.next_seq);
                    }
                    Ok(ingested.head)
                }
                Ok(Err(error)) => {
                    if let Some(item) = not_stored(&error) {
                        // Several feeds can be too long; the disk is one.
                        let is_of_feed = item.code == TOO_LONG;
                        let board = &self.0.health;
                        let of_feed = is_of_feed.then(|| board.about(&named.to_string()));
                        of_feed.as_ref().unwrap_or(board).raise(item);
                    }
                    Err(refuse(&named, from, &error))
                }
                Err(_) => Err(StoreRefused::Busy { reason: "the daemon is stopping".into() }),
            }
        })
    }

    fn manifest_bytes<'a>(
        &'a self,
        project: &'a ProjectName,
        id: &'a ManifestId,
    ) -> BoxFuture<'a, Option<Vec<u8>>> {
        let (ledger, project, id) = (self.0.ledger.clone(), project.clone(), *id);
        Box::pin(blocking(move || {
            let bytes = ledger.manifest_bytes(id).ok().flatten()?;
            is_of(&bytes, &project).then_some(bytes)
        }))
    }
}

fn read_groups(ledger: &Ledger, feed: &FeedId, from_seq: u64) -> Result<GroupsRead, ReadFailed> {
    let failed = |source: LedgerError| ReadFailed { what: format!("feed {feed}"), source: Box::new(source) };
    let groups = match ledger.read_groups(feed, from_seq, RECORDS_FRAME_TARGET_BYTES) {
        Ok(groups) => groups,
        // The peer ends where none of our groups does: its history is another, and no groups say so.
        Err(error) if error.is_not_a_boundary() => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    let mut read = GroupsRead { next_seq: from_seq, ..GroupsRead::default() };
    let mut room_bytes = RECORDS_FRAME_TARGET_BYTES;
    for group in &groups {
        let Ok(body) = postcard::from_bytes::<Group>(&group.body) else { continue };
        read.next_seq = body.first_seq + body.records.len() as u64;
        for manifest in published_in(&body) {
            let bytes = ledger.manifest_bytes(manifest).ok().flatten();
            let fits = |bytes: &Vec<u8>| bytes.len() <= INLINE_MANIFEST_BYTES.min(room_bytes);
            if let Some(bytes) = bytes.filter(fits).filter(|bytes| is_of(bytes, &feed.project)) {
                room_bytes -= bytes.len();
                read.manifests.push(bytes);
            }
        }
    }
    read.groups = groups;
    Ok(read)
}

/// Says whether a manifest is one of a project, by what it says itself: a record can name the manifest of another project.
fn is_of(manifest: &[u8], project: &ProjectName) -> bool {
    Manifest::decode(manifest).is_ok_and(|manifest| manifest.project() == project)
}

/// Returns the manifests that a group publishes.
fn published_in(group: &Group) -> Vec<ManifestId> {
    let records = group.records.iter().filter_map(|raw| Record::in_feed(raw, &group.feed.project).ok());
    let published = records.filter_map(|record| match record {
        Record::Published(published) => Some(published.manifest),
        _ => None,
    });
    published.collect()
}

/// The health code of records that the own disk does not take.
const NOT_STORED: &str = "records-not-stored";

/// The health code of a feed that is as long as this node takes.
const TOO_LONG: &str = "feed-too-long";

/// Says what somebody has to look at, or mend at this node, before records can be stored; nothing when it is not its fault.
fn not_stored(error: &IngestError) -> Option<Health> {
    match error {
        IngestError::Ledger(LedgerError::Closed) => None,
        IngestError::ManifestFile { .. } | IngestError::Ledger(_) => Some(Health {
            code: NOT_STORED.into(),
            severity: Severity::Error,
            message: format!("what other nodes publish cannot be stored: {}", ErrorChain(error)),
            hint: Some(
                "make room on the disk of the state directory, or check it; it comes by itself then".into(),
            ),
        }),
        IngestError::FeedTooLong { feed, .. } => Some(Health {
            code: TOO_LONG.into(),
            severity: Severity::Error,
            message: format!("{error}: what {} says from here on is not known here", feed.node),
            hint: Some(
                "if it writes without end, revoke it at an admin's node; if the project is that large, raise `node.max_feed_bytes` \
                 at every node and restart them"
                    .into(),
            ),
        }),
        IngestError::Feed(_)
        | IngestError::Frozen { .. }
        | IngestError::Manifest { .. }
        | IngestError::TooManyFeeds { .. } => None,
    }
}

fn refuse(feed: &FeedId, from: &NodeId, error: &IngestError) -> StoreRefused {
    let reason = ErrorChain(error).to_string();
    tracing::warn!(%feed, peer = %from, error = reason, "a peer's records are not stored");
    match error {
        IngestError::Feed(FeedError::Fork { .. }) | IngestError::Frozen { .. } => StoreRefused::Fork,
        IngestError::FeedTooLong { .. } => StoreRefused::Full,
        // Not a fault of the records: a new connection starts from where both sides are.
        IngestError::Feed(FeedError::Gap { .. }) => StoreRefused::Busy { reason },
        IngestError::Feed(_) | IngestError::Manifest { .. } => StoreRefused::Refused { reason },
        IngestError::ManifestFile { .. } | IngestError::TooManyFeeds { .. } | IngestError::Ledger(_) => {
            StoreRefused::Busy { reason }
        }
    }
}

/// Returns the records of groups that were just stored, as far as they count, with the node that made them.
pub fn records_of(ledger: &Ledger, groups: &[SealedGroup]) -> Vec<(NodeId, Record)> {
    let bodies = groups.iter().filter_map(|group| postcard::from_bytes::<Group>(&group.body).ok());
    let records = bodies.flat_map(|body| {
        let (feed, first_seq) = (body.feed, body.first_seq);
        let read = move |(seq, raw)| {
            let record = Record::in_feed(&raw, &feed.project).ok()?;
            ledger.admits(&feed, seq, &record).ok()?;
            Some((feed.node.clone(), record))
        };
        (first_seq..).zip(body.records).filter_map(read)
    });
    records.collect()
}
