//! What an answer must be for what was asked for: lengths, ranges, and pieces of encoded content.

use std::ops::Range;

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList, block_count, block_range},
    wire::{Base, PieceEncoding, PieceHead, Want},
};

use super::seam::Terms;

/// Says whether a piece can be the next one of an object of `size` bytes of which the blocks `missing` are missing. Its
/// own bounds were checked when it was read.
pub(super) fn fits(head: &PieceHead, size: u64, missing: Range<u64>, terms: Terms) -> bool {
    let bytes =
        block_range(size, missing.start + head.blocks - 1).end - block_range(size, missing.start).start;
    let fits_base = |base: Base| {
        head.base_offset.checked_add(head.base_bytes).is_some_and(|end| end <= base.size)
            && head.base_bytes > 0
    };
    let encoding_fits = match head.encoding {
        PieceEncoding::Raw => head.blocks == 1 && head.bytes == bytes && head.base_bytes == 0,
        PieceEncoding::Zstd => head.bytes < bytes && head.base_bytes == 0 && terms.compress,
        PieceEncoding::Delta => head.bytes < bytes && terms.base.is_some_and(fits_base),
    };
    head.blocks <= missing.end - missing.start && encoding_fits
}

/// Returns how many values of a block list answer a want.
pub(super) fn list_values(want: &Want) -> u64 {
    if want.with_list { BlockList::value_count(want.size) } else { 0 }
}

/// Returns how many bytes of content answer a want whose range lies within the object.
pub(super) fn body_bytes(want: &Want) -> u64 {
    let start = want.first_block.saturating_mul(BLOCK_BYTES).min(want.size);
    let end = want.first_block.saturating_add(want.blocks).saturating_mul(BLOCK_BYTES).min(want.size);
    end - start
}

/// Says whether a want's range lies within its object.
pub(super) fn is_within(want: &Want) -> bool {
    let end = want.first_block.checked_add(want.blocks);
    end.is_some_and(|end| end <= block_count(want.size))
}

#[cfg(test)]
mod tests {
    use avalon_protocol::hash::ObjectHash;

    use super::*;

    #[test]
    fn a_piece_must_be_of_what_was_asked_for() {
        let size = 2 * BLOCK_BYTES + 100;
        let base = Base { want: 0, object: ObjectHash::of(b"base"), size: 1000 };
        let (plain, with_base) =
            (Terms { compress: false, base: None }, Terms { compress: true, base: Some(base) });
        let raw = PieceHead {
            blocks: 1,
            encoding: PieceEncoding::Raw,
            bytes: BLOCK_BYTES,
            base_offset: 0,
            base_bytes: 0,
        };
        let zstd = PieceHead { encoding: PieceEncoding::Zstd, bytes: 50, ..raw };
        let delta = PieceHead {
            blocks: 3,
            encoding: PieceEncoding::Delta,
            bytes: 50,
            base_offset: 10,
            base_bytes: 990,
        };
        for good in [raw, zstd, delta] {
            assert!(fits(&good, size, 0..3, with_base), "{good:?}");
        }
        assert!(fits(&PieceHead { bytes: 100, ..raw }, size, 2..3, plain), "the last block is shorter");
        let bad = [
            ("compressed without leave", zstd, 0..3, plain),
            ("a delta without a base", delta, 0..3, plain),
            ("beyond the base", PieceHead { base_offset: 11, ..delta }, 0..3, with_base),
            ("overflow", PieceHead { base_offset: u64::MAX, ..delta }, 0..3, with_base),
            ("no window", PieceHead { base_offset: 0, base_bytes: 0, ..delta }, 0..3, with_base),
            ("more blocks than wanted", delta, 0..2, with_base),
            ("longer than it is", PieceHead { bytes: BLOCK_BYTES, ..zstd }, 0..3, with_base),
            ("longer than the last block", PieceHead { bytes: 100, ..zstd }, 2..3, with_base),
            ("raw of another length", PieceHead { bytes: 5, ..raw }, 0..3, with_base),
            ("raw of two blocks", PieceHead { blocks: 2, ..raw }, 0..3, with_base),
        ];
        for (why, head, missing, terms) in bad {
            assert!(!fits(&head, size, missing, terms), "{why}");
        }
    }
}
