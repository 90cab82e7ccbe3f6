//! The incoming area: where a version is put together from verified blocks before anybody can see it.
//!
//! ```text
//! {project}/.avalon/incoming/<manifest id>/
//!     parts/<object hash>           content under its hash alone, whole or in part
//!     parts/<object hash>.blocks    the block values of an object of several blocks
//!     parts/<object hash>.copy-<n>  a copy that is not verified yet; a crash may leave one, opening removes it
//!     tree/...                      the version as it will be, built at the end
//! ```
//!
//! Nothing here is believed after a crash: [`Incoming::open`] hashes every part again and counts what is good. So nothing
//! has to be synced while blocks arrive; [`Incoming::finish`] does that once.

mod adopt;
mod area;
mod build;
mod error;
mod local_copy;
mod receive;
mod resume;
mod slot;

pub(crate) use self::{area::area_path, build::VerifiedFile};
pub use self::{
    area::{Incoming, ObjectNeed, Progress},
    build::VerifiedVersion,
    error::IncomingError,
    local_copy::LocalCopy,
    receive::BlockWritten,
};

#[cfg(test)]
mod tests;
