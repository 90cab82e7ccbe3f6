//! Whether content resembles a base, and where in a large one it has moved to.
//!
//! A delta refers to a window of the base, which for a large one is a part of it. When frames or meshes were inserted in
//! front, the same content lies elsewhere. So the sender takes samples of the base, at places that the content itself
//! chooses by a rolling hash (the gear hash of FastCDC, Xia et al. 2016), finds the same samples in the piece, and takes
//! the window that most of them point to. When hardly any is found, as in frames that were rendered anew, a delta would
//! cost a tenth of a second for each piece and save nothing: it is not tried.

use std::ops::Range;

use avalon_protocol::{block::BLOCK_BYTES, limits::MAX_BASE_WINDOW_BYTES};

use crate::object::serve::{ObjectReader, ServeError};

/// One byte in about 16 KiB is a sample: 512 for each piece of 8 MiB, and 4 MiB of memory for a base of 4 GiB.
const SAMPLE_BITS: u32 = 14;
/// With fewer samples than this a piece is too short to say anything, and quickly tried.
const FEW_SAMPLES: usize = 16;
/// A piece of which less than one sample in this many is in the base does not resemble it.
const RESEMBLES_ONE_IN: usize = 12;
/// The gear hash forgets a byte after 64 more.
const MEMORY_BYTES: usize = 64;

/// The samples of one base.
#[derive(Debug)]
pub struct BaseIndex {
    size: u64,
    /// Hash and offset, by hash; only hashes that occur once.
    samples: Vec<(u64, u64)>,
}

/// The rolling hash over content that comes in parts.
#[derive(Debug, Default)]
struct SampleScan {
    hash: u64,
    position: u64,
}

impl SampleScan {
    /// Goes on over `bytes` and hands every sample and its offset to `found`.
    fn update(&mut self, bytes: &[u8], mut found: impl FnMut(u64, u64)) {
        for byte in bytes {
            self.hash = (self.hash << 1).wrapping_add(gear(*byte));
            self.position += 1;
            if self.hash >> (u64::BITS - SAMPLE_BITS) == 0 && self.position >= MEMORY_BYTES as u64 {
                found(self.hash, self.position);
            }
        }
    }
}

/// A random-looking number for each byte: the finaliser of splitmix64 (Steele et al. 2014).
const fn gear(byte: u8) -> u64 {
    let mut z = (byte as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl BaseIndex {
    /// Reads all of a base once.
    ///
    /// # Errors
    /// [`ServeError`] when it cannot be read.
    pub fn read(base: &ObjectReader) -> Result<Self, ServeError> {
        let mut build = Build::default();
        for index in 0..base.size().div_ceil(BLOCK_BYTES) {
            build.add(&base.read_block(index)?);
        }
        Ok(build.finish(base.size()))
    }

    /// Returns the part of the base that a piece is best compressed against: at most [`MAX_BASE_WINDOW_BYTES`], all of a
    /// base that is no longer; none when the piece does not resemble it. `offset` is where the piece lies in its own object.
    pub fn window(&self, offset: u64, piece: &[u8]) -> Option<Range<u64>> {
        let (mut starts, mut samples) = (Vec::new(), 0);
        SampleScan::default().update(piece, |hash, position| {
            samples += 1;
            let found = self.samples.binary_search_by_key(&hash, |sample| sample.0).ok();
            let at = found.and_then(|place| self.samples.get(place));
            starts.extend(at.map(|(_, base_position)| base_position.saturating_sub(position)));
        });
        if samples >= FEW_SAMPLES && starts.len() * RESEMBLES_ONE_IN < samples {
            return None;
        }
        if self.size <= MAX_BASE_WINDOW_BYTES {
            return Some(0..self.size);
        }
        starts.sort_unstable();
        // Where most of the piece began in the base, or where it begins now.
        let start = starts.get(starts.len() / 2).copied().unwrap_or(offset);
        let margin = (MAX_BASE_WINDOW_BYTES - (piece.len() as u64).min(MAX_BASE_WINDOW_BYTES)) / 2;
        let from = start.saturating_sub(margin).min(self.size - MAX_BASE_WINDOW_BYTES);
        Some(from..from + MAX_BASE_WINDOW_BYTES)
    }
}

#[derive(Default)]
struct Build {
    scan: SampleScan,
    samples: Vec<(u64, u64)>,
}

impl Build {
    fn add(&mut self, bytes: &[u8]) {
        let samples = &mut self.samples;
        self.scan.update(bytes, |hash, position| samples.push((hash, position)));
    }

    fn finish(mut self, size: u64) -> BaseIndex {
        self.samples.sort_unstable();
        let samples = self.samples.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() == 1);
        BaseIndex { size, samples: samples.flatten().copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::fixture::bytes;

    const MIB: usize = 1 << 20;

    fn index_of(base: &[u8]) -> BaseIndex {
        let mut build = Build::default();
        base.chunks(MIB).for_each(|block| build.add(block));
        build.finish(base.len() as u64)
    }

    #[test]
    fn a_small_base_is_its_own_window() {
        let base = bytes(3 * MIB, 1);
        assert_eq!(index_of(&base).window(0, &base[..10]), Some(0..3 * MIB as u64));
        assert_eq!(index_of(&base).window(0, &base[MIB..]), Some(0..3 * MIB as u64));
    }

    #[test]
    fn the_window_follows_content_that_moved_far() {
        let base = bytes(64 * MIB, 2);
        let index = index_of(&base);
        let piece = &base[50 * MIB + 123..58 * MIB + 123];
        let window = index.window(0, piece).unwrap();
        assert_eq!(window.end - window.start, MAX_BASE_WINDOW_BYTES);
        assert!(window.start <= 50 * MIB as u64 && window.end >= 58 * MIB as u64 + 123, "{window:?}");
    }

    #[test]
    fn content_that_is_not_in_the_base_is_told_from_content_of_which_a_part_is() {
        let base = bytes(8 * MIB, 3);
        let index = index_of(&base);
        let other = bytes(8 * MIB, 4);
        assert_eq!(index.window(0, &other), None);
        let mut part = other;
        part[..2 * MIB].copy_from_slice(&base[5 * MIB..7 * MIB]);
        assert_eq!(index.window(0, &part), Some(0..8 * MIB as u64));
    }

    #[test]
    fn content_without_samples_gets_the_window_around_its_own_place() {
        let index = index_of(&vec![0; 64 * MIB]);
        let flat = vec![0; 8 * MIB];
        assert_eq!(index.window(32 * MIB as u64, &flat), Some(24 * MIB as u64..48 * MIB as u64));
        assert_eq!(index.window(1 << 40, &flat), Some(40 * MIB as u64..64 * MIB as u64));
    }
}
