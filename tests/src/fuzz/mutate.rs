//! Changing inputs: bits, lengths, pieces that are left out, doubled, moved or taken from another input.

use rand::Rng;

/// Lengths and numbers on which decoders have failed: varints around the powers of two, the limits, and their overflow.
const VARINTS: [&[u8]; 12] = [
    &[0],
    &[1],
    &[0x7f],
    &[0x80, 0x00],
    &[0x80, 0x01],
    &[0xff, 0x7f],
    &[0x80, 0x80, 0x40],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x1f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
];

/// Texts that have meant something to somebody.
pub const HOSTILE_TEXTS: [&str; 28] = [
    "..",
    ".",
    "",
    "/",
    "//",
    "../../etc/passwd",
    "a/../../b",
    "a/./b",
    "/etc/shadow",
    "C:\\x",
    "C:x",
    "\\\\host\\share",
    "a\0b",
    "NUL",
    "con.txt",
    "COM¹",
    "a.",
    "a ",
    "a\n",
    "\u{1b}[2J",
    "\u{202e}gpj.exe",
    "e\u{301}",
    "\u{feff}a",
    ".avalon",
    ".avalon/incoming",
    "-rf",
    "~",
    "_studio",
];

/// Changes `input` once to eight times; `other` is what pieces are taken from. The result has at most `most` bytes.
pub fn mutate(rng: &mut impl Rng, input: &mut Vec<u8>, other: &[u8], most: usize) {
    for _ in 0..1 << rng.random_range(0..4) {
        once(rng, input, other, most);
    }
    input.truncate(most);
}

fn once(rng: &mut impl Rng, input: &mut Vec<u8>, other: &[u8], most: usize) {
    let at = rng.random_range(0..=input.len());
    let piece = range(rng, input.len());
    match rng.random_range(0..100) {
        0..20 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        20..32 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = rng.random();
            }
        }
        32..40 => {
            // A length that is off by a little.
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add_signed(rng.random_range(-2..=2));
            }
        }
        40..50 => {
            let lie = VARINTS[rng.random_range(0..VARINTS.len())];
            let end = (at + rng.random_range(0..=1)).min(input.len());
            input.splice(at..end, lie.iter().copied());
        }
        50..56 => input.truncate(at),
        56..64 => {
            input.drain(piece);
        }
        64..72 => {
            let copy = input[piece].to_vec();
            input.splice(at..at, copy);
        }
        72..80 => {
            let copy = other[range(rng, other.len())].to_vec();
            let end = rng.random_range(at..=input.len());
            input.splice(at..end, copy);
        }
        80..88 => {
            let text = HOSTILE_TEXTS[rng.random_range(0..HOSTILE_TEXTS.len())];
            let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
            let end = (at + rng.random_range(0..12)).min(input.len());
            let text = std::iter::once(length).chain(text.bytes());
            input.splice(at..end, text.skip(rng.random_range(0..2)).collect::<Vec<_>>());
        }
        88..92 => {
            let bytes: Vec<u8> = (0..rng.random_range(1..16)).map(|_| rng.random()).collect();
            input.splice(at..at, bytes);
        }
        92..94 => input.splice(at..at, vec![rng.random(); rng.random_range(1..300)]).for_each(drop),
        94..98 => {
            if let Some(bytes) = input.get_mut(piece) {
                bytes.reverse();
            }
        }
        // Rarely very long: that is where memory is to be had.
        _ if rng.random_ratio(1, 200) => swell(rng, input, most),
        _ => input.reverse(),
    }
}

/// Repeats a few bytes very often, with a length in front that fits.
fn swell(rng: &mut impl Rng, input: &mut Vec<u8>, most: usize) {
    let at = rng.random_range(0..=input.len());
    let unit: Vec<u8> = match rng.random_range(0..3) {
        0 => vec![0],
        1 => vec![1, b'a'],
        _ => (0..rng.random_range(1..6)).map(|_| rng.random_range(0..4)).collect(),
    };
    let count = (most.saturating_sub(input.len()) / unit.len()) >> rng.random_range(0..4);
    let mut swollen = varint(count as u64);
    swollen.extend(std::iter::repeat_n(&unit, count).flatten());
    let end = (at + 1).min(input.len());
    input.splice(at..end, swollen);
}

/// Writes a number as postcard does.
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A piece of something of `length` bytes, mostly short.
fn range(rng: &mut impl Rng, length: usize) -> std::ops::Range<usize> {
    let start = rng.random_range(0..=length);
    let most = if rng.random_ratio(3, 4) { (length - start).min(40) } else { length - start };
    start..start + rng.random_range(0..=most)
}
