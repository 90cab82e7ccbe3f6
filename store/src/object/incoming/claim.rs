//! The bytes of a claim: which blocks of a part were synced. What it promises stands in `docs/storage.md`.
//!
//! `"AVHV" | version u8 | object [32] | size u64 | inode u64 | born u64 | blocks | BLAKE3 of all before [32]`, integers
//! little-endian; `blocks` has a bit for each block of the object, the lowest first, in whole `u64`.

use std::{fs::File, io, os::unix::fs::MetadataExt as _, time::UNIX_EPOCH};

use avalon_protocol::{hash::ObjectHash, rel_path::RelPath};

use crate::{
    fs::{Dir, IoError, path_of},
    object::block_set::BlockSet,
};

const MAGIC: [u8; 4] = *b"AVHV";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 4 + 1 + 32 + 8 + 8 + 8;
const CHECK_BYTES: usize = 32;

/// What tells one part file from another that gets its name later, even when the inode number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartIdentity {
    inode: u64,
    /// When the file was created, in nanoseconds since 1970; programs cannot set it.
    born_ns: u64,
}

impl PartIdentity {
    /// Returns `None` where the volume does not say when a file was created: there is no claim then.
    pub(super) fn of(file: &File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
        Ok(born_ns.map(|born_ns| Self { inode: metadata.ino(), born_ns }))
    }
}

/// Blocks of one part of which a sync has said that they are on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) object: ObjectHash,
    pub(super) part: PartIdentity,
    pub(super) blocks: BlockSet,
}

impl Claim {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend_from_slice(self.object.as_bytes());
        for number in [self.blocks.object_bytes(), self.part.inode, self.part.born_ns] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for word in self.blocks.words() {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        bytes
    }

    /// Reads a claim about an object of `size` bytes; `None` when it is damaged, of another version, or about another.
    pub(super) fn decode(bytes: &[u8], object: ObjectHash, size: u64) -> Option<Self> {
        let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
        let (header, words) = body.split_first_chunk::<HEADER_BYTES>()?;
        if blake3::hash(body) != *check {
            return None;
        }
        let header = header.strip_prefix(&MAGIC)?.strip_prefix(&[VERSION])?;
        let part = header.strip_prefix(object.as_bytes())?.strip_prefix(&size.to_le_bytes())?;
        let ([inode, born_ns], _) = part.as_chunks::<8>() else { return None };
        let (inode, born_ns) = (u64::from_le_bytes(*inode), u64::from_le_bytes(*born_ns));
        let (words, rest) = words.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let blocks = BlockSet::from_words(size, words).filter(|_| rest.is_empty())?;
        Some(Self { object, part: PartIdentity { inode, born_ns }, blocks })
    }

    /// Reads the claim about a part, if there is one that belongs to this very file.
    pub(super) fn read(parts: &Dir, part: &File, object: ObjectHash, size: u64) -> Option<Self> {
        let file = parts.open_file(&claim_name(object)).ok()?;
        let expected = HEADER_BYTES + BlockSet::empty(size).words().len() * 8 + CHECK_BYTES;
        if file.metadata().ok()?.len() != expected as u64 {
            return None;
        }
        let mut bytes = Vec::with_capacity(expected);
        io::Read::read_to_end(&mut io::Read::take(file, expected as u64), &mut bytes).ok()?;
        let claim = Self::decode(&bytes, object, size)?;
        (PartIdentity::of(part).ok()? == Some(claim.part)).then_some(claim)
    }

    /// Takes the place of an older claim at once. Not synced: one that is lost or torn costs some hashing.
    pub(super) fn write(&self, parts: &Dir) -> Result<(), IoError> {
        parts.write_derived(&claim_name(self.object), &self.encode())
    }
}

/// Returns the name of the claim about an object's part.
pub(super) fn claim_name(object: ObjectHash) -> RelPath {
    path_of(&format!("{object}.have"))
}

#[cfg(test)]
mod tests {
    use avalon_protocol::block::{BLOCK_BYTES, block_count};
    use proptest::prelude::*;

    use super::*;

    fn claims() -> impl Strategy<Value = Claim> {
        let blocks = (1..300 * BLOCK_BYTES).prop_flat_map(|size| {
            let indexes = prop::collection::vec(0..block_count(size), 0..20);
            (Just(size), indexes)
        });
        (any::<[u8; 32]>(), any::<u64>(), any::<u64>(), blocks).prop_map(
            |(object, inode, born_ns, blocks)| {
                let (size, indexes) = blocks;
                let mut blocks = BlockSet::empty(size);
                indexes.into_iter().for_each(|index| blocks.insert(index));
                let part = PartIdentity { inode, born_ns };
                Claim { object: ObjectHash::from_bytes(object), part, blocks }
            },
        )
    }

    proptest! {
        #[test]
        fn a_claim_is_read_as_it_was_written_and_no_changed_byte_passes(
            claim in claims(),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
            cut in any::<prop::sample::Index>(),
        ) {
            let (object, size) = (claim.object, claim.blocks.object_bytes());
            let bytes = claim.encode();
            prop_assert_eq!(Claim::decode(&bytes, object, size), Some(claim));
            prop_assert_eq!(Claim::decode(&bytes, object, size + 1), None);
            prop_assert_eq!(Claim::decode(&bytes, ObjectHash::of(b"another"), size), None);
            prop_assert_eq!(Claim::decode(&bytes[..cut.index(bytes.len())], object, size), None);
            let mut changed = bytes;
            let at = at.index(changed.len());
            changed[at] ^= flip;
            prop_assert_eq!(Claim::decode(&changed, object, size), None);
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_harm(
            start in claims(),
            body in prop::collection::vec(any::<u8>(), 0..400),
            keep in 0usize..80,
        ) {
            let mut bytes = start.encode();
            bytes.truncate(keep.min(bytes.len()));
            bytes.extend_from_slice(&body);
            let check = blake3::hash(&bytes);
            bytes.extend_from_slice(check.as_bytes());
            if let Some(claim) = Claim::decode(&bytes, start.object, start.blocks.object_bytes()) {
                prop_assert_eq!(claim.encode(), bytes);
            }
        }
    }
}
