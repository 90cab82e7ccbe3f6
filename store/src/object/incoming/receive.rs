//! Taking block lists and blocks from anywhere; nothing is written that does not verify.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt as _,
    sync::{Arc, atomic::Ordering},
};

use avalon_protocol::{block::BlockList, hash::ObjectHash};

use super::{
    Incoming, IncomingError,
    area::{blocks_name, part_name},
    slot::Slot,
};
use crate::{
    fs::{DIRECT_ALIGN_BYTES, preallocate, punch_hole},
    object::name::block_offset,
};

/// A block list for an object of this size or more is synced, so that not even a power cut costs the blocks that are
/// here; for a smaller one that would cost more than it saves.
const SYNCED_LIST_FROM_BYTES: u64 = 64 << 20;

/// Objects of this size or more are written past the page cache. Smaller ones are more likely to be read at once, and
/// reading this much again takes a tenth of a second.
const PAST_CACHE_FROM_BYTES: u64 = 64 << 20;

/// What became of a block that verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockWritten {
    /// It is stored, or was before; the object misses others.
    ObjectIncomplete,
    /// The object is complete.
    ObjectComplete,
}

impl Incoming {
    /// Makes sure that the volume has the room for everything that is missing, and takes it for large objects. To be
    /// called after [`Incoming::copy_local`] and before a transfer.
    ///
    /// # Errors
    /// [`IncomingError::NoSpace`], or [`IncomingError::Io`] with `is_no_space`.
    pub fn reserve(&self) -> Result<(), IncomingError> {
        let mut needed_bytes = 0;
        for slot in self.slots.values() {
            let state = slot.state();
            if !state.has_part && !state.present.is_full() {
                needed_bytes += slot.size;
            }
        }
        let free_bytes = self.project.free_bytes().map_err(|e| self.failed(e))?;
        if needed_bytes > free_bytes {
            return Err(IncomingError::NoSpace { needed_bytes, free_bytes });
        }
        for slot in self.slots.values().filter(|slot| !slot.is_single() && !slot.is_complete()) {
            let had_part = slot.state().has_part;
            let part = self.open_part(slot)?;
            if had_part {
                // An earlier run may have given its room back.
                self.take_room(slot, &part)?;
            }
        }
        Ok(())
    }

    /// Gives back the room that was taken for blocks that are not here, for others to use while this version waits; what is
    /// here stays. [`Incoming::reserve`] takes it again. Volumes that cannot make holes keep it taken.
    pub fn release_room(&self) {
        for slot in self.slots.values().filter(|slot| !slot.is_single() && !slot.is_complete()) {
            let (has_part, missing) = {
                let state = slot.state();
                (state.has_part, state.present.missing())
            };
            if !has_part {
                continue;
            }
            let holes = || {
                let part = self.parts.open_rw(&part_name(slot.object)).map_err(|e| self.failed(e))?;
                missing.iter().try_for_each(|blocks| {
                    let bytes = block_offset(blocks.start)..block_offset(blocks.end).min(slot.size);
                    punch_hole(&part, bytes)
                        .map_err(|e| self.part_failed("give back room of", &part_name(slot.object), e))
                })
            };
            if let Err(error) = holes() {
                tracing::debug!(%error, "room for blocks that are missing stays taken");
            }
        }
    }

    /// Takes the block list of an object of several blocks.
    ///
    /// # Errors
    /// [`IncomingError::BlockListSize`] when it is for another size, [`IncomingError::NotNeeded`], or
    /// [`IncomingError::Io`].
    pub fn set_blocks(&self, list: BlockList) -> Result<(), IncomingError> {
        let slot = self.slot(&list.object())?;
        if list.size() != slot.size {
            let (list_bytes, manifest_bytes) = (list.size(), slot.size);
            return Err(IncomingError::BlockListSize { object: slot.object, list_bytes, manifest_bytes });
        }
        if slot.state().blocks.is_some() {
            return Ok(());
        }
        self.save_blocks(&list)?;
        let is_unchecked = {
            let mut state = slot.state();
            state.blocks = Some(Arc::new(list));
            std::mem::take(&mut state.is_unchecked)
        };
        if is_unchecked { self.check_part(slot) } else { Ok(()) }
    }

