//! Blocks: pieces of 1 MiB that are each a BLAKE3 subtree, so that they can be checked one by one against the object's
//! name, in any order and from any source.
//!
//! Source: the BLAKE3 paper, section 2.1 (the tree), and `blake3::hazmat`, which gives the chaining values of subtrees.
//! A subtree must be a power of two of 1 KiB chunks and start at a multiple of its length; 1 MiB is 1,024 chunks.

use std::ops::Range;

use blake3::hazmat::{HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use thiserror::Error;

use crate::{hash::ObjectHash, limits::MAX_OBJECT_BYTES};

/// The length of a block; only the last of an object is shorter.
pub const BLOCK_BYTES: u64 = 1 << 20;

/// The chaining value of one block: 32 bytes that verify it.
pub type BlockValue = [u8; 32];

/// The blocks of one object, proved to belong to its name.
///
/// There is no way to hold a list that does not verify: the constructors check it against the object's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockList {
    object: ObjectHash,
    size: u64,
    /// Empty for an object of a single block, whose hash is its own check.
    values: Vec<BlockValue>,
}

/// Why a block list was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlockListError {
    /// The number of values does not fit the size.
    #[error("the block list of {object} has {got} values, its size needs {expected}")]
    Count {
        /// The object that it should describe.
        object: ObjectHash,
        /// How many values the size needs.
        expected: u64,
        /// How many there are.
        got: u64,
    },
    /// The values do not hash to the object's name: the peer lies or its file is damaged.
    #[error("the block list of {object} does not hash to its name")]
    Mismatch {
        /// The object that it should describe.
        object: ObjectHash,
    },
    /// The size is over [`MAX_OBJECT_BYTES`].
    #[error("the object {object} of {size} bytes is larger than the limit of 8 TiB")]
    TooLarge {
        /// The object.
        object: ObjectHash,
        /// Its size in bytes.
        size: u64,
    },
}

/// Returns how many blocks an object of `size` bytes has; the empty object has one, of no bytes.
pub fn block_count(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES).max(1)
}

/// Returns the byte range of block `index` in an object of `size` bytes; empty when there is no such block.
pub fn block_range(size: u64, index: u64) -> Range<u64> {
    let start = index.saturating_mul(BLOCK_BYTES).min(size);
    start..start.saturating_add(BLOCK_BYTES).min(size)
}

/// Computes the chaining value of block `index`, which must be one of several blocks of its object.
pub fn block_value(index: u64, bytes: &[u8]) -> BlockValue {
    blake3::Hasher::new().set_input_offset(index * BLOCK_BYTES).update(bytes).finalize_non_root()
}

impl BlockList {
    /// Describes an object of a single block.
    ///
    /// # Errors
    /// [`BlockListError::Count`] when the size needs more blocks than one.
    pub fn single(object: ObjectHash, size: u64) -> Result<Self, BlockListError> {
        Self::verified(object, size, Vec::new())
    }

    /// Checks values that came from elsewhere against the object's name.
    ///
    /// An object of one block has no values; any other has one for each block.
    ///
    /// # Errors
    /// [`BlockListError`] when they do not belong together.
    pub fn verified(object: ObjectHash, size: u64, values: Vec<BlockValue>) -> Result<Self, BlockListError> {
        if size > MAX_OBJECT_BYTES {
            return Err(BlockListError::TooLarge { object, size });
        }
        let expected = Self::value_count(size);
        let got = values.len() as u64;
        if got != expected {
            return Err(BlockListError::Count { object, expected, got });
        }
        if expected > 0 && Self::root(&values, size) != object {
            return Err(BlockListError::Mismatch { object });
        }
        Ok(Self { object, size, values })
    }

    /// Names the object that these blocks make up; `values` are all of its blocks' values, at least two.
    pub fn of_values(size: u64, values: Vec<BlockValue>) -> Self {
        Self { object: Self::root(&values, size), size, values }
    }

    /// Returns how many values a list for `size` bytes has: none for a single block.
    pub fn value_count(size: u64) -> u64 {
        if block_count(size) == 1 { 0 } else { block_count(size) }
    }

