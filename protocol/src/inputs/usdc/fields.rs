//! The fields of a crate file: pairs of a name and a value, each pair once for the whole file.
//!
//! Source for the packed numbers: OpenUSD's `pxr/usd/sdf/integerCoding.h`. A list of 32-bit numbers is kept as differences: the
//! commonest difference, two bits for each number (common, one byte, two, four), then the bytes of those that are not common.

use super::{MAX_SECTION_BYTES, Section, lz4, read_u64};
use crate::inputs::{
    ScanError, Source,
    scan::{go_to, read_bytes},
};

/// Most fields of one file.
const MAX_FIELDS: u64 = 1 << 20;

const DAMAGED: ScanError = ScanError::Malformed { what: "the fields do not decode" };

/// One field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// The number of the token that names it.
    pub(super) name: u32,
    /// Its value, or where that lies.
    pub(super) value: u64,
}

/// Reads all fields.
pub(super) fn read(source: &mut dyn Source, section: &Section) -> Result<Vec<Field>, ScanError> {
    if section.bytes > MAX_SECTION_BYTES {
        return Err(ScanError::TooLarge { what: "the section of fields", limit: MAX_SECTION_BYTES });
    }
    go_to(source, section.start)?;
    let count = read_u64(source)?;
    if count > MAX_FIELDS {
        return Err(ScanError::TooLarge { what: "the number of fields", limit: MAX_FIELDS });
    }
    let names = read_packed(source)?;
    let names = integers(&names, count)?;
    let values = read_packed(source)?;
    let values = lz4::unpack(&values, count * 8, MAX_SECTION_BYTES)?;
    let values = values.chunks_exact(8).filter_map(|eight| Some(u64::from_le_bytes(eight.try_into().ok()?)));
    Ok(names.into_iter().zip(values).map(|(name, value)| Field { name, value }).collect())
}

fn read_packed(source: &mut dyn Source) -> Result<Vec<u8>, ScanError> {
    let length = read_u64(source)?;
    read_bytes(source, length, ("the section of fields", MAX_SECTION_BYTES))
}

/// Unpacks `count` numbers.
fn integers(packed: &[u8], count: u64) -> Result<Vec<u32>, ScanError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let coded = unpack_coded(packed, count)?;
    let (common, rest) = coded.split_first_chunk::<4>().ok_or(DAMAGED)?;
    let common = i32::from_le_bytes(*common);
    let codes = usize::try_from(count.div_ceil(4)).map_err(|_| DAMAGED)?;
    let (codes, mut rest) = rest.split_at_checked(codes).ok_or(DAMAGED)?;
    let mut number = 0i32;
    let mut numbers = Vec::new();
    for index in 0..usize::try_from(count).map_err(|_| DAMAGED)? {
        let code = codes.get(index / 4).ok_or(DAMAGED)? >> (2 * (index % 4)) & 3;
        let difference = match code {
            0 => common,
            1 => i32::from(i8::from_le_bytes(*take(&mut rest)?)),
            2 => i32::from(i16::from_le_bytes(*take(&mut rest)?)),
            _ => i32::from_le_bytes(*take(&mut rest)?),
        };
        number = number.wrapping_add(difference);
        numbers.push(number.cast_unsigned());
    }
    Ok(numbers)
}

/// How long the coded numbers are is not written down: it is known when they are unpacked.
fn unpack_coded(packed: &[u8], count: u64) -> Result<Vec<u8>, ScanError> {
    let longest = 4 + count.div_ceil(4) + 4 * count;
    lz4::unpack_up_to(packed, longest)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N], ScanError> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or(DAMAGED)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Literals only, in one block.
    fn packed(bytes: &[u8]) -> Vec<u8> {
        assert!(bytes.len() < 15);
        [&[0, u8::try_from(bytes.len() << 4).unwrap()][..], bytes].concat()
    }

    #[test]
    fn differences_of_every_length_are_added_up() {
        // Common 2; then codes 0, 1, 2, 3 and 0: +2, -1, +300, +70000, +2.
        let coded = [2, 0, 0, 0, 0b11_10_01_00, 0, 255, 44, 1, 112, 17, 1, 0];
        assert_eq!(integers(&packed(&coded), 5).unwrap(), [2, 1, 301, 70301, 70303]);
        assert!(integers(&[], 0).unwrap().is_empty());
        assert!(integers(&packed(&coded[..12]), 5).is_err());
        assert!(integers(&packed(&coded), 1 << 40).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(packed: Vec<u8>, count in 0..2000u64) {
            if let Ok(numbers) = integers(&packed, count) {
                prop_assert_eq!(numbers.len() as u64, count);
            }
        }
    }
}
