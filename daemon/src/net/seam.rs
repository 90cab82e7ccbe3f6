//! What the network side needs of the rest of the daemon. The app implements it over the ledger and the project trees.
//!
//! Blocking work belongs to the implementer: every future here may be polled on a thread that must not wait.

use std::{
    error::Error,
    fmt,
    ops::Range,
    sync::{Arc, atomic::AtomicU64},
};

use avalon_certs::{NodeCertificate, join::SeedKeyHash};
use avalon_protocol::{
    access::{Rights, Role},
    block::BlockList,
    drop::{NotCounted, Proof},
    feed::{FeedHead, FeedId, SealedGroup},
    hash::{ManifestId, ObjectHash},
    id::{NodeId, ProjectName},
    numbers::Answer,
    wire::{AskNumber, Base, FetchProof, PieceHead, PolicyExtract, Records, RenewAnswer},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::watch;

/// Who may do what. It is asked for each greeting, message and request, before anything is looked up.
pub trait Permissions: Send + Sync + 'static {
    /// Returns what a node may do in a project at this moment; `role` is that of its certificate. Must neither wait nor read
    /// from disk.
    fn rights(&self, node: &NodeId, role: Role, project: &ProjectName) -> Rights;

    /// Returns what a node may know of the policy that may not see every project; nothing from who is not to tell it. As
    /// [`Permissions::rights`].
    fn extract(&self, _node: &NodeId, _role: Role) -> Option<PolicyExtract> {
        None
    }

    /// Hears what a peer says of the policy, and the role of its certificate. Must not wait.
    fn told(&self, _extract: PolicyExtract, _by: &NodeId, _role: Role) {}

    /// Returns what tells that the rights of some node may be others now, by a policy or because a grant ended.
    fn changed(&self) -> watch::Receiver<()>;
}

/// Feeds and manifests, as the network sees them.
pub trait Catalog: Send + Sync + 'static {
    /// Returns where every feed that is held ends, durably.
    fn heads(&self) -> Vec<(FeedId, FeedHead)>;

    /// Reads groups of a feed from record `from_seq` on, about one frame full
    /// ([`RECORDS_FRAME_TARGET_BYTES`](avalon_protocol::limits::RECORDS_FRAME_TARGET_BYTES)), with the small manifests
    /// that they publish. No groups mean that no group starts at `from_seq`.
    fn read_groups<'a>(
        &'a self,
        feed: &'a FeedId,
        from_seq: u64,
    ) -> BoxFuture<'a, Result<GroupsRead, ReadFailed>>;

    /// Returns from how many records on a peer can be shown that a feed has two histories; none when it has one.
    fn forked_from(&self, _feed: &FeedId) -> Option<u64> {
        None
    }

    /// Reads what shows a peer with `peer_has` records of a feed that there are two histories of it.
    fn read_proof<'a>(
        &'a self,
        _feed: &'a FeedId,
        _peer_has: u64,
    ) -> BoxFuture<'a, Result<Vec<SealedGroup>, ReadFailed>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Verifies and stores what a peer sent, and returns where the feed ends once that is durable. Groups that are held
    /// already are passed over.
    ///
    /// The future is dropped when the connection ends meanwhile; the records are then stored whole or not at all.
    fn store<'a>(
        &'a self,
        records: Records,
        from: &'a NodeId,
    ) -> BoxFuture<'a, Result<FeedHead, StoreRefused>>;

    /// Returns a manifest's canonical bytes; none when no record of that project names it or it is not held.
    fn manifest_bytes<'a>(
        &'a self,
        project: &'a ProjectName,
        id: &'a ManifestId,
    ) -> BoxFuture<'a, Option<Vec<u8>>>;
}

/// Groups of one feed, in order.
#[derive(Debug, Clone, Default)]
pub struct GroupsRead {
    /// The groups.
    pub groups: Vec<SealedGroup>,
    /// The number of the record after the last group.
    pub next_seq: u64,
    /// Canonical bytes of small manifests that the groups publish.
    pub manifests: Vec<Vec<u8>>,
}

/// Why something that is held here could not be read.
#[derive(Debug, Error)]
#[error("could not read {what}")]
pub struct ReadFailed {
    /// What was to be read, such as a feed or an object.
    pub what: String,
    /// Why.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// Why records of a peer were not stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreRefused {
    /// They are another history than what is held.
    #[error("the records are another history than the one held here")]
    Fork,
    /// The feed is as long as this node takes: the connection goes on without it.
    #[error("the feed is as long as is taken here")]
    Full,
    /// They do not verify: the connection is closed with `CloseCode::Feed`, and the peer reads the reason.
    #[error("the records do not verify: {reason}")]
    Refused {
        /// What is wrong with them.
        reason: String,
    },
    /// Nothing can be stored now: the connection is closed with `CloseCode::Busy`. The peer does not read the reason.
    #[error("the records cannot be stored now: {reason}")]
    Busy {
        /// What prevents it.
        reason: String,
    },
}

