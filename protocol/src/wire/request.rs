//! The requests: one stream each. The side that opens the stream sends one [`Request`] and finishes its half; the other
//! answers in the order of the wants and finishes.

use serde::{Deserialize, Serialize};

use super::{
    AskNumber, FetchEncoded, FetchProof, Framed, Renew,
    frame::{self, FrameError},
};
use crate::{
    access::Action,
    block::BlockValue,
    hash::{ManifestId, ObjectHash},
    id::ProjectName,
    limits::{MAX_MANIFEST_BYTES, MAX_MANIFEST_WANTS, MAX_OBJECT_BYTES, MAX_WANTS},
};

/// What a stream asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Type 16: objects or ranges of their blocks.
    Objects(FetchObjects),
    /// Type 17: manifests.
    Manifests(FetchManifests),
    /// Type 20: objects, in whatever encoding costs least.
    Encoded(FetchEncoded),
    /// Type 22: a proof of possession.
    Proof(FetchProof),
    /// Type 24: a number to publish under.
    Number(AskNumber),
    /// Type 31: a certificate for a new key.
    Renew(Renew),
}

impl Request {
    /// Returns which project a request is about and what whoever asks needs to be allowed there; none for a request that is about
    /// no project.
    pub fn needs(&self) -> Option<(&ProjectName, Action)> {
        match self {
            Self::Objects(fetch) => Some((&fetch.project, Action::Pull)),
            Self::Encoded(fetch) => Some((&fetch.project, Action::Pull)),
            Self::Manifests(fetch) => Some((&fetch.project, Action::See)),
            Self::Proof(fetch) => Some((&fetch.version.project, Action::See)),
            Self::Number(ask) => Some((&ask.version.project, Action::Publish)),
            Self::Renew(_) => None,
        }
    }
}

/// Asks for objects of one project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchObjects {
    /// The project; the server answers only for objects of manifests in it.
    pub project: ProjectName,
    /// What is wanted, answered in this order; at most [`MAX_WANTS`].
    pub wants: Vec<Want>,
}

/// One object, or a range of its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The object.
    pub object: ObjectHash,
    /// Its size in bytes, from the manifest.
    pub size: u64,
    /// The first block that is wanted.
    pub first_block: u64,
    /// How many blocks are wanted; 0 asks for the block list alone.
    pub blocks: u64,
    /// Whether the block list is wanted in front.
    pub with_list: bool,
}

/// Asks for manifests of one project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchManifests {
    /// The project.
    pub project: ProjectName,
    /// Which manifests, answered in this order; at most [`MAX_MANIFEST_WANTS`].
    pub manifests: Vec<ManifestId>,
}

/// Type 18: precedes the bytes of each want. After it: the block list if `list_values` is not 0 (32 bytes a value), then
/// `body_bytes` bytes, encoded as said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectReply {
    /// Whether bytes follow.
    pub status: ObjectStatus,
    /// How many values of the block list follow.
    pub list_values: u64,
    /// How many bytes of content follow, as they stand on the wire.
    pub body_bytes: u64,
    /// How they are encoded: [`RAW`](super::RAW), or in answer to a [`FetchEncoded`] also [`PIECES`](super::PIECES).
    pub encoding: u16,
}

/// What became of one want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum ObjectStatus {
    /// 0: the bytes follow.
    Found,
    /// 1: not there, not allowed, or changed on disk: the three look the same.
    NotFound,
}

impl From<ObjectStatus> for u8 {
    fn from(status: ObjectStatus) -> Self {
        match status {
            ObjectStatus::Found => 0,
            ObjectStatus::NotFound => 1,
        }
    }
}

impl TryFrom<u8> for ObjectStatus {
    type Error = &'static str;
    fn try_from(byte: u8) -> Result<Self, &'static str> {
        match byte {
            0 => Ok(Self::Found),
            1 => Ok(Self::NotFound),
            _ => Err("not an object status"),
        }
    }
}

/// Type 19: precedes the bytes of each manifest; 0 bytes mean that it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestReply {
    /// How many bytes of the manifest follow.
    pub bytes: u64,
}

const OBJECTS: u16 = 16;
const MANIFESTS: u16 = 17;
const OBJECT_REPLY: u16 = 18;
const MANIFEST_REPLY: u16 = 19;

impl Framed for Request {
    fn to_frame(&self) -> Vec<u8> {
        match self {
            Self::Objects(fetch) => frame::write(OBJECTS, fetch),
            Self::Manifests(fetch) => frame::write(MANIFESTS, fetch),
            Self::Encoded(fetch) => fetch.frame(),
            Self::Proof(fetch) => fetch.frame(),
            Self::Number(ask) => ask.frame(),
            Self::Renew(renew) => renew.frame(),
        }
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        match kind {
            OBJECTS => {
                let fetch: FetchObjects = frame::read(kind, payload)?;
                frame::bound(kind, "wants", fetch.wants.len(), MAX_WANTS)?;
                if fetch.wants.iter().any(|want| want.size > MAX_OBJECT_BYTES) {
                    return Err(FrameError::TooMany { kind, what: "bytes of an object" });
                }
                Ok(Self::Objects(fetch))
            }
            MANIFESTS => {
                let fetch: FetchManifests = frame::read(kind, payload)?;
                frame::bound(kind, "manifests", fetch.manifests.len(), MAX_MANIFEST_WANTS)?;
                Ok(Self::Manifests(fetch))
            }
            kind => {
                let encoded = FetchEncoded::from_payload(kind, payload).map(|read| read.map(Self::Encoded));
                let proof = || FetchProof::from_payload(kind, payload).map(|read| read.map(Self::Proof));
                let number = || AskNumber::from_payload(kind, payload).map(|read| read.map(Self::Number));
                let renew = || Renew::from_payload(kind, payload).map(|read| read.map(Self::Renew));
                encoded
                    .or_else(proof)
                    .or_else(number)
                    .or_else(renew)
                    .unwrap_or(Err(FrameError::Unexpected { kind }))
            }
        }
    }
}

impl Framed for ObjectReply {
    fn to_frame(&self) -> Vec<u8> {
        frame::write(OBJECT_REPLY, self)
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        if kind != OBJECT_REPLY {
            return Err(FrameError::Unexpected { kind });
        }
        let reply: Self = frame::read(kind, payload)?;
        let list_limit = MAX_OBJECT_BYTES / crate::block::BLOCK_BYTES;
        if reply.body_bytes > MAX_OBJECT_BYTES || reply.list_values > list_limit {
            return Err(FrameError::TooMany { kind, what: "bytes of an object" });
        }
        Ok(reply)
    }
}

impl ObjectReply {
    /// Returns the length of the block list that follows, in bytes.
    pub fn list_bytes(&self) -> u64 {
        self.list_values * size_of::<BlockValue>() as u64
    }
}

impl Framed for ManifestReply {
    fn to_frame(&self) -> Vec<u8> {
        frame::write(MANIFEST_REPLY, self)
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        if kind != MANIFEST_REPLY {
            return Err(FrameError::Unexpected { kind });
        }
        let reply: Self = frame::read(kind, payload)?;
        if reply.bytes > MAX_MANIFEST_BYTES as u64 {
            return Err(FrameError::TooMany { kind, what: "bytes of a manifest" });
        }
        Ok(reply)
    }
}
