//! The records about nodes rather than versions: whom the studio does not trust any more, and by which rights a feed is judged up
//! to where. They stand in the studio's own feeds.

use serde::{Deserialize, Serialize};

use super::Note;
use crate::{access::Rights, feed::FeedId, hash::ChainHash, id::NodeId, limits::MAX_CRL_BYTES};

/// The payload of [`Record::Crl`](super::Record::Crl).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Crl {
    /// The list in DER, at most [`MAX_CRL_BYTES`]. Only what the studio's CA signed says anything.
    pub der: Vec<u8>,
    /// Who brought it.
    pub author: Note,
    /// Why.
    pub comment: Note,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Crl {
    /// Reads a payload of version 1; nothing when the list is too large.
    pub(super) fn from_payload(payload: &[u8]) -> Option<Self> {
        postcard::from_bytes::<Self>(payload).ok().filter(|crl| crl.der.len() <= MAX_CRL_BYTES)
    }
}

/// The payload of [`Record::Revoked`](super::Record::Revoked).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revoked {
    /// The node. Its name is never given again.
    pub node: NodeId,
    /// Who did it.
    pub author: Note,
    /// Why.
    pub comment: Note,
    /// When, in milliseconds since 1970: of feeds that are judged by nothing else, what says that it is younger states nothing.
    pub at_ms: u64,
}

/// The payload of [`Record::Issued`](super::Record::Issued): a hint for others that issue, to give no name twice. It proves nothing
/// and gives nothing; what a node may do says its certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Issued {
    /// Which name.
    pub node: NodeId,
    /// When it was said, in milliseconds since 1970; for display.
    pub at_ms: u64,
}

/// The payload of [`Record::Judged`](super::Record::Judged): rights change, and what was said by the old ones stands. It goes along
/// with whatever changes them, in one group, for each feed that its writer has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Judged {
    /// Which feed.
    pub feed: FeedId,
    /// Its records before this one are judged by these rights, and not by what the policy says by then.
    pub next_seq: u64,
    /// What their author was allowed.
    pub rights: Rights,
    /// When that was said, in milliseconds since 1970: grants that end later need another one.
    pub at_ms: u64,
    /// The chain hash of the group with the last of those records, so that it is said of one history alone. Records of version 1
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainHash>,
}

/// Version 1 and 2 on disk and on the wire, in this order; version 2 has the chain hash behind it.
#[derive(Serialize, Deserialize)]
struct First {
    feed: FeedId,
    next_seq: u64,
    rights: Rights,
    at_ms: u64,
}

impl Judged {
    /// Returns the version of the payload, and its bytes.
    pub(super) fn to_payload(&self) -> (u16, postcard::Result<Vec<u8>>) {
        let Self { feed, next_seq, rights, at_ms, chain } = self.clone();
        let first = First { feed, next_seq, rights, at_ms };
        match chain {
            None => (1, postcard::to_stdvec(&first)),
            Some(chain) => (2, postcard::to_stdvec(&(first, chain))),
        }
    }

    /// Reads a payload of version 1 or 2.
    pub(super) fn from_payload(version: u16, payload: &[u8]) -> postcard::Result<Self> {
        let (first, chain) = match version {
            1 => (postcard::from_bytes::<First>(payload)?, None),
            _ => postcard::from_bytes::<(First, ChainHash)>(payload)
                .map(|(first, chain)| (first, Some(chain)))?,
        };
        let First { feed, next_seq, rights, at_ms } = first;
        Ok(Self { feed, next_seq, rights, at_ms, chain })
    }
}
