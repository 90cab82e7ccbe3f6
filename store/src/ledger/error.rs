//! What can go wrong with the ledger, by what was wanted of it.

use std::{path::PathBuf, sync::Arc};

use avalon_protocol::{
    access::Action,
    feed::{FeedError, FeedId},
    id::{NodeId, ProjectName},
    limits::{MAX_FEEDS, MAX_RECORD_BYTES},
    manifest::DecodeError,
};
use thiserror::Error;

use crate::{
    catalog::{CatalogError, SourceError},
    feed::{AppendError, FeedFileError},
    fs::IoError,
    manifest_file::ManifestFileError,
};

/// Why the ledger cannot be opened. Nothing has been written after damage.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory of the feeds cannot be read or changed.
    #[error("the feeds cannot be listed or put aside")]
    Feeds {
        /// What failed.
        #[source]
        source: IoError,
    },
    /// A feed cannot be read, though it may be good.
    #[error("feed {feed} cannot be opened")]
    Feed {
        /// The feed.
        feed: FeedId,
        /// Why.
        #[source]
        source: Box<FeedFileError>,
    },
    /// This node's own feed is damaged. Writing on would give it two histories.
    #[error(
        "this node's own feed {feed} is damaged and must not be written; replace {} by the directory of the same name \
         in the state directory of the peer that has most of it, and start again",
        path.display()
    )]
    OwnFeed {
        /// The feed.
        feed: FeedId,
        /// Its directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<FeedFileError>,
    },
    /// The directory of the manifests cannot be read.
    #[error("the manifests cannot be listed")]
    Manifests {
        /// What failed.
        #[source]
        source: IoError,
    },
    /// Nobody can say which feeds have two histories.
    #[error("the proofs of forks cannot be read")]
    Forks {
        /// What failed.
        #[source]
        source: IoError,
    },
    /// The catalog can neither be used nor built anew.
    #[error("the catalog cannot be built from the feeds")]
    Catalog {
        /// Why.
        #[source]
        source: RebuildError,
    },
    /// The system gives no thread.
    #[error("cannot start the thread that writes")]
    Thread {
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// Why a catalog cannot be built from the feeds.
#[derive(Debug, Clone, Error)]
pub enum RebuildError {
    /// The ledger closes meanwhile.
    #[error("the daemon stops; the next start builds it")]
    Stopped,
    /// The new generation fails.
    #[error("the new catalog cannot be written")]
    Catalog {
        /// Why.
        #[source]
        source: CatalogError,
    },
    /// A feed cannot be read.
    #[error("feed {feed} cannot be read")]
    Feed {
        /// The feed.
        feed: FeedId,
        /// Why.
        #[source]
        source: Arc<FeedFileError>,
    },
    /// The rows that it was to start from cannot be used.
    #[error("the file of rows is refused")]
    Source {
        /// Why.
        #[source]
        source: Arc<SourceError>,
    },
}

impl IngestError {
    /// Says whether the feed has two histories, as was found now or is known.
    pub fn is_fork(&self) -> bool {
        matches!(self, Self::Feed(FeedError::Fork { .. }) | Self::Frozen { .. })
    }
}

impl RebuildError {
    /// Says whether the file of rows that it was to start from is to blame.
    pub fn is_bad_source(&self) -> bool {
        matches!(self, Self::Source { .. })
    }
}

impl From<CatalogError> for RebuildError {
    fn from(source: CatalogError) -> Self {
        Self::Catalog { source }
    }
}

/// Why something was not recorded or read.
#[derive(Debug, Clone, Error)]
pub enum LedgerError {
    /// It was closed, or the thread that writes has ended.
    #[error("the ledger is closed")]
    Closed,
    /// A write or fsync failed in a way that leaves open what is on disk.
    #[error("feed {feed} is closed after a write that failed; check the disk and restart avalond")]
    Poisoned {
        /// The feed.
        feed: FeedId,
    },
    /// No room is left; it may be tried again.
    #[error("no room is left to write feed {feed}; free some and try again")]
    NoSpace {
        /// The feed.
        feed: FeedId,
        /// What failed.
        #[source]
        source: Arc<IoError>,
    },
    /// The system refuses; it may be tried again.
    #[error("feed {feed} cannot be written")]
    Io {
        /// The feed.
        feed: FeedId,
        /// What failed.
        #[source]
        source: Arc<IoError>,
    },
    /// The feed cannot be read back.
    #[error("feed {feed} cannot be read")]
    Feed {
        /// The feed.
        feed: FeedId,
        /// Why.
        #[source]
        source: Arc<FeedFileError>,
    },
    /// One record is over the limit; none of its commit was recorded.
    #[error("a record has {bytes} bytes, the limit is {MAX_RECORD_BYTES}")]
    RecordTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// This node's own certificate or key is not good for its feed.
    #[error("this node may not write feed {feed}; check its certificate")]
    Refused {
        /// The feed.
        feed: FeedId,
        /// Why.
        #[source]
        source: FeedError,
    },
    /// This node may not say that, so it would count nowhere. Nothing was written.
    #[error("{node} may not {action} in project {project}")]
    NotAllowed {
        /// This node.
        node: NodeId,
        /// What it may not do.
        action: Action,
        /// Where.
        project: ProjectName,
    },
    /// Nobody has said yet how far this feed of this node went before its state was restored.
    #[error("feed {feed} is not written before a peer has said how far it went; see avalonctl feed")]
    Held {
        /// The feed.
        feed: FeedId,
    },
    /// Records of this node's own feed came back from a peer after these had been concluded from a catalog without them.
    #[error(
        "records of feed {feed} came back from a peer meanwhile; nothing was recorded, it is compared with them again"
    )]
    CameBack {
        /// The feed.
        feed: FeedId,
    },
    /// A feed of this node has two histories: another machine writes in its name, or a backup was restored.
    #[error("feed {feed} of this node has two histories, it writes nothing more; see avalonctl feed")]
    Forked {
        /// The feed.
        feed: FeedId,
    },
    /// The proof of a fork cannot be kept.
    #[error("the proof that feed {feed} has two histories cannot be stored")]
    Proof {
        /// The feed.
        feed: FeedId,
        /// What failed.
        #[source]
        source: Arc<IoError>,
    },
    /// The catalog fails. What is in the feeds is safe.
    #[error("the catalog cannot be used")]
    Catalog {
        /// Why.
        #[source]
        source: CatalogError,
    },
    /// The catalog could not be written out, or what was written out not be taken in.
    #[error("the catalog cannot be exported")]
    Export {
        /// Why.
        #[source]
        source: Arc<SourceError>,
    },
    /// The catalog could not be built anew. What is in the feeds is safe.
    #[error("the catalog was not rebuilt")]
    Rebuild {
        /// Why.
        #[source]
        source: RebuildError,
    },
}

