//! The one pass over a file's bytes that gives the object's name and its block values.
//!
//! Files are read by position into small buffers, never mapped: a mapped file that shrinks, or a network mount that goes
//! away, kills the process.

use std::{
    cell::RefCell,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicU64, Ordering},
};

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList, BlockValue, block_count, block_range, block_value},
    hash::ObjectHash,
};
use rayon::prelude::*;

/// Who does the work on one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// The calling thread alone.
    Here,
    /// All threads of the pool that the caller runs on.
    Pool,
}

/// Blocks that a thread takes at once: reads stay in long runs, as disks and network mounts like them.
const BLOCKS_AT_ONCE: u64 = 4;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads a file of `size` bytes once and names it. `on_block` is called with each block as it was read, in any order and
/// from any thread of the pool.
///
/// Memory: one block for each thread, and 32 bytes for each block.
pub(crate) fn name_file(
    file: &File,
    size: u64,
    spread: Spread,
    on_block: &(dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
) -> io::Result<BlockList> {
    if block_count(size) == 1 {
        let object = with_block(file, size, 0, |bytes| {
            on_block(0, bytes)?;
            Ok(ObjectHash::of(bytes))
        })?;
        return BlockList::single(object, size).map_err(io::Error::other);
    }
    let value = |index| {
        with_block(file, size, index, |bytes| {
            on_block(index, bytes)?;
            Ok(block_value(index, bytes))
        })
    };
    let values = match spread {
        Spread::Here => (0..block_count(size)).map(value).collect::<io::Result<_>>()?,
        Spread::Pool => values_by_pool(block_count(size), &value)?,
    };
    Ok(BlockList::of_values(size, values))
}

/// Reads block `index` of a file of `size` bytes into this thread's buffer and hands it on. A file that is shorter gives
/// `UnexpectedEof`.
pub(crate) fn with_block<T>(
    file: &File,
    size: u64,
    index: u64,
    then: impl FnOnce(&[u8]) -> io::Result<T>,
) -> io::Result<T> {
    let range = block_range(size, index);
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    // Taken out for the call, so that a pool that runs another task of this thread meanwhile finds the place free.
    let mut buffer = BUFFER.take();
    buffer.resize(length.max(buffer.len()), 0);
    let answer = match buffer.get_mut(..length) {
        Some(bytes) => file.read_exact_at(bytes, range.start).and_then(|()| then(bytes)),
        None => Err(io::ErrorKind::OutOfMemory.into()),
    };
    BUFFER.set(buffer);
    answer
}

/// The threads take short runs of blocks from a common counter, so that together they read the file from front to back.
fn values_by_pool(
    blocks: u64,
    value: &(dyn Fn(u64) -> io::Result<BlockValue> + Sync),
) -> io::Result<Vec<BlockValue>> {
    let next = AtomicU64::new(0);
    let threads = rayon::current_num_threads();
    let runs = (0..threads).into_par_iter().map(|_| {
        let mut mine = Vec::new();
        loop {
            let first = next.fetch_add(BLOCKS_AT_ONCE, Ordering::Relaxed);
            if first >= blocks {
                return Ok(mine);
            }
            for index in first..(first + BLOCKS_AT_ONCE).min(blocks) {
                mine.push((index, value(index)?));
            }
        }
    });
    let runs: io::Result<Vec<Vec<(u64, BlockValue)>>> = runs.collect();
    let mut all: Vec<(u64, BlockValue)> = runs?.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, value)| value).collect())
}

/// Returns the length of block `index` in bytes.
pub(crate) fn block_bytes(size: u64, index: u64) -> u64 {
    let range = block_range(size, index);
    range.end - range.start
}

/// Returns where block `index` begins.
pub(crate) fn block_offset(index: u64) -> u64 {
    index.saturating_mul(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::object::fixture::{BLOCK, bytes};

    #[test]
    fn the_name_is_the_plain_hash_for_many_sizes_here_and_by_a_pool() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 7, 17 * BLOCK + 1] {
            let data = bytes(size, 1);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&data).unwrap();
            let seen = AtomicU64::new(0);
            let count = |_, bytes: &[u8]| {
                seen.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(())
            };
            let here = name_file(&file, size as u64, Spread::Here, &count).unwrap();
            let pooled = pool.install(|| name_file(&file, size as u64, Spread::Pool, &count)).unwrap();
            assert_eq!(here.object().as_bytes(), blake3::hash(&data).as_bytes(), "{size}");
            assert_eq!(here, pooled, "{size}");
            assert_eq!(seen.into_inner(), 2 * size as u64);
            BlockList::verified(here.object(), size as u64, here.values().to_vec()).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_shorter_than_said_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(BLOCK_BYTES + 5).unwrap();
        let named = name_file(&file, BLOCK_BYTES + 6, Spread::Here, &|_, _| Ok(()));
        assert_eq!(named.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
