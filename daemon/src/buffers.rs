//! Buffers of one block that are used again while a transfer runs.
//!
//! A fresh mebibyte costs the kernel 256 pages to find and to clear, about what it costs to read the block into it. The
//! buffers begin at a page, so that a disk can take them without a copy.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use avalon_store::fs::DIRECT_ALIGN_BYTES;
use bytes::Bytes;

/// Buffers that are kept for the next taker: two for each stream of a transfer.
const KEPT: usize = 8;
/// What a buffer has at least: a block, wherever the page begins.
const ROOM_BYTES: usize = (1 << 20) + DIRECT_ALIGN_BYTES;

/// From this length on a buffer is used again. A shorter one is one of its own: many of them may be held at once.
pub(crate) const POOLED_BYTES: usize = 256 << 10;

/// Finds the shelf that others use already. Clones find the same one.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Mutex<Weak<Shelf>>>);

impl Buffers {
    /// Returns the shelf; a new one when nobody has it, so that a daemon that transfers nothing holds no memory for it.
    pub fn shelf(&self) -> Arc<Shelf> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.upgrade().unwrap_or_else(|| {
            let shelf = Arc::default();
            *known = Arc::downgrade(&shelf);
            shelf
        })
    }
}

/// Buffers that nobody uses at the moment, at most 8 of a block each.
#[derive(Debug, Default)]
pub struct Shelf {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Shelf {
    /// Takes a buffer of `bytes` bytes; what is in it is of no meaning. How many are out is for the callers to bound.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Buffer {
        if bytes < POOLED_BYTES {
            return Buffer { room: vec![0; bytes], start: 0, bytes, shelf: Arc::clone(self) };
        }
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let needed = bytes.saturating_add(DIRECT_ALIGN_BYTES).max(ROOM_BYTES);
        let room = free.filter(|room| room.len() >= needed).unwrap_or_else(|| vec![0; needed]);
        let start = room.as_ptr().align_offset(DIRECT_ALIGN_BYTES);
        Buffer { room, start, bytes, shelf: Arc::clone(self) }
    }
}

/// A buffer; dropping it puts it back on its shelf.
#[derive(Debug)]
pub struct Buffer {
    room: Vec<u8>,
    start: usize,
    bytes: usize,
    shelf: Arc<Shelf>,
}

impl Buffer {
    /// Returns the bytes to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.room.get_mut(self.start..self.start + self.bytes).unwrap_or_default()
    }

    /// Makes it immutable and shared; the last of the clones puts it back.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.room.get(self.start..self.start + self.bytes).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.shelf.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT && self.room.len() >= ROOM_BYTES {
            free.push(std::mem::take(&mut self.room));
        }
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::block::BLOCK_BYTES;

    use super::*;

    fn place(buffer: &Buffer) -> *const u8 {
        buffer.as_ref().as_ptr()
    }

    #[test]
    fn a_buffer_begins_at_a_page_and_is_taken_again_when_the_last_clone_is_gone() {
        let shelf = Buffers::default().shelf();
        let mut buffer = shelf.take(1 << 20);
        buffer.bytes_mut().fill(7);
        let first = place(&buffer);
        assert_eq!(first.align_offset(DIRECT_ALIGN_BYTES), 0);
        assert_eq!(buffer.room.len() as u64, BLOCK_BYTES + DIRECT_ALIGN_BYTES as u64);
        let shared = buffer.freeze();
        let clone = shared.slice(5..9);
        drop(shared);
        assert_ne!(place(&shelf.take(1 << 20)), first, "a clone lives");
        assert_eq!(clone[..], [7; 4]);
        drop(clone);
        drop(shelf.take(1));
        assert_eq!(place(&shelf.take(1 << 20)), first);
    }

    #[test]
    fn one_that_is_too_short_is_not_taken() {
        let shelf = Buffers::default().shelf();
        drop(shelf.take(1 << 20));
        assert_eq!(shelf.take(3 << 20).bytes_mut().len(), 3 << 20);
    }

    #[test]
    fn few_are_kept_and_none_when_nobody_has_the_shelf() {
        let buffers = Buffers::default();
        let shelf = buffers.shelf();
        drop((0..2 * KEPT).map(|_| shelf.take(1 << 20)).collect::<Vec<_>>());
        assert_eq!(buffers.shelf().free.lock().unwrap().len(), KEPT);
        drop(shelf);
        assert_eq!(buffers.shelf().free.lock().unwrap().len(), 0);
    }
}
