//! What is known of one object while it is incoming.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avalon_protocol::{
    block::{BlockList, block_count},
    hash::ObjectHash,
};

use crate::object::block_set::BlockSet;

/// One distinct object that at least one file needs which is not in place.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) object: ObjectHash,
    pub(super) size: u64,
    /// The files that need it, as numbers in the manifest, ascending; at least one.
    pub(super) files: Vec<usize>,
    state: Mutex<SlotState>,
}

#[derive(Debug)]
pub(super) struct SlotState {
    /// The verified list; from the start for an object of one block.
    pub(super) blocks: Option<Arc<BlockList>>,
    pub(super) present: BlockSet,
    /// The part has its full length on disk.
    pub(super) has_part: bool,
    /// The part is from an earlier run whose block list is lost: look at it when the list comes.
    pub(super) is_unchecked: bool,
    /// How many bytes the last claim about the part names.
    pub(super) claimed_bytes: u64,
}

impl Slot {
    pub(super) fn new(object: ObjectHash, size: u64) -> Self {
        let state = SlotState {
            blocks: BlockList::single(object, size).ok().map(Arc::new),
            present: BlockSet::empty(size),
            has_part: false,
            is_unchecked: false,
            claimed_bytes: 0,
        };
        Self { object, size, files: Vec::new(), state: Mutex::new(state) }
    }

    /// Looks at or changes the state; held for moments only, a panic elsewhere leaves it usable.
    pub(super) fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.state().present.is_full()
    }

    pub(super) fn is_single(&self) -> bool {
        block_count(self.size) == 1
    }

    /// Notes that the whole object is here.
    pub(super) fn complete(&self) {
        let mut state = self.state();
        state.present.fill();
        state.has_part = true;
        state.is_unchecked = false;
        state.claimed_bytes = 0;
    }

    /// Forgets everything but the block list.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        state.present.clear();
        state.has_part = false;
        state.is_unchecked = false;
        state.claimed_bytes = 0;
        if is_empty_object(self.object, self.size) {
            state.present.fill();
        }
    }
}

/// Says whether an object is the empty one, which nobody needs to send.
pub(super) fn is_empty_object(object: ObjectHash, size: u64) -> bool {
    size == 0 && object == ObjectHash::of(b"")
}
