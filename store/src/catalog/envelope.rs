//! What proves that rows are as they were written: a check in each value, and a sum over all rows of a table.
//!
//! A value on disk is `version u8 | length u32 | payload | check`, all little-endian. The check is the start of the
//! row's hash, which covers table, key and payload. A table's sum adds up the full hashes of its rows modulo 2^256: it
//! is kept up to date by each commit, and a scan that arrives at the same sum has seen every row and no other.

use super::Table;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;
const CHECK_BYTES: usize = 8;

/// What one row adds to the sum of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowMark {
    hash: [u8; 32],
    /// What key and value take on disk.
    bytes: u64,
}

pub(super) fn row_mark(tag: u8, key: &[u8], payload: &[u8]) -> RowMark {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[tag]).update(&(key.len() as u64).to_le_bytes()).update(key).update(payload);
    let bytes = (1 + key.len() + HEADER_BYTES + payload.len() + CHECK_BYTES) as u64;
    RowMark { hash: *hasher.finalize().as_bytes(), bytes }
}

/// Wraps a payload of at most 4 GiB; returns the value and what the row adds to the sum.
pub(super) fn seal(tag: u8, key: &[u8], payload: &[u8]) -> (Vec<u8>, RowMark) {
    let mark = row_mark(tag, key, payload);
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let (check, _) = mark.hash.split_at(CHECK_BYTES);
    ([&[VERSION], &length.to_le_bytes()[..], payload, check].concat(), mark)
}

/// Unwraps a value; `None` when it is not what was written for this key.
pub(super) fn open<'a>(tag: u8, key: &[u8], value: &'a [u8]) -> Option<(&'a [u8], RowMark)> {
    let (header, rest) = value.split_first_chunk::<HEADER_BYTES>()?;
    let (payload, check) = rest.split_last_chunk::<CHECK_BYTES>()?;
    let [version, length @ ..] = header;
    let whole = *version == VERSION && u32::from_le_bytes(*length) as usize == payload.len();
    let mark = row_mark(tag, key, payload);
    (whole && mark.hash.starts_with(check)).then_some((payload, mark))
}

/// What proves that a table has the rows that were written to it, and no other: two tables with the same sum are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TableSum {
    /// The number of rows.
    pub rows: u64,
    /// What their keys and values take on disk, in bytes, without what the engine adds.
    pub bytes: u64,
    /// The sum of their hashes modulo 2^256, the lowest part first.
    sum: [u64; 4],
}

impl TableSum {
    pub(super) fn add(&mut self, row: &RowMark) {
        self.rows = self.rows.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(row.bytes);
        self.sum = sum_with(self.sum, &row.hash, u64::carrying_add);
    }

    pub(super) fn subtract(&mut self, row: &RowMark) {
        self.rows = self.rows.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(row.bytes);
        self.sum = sum_with(self.sum, &row.hash, u64::borrowing_sub);
    }

    /// Reads a sum back from what [`TableSum::hex`] returned.
    pub(super) fn from_hex(rows: u64, bytes: u64, text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok()?;
        let sum = sum_with([0; 4], &hash, |_, limb, _| (limb, false));
        Some(Self { rows, bytes, sum })
    }

    /// Returns the sum of the hashes in hex, the lowest byte first.
    pub fn hex(&self) -> String {
        hex::encode(self.sum.map(u64::to_le_bytes).concat())
    }
}

fn sum_with(mut sum: [u64; 4], hash: &[u8; 32], step: fn(u64, u64, bool) -> (u64, bool)) -> [u64; 4] {
    let mut carry = false;
    for (limb, bytes) in sum.iter_mut().zip(hash.as_chunks::<8>().0) {
        (*limb, carry) = step(*limb, u64::from_le_bytes(*bytes), carry);
    }
    sum
}

/// The sums of all tables, in the order of [`Table::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Sums([TableSum; Table::ALL.len()]);

impl Sums {
    pub(super) fn of(&self, table: Table) -> &TableSum {
        #[expect(clippy::indexing_slicing, reason = "tags go from 1 to the number of tables")]
        &self.0[usize::from(table.tag() - 1)]
    }

    pub(super) fn of_mut(&mut self, table: Table) -> &mut TableSum {
        #[expect(clippy::indexing_slicing, reason = "tags go from 1 to the number of tables")]
        &mut self.0[usize::from(table.tag() - 1)]
    }

    /// Returns the first table in which the two differ.
    pub(super) fn difference(&self, other: &Self) -> Option<Table> {
        Table::ALL.into_iter().find(|table| self.of(*table) != other.of(*table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_only_under_its_own_table_and_key() {
        let (value, hash) = seal(1, b"key", b"payload");
        assert_eq!(open(1, b"key", &value), Some((&b"payload"[..], hash)));
        assert_eq!(open(2, b"key", &value), None);
        assert_eq!(open(1, b"kez", &value), None);
        assert_eq!(open(1, b"keyp", &value), None);
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let (value, _) = seal(3, b"k", b"some payload");
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(3, b"k", &flipped), None, "bit {bit}");
        }
        for end in 0..value.len() {
            assert_eq!(open(3, b"k", &value[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn sums_do_not_depend_on_order_and_forget_what_was_removed() {
        let hashes: Vec<RowMark> = (0..50u8).map(|i| row_mark(1, &[i], b"")).collect();
        let mut forward = TableSum::default();
        hashes.iter().for_each(|hash| forward.add(hash));
        let mut backward = TableSum::default();
        hashes.iter().rev().for_each(|hash| backward.add(hash));
        assert_eq!(forward, backward);
        hashes.iter().skip(1).for_each(|hash| forward.subtract(hash));
        let mut one = TableSum::default();
        one.add(&hashes[0]);
        assert_eq!(forward, one);
        assert_eq!((one.rows, one.bytes), (1, 1 + 1 + 13));
    }

    #[test]
    fn a_carry_goes_through_all_limbs() {
        let mut hash = [0; 32];
        hash[0] = 1;
        let one = RowMark { hash, bytes: 1 };
        let mut sum = TableSum::default();
        sum.add(&RowMark { hash: [0xff; 32], bytes: 1 });
        sum.add(&one);
        assert_eq!(sum.sum, [0; 4]);
        sum.subtract(&one);
        assert_eq!((sum.sum, sum.hex()), ([u64::MAX; 4], "ff".repeat(32)));
    }
}
