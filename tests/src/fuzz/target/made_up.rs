//! Values that are mostly right.

use rand::Rng;
use serde::Serialize;

use crate::fuzz::mutate::HOSTILE_TEXTS;

/// Returns `good`, or now and then something that is not.
pub(super) fn text(rng: &mut impl Rng, good: &[&str]) -> String {
    match rng.random_range(0..40) {
        0 => HOSTILE_TEXTS[rng.random_range(0..HOSTILE_TEXTS.len())].to_owned(),
        1 => "x".repeat(1 << rng.random_range(0..15)),
        2 => {
            let (one, other) = (pick(rng, good), pick(rng, &HOSTILE_TEXTS));
            format!("{one}/{other}")
        }
        3 => (0..rng.random_range(0..30)).map(|_| rng.random::<char>()).collect(),
        _ => pick(rng, good).to_owned(),
    }
}

pub(super) fn pick<'a>(rng: &mut impl Rng, from: &[&'a str]) -> &'a str {
    from[rng.random_range(0..from.len())]
}

/// Returns a number of any magnitude, mostly small.
pub(super) fn number(rng: &mut impl Rng) -> u64 {
    match rng.random_range(0..6) {
        0 => 0,
        1 => u64::MAX >> rng.random_range(0..64),
        2 => 1 << rng.random_range(0..64),
        _ => rng.random_range(0..2000),
    }
}

pub(super) fn hash(rng: &mut impl Rng) -> [u8; 32] {
    if rng.random_ratio(1, 8) { rng.random() } else { [rng.random_range(0..4); 32] }
}

/// Returns how many elements a list gets: few, rarely very many.
pub(super) fn count(rng: &mut impl Rng, many: usize) -> usize {
    if rng.random_ratio(1, 100) { rng.random_range(0..=many) } else { rng.random_range(0..4) }
}

pub(super) fn list<R: Rng, T>(rng: &mut R, many: usize, mut of: impl FnMut(&mut R) -> T) -> Vec<T> {
    (0..count(rng, many)).map(|_| of(rng)).collect()
}

pub(super) fn bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

pub(super) const PROJECTS: [&str; 4] = ["lantern", "_studio", "other", "a.b-c"];
pub(super) const NODES: [&str; 4] = ["ws12@london", "srv@montreal", "a@b", "ws12@a-b"];
pub(super) const SLOTS: [&str; 4] = ["v001", "hero", "v999999", "v012"];
