//! LZ4 blocks, and OpenUSD's framing of them.
//!
//! Source: the LZ4 block format description, and OpenUSD's `pxr/base/tf/fastCompression.h`: the first byte is the number of chunks; none
//! means that one block follows, else each chunk has its length before it.

use crate::inputs::ScanError;

const DAMAGED: ScanError = ScanError::Malformed { what: "a section does not decompress" };

/// Unpacks a section that says to be `unpacked` bytes long. Memory grows with what comes out, at most to `limit`.
///
/// # Errors
/// [`ScanError`] when it is longer than `limit`, damaged, or of another length than said.
pub(super) fn unpack(packed: &[u8], unpacked: u64, limit: u64) -> Result<Vec<u8>, ScanError> {
    if unpacked > limit {
        return Err(ScanError::TooLarge { what: "a section, decompressed,", limit });
    }
    let out = unpack_up_to(packed, unpacked)?;
    if out.len() as u64 == unpacked { Ok(out) } else { Err(DAMAGED) }
}

/// Unpacks what may be as long as `longest`.
///
/// # Errors
/// [`ScanError`] when it is longer, or damaged.
pub(super) fn unpack_up_to(packed: &[u8], longest: u64) -> Result<Vec<u8>, ScanError> {
    let longest = usize::try_from(longest).map_err(|_| DAMAGED)?;
    let mut out = Vec::new();
    let (chunks, mut rest) = packed.split_first().ok_or(DAMAGED)?;
    if *chunks == 0 {
        block(rest, &mut out, longest)?;
    }
    for _ in 0..*chunks {
        let (size, after) = rest.split_first_chunk::<4>().ok_or(DAMAGED)?;
        let size = usize::try_from(u32::from_le_bytes(*size)).map_err(|_| DAMAGED)?;
        let (chunk, after) = after.split_at_checked(size).ok_or(DAMAGED)?;
        // A chunk refers to nothing before it.
        let mut piece = Vec::new();
        block(chunk, &mut piece, longest - out.len())?;
        out.append(&mut piece);
        rest = after;
    }
    Ok(out)
}

/// Unpacks one block to the end of `out`, which holds nothing yet.
fn block(mut packed: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), ScanError> {
    loop {
        let Some((token, rest)) = packed.split_first() else { return Ok(()) };
        packed = rest;
        let literals = length(usize::from(token >> 4), &mut packed)?;
        let (text, rest) = packed.split_at_checked(literals).ok_or(DAMAGED)?;
        packed = rest;
        has_room(out, text.len(), limit)?;
        out.extend_from_slice(text);
        // The last sequence has no match.
        let Some((offset, rest)) = packed.split_first_chunk::<2>() else {
            return if packed.is_empty() { Ok(()) } else { Err(DAMAGED) };
        };
        packed = rest;
        let matched = length(usize::from(token & 15), &mut packed)?.checked_add(4).ok_or(DAMAGED)?;
        has_room(out, matched, limit)?;
        repeat(out, usize::from(u16::from_le_bytes(*offset)), matched)?;
    }
}

fn has_room(out: &[u8], more: usize, limit: usize) -> Result<(), ScanError> {
    if more <= limit.saturating_sub(out.len()) { Ok(()) } else { Err(DAMAGED) }
}

/// Fifteen means that more follows: bytes that are added up, until one is not 255.
fn length(short: usize, packed: &mut &[u8]) -> Result<usize, ScanError> {
    let mut length = short;
    if short == 15 {
        loop {
            let (more, rest) = packed.split_first().ok_or(DAMAGED)?;
            *packed = rest;
            length = length.checked_add(usize::from(*more)).ok_or(DAMAGED)?;
            if *more != 255 {
                break;
            }
        }
    }
    Ok(length)
}

/// Appends `count` bytes from `offset` before the end; they may overlap what they make.
fn repeat(out: &mut Vec<u8>, offset: usize, count: usize) -> Result<(), ScanError> {
    let start = out.len().checked_sub(offset).filter(|_| offset > 0).ok_or(DAMAGED)?;
    let mut left = count;
    while left > 0 {
        let step = left.min(out.len() - start);
        out.extend_from_within(start..start + step);
        left -= step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literals_matches_and_overlaps_are_unpacked() {
        // "abc", then 9 bytes from 3 back, then "z" as the last literal.
        let packed = [0, 0x35, b'a', b'b', b'c', 3, 0, 0x10, b'z'];
        assert_eq!(unpack(&packed, 13, 100).unwrap(), b"abcabcabcabcz");
        let long = [&[0, 0xf0, 255, 0][..], &[b'x'; 270], &[]].concat();
        assert_eq!(unpack(&long, 270, 1000).unwrap(), [b'x'; 270]);
        let two = [&[2][..], &[2, 0, 0, 0, 0x10, b'a'], &[2, 0, 0, 0, 0x10, b'b']].concat();
        assert_eq!(unpack(&two, 2, 10).unwrap(), b"ab");
    }

    #[test]
    fn lies_about_lengths_are_refused_before_memory_is_taken() {
        let packed = [0, 0x35, b'a', b'b', b'c', 3, 0, 0x10, b'z'];
        assert!(matches!(unpack(&packed, 13, 12), Err(ScanError::TooLarge { .. })));
        for wrong in [12, 14] {
            assert!(unpack(&packed, wrong, 100).is_err(), "{wrong}");
        }
        assert!(unpack(&[0, 0x00, 1, 0], 4, 100).is_err(), "refers to before the start");
        assert!(unpack(&[0, 0x10, b'a', 0, 0], 5, 100).is_err(), "an offset of nothing");
        assert!(unpack(&[3, 255, 255, 255, 255], 4, 100).is_err());
        assert!(unpack(&[], 0, 100).is_err());
        // One byte, repeated a quarter of a million times.
        let bomb = [&[0, 0x1f, b'a', 1, 0][..], &[255; 1000], &[0]].concat();
        assert!(unpack_up_to(&bomb, 100).is_err());
        assert_eq!(unpack_up_to(&bomb, 1 << 20).unwrap().len(), 1 + 15 + 255 * 1000 + 4);
    }

    proptest! {
        #[test]
        fn any_bytes_are_unpacked_or_refused(packed: Vec<u8>, unpacked in 0..5000u64) {
            if let Ok(bytes) = unpack(&packed, unpacked, 4096) {
                prop_assert_eq!(bytes.len() as u64, unpacked);
            }
        }
    }
}
