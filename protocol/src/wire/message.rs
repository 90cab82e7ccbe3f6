//! The messages of the control stream.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Framed, PolicyExtract,
    extract::EXTRACT,
    frame::{self, FrameError},
};
use crate::{
    bounded,
    close_code::CloseCode,
    feed::{FeedHead, FeedId, SealedGroup},
    id::{NodeId, ProjectName, StudioName},
    limits::{MAX_FEEDS, MAX_FRAME_ITEMS, MAX_PROJECTS},
    mode::ProjectMode,
};

/// The oldest protocol version that this code speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The newest.
pub const PROTOCOL_MAX: u16 = 1;

/// A message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Type 1: the first frame of each side.
    Hello(Hello),
    /// Type 2: how far the sender's feeds of one project go; sent after the greeting, and again for feeds that moved.
    Heads(ProjectHeads),
    /// Type 3: groups of one feed that the receiver lacks.
    Records(Records),
    /// Type 33: what the receiver may know of the policy, when it may not see every project.
    Extract(PolicyExtract),
}

/// The greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version that the sender speaks.
    pub protocol_min: u16,
    /// The newest.
    pub protocol_max: u16,
    /// Optional abilities, one bit each: [`FEATURE_ENCODED`](super::FEATURE_ENCODED),
    /// [`FEATURE_PROOF`](super::FEATURE_PROOF), [`FEATURE_NUMBERS`](super::FEATURE_NUMBERS),
    /// [`FEATURE_ISSUES`](super::FEATURE_ISSUES), [`FEATURE_EXTRACT`](super::FEATURE_EXTRACT); unknown bits are ignored.
    pub features: u64,
    /// The software's version, for people.
    pub build: String,
    /// The studio; must be the certificate's.
    pub studio: StudioName,
    /// The sender; must be the certificate's.
    pub node: NodeId,
    /// A number drawn at each start: two daemons with one node name have different ones.
    pub instance: u64,
    /// The projects that the sender serves; at most [`MAX_PROJECTS`].
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_PROJECTS>")]
    pub projects: Vec<ServedProject>,
}

/// A project that a node serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedProject {
    /// Its name.
    pub name: ProjectName,
    /// Whether the node fetches every version by itself; on the wire 0 is `mirror`, 1 is `on-demand`.
    #[serde(with = "mode_tag")]
    pub mode: ProjectMode,
}

/// The tag is written by hand: the order of an enum is no format.
mod mode_tag {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::mode::ProjectMode;

    pub(super) fn serialize<S: Serializer>(mode: &ProjectMode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match mode {
            ProjectMode::Mirror => 0,
            ProjectMode::OnDemand => 1,
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ProjectMode, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(ProjectMode::Mirror),
            1 => Ok(ProjectMode::OnDemand),
            _ => Err(D::Error::custom("not a project mode")),
        }
    }
}

/// Why a greeting was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HelloRefused {
    /// No version in common.
    #[error(
        "{node} speaks protocol {min} to {max}, this version {PROTOCOL_MIN} to {PROTOCOL_MAX}; upgrade the older side"
    )]
    Version {
        /// The peer.
        node: NodeId,
        /// Its oldest.
        min: u16,
        /// Its newest.
        max: u16,
    },
    /// Another name than in the certificate.
    #[error("the peer greets as {claimed} and its certificate says {certified}")]
    Identity {
        /// What it says.
        claimed: NodeId,
        /// What its certificate says.
        certified: NodeId,
    },
    /// The address leads back here.
    #[error("the address leads back to this node, {node}; remove it from [[peer]]")]
    SelfDial {
        /// This node.
        node: NodeId,
    },
    /// Another machine runs a daemon with this node's own name.
    #[error("another daemon runs as {node} too; issue each machine a certificate of its own")]
    SameName {
        /// This node, and that one.
        node: NodeId,
    },
    /// Another studio.
    #[error("{node} belongs to studio {studio}")]
    Studio {
        /// The peer.
        node: NodeId,
        /// Its studio.
        studio: StudioName,
    },
}

impl HelloRefused {
    /// Returns the code that the connection is closed with.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Version { .. } => CloseCode::Version,
            Self::Identity { .. } | Self::Studio { .. } => CloseCode::Identity,
            Self::SelfDial { .. } => CloseCode::SelfDial,
            Self::SameName { .. } => CloseCode::DuplicateNode,
        }
    }
}

impl Hello {
    /// Judges the greeting of a peer whose certificate names `certified`.
    ///
    /// # Errors
    /// [`HelloRefused`] says why the connection must be closed.
    pub fn check_peer(&self, peer: &Self, certified: &NodeId) -> Result<(), HelloRefused> {
        let node = peer.node.clone();
        if peer.protocol_min > self.protocol_max || peer.protocol_max < self.protocol_min {
            return Err(HelloRefused::Version { node, min: peer.protocol_min, max: peer.protocol_max });
        }
        if peer.node != *certified {
            return Err(HelloRefused::Identity { claimed: node, certified: certified.clone() });
        }
        if peer.studio != self.studio {
            return Err(HelloRefused::Studio { node, studio: peer.studio.clone() });
        }
        match (peer.node == self.node, peer.instance == self.instance) {
            (true, true) => Err(HelloRefused::SelfDial { node }),
            (true, false) => Err(HelloRefused::SameName { node }),
            _ => Ok(()),
        }
    }
}

/// The heads of the feeds of one project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectHeads {
    /// The project.
    pub project: ProjectName,
    /// Whose feed goes how far; each node at most once, and at most [`MAX_FEEDS`].
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEEDS>")]
    pub heads: Vec<(NodeId, FeedHead)>,
}

/// Groups of one feed, in order and without gaps, with manifests that they name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Which feed.
    pub feed: FeedId,
    /// The groups, at most [`MAX_FRAME_ITEMS`]; the first starts where the receiver's feed ends.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FRAME_ITEMS>")]
    pub groups: Vec<SealedGroup>,
    /// Canonical bytes of small manifests that the groups publish, to save a round trip; at most [`MAX_FRAME_ITEMS`].
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FRAME_ITEMS>")]
    pub manifests: Vec<Vec<u8>>,
}

impl Control {
    /// Returns the project that a message is about, which its receiver needs the right to see; none for a greeting, of which
    /// the sender leaves out what the receiver may not see, and an extract.
    pub fn project(&self) -> Option<&ProjectName> {
        match self {
            Self::Hello(_) | Self::Extract(_) => None,
            Self::Heads(heads) => Some(&heads.project),
            Self::Records(records) => Some(&records.feed.project),
        }
    }
}

const HELLO: u16 = 1;
const HEADS: u16 = 2;
const RECORDS: u16 = 3;

impl Framed for Control {
    fn to_frame(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => frame::write(HELLO, hello),
            Self::Heads(heads) => frame::write(HEADS, heads),
            Self::Records(records) => frame::write(RECORDS, records),
            Self::Extract(extract) => frame::write(EXTRACT, extract),
        }
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        match kind {
            HELLO => {
                let hello: Hello = frame::read(kind, payload)?;
                frame::bound(kind, "bytes of build", hello.build.len(), 256)?;
                Ok(Self::Hello(hello))
            }
            HEADS => frame::read(kind, payload).map(Self::Heads),
            RECORDS => frame::read(kind, payload).map(Self::Records),
            EXTRACT => PolicyExtract::from_payload(payload).map(Self::Extract),
            kind => Err(FrameError::Unexpected { kind }),
        }
    }
}