impl LedgerError {
    /// Says whether groups were asked for from a record that starts none.
    pub fn is_not_a_boundary(&self) -> bool {
        matches!(self, Self::Feed { source, .. } if matches!(**source, FeedFileError::NotABoundary { .. }))
    }

    /// Says whether this node may not write its own feeds now, which is told otherwise.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. } | Self::Forked { .. })
    }

    /// Says whether room on the volume would help.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Proof { source, .. } => source.is_no_space(),
            Self::Catalog { source } | Self::Rebuild { source: RebuildError::Catalog { source } } => {
                source.is_no_space()
            }
            _ => false,
        }
    }

    pub(super) fn append(error: AppendError) -> Self {
        match error {
            AppendError::Poisoned { feed } => Self::Poisoned { feed },
            AppendError::Io { feed, source } => Self::write(feed, source),
        }
    }

    pub(super) fn write(feed: FeedId, source: IoError) -> Self {
        let full = source.is_no_space();
        let source = Arc::new(source);
        if full { Self::NoSpace { feed, source } } else { Self::Io { feed, source } }
    }
}

/// Why a peer's groups were not taken. None of them is stored then, unless the disk failed in the middle.
#[derive(Debug, Error)]
pub enum IngestError {
    /// They do not follow what is here, or are not signed by their node.
    #[error("the records of a peer are refused")]
    Feed(#[source] FeedError),
    /// The feed has two histories, which is known: nothing more of it is taken from anybody.
    #[error("feed {feed} has two histories, nothing more of it is taken")]
    Frozen {
        /// The feed.
        feed: FeedId,
    },
    /// A manifest that came with them is not one.
    #[error("a manifest that came with records of feed {feed} is refused")]
    Manifest {
        /// The feed.
        feed: FeedId,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// A manifest cannot be stored.
    #[error("a manifest that came with records of feed {feed} cannot be stored")]
    ManifestFile {
        /// The feed.
        feed: FeedId,
        /// Why.
        #[source]
        source: ManifestFileError,
    },
    /// The project has as many feeds as are allowed.
    #[error("project {project} has {MAX_FEEDS} feeds, no more are taken; remove nodes that are gone")]
    TooManyFeeds {
        /// The project.
        project: ProjectName,
    },
    /// The feed is as long as this node takes.
    #[error(
        "feed {feed} has {bytes} bytes, with what came more than the {limit} that `node.max_feed_bytes` allows"
    )]
    FeedTooLong {
        /// The feed.
        feed: FeedId,
        /// How many bytes of it are here.
        bytes: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The ledger fails here, whatever the peer sent.
    #[error("the records of a peer cannot be stored")]
    Ledger(#[source] LedgerError),
}
