//! Copying an object within this machine: a reflink where the volume shares blocks, a copy elsewhere, verified in both.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use avalon_protocol::block::BlockList;

use super::name::{Spread, block_offset, name_file};
use crate::fs::preallocate;

/// How the bytes came to be in the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyMeans {
    /// Both files share their blocks on disk until one changes.
    Reflink,
    /// They were read, hashed and written.
    Bytes,
}

/// Gives the new, empty file `to` the first `size` bytes of `from`, and names what arrived. The caller compares the name.
pub(crate) fn copy_and_name(from: &File, to: &File, size: u64) -> io::Result<(CopyMeans, BlockList)> {
    if size > 0 && reflink_copy::reflink_file(from, to).is_ok() {
        to.set_len(size)?;
        let blocks = name_file(to, size, Spread::Pool, &|_, _| Ok(()))?;
        return Ok((CopyMeans::Reflink, blocks));
    }
    preallocate(to, size)?;
    let write = |index, bytes: &[u8]| to.write_all_at(bytes, block_offset(index));
    Ok((CopyMeans::Bytes, name_file(from, size, Spread::Pool, &write)?))
}
