//! Everything that can happen in a simulated year, in a form that is hashed into the trace and written to the log.

use avalon_protocol::drop::{Guard, NotCounted, Proof};
use serde::Serialize;

use super::book::{FeedIndex, FileBytes, GenIndex, NodeIndex, VersionIndex};
use crate::event::Piece;

/// One step.
#[derive(Debug, Clone, Serialize)]
pub enum Event {
    /// Somebody at a node does something.
    Deed(NodeIndex, Deed),
    /// Somebody says at all nodes that hold a version, at once, that it is to be dropped.
    DropEverywhere(VersionIndex),
    /// Something breaks or is repaired.
    Fault(Fault),
    /// A message arrives.
    Deliver(NodeIndex, NodeIndex, Message),
    /// A timer of a node, with the start of the node that set it; timers do not survive a crash.
    Wake(NodeIndex, u32, Wake),
    /// A transaction of a node reaches its disk: the node's start, and which.
    Synced(NodeIndex, u32, u64),
    /// People ask again for all drops that they asked for and that have not happened.
    AskAgain,
    /// The time is nearly over: what is not where it belongs?
    LookAround,
    /// The time is over: is everything where it belongs?
    Judge,
}

/// What people do.
#[derive(Debug, Clone, Serialize)]
pub enum Deed {
    /// Saves a file of a version that is not published, or grows one that is.
    Save(VersionIndex),
    /// The daemon finds that what was saved is whole.
    Settle(VersionIndex),
    /// Asks for a version, and works with it.
    Pull(VersionIndex),
    /// Wants it to stay.
    Pin(VersionIndex),
    /// Lets it go again.
    Unpin(VersionIndex),
    /// Wants it gone from this node.
    Drop(VersionIndex),
    /// Applies a policy, by its number in the script.
    Apply(usize),
}

/// What breaks.
#[derive(Debug, Clone, Serialize)]
pub enum Fault {
    /// A site is cut off from all others.
    SiteOff(usize),
    /// It is back.
    SiteOn(usize),
    /// Sites are cut in two halves; a bit for each site.
    Part(u32),
    /// They are one again.
    Heal,
    /// A node loses power.
    Crash(NodeIndex),
    /// It starts again.
    Start(NodeIndex),
    /// A byte of a file that a node holds turns, and nobody notices.
    Rot(NodeIndex, u64),
    /// A file that a node holds is lost; the node notices after a while.
    Lose(NodeIndex, u64),
    /// Nothing breaks any more.
    End,
}

/// How much of each feed a node has.
pub type Heads = Vec<u32>;

/// What nodes send each other.
#[derive(Debug, Clone, Serialize)]
pub enum Message {
    /// A connection is there; what the sender has.
    Hello(Heads),
    /// Records of feeds, from one number to another, the last not among them.
    Records(Vec<(FeedIndex, u32, u32)>),
    /// What the sender has now.
    Ack(Heads),
    /// Prove that you hold this.
    Question {
        /// Which version.
        version: VersionIndex,
        /// Which generation.
        generation: GenIndex,
        /// Which attempt of the asker.
        attempt: u64,
        /// The number that is the nonce.
        nonce: u64,
    },
    /// The answer to it, with how many copies the sender knows to be asked for.
    Answer {
        /// Which version.
        version: VersionIndex,
        /// Which attempt of the asker.
        attempt: u64,
        /// The proof, or why not.
        answer: Result<(Proof, u32), NotCounted>,
    },
    /// Send me this.
    Fetch {
        /// Which version.
        version: VersionIndex,
        /// Which generation.
        generation: GenIndex,
        /// Which job of the asker.
        job: u64,
    },
    /// The files, if the sender has them.
    Files {
        /// Which version.
        version: VersionIndex,
        /// Which job of the asker.
        job: u64,
        /// Place in the version, and bytes.
        files: Option<Vec<(u8, Piece)>>,
    },
}

/// What a node set a timer for.
#[derive(Debug, Clone, Serialize)]
pub enum Wake {
    /// Sends a peer what it lacks.
    Push(NodeIndex),
    /// Passes on what other nodes said to peers whom they do not reach.
    PassOn,
    /// A manifest that was late has come.
    Manifest(GenIndex),
    /// Looks at the versions whose time has come.
    Look,
    /// Looks at a version again that could not come.
    Retry(VersionIndex),
    /// A source is silent for too long.
    FetchTimeout(VersionIndex, u64),
    /// Files that came are renamed in.
    Place(VersionIndex, u64),
    /// A holder is silent for too long: version, attempt, holder.
    AskTimeout(VersionIndex, u64, NodeIndex),
    /// The own files have been read for these questions: version, attempt, holders with nonces.
    OwnRead(VersionIndex, u64, Vec<(NodeIndex, u64)>),
    /// Files have been read for a peer: the peer, version, generation, attempt, nonce.
    Prove(NodeIndex, VersionIndex, GenIndex, u64, u64),
    /// Tries a drop again after a race.
    TryAgain(VersionIndex, u64),
    /// Moves the files of a version that was dropped to the trash.
    Discard(VersionIndex, u64),
    /// Looks whether there is room enough.
    Room,
    /// Notices that files are lost.
    Scan(VersionIndex),
}

/// What happened that is worth a line; also counted, so that a test can say that it happened at all.
#[derive(Debug, Clone, Serialize)]
pub enum Note {
    /// A count by name, at a node, about a version.
    Did(&'static str, NodeIndex, VersionIndex),
    /// Why a drop did not happen.
    Stays(NodeIndex, VersionIndex, Option<Guard2>),
    /// A policy is in effect at a node.
    InEffect(NodeIndex, u64),
}

/// A guard that can be serialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard2(pub Guard);

impl Serialize for Guard2 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

/// Makes a piece of bytes.
pub fn piece(bytes: &FileBytes) -> Piece {
    Piece(bytes.to_vec())
}
