//! Why a version was not recorded, and what helps.

use avalon_protocol::{control::ErrorCode, id::VersionId, manifest::InvalidManifest, rel_path::RelPath};
use avalon_store::{
    catalog::CatalogError, fs::IoError, ledger::LedgerError, manifest_file::ManifestFileError,
};
use thiserror::Error;

use crate::access::NotGranted;

use super::super::{hash::HashVersionError, snapshot::SnapshotError};

/// What helps when a version was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It changed meanwhile: it is looked at again when it is quiet.
    Settle,
    /// This machine could not do it now: it is tried again after a while.
    TryLater,
    /// Somebody has to act.
    Person,
    /// It is as it should be.
    Nothing,
}

/// Why a version was not recorded.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The project is paused.
    #[error("project {project} is paused, its directory is missing; mount it and try again")]
    Paused {
        /// The project.
        project: avalon_protocol::id::ProjectName,
    },
    /// The directory is not as it was when it was proved whole: settle again.
    #[error("{version} changed meanwhile; it is looked at again when it is quiet")]
    Changed {
        /// The version.
        version: VersionId,
    },
    /// Its directory cannot be read.
    #[error("{version} cannot be read")]
    Snapshot {
        /// The version.
        version: VersionId,
        /// Why.
        #[source]
        source: SnapshotError,
    },
    /// Its files cannot be hashed.
    #[error("{version} cannot be hashed")]
    Hash {
        /// The version.
        version: VersionId,
        /// Why.
        #[source]
        source: HashVersionError,
    },
    /// It breaks a rule of manifests.
    #[error("{version} cannot be published")]
    Invalid {
        /// The version.
        version: VersionId,
        /// Which rule.
        #[source]
        source: InvalidManifest,
    },
    /// Published files were changed in place.
    #[error("{} of the published files of {version} were changed in place, the first is {}", changed.len(), first(changed))]
    Rewritten {
        /// The version.
        version: VersionId,
        /// What was changed, in order.
        changed: Vec<RelPath>,
    },
    /// Published files have the time that they were published with, and other bytes: their disk did that.
    #[error("{} of the published files of {version} are damaged on this node's disk, the first is {}", damaged.len(), first(damaged))]
    Damaged {
        /// The version.
        version: VersionId,
        /// Which, in order.
        damaged: Vec<RelPath>,
    },
    /// The manifest of what this node held is damaged or lost, so nothing can be compared with it.
    #[error(
        "the manifest of what this node held of {version} is damaged here, and comes back from a node that has it; until then nothing of \
         the version is recorded, unless somebody says avalonctl accept {version}"
    )]
    NotAtHand {
        /// The version.
        version: VersionId,
    },
    /// Published files were changed in place, and what they were changed from does not stand.
    #[error(
        "another generation of {version} stands than the one that was changed here; put that back, avalonctl restore {version}, \
         or publish the change under another number"
    )]
    Outdated {
        /// The version.
        version: VersionId,
    },
    /// It was only to be compared, and nothing of what was recorded has other content.
    #[error("{version} still waits for frames; nothing that was recorded has changed")]
    StillWaits {
        /// The version.
        version: VersionId,
    },
    /// The files are a part of what was published: some were removed, are still being copied, or a placement was cut.
    #[error("files of {version} are missing here, it was published with more; copy the rest, or pull it")]
    Part {
        /// The version.
        version: VersionId,
    },
    /// The version is being fetched from other nodes; what lies there may be half of that.
    #[error("{version} is being fetched here; it is looked at again when that is done")]
    Incoming {
        /// The version.
        version: VersionId,
    },
    /// What is being fetched into the project cannot be read; it may be this version.
    #[error(
        "whether {version} is being fetched here cannot be read; check the disk, or remove what cannot be read"
    )]
    Areas {
        /// The version.
        version: VersionId,
        /// Why.
        #[source]
        source: IoError,
    },
    /// The manifest of the generation before it cannot be read for now.
    #[error("the manifest of the generation before cannot be read, which {version} follows; check the disk")]
    Before {
        /// The version.
        version: VersionId,
        /// Why.
        #[source]
        source: ManifestFileError,
    },
    /// Two directories read as one version.
    #[error(
        "{version} is known at {known}, and {here} reads as the same version; rename the asset, or change the template"
    )]
    TwoPlaces {
        /// The version.
        version: VersionId,
        /// Where it was published.
        known: RelPath,
        /// Where files lie now.
        here: RelPath,
    },
    /// The generations of a version cannot be counted on; only a peer that lies gets there.
    #[error("{version} has as many generations as can be counted")]
    TooManyGenerations {
        /// The version.
        version: VersionId,
    },
    /// Somebody else has the number: by what the studio's voters say, who are asked before a number is used.
    #[error(
        "{version} cannot be published: the number belongs to {by}; rename the directory to v{next:03}, or ask for a number first: avalonctl reserve"
    )]
    NumberTaken {
        /// The version.
        version: VersionId,
        /// The node that published it, or to which it was promised.
        by: avalon_protocol::id::NodeId,
        /// A number that may be free.
        next: u32,
    },
    /// This node has no right to publish there: what it would record would state nothing anywhere else.
    #[error("{version} cannot be published: {refused}; {}", refused.hint())]
    NotGranted {
        /// The version.
        version: VersionId,
        /// What is lacking.
        refused: NotGranted,
    },
    /// The manifest cannot be written.
    #[error("the manifest of {version} cannot be stored")]
    Manifest {
        /// The version.
        version: VersionId,
        /// Why.
        #[source]
        source: ManifestFileError,
    },
    /// The record cannot be written.
    #[error("{version} cannot be recorded")]
    Ledger {
        /// The version.
        version: VersionId,
        /// Why.
        #[source]
        source: LedgerError,
    },
    /// What is known of the version cannot be read.
    #[error("what is known of {version} cannot be read")]
    Catalog {
        /// The version.
        version: VersionId,
        /// Why.
        #[source]
        source: CatalogError,
    },
}

