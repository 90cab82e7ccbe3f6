//! Everything that can happen in the simulated studio, in a form that is hashed into the trace and written to the log.

use avalon_protocol::{
    close_code::CloseCode,
    feed::{FeedHead, FeedId},
    hash::{ManifestId, ObjectHash},
    id::{ProjectName, VersionId},
};
use serde::{Serialize, Serializer};

use crate::content::SavedFile;

/// A node, by its place in the world's list.
pub type NodeIndex = usize;
/// A connection; numbers are never used again.
pub type ConnectionId = u64;

/// A stream of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum StreamId {
    /// The one for greeting, heads and records.
    Control,
    /// One request with its answer.
    Request(u64),
}

/// Bytes on their way; the log shows how many and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece(pub Vec<u8>);

impl Serialize for Piece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!(
                "{} bytes {}",
                self.0.len(),
                ObjectHash::of(&self.0).short()
            ))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

/// One step of the world.
#[derive(Debug, Clone, Serialize)]
pub enum Event {
    /// Somebody at a node does something.
    Deed {
        /// Where.
        node: NodeIndex,
        /// What.
        deed: Deed,
    },
    /// Something breaks or is repaired.
    Fault(Fault),
    /// A timer of a node.
    Wake {
        /// Whose.
        node: NodeIndex,
        /// Which start of the node set it; timers do not survive a crash.
        boot: u32,
        /// What is due.
        wake: Wake,
    },
    /// A connection is there, as one side sees it.
    Established {
        /// Which.
        connection: ConnectionId,
        /// The side.
        node: NodeIndex,
    },
    /// The next bytes of a stream reach a side; the network turns it into [`Event::Arrived`].
    Due {
        /// Which connection.
        connection: ConnectionId,
        /// The side that they reach.
        node: NodeIndex,
        /// On which stream.
        stream: StreamId,
    },
    /// Bytes reach a side.
    Arrived {
        /// Which connection.
        connection: ConnectionId,
        /// The side that they reach.
        node: NodeIndex,
        /// On which stream.
        stream: StreamId,
        /// The bytes.
        piece: Piece,
        /// Whether the sender has finished the stream.
        last: bool,
    },
    /// A side hears that a connection is gone.
    Ended {
        /// Which.
        connection: ConnectionId,
        /// The side.
        node: NodeIndex,
        /// The code of the other side, if it had the time to send one.
        code: Option<u32>,
    },
    /// A connection has been silent for so long that a side gives it up, unless it woke up since.
    Idle {
        /// Which.
        connection: ConnectionId,
        /// How often it had stalled when the clock was set.
        stalls: u32,
    },
    /// The faults are over: is everything where it belongs?
    Judge,
}

/// What people do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Deed {
    /// Saves the files of a new version and says nothing: the daemon finds them.
    Publish {
        /// Which version.
        version: VersionId,
        /// Its files.
        files: Vec<SavedFile>,
    },
    /// Adds a file to a version that is here.
    Grow {
        /// Which version.
        version: VersionId,
        /// The new file.
        file: SavedFile,
    },
    /// Asks for a version.
    Pull {
        /// Which version.
        version: VersionId,
    },
    /// Applies a policy.
    Apply {
        /// The number that its text consists of.
        text: u64,
    },
}

/// What breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Fault {
    /// Nothing passes between these nodes and all others any more.
    Part {
        /// The number of the partition, by which it is healed.
        partition: usize,
        /// The nodes on one side.
        island: Vec<NodeIndex>,
    },
    /// A partition is over.
    Heal {
        /// Its number.
        partition: usize,
    },
    /// Some connection between two nodes breaks.
    Cut {
        /// A random number that chooses it.
        random: u64,
    },
    /// A node loses power.
    Crash {
        /// Which.
        node: NodeIndex,
    },
    /// A node's process is killed; what it had written stays with the system, synced or not.
    Kill {
        /// Which.
        node: NodeIndex,
    },
    /// A node starts again.
    Restart {
        /// Which.
        node: NodeIndex,
    },
    /// A node's disk has no room any more.
    Full {
        /// Which.
        node: NodeIndex,
    },
    /// It has room again.
    Room {
        /// Which.
        node: NodeIndex,
    },
    /// The next fsync at a node fails: the disk does not get what it should have written, and the system forgets that.
    BadSync {
        /// Which.
        node: NodeIndex,
    },
    /// A node's clock is set.
    Clock {
        /// Which.
        node: NodeIndex,
        /// How far it is ahead of the true time from now on, in milliseconds.
        ahead_ms: i64,
    },
    /// A backup is made of a node's state.
    Backup {
        /// Which.
        node: NodeIndex,
    },
    /// A node is stopped and its state put back to the backup.
    Restore {
        /// Which.
        node: NodeIndex,
    },
    /// Everything heals and everybody tells the truth from here on.
    End,
}