    fn root(values: &[BlockValue], size: u64) -> ObjectHash {
        let (left, right) = Self::halves(values, size);
        let root = merge_subtrees_root(&left, &right, Mode::Hash);
        ObjectHash::from_bytes(*root.as_bytes())
    }

    fn halves(values: &[BlockValue], size: u64) -> (BlockValue, BlockValue) {
        let left_bytes = left_subtree_len(size);
        let middle = usize::try_from(left_bytes / BLOCK_BYTES).unwrap_or(usize::MAX);
        let (left, right) = values.split_at(middle.min(values.len()));
        (Self::subtree(left, left_bytes), Self::subtree(right, size - left_bytes))
    }

    fn subtree(values: &[BlockValue], size: u64) -> BlockValue {
        match values {
            [only] => *only,
            [] => [0; 32], // unreachable by the count check; a wrong value can only fail the comparison
            _ => {
                let (left, right) = Self::halves(values, size);
                merge_subtrees_non_root(&left, &right, Mode::Hash)
            }
        }
    }

    /// Returns the object's name.
    pub fn object(&self) -> ObjectHash {
        self.object
    }

    /// Returns the object's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the number of blocks.
    pub fn count(&self) -> u64 {
        block_count(self.size)
    }

    /// Returns the values, none for a single block.
    pub fn values(&self) -> &[BlockValue] {
        &self.values
    }

    /// Says whether `bytes` are exactly block `index` of this object.
    pub fn accepts(&self, index: u64, bytes: &[u8]) -> bool {
        let range = block_range(self.size, index);
        if index >= self.count() || bytes.len() as u64 != range.end - range.start {
            return false;
        }
        if self.values.is_empty() {
            return ObjectHash::of(bytes) == self.object;
        }
        let expected = usize::try_from(index).ok().and_then(|index| self.values.get(index));
        expected == Some(&block_value(index, bytes))
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small sizes in tests")]
mod tests {
    use super::*;

    const BLOCK: usize = BLOCK_BYTES as usize;

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i / 7 % 251) as u8).collect()
    }

    fn list(data: &[u8]) -> BlockList {
        let values = data.chunks(BLOCK).enumerate().map(|(i, block)| block_value(i as u64, block)).collect();
        BlockList::of_values(data.len() as u64, values)
    }

    #[test]
    fn merged_root_is_the_plain_hash_for_every_shape_of_tree() {
        for size in
            [BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK, 5 * BLOCK - 1, 7 * BLOCK + 1023, 8 * BLOCK]
        {
            let data = bytes(size);
            assert_eq!(list(&data).object(), ObjectHash::of(&data), "{size}");
        }
    }

    #[test]
    fn accepts_each_block_in_its_place_only() {
        let data = bytes(3 * BLOCK + 5);
        let list = list(&data);
        for (i, block) in data.chunks(BLOCK).enumerate() {
            assert!(list.accepts(i as u64, block));
            assert!(!list.accepts(i as u64 + 1, block));
            let mut flipped = block.to_vec();
            flipped[0] ^= 1;
            assert!(!list.accepts(i as u64, &flipped));
        }
        assert!(!list.accepts(4, &[]));
    }

    #[test]
    fn single_and_empty_objects_need_no_values() {
        for size in [0, 1, BLOCK] {
            let data = bytes(size);
            let list = BlockList::single(ObjectHash::of(&data), size as u64).unwrap();
            assert_eq!((list.count(), list.values().len()), (1, 0));
            assert!(list.accepts(0, &data));
            assert!(!list.accepts(0, b"something else"));
        }
    }

    #[test]
    fn refuses_values_of_another_object_another_count_or_an_absurd_size() {
        let data = bytes(2 * BLOCK);
        let good = list(&data);
        let mut values = good.values().to_vec();
        values.swap(0, 1);
        let (object, size) = (good.object(), good.size());
        assert_eq!(
            BlockList::verified(object, size, values.clone()),
            Err(BlockListError::Mismatch { object })
        );
        values.pop();
        assert_eq!(
            BlockList::verified(object, size, values),
            Err(BlockListError::Count { object, expected: 2, got: 1 })
        );
        assert!(BlockList::verified(object, u64::MAX, vec![]).is_err());
        assert!(BlockList::single(object, size).is_err());
    }
}