impl fmt::Debug for OpenObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenObject").field("small", &self.small).finish_non_exhaustive()
    }
}

/// The objects that can be served.
pub trait Objects: Send + Sync + 'static {
    /// Opens an object of `size` bytes for a peer, and reads all of a small one with it, if that is wanted. None when it is
    /// not held, belongs to no manifest of the project, has another size, or changed on disk. An error when that cannot be
    /// told now: the peer is told to come back.
    fn open<'a>(
        &'a self,
        project: &'a ProjectName,
        object: &'a ObjectHash,
        size: u64,
        small: Small,
    ) -> BoxFuture<'a, Result<Option<OpenObject>, ReadFailed>>;

    /// Says whether this node is good for a copy of a version, with the proof and how many copies are asked for as far as
    /// it knows; see [`avalon_protocol::drop`]. Dropping the future ends the reading. `read` counts the bytes meanwhile.
    fn prove<'a>(
        &'a self,
        ask: &'a FetchProof,
        read: Arc<AtomicU64>,
    ) -> BoxFuture<'a, Result<Vouched, NotCounted>>;

    /// Hears that content of a project goes to a peer, so much of an object that belongs to a manifest. Must not wait.
    fn served(&self, _to: &NodeId, _project: &ProjectName, _manifest: Option<ManifestId>, _bytes: u64) {}

    /// Hears that a peer asked for something of a project which it has no right to, or which is not here. Must not wait.
    fn refused(&self, _to: &NodeId, _project: &ProjectName) {}

    /// Says whether a number may belong to the node that asks; see [`avalon_protocol::numbers`]. What is promised is durable.
    fn promise<'a>(&'a self, ask: &'a AskNumber, by: &'a NodeId) -> BoxFuture<'a, Answer>;
}

/// This node holds a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vouched {
    /// Of all its bytes.
    pub proof: Proof,
    /// At how many sites it has to be, by the policy as this node knows it.
    pub min_copies: u32,
}

/// What is done with an object while it is opened: handing a small one to a thread twice would take longer than to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Small {
    /// It is large.
    No,
    /// All of it is read.
    Read,
    /// All of it is read, and compressed where that pays.
    Compress,
}

/// What was opened.
pub struct OpenObject {
    /// To read it.
    pub source: Arc<dyn ObjectSource>,
    /// All of a small one, as it was asked for.
    pub small: Option<Piece>,
}

/// What a node does that issues for its studio.
pub trait Issuer: Send + Sync + 'static {
    /// Lets a machine join that holds the key of an open invite; returns when its connection has ended.
    fn admit(&self, connection: quinn::Connection, key: SeedKeyHash) -> BoxFuture<'_, ()>;

    /// Certifies a new key of a peer, whose certificate says who it is and as what.
    fn renew<'a>(&'a self, peer: &'a NodeCertificate, request: &'a [u8]) -> BoxFuture<'a, RenewAnswer>;
}

/// One open object.
pub trait ObjectSource: Send + Sync {
    /// Returns the block list; none when it cannot be had.
    fn list(&self) -> BoxFuture<'_, Option<BlockList>>;

    /// Reads exactly `bytes` bytes from `offset` on, at most one block
    /// ([`BLOCK_BYTES`](avalon_protocol::block::BLOCK_BYTES)); fewer count as a failure.
    fn read(&self, offset: u64, bytes: usize) -> BoxFuture<'_, Result<Bytes, ReadFailed>>;

    /// Returns a manifest that it belongs to, where that is known.
    fn manifest(&self) -> Option<ManifestId> {
        None
    }

    /// Begins to encode a range of blocks. None when the content should go as it is.
    fn encode(&self, _blocks: Range<u64>, _terms: Terms) -> BoxFuture<'_, Option<Box<dyn PieceSource>>> {
        Box::pin(std::future::ready(None))
    }
}

/// How the asking side takes the content of a want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Compressed pieces are welcome.
    pub compress: bool,
    /// An object that the asking side holds too.
    pub base: Option<Base>,
}

/// One piece of encoded content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it says of itself; its `bytes` are the length of the content.
    pub head: PieceHead,
    /// The encoded content.
    pub content: Bytes,
}

/// Content that is encoded piece by piece.
pub trait PieceSource: Send {
    /// Returns the next piece; none after the last.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Piece>, ReadFailed>>;
}
