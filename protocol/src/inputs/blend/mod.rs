//! Blender files: linked libraries, images, movies, sounds, fonts, caches and volumes.
//!
//! Source: Blender's `doc/blender_file_format` and `BLO_core_bhead.hh`. A file is a header and blocks; each block is a piece of
//! memory of the Blender that wrote it, and the block `DNA1` says how that memory was laid out. Linked files are the
//! blocks `LI`, images `IM`, and so on; their path is the member `filepath` (`name` in older files). What is packed into
//! the file is not needed from elsewhere. The file is read once from start to end, so that a compressed one can be
//! decompressed on the way. Library paths that begin with `//` are relative to the file.
//!
//! Limits: 16 MiB of blocks that are kept, 16 MiB for `DNA1`. Big-endian files, of 20 years ago, are refused.

mod block;
mod dna;

use self::{block::Blocks, dna::Dna};
use super::{Finds, InputScanner, ScanError, Source};

/// The kinds of blocks that name a file: library, image, movie clip, sound, font, cache file, volume.
const CODES: [[u8; 4]; 7] =
    [*b"LI\0\0", *b"IM\0\0", *b"MC\0\0", *b"SO\0\0", *b"VF\0\0", *b"CF\0\0", *b"VO\0\0"];

/// Memory for blocks of those kinds together.
const MAX_KEPT_BYTES: usize = 16 << 20;
/// How much is kept of one block; the structures are shorter.
const MAX_BLOCK_BYTES: u64 = 16 << 10;
/// The longest `DNA1`; that of Blender 5 has 150 KiB.
const MAX_DNA_BYTES: u64 = 16 << 20;

/// Finds what Blender files refer to.
pub(super) struct Blend;

impl InputScanner for Blend {
    fn formats(&self) -> &'static [&'static str] {
        &["blend"]
    }

    fn scan(&self, source: &mut dyn Source, finds: &mut Finds) -> Result<(), ScanError> {
        let mut blocks = Blocks::open(source)?;
        let (mut kept, mut kept_bytes, mut dna) = (Vec::new(), 0, None);
        while let Some(block) = blocks.next()? {
            match &block.code {
                b"DNA1" => {
                    dna = Some(blocks.content(&block, MAX_DNA_BYTES, "the description of structures")?)
                }
                b"ENDB" => break,
                code if CODES.contains(code) => {
                    let content = blocks.beginning(&block, MAX_BLOCK_BYTES)?;
                    kept_bytes += content.len();
                    if kept_bytes > MAX_KEPT_BYTES {
                        let limit = MAX_KEPT_BYTES as u64;
                        return Err(ScanError::TooLarge { what: "the list of images and libraries", limit });
                    }
                    kept.push((block.structure, content));
                }
                _ => blocks.skip(&block)?,
            }
        }
        let dna = dna.ok_or(ScanError::Malformed { what: "it does not say how it was laid out" })?;
        let dna = Dna::read(&dna, blocks.pointer_bytes())?;
        for (structure, content) in kept {
            if let Some(path) = dna.path_in(structure, &content) {
                finds.path(&relative_to_file(path));
            }
        }
        finds.complete()
    }
}

/// Blender writes `//` for the directory that the file lies in; elsewhere that begins a share of a network.
fn relative_to_file(path: &str) -> String {
    match path.strip_prefix("//") {
        Some(inside) => format!("./{inside}"),
        // A font or a sound that is part of Blender.
        None if path.starts_with('<') => String::new(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
