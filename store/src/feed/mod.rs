//! Feeds on disk: the only thing that is ever acknowledged.
//!
//! ```text
//! feeds/<project>/<node@site>/00000000.alog    segments, 64 MiB each, numbered from 0 without gaps
//! feeds/<project>/bad-<node@site>.<n>/         a peer's feed that was found damaged, kept for diagnosis
//!
//! segment = "AVLF" | format u32 | number of the first record u64 | frames
//! frame   = length u32 | crc32c u32 | payload
//! payload = length of the body u32 | body | signature, 64 bytes
//! ```
//!
//! All numbers are little-endian. A frame is one commit group; lengths and checksums find damage, the chain and the
//! signatures in the groups prove the rest. What an append wrote counts once fdatasync has returned; a torn frame at
//! the very end was never acknowledged and is cut off. Anything else that is wrong is damage: it is never repaired by
//! guessing, the feed comes back from a peer.

mod append;
mod fork_file;
mod read;
mod repair;
mod segment;
#[cfg(test)]
mod tests;

use avalon_protocol::feed::{FeedError, FeedId};
use thiserror::Error;

pub(crate) use self::{
    append::{AppendError, FeedFile, Staged},
    fork_file::{ForkFiles, path_in},
    read::{FeedIndex, body_of},
    repair::{check, create, find, newest_claimed, open, quarantine},
    segment::peek,
};
pub use self::{
    fork_file::{Fork, Settled},
    repair::TornTail,
};
use crate::fs::IoError;

/// Why a feed on disk cannot be used.
#[derive(Debug, Error)]
pub enum FeedFileError {
    /// The bytes are not what was written.
    #[error("feed {feed} is damaged in segment {segment} at byte {offset}")]
    Damaged {
        /// The feed.
        feed: FeedId,
        /// The number of the segment.
        segment: u32,
        /// Where in it.
        offset: u64,
    },
    /// The bytes are what was written, and do not follow what is before them.
    #[error("feed {feed} does not go on in segment {segment} at byte {offset}")]
    Refused {
        /// The feed.
        feed: FeedId,
        /// The number of the segment.
        segment: u32,
        /// Where in it.
        offset: u64,
        /// Why.
        #[source]
        source: FeedError,
    },
    /// Written by a newer version of this software.
    #[error("segment {segment} of feed {feed} has format {format}; upgrade avalond here")]
    NewerFormat {
        /// The feed.
        feed: FeedId,
        /// The number of the segment.
        segment: u32,
        /// The format that it has.
        format: u32,
    },
    /// No group starts at this record.
    #[error("no group of feed {feed} starts at record {seq}")]
    NotABoundary {
        /// The feed.
        feed: FeedId,
        /// The number of the record.
        seq: u64,
    },
    /// The system refuses.
    #[error("the files of feed {feed} cannot be read or written")]
    Io {
        /// The feed.
        feed: FeedId,
        /// What failed.
        #[source]
        source: IoError,
    },
}

impl FeedFileError {
    /// Says whether the feed itself is wrong, so that it has to come back from a peer.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Refused { source, .. } => !matches!(source, FeedError::NewerFormat { .. }),
            Self::NewerFormat { .. } | Self::NotABoundary { .. } | Self::Io { .. } => false,
        }
    }
}
