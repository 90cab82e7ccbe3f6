//! The records about nodes rather than versions: whom the studio does not trust any more, and by which rights a feed is judged up
//! to where. They stand in the studio's own feeds.

use serde::{Deserialize, Serialize};

use super::Note;
use crate::{access::Rights, feed::FeedId, id::NodeId};

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
}