    /// Not through the durable write: a torn list does not verify when it is read again, and is fetched again.
    fn save_blocks(&self, list: &BlockList) -> Result<(), IncomingError> {
        let name = blocks_name(list.object());
        let mut file = match self.parts.create_file(&name) {
            Err(error) if error.is_already_there() => self.parts.open_rw(&name),
            created => created,
        }
        .map_err(|e| self.failed(e))?;
        let mut write = || {
            file.write_all(list.values().as_flattened())?;
            file.set_len(list.values().as_flattened().len() as u64)?;
            if list.size() >= SYNCED_LIST_FROM_BYTES { file.sync_data() } else { Ok(()) }
        };
        write().map_err(|e| self.part_failed("write", &name, e))
    }

    /// Verifies a block and writes it; one that is here already is fine.
    ///
    /// # Errors
    /// [`IncomingError::BadBlock`] when it does not verify: nothing was written, drop the peer.
    /// [`IncomingError::NoBlockList`] before [`Incoming::set_blocks`]; [`IncomingError::NotNeeded`]; [`IncomingError::Io`].
    pub fn write_block(
        &self,
        object: &ObjectHash,
        index: u64,
        bytes: &[u8],
    ) -> Result<BlockWritten, IncomingError> {
        let slot = self.slot(object)?;
        let blocks = slot.state().blocks.clone().ok_or(IncomingError::NoBlockList { object: *object })?;
        if !blocks.accepts(index, bytes) {
            return Err(IncomingError::BadBlock { object: *object, index });
        }
        let _writing = self.writing();
        let is_here = slot.state().present.contains(index);
        if !is_here {
            self.write_part(slot, index, bytes)?;
        }
        let mut state = slot.state();
        state.present.insert(index);
        Ok(if state.present.is_full() {
            BlockWritten::ObjectComplete
        } else {
            BlockWritten::ObjectIncomplete
        })
    }

    fn write_part(&self, slot: &Slot, index: u64, bytes: &[u8]) -> Result<(), IncomingError> {
        let part = self.open_part(slot)?;
        if self.write_past_cache(slot, index, bytes) {
            return Ok(());
        }
        let written = part.write_all_at(bytes, block_offset(index));
        written.map_err(|e| self.part_failed("write", &part_name(slot.object), e))
    }

    /// Writes a block of a large object straight to the disk: the page cache costs a copy and the pages, which are then
    /// missing for what artists read. False when the block is not fit for that or it does not work: it is to be written as
    /// usual, which says why not.
    fn write_past_cache(&self, slot: &Slot, index: u64, bytes: &[u8]) -> bool {
        let is_aligned = bytes.as_ptr().align_offset(DIRECT_ALIGN_BYTES) == 0
            && bytes.len().is_multiple_of(DIRECT_ALIGN_BYTES);
        if slot.size < PAST_CACHE_FROM_BYTES || !is_aligned || !self.past_cache.load(Ordering::Relaxed) {
            return false;
        }
        let Ok(part) = self.parts.open_direct(&part_name(slot.object)) else {
            // Not every file system can; none learns it.
            self.past_cache.store(false, Ordering::Relaxed);
            return false;
        };
        part.write_all_at(bytes, block_offset(index)).is_ok()
    }

    /// Opens the part of an object, and makes it first when there is none: at its full length, so that a full volume
    /// shows here.
    fn open_part(&self, slot: &Slot) -> Result<File, IncomingError> {
        let name = part_name(slot.object);
        let mut state = slot.state();
        if state.has_part {
            drop(state);
            return self.parts.open_rw(&name).map_err(|e| self.failed(e));
        }
        let file = match self.parts.create_file(&name) {
            Err(error) if error.is_already_there() => self.parts.open_rw(&name),
            created => created,
        }
        .map_err(|e| self.failed(e))?;
        if !slot.is_single() {
            self.take_room(slot, &file)?;
        }
        state.has_part = true;
        Ok(file)
    }

    fn take_room(&self, slot: &Slot, part: &File) -> Result<(), IncomingError> {
        let failed = |errno| self.part_failed("reserve the room of", &part_name(slot.object), errno);
        preallocate(part, slot.size).map_err(failed)
    }
}