/// What a node set a timer for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Wake {
    /// Dial a peer.
    Dial(NodeIndex),
    /// Seal what waits to be recorded.
    Commit(ProjectName),
    /// An fsync of a feed is done.
    FeedSynced {
        /// The feed.
        feed: FeedId,
        /// How many groups were written when it began.
        groups: usize,
        /// The connection whose groups they are.
        stored_for: Option<ConnectionId>,
    },
    /// Groups for a peer have been read.
    GroupsRead {
        /// The peer's connection.
        connection: ConnectionId,
        /// The feed.
        feed: FeedId,
        /// From which record on.
        from_seq: u64,
    },
    /// A session hears late that what its peer sent is stored.
    Stored {
        /// The connection.
        connection: ConnectionId,
        /// The feed.
        feed: FeedId,
        /// Where it ended then.
        head: FeedHead,
    },
    /// A session hears late that a feed goes on.
    Advanced {
        /// The connection.
        connection: ConnectionId,
        /// The feed.
        feed: FeedId,
        /// Where it ends.
        head: FeedHead,
    },
    /// Nothing changed in a version directory for the quiet period, or the scan after a start looks at it.
    Settled(VersionId),
    /// The manifest of a publish is durable.
    ManifestSynced {
        /// The version.
        version: VersionId,
        /// Its manifest.
        manifest: ManifestId,
    },
    /// An fsync of an incoming object is done.
    IncomingSynced {
        /// The project.
        project: ProjectName,
        /// The object.
        object: ObjectHash,
    },
    /// All objects of a version are durable.
    Gathered(VersionId),
    /// The next file of a version that grows is renamed in.
    PlaceNext(VersionId),
    /// The version directory is durable.
    Sealed(VersionId),
    /// Ask again for manifests that a peer did not have.
    LookForManifests,
    /// Look again at a version that could not be fetched or placed.
    Retry(VersionId),
}

