//! Which blocks of an object are here.

use std::ops::Range;

use avalon_protocol::block::block_count;

use super::name::block_bytes;

/// A set of block numbers of one object: one bit for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockSet {
    object_bytes: u64,
    words: Vec<u64>,
    count: u64,
}

impl BlockSet {
    /// Makes the empty set for an object of this size.
    pub(crate) fn empty(object_bytes: u64) -> Self {
        let words = usize::try_from(block_count(object_bytes).div_ceil(64)).unwrap_or(usize::MAX);
        Self { object_bytes, words: vec![0; words], count: 0 }
    }

    /// Takes the set from the bits of its blocks, 64 to a word and the lowest first; `None` when that is no set of this
    /// object's blocks.
    pub(crate) fn from_words(object_bytes: u64, words: Vec<u64>) -> Option<Self> {
        let blocks = block_count(object_bytes);
        let used = blocks % 64;
        let has_stray_bits = used != 0 && words.last().is_some_and(|last| *last >> used != 0);
        if words.len() as u64 != blocks.div_ceil(64) || has_stray_bits {
            return None;
        }
        let count = words.iter().map(|word| u64::from(word.count_ones())).sum();
        Some(Self { object_bytes, words, count })
    }

    /// Returns the bits of its blocks, 64 to a word and the lowest first.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Returns the size of the object whose blocks these are.
    pub(crate) fn object_bytes(&self) -> u64 {
        self.object_bytes
    }

    /// Adds a block; one that the object does not have is ignored.
    pub(crate) fn insert(&mut self, index: u64) {
        if index >= block_count(self.object_bytes) {
            return;
        }
        if let Some((word, bit)) =
            word_of(index).and_then(|(word, bit)| Some((self.words.get_mut(word)?, bit)))
        {
            self.count += u64::from(*word & bit == 0);
            *word |= bit;
        }
    }

    /// Adds all blocks.
    pub(crate) fn fill(&mut self) {
        for index in 0..block_count(self.object_bytes) {
            self.insert(index);
        }
    }

    /// Removes all blocks.
    pub(crate) fn clear(&mut self) {
        *self = Self::empty(self.object_bytes);
    }

    pub(crate) fn contains(&self, index: u64) -> bool {
        let found = word_of(index).and_then(|(word, bit)| Some(self.words.get(word)? & bit != 0));
        found.unwrap_or(false)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count == block_count(self.object_bytes)
    }

    /// Returns how many blocks are in the set.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns how many bytes the blocks of the set have together.
    pub(crate) fn bytes(&self) -> u64 {
        let last = block_count(self.object_bytes) - 1;
        let whole = block_bytes(self.object_bytes, 0);
        let short = if self.contains(last) { whole - block_bytes(self.object_bytes, last) } else { 0 };
        self.count * whole - short
    }

    /// Returns the blocks that are not in the set, in runs, ascending.
    pub(crate) fn missing(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        if self.is_full() {
            return runs;
        }
        for index in (0..block_count(self.object_bytes)).filter(|index| !self.contains(*index)) {
            match runs.last_mut() {
                Some(run) if run.end == index => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        runs
    }
}

fn word_of(index: u64) -> Option<(usize, u64)> {
    Some((usize::try_from(index / 64).ok()?, 1 << (index % 64)))
}

#[cfg(test)]
mod tests {
    use avalon_protocol::block::BLOCK_BYTES;

    use super::*;

    #[test]
    fn counts_blocks_and_bytes_with_a_short_last_block() {
        let mut set = BlockSet::empty(69 * BLOCK_BYTES + 5);
        assert_eq!(set.missing(), [0..70]);
        for index in [0, 1, 69, 69, 70, u64::MAX] {
            set.insert(index);
        }
        assert_eq!(set.bytes(), 2 * BLOCK_BYTES + 5);
        assert_eq!(set.missing(), [2..69]);
        set.insert(40);
        assert_eq!(set.missing(), [2..40, 41..69]);
        set.fill();
        assert!(set.is_full() && set.missing().is_empty());
        assert_eq!(set.bytes(), 69 * BLOCK_BYTES + 5);
        set.clear();
        assert_eq!((set.bytes(), set.contains(0)), (0, false));
    }

    #[test]
    fn a_set_of_words_has_no_block_that_the_object_does_not_have() {
        let size = 69 * BLOCK_BYTES + 5;
        let mut set = BlockSet::empty(size);
        [0, 63, 64, 69].into_iter().for_each(|index| set.insert(index));
        assert_eq!(BlockSet::from_words(size, set.words().to_vec()), Some(set));
        for words in [vec![0], vec![0; 3], vec![0, 1 << 6], vec![]] {
            assert_eq!(BlockSet::from_words(size, words), None);
        }
        let whole = BlockSet::from_words(64 * BLOCK_BYTES, vec![u64::MAX]).unwrap();
        assert!(whole.is_full());
    }

    #[test]
    fn the_empty_object_has_one_block_of_no_bytes() {
        let mut set = BlockSet::empty(0);
        assert_eq!(set.missing(), [0..1]);
        set.insert(0);
        assert!(set.is_full());
        assert_eq!(set.bytes(), 0);
    }
}
