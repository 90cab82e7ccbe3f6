//! What can go wrong while a version is put together.

use avalon_protocol::{
    hash::{ManifestId, ObjectHash},
    rel_path::RelPath,
};
use thiserror::Error;

use crate::fs::{FileIdentity, IoError};

/// Why an incoming area did not do what it was asked.
#[derive(Debug, Error)]
pub enum IncomingError {
    /// The system refuses something in the area.
    #[error("the incoming area of manifest {} cannot be used", manifest.short())]
    Io {
        /// The manifest that is put together.
        manifest: ManifestId,
        /// What and why.
        #[source]
        source: IoError,
    },
    /// The volume does not have the room for what is still missing.
    #[error(
        "{needed_bytes} bytes are needed and {free_bytes} are free; make room, the transfer then goes on"
    )]
    NoSpace {
        /// Bytes that are still to come.
        needed_bytes: u64,
        /// Bytes that the volume has left.
        free_bytes: u64,
    },
    /// Bytes that are not this block of this object: the sender lies or is damaged.
    #[error("block {index} of {} does not verify", object.short())]
    BadBlock {
        /// The object.
        object: ObjectHash,
        /// Which of its blocks.
        index: u64,
    },
    /// A block list for another size than the manifest says.
    #[error("the block list of {} is for {list_bytes} bytes, the manifest says {manifest_bytes}", object.short())]
    BlockListSize {
        /// The object.
        object: ObjectHash,
        /// The size in the list.
        list_bytes: u64,
        /// The size in the manifest.
        manifest_bytes: u64,
    },
    /// A block of an object whose block list is not known yet.
    #[error("the block list of {} must come before its blocks", object.short())]
    NoBlockList {
        /// The object.
        object: ObjectHash,
    },
    /// The manifest does not name this object, or its files are all in place.
    #[error("the object {} is not needed here", object.short())]
    NotNeeded {
        /// The object.
        object: ObjectHash,
    },
    /// The manifest gives one object two sizes.
    #[error("the manifest gives {} two sizes; whoever published it must publish again", object.short())]
    SizeConflict {
        /// The object.
        object: ObjectHash,
    },
    /// A local file did not have the content that the catalog says: it is damaged or was changed.
    #[error("the file {path} does not hold {} any more", object.short())]
    CopyMismatch {
        /// The object that it should hold.
        object: ObjectHash,
        /// The file that was copied.
        path: RelPath,
    },
    /// There are objects missing.
    #[error("{objects} objects are not complete yet")]
    Incomplete {
        /// How many.
        objects: usize,
    },
    /// The system could not make the version durable. All of it was deleted, for a second sync would prove nothing; it
    /// must be fetched again.
    #[error("the version of manifest {} could not be made durable and was deleted; check the disk", manifest.short())]
    Fsync {
        /// The manifest.
        manifest: ManifestId,
        /// Which sync and why.
        #[source]
        source: IoError,
    },
    /// Files that lay in their place already, and that somebody else may just have written, could not be made durable. All that was
    /// fetched was deleted.
    #[error("files that lie in the place of manifest {} could not be made durable; check the disk", manifest.short())]
    FsyncInPlace {
        /// The manifest.
        manifest: ManifestId,
        /// What was read from them, which the disk may not have.
        files: Vec<UnsyncedFile>,
        /// Which sync and why.
        #[source]
        source: IoError,
    },
    /// The system could not make a part durable while the rest was on its way. The part was deleted, for a second sync
    /// would prove nothing; it must be fetched again.
    #[error("the part of {} could not be made durable and was deleted; check the disk", object.short())]
    PartFsync {
        /// The object.
        object: ObjectHash,
        /// Which sync and why.
        #[source]
        source: IoError,
    },
}

/// A file of somebody else in its final place, which could not be made durable: after that the kernel takes what it could not write for
/// written, and only whoever knows what was read can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsyncedFile {
    /// Where it lies, relative to the project directory.
    pub path: RelPath,
    /// What was read from it.
    pub object: ObjectHash,
    /// What identified it then.
    pub identity: FileIdentity,
}

impl IncomingError {
    /// Says whether room on the volume would help.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. }
            | Self::Fsync { source, .. }
            | Self::FsyncInPlace { source, .. }
            | Self::PartFsync { source, .. } => source.is_no_space(),
            _ => false,
        }
    }

    /// Says whether the user may not write there.
    pub fn is_not_allowed(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.is_not_allowed())
    }

    /// Says whether whoever sent the bytes is to blame.
    pub fn is_senders_fault(&self) -> bool {
        matches!(self, Self::BadBlock { .. } | Self::BlockListSize { .. })
    }
}