pub(super) fn first(changed: &[RelPath]) -> &str {
    changed.first().map_or("unknown", RelPath::as_str)
}

impl RecordError {
    /// Says what helps.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Changed { .. } | Self::Ledger { source: LedgerError::CameBack { .. }, .. } => {
                Remedy::Settle
            }
            Self::Hash { source: HashVersionError::Changed { .. }, .. } => Remedy::Settle,
            Self::Hash { source: HashVersionError::Read(_) | HashVersionError::Sync(_), .. }
            | Self::Snapshot { .. }
            | Self::Manifest { .. }
            | Self::Ledger { .. }
            | Self::Catalog { .. }
            | Self::Incoming { .. }
            | Self::Areas { .. }
            | Self::Before { .. }
            | Self::NumberTaken { .. }
            | Self::NotAtHand { .. }
            | Self::Paused { .. } => Remedy::TryLater,
            Self::NotGranted { refused, .. } if refused.passes() => Remedy::TryLater,
            Self::StillWaits { .. } => Remedy::Nothing,
            Self::Hash { source: HashVersionError::Path(_) | HashVersionError::Lost { .. }, .. }
            | Self::Invalid { .. }
            | Self::Rewritten { .. }
            | Self::Damaged { .. }
            | Self::Outdated { .. }
            | Self::TwoPlaces { .. }
            | Self::TooManyGenerations { .. }
            | Self::NotGranted { .. }
            | Self::Part { .. } => Remedy::Person,
        }
    }

    /// Says whether it is a trouble of this machine that somebody should hear of. That the project is paused is told
    /// already, as is that a number is taken, and that it is being fetched is none.
    pub fn is_failure(&self) -> bool {
        let is_told_otherwise = match self {
            Self::Paused { .. }
            | Self::Incoming { .. }
            | Self::NumberTaken { .. }
            | Self::NotGranted { .. } => true,
            Self::Ledger { source, .. } => source.is_held(),
            _ => false,
        };
        self.remedy() == Remedy::TryLater && !is_told_otherwise
    }

    /// Returns the error's code for the local API.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Paused { .. } => ErrorCode::ProjectPaused,
            Self::Changed { .. } => ErrorCode::NotWhole,
            Self::Hash { source, .. } => match source {
                HashVersionError::Changed { .. } => ErrorCode::NotWhole,
                HashVersionError::Sync(source) if source.is_no_space() => ErrorCode::DiskFull,
                HashVersionError::Sync(_) => ErrorCode::Internal,
                HashVersionError::Lost { .. } => ErrorCode::Damaged,
                HashVersionError::Read(_) | HashVersionError::Path(_) => ErrorCode::BadPath,
            },
            Self::Snapshot { .. } | Self::Invalid { .. } | Self::TwoPlaces { .. } => ErrorCode::BadPath,
            Self::Rewritten { .. } | Self::Outdated { .. } => ErrorCode::Rewritten,
            Self::Part { .. }
            | Self::Incoming { .. }
            | Self::StillWaits { .. }
            | Self::Ledger { source: LedgerError::CameBack { .. }, .. } => ErrorCode::NotWhole,
            Self::NumberTaken { .. } => ErrorCode::NumberTaken,
            Self::NotGranted { refused, .. } => refused.code(),
            Self::TooManyGenerations { .. } | Self::Damaged { .. } | Self::NotAtHand { .. } => {
                ErrorCode::Damaged
            }
            Self::Manifest { source, .. } if source.is_no_space() => ErrorCode::DiskFull,
            Self::Ledger { source, .. } if source.is_no_space() => ErrorCode::DiskFull,
            Self::Catalog { source, .. } if source.is_no_space() => ErrorCode::DiskFull,
            Self::Ledger { source, .. } if source.is_held() => ErrorCode::FeedHeld,
            Self::Manifest { .. }
            | Self::Ledger { .. }
            | Self::Catalog { .. }
            | Self::Areas { .. }
            | Self::Before { .. } => ErrorCode::Internal,
        }
    }
}