/// What a node did that is worth a line; also counted, so that a test can say that it happened at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Note {
    /// A deed could not be done: the node is down, or the version is not there.
    Skipped(NodeIndex),
    /// A version was published.
    Published(NodeIndex, VersionId),
    /// A version that grew was published.
    Grew(NodeIndex, VersionId),
    /// A version that is known elsewhere with the same content was found here.
    Found(NodeIndex, VersionId),
    /// A version was placed.
    Placed(NodeIndex, VersionId, ManifestId),
    /// A version is in conflict, as a node sees it.
    Conflict(NodeIndex, VersionId),
    /// A version directory holds something else than what should be placed there.
    Blocked(NodeIndex, VersionId),
    /// Bytes or a manifest of a peer do not match their name.
    Refused(NodeIndex, NodeIndex),
    /// A peer did not have what it said that it holds, or stopped in the middle.
    Unanswered(NodeIndex, NodeIndex),
    /// Groups of a peer do not verify.
    BadGroups(NodeIndex, NodeIndex),
    /// A connection was closed.
    Closed(NodeIndex, CloseNote),
    /// Some blocks of a version were here already when its fetch began again after a start.
    Resumed(NodeIndex, VersionId),
    /// A node lost power in the middle of placing.
    CrashedWhilePlacing(NodeIndex, VersionId),
    /// Written groups were lost with the power.
    LostTail(NodeIndex),
    /// An object was copied from another version instead of fetched.
    CopiedLocally(NodeIndex, ObjectHash),
    /// A connection stalled by a partition went on after it.
    WokeUp(ConnectionId),
    /// A policy was applied, with this serial.
    Applied(NodeIndex, u64),
    /// Two policies have the serial that stands, as a node sees it.
    AppliedTwice(NodeIndex, u64),
    /// A publish was acknowledged: it is durable here.
    Acknowledged(NodeIndex, VersionId),
    /// A node's process was killed.
    Killed(NodeIndex),
    /// The last group that reached the disk before the power went was torn at some byte.
    TornGroup(NodeIndex),
    /// What was written later survived and something earlier did not.
    OutOfOrder(NodeIndex),
    /// Incoming blocks that were not synced survived: some of them torn.
    TornBlocks(NodeIndex, u64),
    /// The catalog lags behind the feeds at a start.
    CatalogLags(NodeIndex),
    /// A file that an artist had just saved was lost or torn with the power.
    LostSaved(NodeIndex, VersionId),
    /// Something found no room.
    NoRoom(NodeIndex),
    /// The manifest is not here of what lies here: nothing is compared with it and nothing recorded.
    NotAtHand(NodeIndex, VersionId),
    /// An fsync of a feed failed.
    FeedSyncFailed(NodeIndex),
    /// An fsync of incoming objects failed.
    IncomingSyncFailed(NodeIndex),
    /// An fsync of a publish failed.
    PublishSyncFailed(NodeIndex),
    /// A clock was set, by more than a year.
    ClockJumped(NodeIndex),
    /// A node's state was put back to a backup, with fewer records of its own than it had.
    Restored(NodeIndex),
    /// Its own records came back.
    TakenBack(NodeIndex),
    /// A record waits until it is known how far the own feed went.
    WriteWaits(NodeIndex),
    /// What was concluded before own records came back was not written.
    Overtaken(NodeIndex),
    /// A packet was lost and sent again.
    Resent,
}

/// A close code that can be serialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseNote(pub CloseCode);

impl Serialize for CloseNote {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.code())
    }
}

impl Note {
    /// Returns the name under which it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Skipped(..) => "skipped",
            Self::Published(..) => "published",
            Self::Grew(..) => "grew",
            Self::Found(..) => "found",
            Self::Placed(..) => "placed",
            Self::Conflict(..) => "conflict",
            Self::Blocked(..) => "blocked",
            Self::Refused(..) => "refused",
            Self::Unanswered(..) => "unanswered",
            Self::BadGroups(..) => "bad_groups",
            Self::Closed(_, CloseNote(CloseCode::DuplicateConnection)) => "duplicate_connection",
            Self::Closed(..) => "closed",
            Self::Resumed(..) => "resumed",
            Self::CrashedWhilePlacing(..) => "crashed_while_placing",
            Self::LostTail(..) => "lost_tail",
            Self::CopiedLocally(..) => "copied_locally",
            Self::WokeUp(..) => "woke_up",
            Self::Applied(..) => "applied",
            Self::AppliedTwice(..) => "applied_twice",
            Self::Acknowledged(..) => "acknowledged",
            Self::Killed(..) => "killed",
            Self::TornGroup(..) => "torn_group",
            Self::OutOfOrder(..) => "out_of_order",
            Self::TornBlocks(..) => "torn_blocks",
            Self::CatalogLags(..) => "catalog_lags",
            Self::LostSaved(..) => "lost_saved",
            Self::NoRoom(..) => "no_room",
            Self::NotAtHand(..) => "not_at_hand",
            Self::FeedSyncFailed(..) => "feed_sync_failed",
            Self::IncomingSyncFailed(..) => "incoming_sync_failed",
            Self::PublishSyncFailed(..) => "publish_sync_failed",
            Self::ClockJumped(..) => "clock_jumped",
            Self::Restored(..) => "restored",
            Self::TakenBack(..) => "taken_back",
            Self::WriteWaits(..) => "write_waits",
            Self::Overtaken(..) => "overtaken",
            Self::Resent => "resent",
        }
    }
}
