//! The header of a Blender file, and its blocks one after the other.

use std::io::SeekFrom;

use crate::inputs::{
    ScanError, Source,
    scan::{cut, read_array, read_bytes},
};

/// Most blocks of a file: a scene of a million objects has a few million.
const MAX_BLOCKS: u64 = 50_000_000;

/// How blocks begin, by the age of the file and the system that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heads {
    /// Code, length, old address, structure, count: pointers of four bytes.
    Small,
    /// The same with pointers of eight bytes.
    Wide,
    /// Since Blender 5.0: code, structure, old address, length, count, the last three of eight bytes.
    Long,
}

/// The beginning of one block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// What it is.
    pub(super) code: [u8; 4],
    /// The number of its structure in `DNA1`.
    pub(super) structure: u32,
    length: u64,
}

/// A Blender file from its start.
pub(super) struct Blocks<'a> {
    source: &'a mut dyn Source,
    heads: Heads,
    seen: u64,
}

impl<'a> Blocks<'a> {
    /// Reads the header.
    pub(super) fn open(source: &'a mut dyn Source) -> Result<Self, ScanError> {
        let magic: [u8; 7] = read_array(source)?;
        if &magic != b"BLENDER" {
            return Err(ScanError::Malformed { what: "not a Blender file" });
        }
        let [first, second] = read_array(source)?;
        let heads = match (first, second) {
            (b'_', b'v') => Heads::Small,
            (b'-', b'v') => Heads::Wide,
            (b'1', b'7') => {
                // `-01v` and four digits.
                let rest: [u8; 8] = read_array(source)?;
                if !rest.starts_with(b"-01v") {
                    return Err(ScanError::Unsupported { what: "a Blender file of a later format" });
                }
                return Ok(Self { source, heads: Heads::Long, seen: 0 });
            }
            (b'_' | b'-', b'V') => return Err(ScanError::Unsupported { what: "a big-endian file" }),
            _ => return Err(ScanError::Unsupported { what: "a Blender file of a later format" }),
        };
        read_array::<3>(source)?;
        Ok(Self { source, heads, seen: 0 })
    }

    /// Returns how long a pointer is in the file.
    pub(super) fn pointer_bytes(&self) -> usize {
        if self.heads == Heads::Small { 4 } else { 8 }
    }

    /// Reads the beginning of the next block; the file then stands at its content. `None` where the file ends.
    pub(super) fn next(&mut self) -> Result<Option<Block>, ScanError> {
        self.seen += 1;
        if self.seen > MAX_BLOCKS {
            return Err(ScanError::TooLarge { what: "the number of blocks", limit: MAX_BLOCKS });
        }
        let mut first = [0];
        if self.source.read(&mut first).map_err(ScanError::Read)? == 0 {
            return Ok(None);
        }
        let ([c0], [c1, c2, c3]) = (first, read_array::<3>(self.source)?);
        let code = [c0, c1, c2, c3];
        let (length, structure) = match self.heads {
            Heads::Small => {
                let [length, _address, structure, _count] = self.numbers()?;
                (u64::from(length), structure)
            }
            Heads::Wide => {
                let [length, _low, _high, structure, _count] = self.numbers()?;
                (u64::from(length), structure)
            }
            Heads::Long => {
                let [structure, _low, _high, length, length_high, _count, _count_high] = self.numbers()?;
                (u64::from(length_high) << 32 | u64::from(length), structure)
            }
        };
        Ok(Some(Block { code, structure, length }))
    }

    fn numbers<const N: usize>(&mut self) -> Result<[u32; N], ScanError> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = u32::from_le_bytes(read_array(self.source)?);
        }
        Ok(numbers)
    }

    /// Reads all of a block.
    pub(super) fn content(
        &mut self,
        block: &Block,
        limit: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, ScanError> {
        read_bytes(self.source, block.length, (what, limit))
    }

    /// Reads the first bytes of a block and goes past the rest.
    pub(super) fn beginning(&mut self, block: &Block, most: u64) -> Result<Vec<u8>, ScanError> {
        let read = block.length.min(most);
        let content = read_bytes(self.source, read, ("a block", most))?;
        self.pass(block.length - read)?;
        Ok(content)
    }

    /// Goes past a block.
    pub(super) fn skip(&mut self, block: &Block) -> Result<(), ScanError> {
        self.pass(block.length)
    }

    fn pass(&mut self, bytes: u64) -> Result<(), ScanError> {
        let bytes = i64::try_from(bytes).map_err(|_| ScanError::Malformed { what: "a block has no end" })?;
        if bytes > 0 {
            self.source.seek(SeekFrom::Current(bytes)).map_err(cut)?;
        }
        Ok(())
    }
}
