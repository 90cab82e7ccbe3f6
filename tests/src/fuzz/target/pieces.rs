//! Encoded content: zstd frames with and without a base, and block lists. The first byte says which; the next three are the
//! length that the head of a piece led to expect.

use std::sync::OnceLock;

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList, BlockValue, block_value},
    hash::ObjectHash,
};
use avalon_store::object::encode::{compress, compress_against, decompress};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::Target;
use crate::fuzz::{Outcome, mutate::mutate, outcome::about};

pub(super) const TARGET: Target = Target {
    name: "pieces",
    what: "zstd pieces with and without a base, and block lists",
    most_bytes: 1 << 20,
    needs_bytes: PIECE_BYTES,
    examples,
    made_up,
    decode,
};

/// The longest content of one piece.
const PIECE_BYTES: usize = 8 << 20;

fn base() -> &'static [u8] {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    BASE.get_or_init(|| {
        (0..60_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()).collect()
    })
}

fn frame(kind: u8, length: usize, encoded: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [&[kind, a, b, c][..], encoded].concat()
}

fn examples() -> Vec<Vec<u8>> {
    let text: Vec<u8> = (0..2000u32).flat_map(|n| format!("v {n} 0.5 1.0\n").into_bytes()).collect();
    let moved = [&base()[1000..90_000], b"new", &base()[200..700]].concat();
    let zeros = vec![0; PIECE_BYTES];
    let blocks = vec![7u8; usize::try_from(2 * BLOCK_BYTES).unwrap_or(0) + 5];
    let values = blocks.chunks(usize::try_from(BLOCK_BYTES).unwrap_or(1)).zip(0..);
    let values: Vec<u8> = values.flat_map(|(block, index)| block_value(index, block)).collect();
    vec![
        frame(0, text.len(), &compress(&text).unwrap_or_default()),
        frame(1, moved.len(), &compress_against(base(), &moved).unwrap_or_default()),
        frame(0, zeros.len(), &compress(&zeros).unwrap_or_default()),
        // A bomb: more content than its head says.
        frame(0, 1000, &compress(&zeros).unwrap_or_default()),
        frame(0, 3, &[0x28, 0xb5, 0x2f, 0xfd, 0x20, 3, 0x19, 0, 0, b'a', b'b', b'c']),
        frame(2, 3, &values),
    ]
}

fn made_up(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let examples = examples_kept();
    let mut input = examples[rng.random_range(0..examples.len())].clone();
    if rng.random_bool(0.2) {
        for byte in input.iter_mut().skip(1).take(3) {
            *byte = rng.random();
        }
    }
    // Mostly in the head of the frame, where its windows and sizes stand.
    let head = input.len().min(40);
    let mut start = input[4.min(head)..head].to_vec();
    mutate(rng, &mut start, &examples[0], 64);
    input.splice(4.min(head)..head, start);
    input
}

fn examples_kept() -> &'static [Vec<u8>] {
    static EXAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    EXAMPLES.get_or_init(examples)
}

fn decode(input: &[u8]) -> Outcome {
    let Some((&[kind, a, b, c], rest)) = input.split_first_chunk::<4>() else {
        return Outcome::Refused("nothing".into());
    };
    let length = usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap_or(0).min(PIECE_BYTES);
    let outcome = match kind % 3 {
        2 => block_list(length as u64, rest),
        kind => Outcome::of(decompress(rest, (kind == 1).then(base), length), |content| {
            assert_eq!(content.len(), length, "exactly what the head said");
            about(content.len()).to_string()
        }),
    };
    outcome.by(&(kind % 3).to_string())
}

/// Checks a list against the name that it leads to, and against another one.
fn block_list(seed: u64, bytes: &[u8]) -> Outcome {
    let (values, _) = bytes.as_chunks::<32>();
    let values: Vec<BlockValue> = values.to_vec();
    let size = (values.len() as u64).saturating_mul(BLOCK_BYTES).saturating_sub(seed % 3);
    let other = ObjectHash::of(bytes);
    assert!(
        values.len() < 2 || BlockList::verified(other, size, values.clone()).is_err(),
        "a list is of one object"
    );
    if values.len() < 2 {
        return Outcome::of(BlockList::verified(other, size.max(seed << 40), values), |_| "single".into());
    }
    let named = BlockList::of_values(size, values.clone()).object();
    let longer = [values.as_slice(), &[[0; 32]]].concat();
    assert!(BlockList::verified(named, size, longer).is_err());
    Outcome::of(BlockList::verified(named, size, values), |list| about(list.values().len()).to_string())
}
