//! Which file of an earlier version a new file is likely to resemble. Pure naming; whether it does shows when it is tried.

use crate::{id::VersionSlot, rel_path::RelPath};

/// A base may be this many times larger or smaller than what it is for.
const SIZE_RATIO: u64 = 8;
/// Below this a reply's own bytes outweigh what a base could save.
const LEAST_BYTES: u64 = 256;

/// Returns the name that an entry has in every version of its subset: studios write the version into file names too
/// (`modelDefault_v012.abc`), so a `v` and this version's number, at the beginning of a word, count as one placeholder.
pub fn entry_key(path: &RelPath, slot: VersionSlot) -> String {
    let path = path.as_str();
    let VersionSlot::Number(number) = slot else { return path.to_owned() };
    let mut key = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['v', 'V']) {
        let (before, from) = rest.split_at(at);
        key.push_str(before);
        let digits = from.get(1..).unwrap_or_default();
        let digits = digits.find(|c: char| !c.is_ascii_digit()).map_or(digits, |end| &digits[..end]);
        let starts_word = !key.ends_with(|c: char| c.is_alphanumeric());
        if starts_word && digits.parse() == Ok(number) {
            key.push_str("v#");
            rest = &from[1 + digits.len()..];
        } else {
            key.push_str(&from[..1]);
            rest = &from[1..];
        }
    }
    key + rest
}

/// Orders version numbers by how likely their files resemble those of `of`: the nearest first, of two as near the older.
pub fn by_nearness(of: VersionSlot, others: &mut [VersionSlot]) {
    let number = |slot: &VersionSlot| match slot {
        VersionSlot::Number(number) => i64::from(*number),
        // It follows the newest version.
        VersionSlot::Hero => i64::from(VersionSlot::MAX_NUMBER),
    };
    let of = number(&of);
    others.sort_by_key(|slot| ((number(slot) - of).abs(), number(slot)));
}

/// Says whether an object of `base_bytes` can be worth trying for one of `bytes`.
pub fn can_help(bytes: u64, base_bytes: u64) -> bool {
    bytes >= LEAST_BYTES
        && base_bytes >= LEAST_BYTES
        && bytes / SIZE_RATIO <= base_bytes
        && base_bytes / SIZE_RATIO <= bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, number: u32) -> String {
        entry_key(&path.parse().unwrap(), VersionSlot::Number(number))
    }

    #[test]
    fn the_version_in_a_name_is_a_placeholder_and_other_numbers_are_not() {
        assert_eq!(key("model_v012.abc", 12), key("model_v013.abc", 13));
        assert_eq!(key("lv2/v002/shot_v2.1001.exr", 2), "lv2/v#/shot_v#.1001.exr");
        assert_eq!(key("modelDefault.abc", 1), "modelDefault.abc");
        assert_eq!(key("v", 1), "v");
        assert_eq!(key("rövid_v001", 1), "rövid_v#");
        assert_ne!(key("cam_v001.abc", 2), key("cam_v002.abc", 2), "one of them is another version's");
    }

    #[test]
    fn the_nearest_version_comes_first_and_hero_last() {
        let number = VersionSlot::Number;
        let mut slots = [VersionSlot::Hero, number(1), number(9), number(5), number(7)];
        by_nearness(number(6), &mut slots);
        assert_eq!(slots, [number(5), number(7), number(9), number(1), VersionSlot::Hero]);
    }

    #[test]
    fn sizes_that_are_far_apart_are_not_tried() {
        assert!(can_help(600_000, 386_000));
        assert!(!can_help(51, 51) && !can_help(1 << 30, 1 << 20) && !can_help(1 << 20, 1 << 30));
    }
}
