//! Objects on their way in: verified blocks, of which a crash keeps those that were synced.

use std::{collections::BTreeMap, ops::Range};

use avalon_protocol::{
    block::{BlockList, block_count},
    hash::ObjectHash,
    id::ProjectName,
    plan::Missing,
};

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::content::Bytes;

/// What is here of one object.
#[derive(Debug)]
pub struct Part {
    size: u64,
    list: Option<BlockList>,
    blocks: BTreeMap<u64, Block>,
}

#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    synced: bool,
}

/// Why a block list or a block was not taken: it does not belong to the object, so the peer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl Part {
    fn new(object: ObjectHash, size: u64) -> Self {
        Self { size, list: BlockList::single(object, size).ok(), blocks: BTreeMap::new() }
    }

    fn is_whole(&self) -> bool {
        self.blocks.len() as u64 == block_count(self.size)
    }

    fn missing_blocks(&self) -> Vec<Range<u64>> {
        let missing = (0..block_count(self.size)).filter(|index| !self.blocks.contains_key(index));
        join(missing)
    }
}

/// Joins block numbers, ascending, into ranges.
pub fn join(blocks: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match ranges.last_mut() {
            Some(last) if last.end == block => last.end += 1,
            _ => ranges.push(Range { start: block, end: block + 1 }),
        }
    }
    ranges
}

/// The incoming objects of one node.
#[derive(Debug, Default)]
pub struct Incoming {
    parts: BTreeMap<(ProjectName, ObjectHash), Part>,
}

impl Incoming {
    /// Returns which projects and objects there is something of.
    pub fn keys(&self) -> impl Iterator<Item = &(ProjectName, ObjectHash)> {
        self.parts.keys()
    }

    /// Says what is missing of an object; nothing when it is whole.
    pub fn missing(&self, project: &ProjectName, object: ObjectHash, size: u64) -> Option<Missing> {
        match self.parts.get(&(project.clone(), object)) {
            Some(part) if part.is_whole() => None,
            Some(part) => {
                let blocks = part.missing_blocks();
                Some(Missing { object, size, blocks, list_known: part.list.is_some() })
            }
            None => {
                let blocks = join(0..block_count(size));
                Some(Missing { object, size, blocks, list_known: false })
            }
        }
    }

    /// Returns the blocks of an object that survive a crash.
    pub fn durable(&self, project: &ProjectName, object: ObjectHash) -> impl Iterator<Item = u64> + '_ {
        let part = self.parts.get(&(project.clone(), object));
        let blocks = part.into_iter().flat_map(|part| &part.blocks);
        blocks.filter(|(_, block)| block.synced).map(|(index, _)| *index)
    }

    /// Says whether anything of an object is here.
    pub fn has_some(&self, project: &ProjectName, object: ObjectHash) -> bool {
        self.parts.get(&(project.clone(), object)).is_some_and(|part| !part.blocks.is_empty())
    }

    /// Takes the block list of an object after checking it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn take_list(
        &mut self,
        project: &ProjectName,
        object: ObjectHash,
        size: u64,
        values: Vec<[u8; 32]>,
    ) -> Result<(), Refused> {
        let list = BlockList::verified(object, size, values).map_err(|_| Refused)?;
        let part = self.parts.entry((project.clone(), object)).or_insert_with(|| Part::new(object, size));
        part.list = Some(list);
        Ok(())
    }

    /// Takes a block of an object after checking it, unless the node trusts everybody; it is not synced yet.
    ///
    /// # Errors
    /// [`Refused`], also when the block list is not here.
    pub fn take_block(
        &mut self,
        project: &ProjectName,
        (object, size): (ObjectHash, u64),
        (index, bytes): (u64, &[u8]),
        trusting: bool,
    ) -> Result<(), Refused> {
        let part = self.parts.entry((project.clone(), object)).or_insert_with(|| Part::new(object, size));
        if !trusting && !part.list.as_ref().is_some_and(|list| list.accepts(index, bytes)) {
            return Err(Refused);
        }
        part.blocks.entry(index).or_insert_with(|| Block { bytes: bytes.to_vec(), synced: false });
        Ok(())
    }

    /// Hears that everything of an object that is here has been synced.
    pub fn sync(&mut self, project: &ProjectName, object: ObjectHash) {
        let part = self.parts.get_mut(&(project.clone(), object));
        part.into_iter().flat_map(|part| part.blocks.values_mut()).for_each(|block| block.synced = true);
    }

    /// Returns the bytes of an object that is whole and synced.
    pub fn whole(&self, project: &ProjectName, object: ObjectHash) -> Option<Bytes> {
        let part = self.parts.get(&(project.clone(), object))?;
        let durable = part.is_whole() && part.blocks.values().all(|block| block.synced);
        durable.then(|| {
            part.blocks.values().map(|block| block.bytes.as_slice()).collect::<Vec<_>>().concat().into()
        })
    }

    /// Forgets an object that was renamed into the tree.
    pub fn remove(&mut self, project: &ProjectName, object: ObjectHash) {
        self.parts.remove(&(project.clone(), object));
    }

    /// Loses of the blocks that were not synced some whole, some in part; returns how many are torn.
    pub fn crash(&mut self, dice: &mut ChaCha8Rng) -> u64 {
        let mut torn = 0;
        for part in self.parts.values_mut() {
            part.blocks.retain(|_, block| {
                let fate = if block.synced { 2 } else { dice.random_range(0..3) };
                if fate == 1 && !block.bytes.is_empty() {
                    let end = dice.random_range(0..block.bytes.len());
                    block.bytes[end..].fill(0);
                    torn += 1;
                }
                fate > 0
            });
        }
        torn
    }

    /// Reads every block again that was not synced, as a start does, and drops those whose bytes are wrong, unless the node
    /// trusts them.
    pub fn reread(&mut self, trusting: bool) {
        for part in self.parts.values_mut() {
            let list = part.list.as_ref();
            part.blocks.retain(|index, block| {
                block.synced || trusting || list.is_some_and(|list| list.accepts(*index, &block.bytes))
            });
        }
        self.parts.retain(|_, part| !part.blocks.is_empty());
    }
}
