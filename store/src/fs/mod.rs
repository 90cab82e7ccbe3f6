//! The file system, the only way to it: directory handles that nothing escapes, and the one durable-write primitive.
//!
//! Everything here blocks. A [`Dir`] is a capability: every path given to it is resolved beneath it, and a symbolic link
//! anywhere on the way is an error, whoever planted it and whenever. Linux; kernels without `openat2` get a walk by
//! parts with the same guarantee.

mod change;
mod dir;
mod durable;
mod error;
mod parents;
mod resolve;
mod stat;
mod volume;

pub(crate) use self::durable::FILES_SYNCED_ONE_BY_ONE;
pub use self::{
    change::Overwrite,
    dir::{DIRECT_ALIGN_BYTES, Dir, DirEntry},
    durable::WriteMode,
    error::IoError,
    stat::{FileIdentity, FileKind, FileStat},
    volume::FsKind,
};
pub(crate) use self::{
    dir::path_of,
    parents::Parents,
    volume::{preallocate, punch_hole},
};
