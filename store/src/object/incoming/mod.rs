//! The incoming area: where a version is put together from verified blocks before anybody can see it.
//!
//! ```text
//! {project}/.avalon/incoming/<manifest id>/
//!     parts/<object hash>           content under its hash alone, whole or in part
//!     parts/<object hash>.blocks    the block values of an object of several blocks
//!     parts/<object hash>.have      which blocks of a part of 16 blocks or more were synced
//!     parts/<object hash>.copy-<n>  a copy that is not verified yet; a crash may leave one, opening removes it
//!     tree/...                      the version as it will be, built at the end
//!     place                         where its files go one by one, as a path in the project; there from before the first moves
//! ```
//!
//! No block write waits for a sync; [`Incoming::finish`] makes all of it durable at once. What is believed after a crash are
//! the blocks that a claim names, written by [`Incoming::persist_progress`] after a sync of the part; everything else
//! [`Incoming::open`] hashes again, and counts what is good.

mod adopt;
mod area;
mod build;
mod claim;
mod error;
mod local_copy;
mod persist;
mod receive;
mod resume;
mod slot;

pub use self::{
    area::{Incoming, ObjectNeed, Progress},
    build::VerifiedVersion,
    error::{IncomingError, UnsyncedFile},
    local_copy::LocalCopy,
    receive::BlockWritten,
};
pub(crate) use self::{
    area::{area_path, note_place},
    build::VerifiedFile,
};

#[cfg(test)]
mod tests;
