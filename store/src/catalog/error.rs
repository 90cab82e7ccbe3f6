//! What can be wrong with a catalog.

use std::sync::Arc;

use avalon_protocol::feed::FeedId;
use thiserror::Error;

use super::Table;
use crate::fs::IoError;

/// Why a generation of the catalog is built anew.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Cause {
    /// There is none: the first start, or somebody deleted it.
    #[error("there is no catalog")]
    Absent,
    /// Somebody asked for it.
    #[error("a rebuild was asked for")]
    Asked,
    /// Another version of this software wrote it.
    #[error("it has layout {found}, this version uses {expected}")]
    OtherFormat {
        /// Its layout.
        found: u16,
        /// Ours.
        expected: u16,
    },
    /// The engine returned an error.
    #[error("its engine failed: {text}")]
    Engine {
        /// What the engine says.
        text: String,
    },
    /// The engine panicked.
    #[error("its engine panicked: {text}")]
    Panic {
        /// What the engine says.
        text: String,
    },
    /// The engine did not come back.
    #[error("its engine did not open it within {seconds} s")]
    Timeout {
        /// How long it had.
        seconds: u64,
    },
    /// The disk is full. The generation itself may be good.
    #[error("the disk is full")]
    NoSpace,
    /// An fsync failed, so what it should have kept may be gone.
    #[error("an fsync of it failed: {text}")]
    Fsync {
        /// What the system says.
        text: String,
    },
    /// A row does not have the bytes that were written.
    #[error("a row of table {table} is damaged")]
    Row {
        /// The table.
        table: Table,
    },
    /// A row belongs to no table.
    #[error("it has a row of no table")]
    StrayRow,
    /// The rows do not add up to what was written.
    #[error("rows of table {table} are missing or too many")]
    Rows {
        /// The table.
        table: Table,
    },
    /// Some records count now that did not, or the other way round.
    #[error("who may do what has changed for records that it has")]
    Rights,
    /// It was applied from records that the feed does not have.
    #[error("it is ahead of feed {feed} or beside it")]
    Cursor {
        /// The feed.
        feed: FeedId,
    },
}

/// Why the catalog could not answer or be written. Nothing acknowledged is lost by any of these.
#[derive(Debug, Clone, Error)]
pub enum CatalogError {
    /// The generation is damaged; the ledger builds the next one by itself.
    #[error(
        "generation {generation} of the catalog is of no use; it is rebuilt from the feeds, try again later"
    )]
    Damaged {
        /// The number of the generation.
        generation: u64,
        /// What is wrong with it.
        #[source]
        cause: Cause,
    },
    /// The directory of the catalog cannot be read or written.
    #[error("cannot switch the generation of the catalog")]
    Switch {
        /// What failed.
        #[source]
        source: Arc<IoError>,
    },
}

impl CatalogError {
    /// Says whether room on the volume would help.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Damaged { cause, .. } => *cause == Cause::NoSpace,
            Self::Switch { source } => source.is_no_space(),
        }
    }

    /// Says that `cause` makes a generation useless.
    pub(crate) fn damaged(generation: u64, cause: Cause) -> Self {
        Self::Damaged { generation, cause }
    }
    /// Says that the directory of the catalog failed.
    pub(crate) fn switch(source: IoError) -> Self {
        Self::Switch { source: Arc::new(source) }
    }

    /// Returns what is wrong, for a store that can only be damaged.
    pub(super) fn into_cause(self) -> Cause {
        match self {
            Self::Damaged { cause, .. } => cause,
            Self::Switch { source } => Cause::Engine { text: source.to_string() },
        }
    }
}
