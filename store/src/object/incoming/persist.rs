//! Claims: which blocks of a large part were synced, so that the next run need not read them.

use std::{
    fs::File,
    io,
    sync::{MutexGuard, PoisonError},
};

use avalon_protocol::block::block_count;

use super::{
    Incoming, IncomingError,
    area::part_name,
    claim::{Claim, PartIdentity, claim_name},
    slot::Slot,
};
use crate::{fs::IoError, object::block_set::BlockSet};

/// Objects of fewer blocks have no claim: hashing them again costs less than a sync.
pub(super) const CLAIM_FROM_BLOCKS: u64 = 16;

/// Whether parts may be synced for claims now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Claiming {
    #[default]
    Allowed,
    /// The version is being made durable, or is.
    Stopped,
}

/// What had been written to a part before a sync of it began. Only a sync that succeeds makes a [`Claim`] of it.
#[derive(Debug)]
struct Unsynced {
    file: File,
    part: PartIdentity,
    blocks: BlockSet,
}

impl Incoming {
    /// Syncs the parts of 16 blocks or more that got at least `least_bytes` since they were last claimed, one after the
    /// other, and writes a claim beside each: after a crash, even a power cut, [`Incoming::open`] takes the blocks that it
    /// names without reading them. Blocks may be written meanwhile, and do not wait. Once [`Incoming::finish`] has begun
    /// it does nothing.
    ///
    /// Returns how many more bytes are claimed than before. A claim that cannot be written is passed over.
    ///
    /// # Errors
    /// [`IncomingError::PartFsync`]: the object is needed again, nothing of it is here any more. Claims of others may have
    /// been written. [`IncomingError::Io`] when a part cannot be opened.
    pub fn persist_progress(&self, least_bytes: u64) -> Result<u64, IncomingError> {
        self.persist_by(least_bytes, &File::sync_data)
    }

    /// As [`Incoming::persist_progress`], with another way to sync.
    pub(super) fn persist_by(
        &self,
        least_bytes: u64,
        sync: &dyn Fn(&File) -> io::Result<()>,
    ) -> Result<u64, IncomingError> {
        let claiming = self.claiming();
        if *claiming == Claiming::Stopped {
            return Ok(0);
        }
        let mut gained = 0;
        for slot in self.slots.values().filter(|slot| block_count(slot.size) >= CLAIM_FROM_BLOCKS) {
            if let Some(unsynced) = self.unsynced(slot, least_bytes.max(1))? {
                gained += self.claim(slot, unsynced, sync)?;
            }
        }
        Ok(gained)
    }

    /// Returns what a sync of a part would make durable; `None` when that is not worth it.
    fn unsynced(&self, slot: &Slot, least_bytes: u64) -> Result<Option<Unsynced>, IncomingError> {
        // Held while the part is opened: both must be of the same file.
        let state = slot.state();
        if !state.has_part || state.present.bytes().saturating_sub(state.claimed_bytes) < least_bytes {
            return Ok(None);
        }
        let name = part_name(slot.object);
        let file = match self.parts.open_rw(&name) {
            Err(error) if error.is_not_found() => return Ok(None),
            opened => opened.map_err(|e| self.failed(e))?,
        };
        let part = PartIdentity::of(&file).map_err(|e| self.part_failed("stat", &name, e))?;
        // A block enters the set after it was written, so the sync that follows covers the set.
        Ok(part.map(|part| Unsynced { file, part, blocks: state.present.clone() }))
    }

    fn claim(
        &self,
        slot: &Slot,
        unsynced: Unsynced,
        sync: &dyn Fn(&File) -> io::Result<()>,
    ) -> Result<u64, IncomingError> {
        let Unsynced { file, part, blocks } = unsynced;
        if let Err(error) = sync(&file) {
            self.forget(slot);
            let path = self.parts.path().join(part_name(slot.object).as_str());
            return Err(IncomingError::PartFsync {
                object: slot.object,
                source: IoError::new("fsync", path, error),
            });
        }
        let claimed_bytes = blocks.bytes();
        if let Err(error) = (Claim { object: slot.object, part, blocks }).write(&self.parts) {
            tracing::debug!(object = %slot.object, %error, "no claim about a part");
            return Ok(0);
        }
        let before = std::mem::replace(&mut slot.state().claimed_bytes, claimed_bytes);
        Ok(claimed_bytes.saturating_sub(before))
    }

    /// After a failed sync the pages of the part look clean and the disk may have anything: no byte of it is believed.
    fn forget(&self, slot: &Slot) {
        let _alone = self.building.write().unwrap_or_else(PoisonError::into_inner);
        slot.reset();
        let claim = self.parts.remove_tree(&claim_name(slot.object));
        if let Err(error) = claim.and(self.parts.remove_tree(&part_name(slot.object))) {
            tracing::error!(%error, object = %slot.object, "a part that could not be synced stays behind");
        }
    }

    pub(super) fn set_claiming(&self, claiming: Claiming) {
        *self.claiming() = claiming;
    }

    fn claiming(&self) -> MutexGuard<'_, Claiming> {
        self.claiming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io,
        os::unix::fs::FileExt as _,
        path::PathBuf,
        sync::Arc,
    };

    use avalon_protocol::{hash::ObjectHash, manifest::Manifest};

    use super::*;
    use crate::object::fixture::{BLOCK, Studio, block_of, bytes, list_of};

    const MIB: u64 = BLOCK as u64;
    /// What is read of a claimed part to see that nothing else was written into it.
    const PROBED_BYTES: u64 = 2 * MIB;

    /// A version with one object of 40 blocks and 5 bytes.
    struct Bench {
        studio: Studio,
        manifest: Arc<Manifest>,
        data: Vec<u8>,
    }

    impl Bench {
        fn new() -> Self {
            let (mut studio, data) = (Studio::new(), bytes(40 * BLOCK + 5, 1));
            let manifest = studio.version(&[("a.abc", &data), ("b", b"small")]);
            Self { studio, manifest, data }
        }

        fn open(&self) -> Incoming {
            self.studio.open(&self.manifest)
        }

        fn write(&self, incoming: &Incoming, blocks: impl IntoIterator<Item = u64>) {
            incoming.set_blocks(list_of(&self.data)).unwrap();
            for index in blocks {
                incoming.write_block(&self.object(), index, block_of(&self.data, index)).unwrap();
            }
        }

        /// An area whose claim names blocks 0 to 35, closed.
        fn claimed() -> Self {
            let bench = Self::new();
            let incoming = bench.open();
            bench.write(&incoming, 0..36);
            assert_eq!(incoming.persist_progress(MIB).unwrap(), 36 * MIB);
            bench
        }

        fn object(&self) -> ObjectHash {
            ObjectHash::of(&self.data)
        }

        fn part(&self) -> PathBuf {
            self.studio.part(&self.manifest, &self.data)
        }

        fn have(&self) -> PathBuf {
            self.part().with_extension("have")
        }

        fn overwrite(&self, blocks: std::ops::Range<u64>) {
            let part = OpenOptions::new().write(true).open(self.part()).unwrap();
            blocks.for_each(|index| part.write_all_at(&[0; BLOCK], index * MIB).unwrap());
        }

        /// Opens the area and checks what is missing, and how much was read to find that out.
        #[track_caller]
        fn check(&self, missing: &[std::ops::Range<u64>], rehashed: u64, what: &str) -> Incoming {
            let incoming = self.open();
            let need = incoming.need(&self.object());
            assert_eq!(need.map(|need| need.missing).unwrap_or_default(), missing, "{what}");
            assert_eq!(incoming.bytes_rehashed(), rehashed, "{what}");
            incoming
        }
    }

    #[test]
    fn blocks_that_were_claimed_are_not_read_again_and_those_that_came_later_are() {
        let bench = Bench::claimed();
        let incoming = bench.check(&[36..41], PROBED_BYTES, "claimed");
        assert_eq!(incoming.persist_progress(MIB).unwrap(), 0, "nothing new");
        bench.write(&incoming, [38, 40]);
        assert_eq!(incoming.persist_progress(2 * MIB).unwrap(), 0, "not enough");
        drop(incoming);
        let incoming = bench.check(&[36..38, 39..40], PROBED_BYTES + MIB + 5, "a kill loses nothing");
        assert_eq!(incoming.persist_progress(1).unwrap(), MIB + 5, "what was hashed is claimed as well");
        drop(incoming);
        let incoming = bench.check(&[36..38, 39..40], MIB + 5, "the last block is short");
        bench.studio.deliver(&incoming);
        incoming.finish().unwrap();
        assert_eq!(fs::read(bench.studio.area(&bench.manifest).join("tree/a.abc")).unwrap(), bench.data);
    }

    #[test]
    fn what_a_power_cut_took_of_later_blocks_is_needed_again() {
        let bench = Bench::claimed();
        bench.write(&bench.open(), 36..41);
        bench.overwrite(37..40);
        bench.check(&[37..40], PROBED_BYTES + 4 * MIB + 5, "three did not reach the disk");
    }

    #[test]
    fn a_claim_names_no_block_that_was_written_after_its_sync_began() {
        let bench = Bench::new();
        let incoming = bench.open();
        bench.write(&incoming, 0..20);
        let sync = |part: &File| {
            assert!(!bench.have().exists(), "the claim comes after the sync");
            bench.write(&incoming, 20..25);
            part.sync_data()
        };
        assert_eq!(incoming.persist_by(1, &sync).unwrap(), 20 * MIB);
        let claim = Claim::decode(&fs::read(bench.have()).unwrap(), bench.object(), bench.data.len() as u64);
        assert_eq!(claim.unwrap().blocks.missing(), [20..41]);
        assert_eq!(incoming.persist_progress(1).unwrap(), 5 * MIB);
    }

    #[test]
    fn a_part_that_cannot_be_synced_is_not_claimed_and_needed_again() {
        let bench = Bench::claimed();
        let incoming = bench.open();
        incoming.write_block(&ObjectHash::of(b"small"), 0, b"small").unwrap();
        bench.write(&incoming, 36..41);
        let failed = incoming.persist_by(1, &|_| Err(io::Error::from_raw_os_error(5)));
        assert!(matches!(failed, Err(IncomingError::PartFsync { .. })), "{failed:?}");
        assert!(!bench.have().exists() && !bench.part().exists());
        assert_eq!(incoming.needs().iter().map(|need| need.missing.clone()).collect::<Vec<_>>(), [[0..41]]);
        drop(incoming);
        bench.studio.deliver(&bench.check(&[0..41], 5, "also later"));
        bench.open().finish().unwrap();
    }

    #[test]
    fn a_claim_that_is_damaged_or_about_another_file_is_none() {
        let rewrite = |bench: &Bench, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = fs::read(bench.have()).unwrap();
            change(&mut bytes);
            File::create(bench.have()).unwrap().write_all_at(&bytes, 0).unwrap();
        };
        let reseal = |bytes: &mut Vec<u8>| {
            bytes.truncate(bytes.len() - 32);
            bytes.extend_from_slice(blake3::hash(&bytes.clone()).as_bytes());
        };
        type Spoil<'a> = &'a dyn Fn(&Bench);
        let cases: [(&str, Spoil<'_>); 9] = [
            ("gone", &|bench| fs::remove_file(bench.have()).unwrap()),
            ("a flipped bit", &|bench| rewrite(bench, &|bytes| bytes[60] ^= 1)),
            ("a block more", &|bench| rewrite(bench, &|bytes| bytes[65] |= 0x10)),
            ("cut", &|bench| rewrite(bench, &|bytes| bytes.truncate(80))),
            ("longer", &|bench| rewrite(bench, &|bytes| bytes.push(0))),
            ("a newer format", &|bench| {
                rewrite(bench, &|bytes| {
                    bytes[4] = 2;
                    reseal(bytes);
                });
            }),
            ("another object", &|bench| {
                rewrite(bench, &|bytes| {
                    bytes[5] ^= 1;
                    reseal(bytes);
                });
            }),
            ("another size", &|bench| {
                rewrite(bench, &|bytes| {
                    bytes[37] ^= 1;
                    reseal(bytes);
                });
            }),
            ("a copy of the part", &|bench| {
                let copy = bench.part().with_extension("x");
                fs::copy(bench.part(), &copy).unwrap();
                fs::rename(copy, bench.part()).unwrap();
            }),
        ];
        for (what, spoil) in cases {
            let bench = Bench::claimed();
            spoil(&bench);
            let incoming = bench.open();
            assert_eq!(incoming.need(&bench.object()).unwrap().missing, [36..41], "{what}");
            // A file system's holes may be coarser or the copy have none.
            assert!(incoming.bytes_rehashed() >= 36 * MIB, "{what}");
        }
    }

    #[test]
    fn a_part_that_was_cut_or_written_over_is_looked_at_whole() {
        let bench = Bench::claimed();
        let part = OpenOptions::new().write(true).open(bench.part()).unwrap();
        part.set_len(10 * MIB).unwrap();
        part.set_len(bench.data.len() as u64).unwrap();
        bench.check(&[10..41], 10 * MIB, "cut, and lengthened again");
        let bench = Bench::claimed();
        bench.overwrite(0..5);
        bench.check(&[0..5, 36..41], 37 * MIB, "written over");
        File::create(bench.part()).unwrap();
        bench.check(&[0..41], 0, "cut");
        assert!(!bench.have().exists());
    }

    #[test]
    fn a_part_that_changes_hands_takes_its_claim_along() {
        let mut bench = Bench::claimed();
        let new = bench.studio.version(&[("moved", &bench.data), ("c", b"other")]);
        let incoming = bench.studio.open(&new);
        assert_eq!(incoming.adopt(bench.manifest.id()).unwrap(), 36 * MIB);
        assert_eq!(incoming.bytes_rehashed(), PROBED_BYTES);
        drop(incoming);
        Incoming::remove(&bench.studio.project, bench.manifest.id()).unwrap();
        let incoming = bench.studio.open(&new);
        assert_eq!(incoming.bytes_rehashed(), PROBED_BYTES, "it holds after a restart too");
        bench.studio.deliver(&incoming);
        incoming.finish().unwrap();
        assert_eq!(fs::read(bench.studio.area(&new).join("tree/moved")).unwrap(), bench.data);
    }

    #[test]
    fn a_whole_part_is_claimed_and_holds_when_the_tree_was_being_built() {
        let bench = Bench::new();
        let incoming = bench.open();
        bench.studio.deliver(&incoming);
        incoming.persist_progress(1).unwrap();
        incoming.finish().unwrap();
        assert_eq!(incoming.persist_progress(0).unwrap(), 0, "nothing is claimed of what is durable");
        drop(incoming);
        let incoming = bench.check(&[], MIB + 5 + 5, "first and last block, and the small file");
        incoming.finish().unwrap();
    }

    #[test]
    fn small_objects_and_those_that_nobody_needs_have_no_claim() {
        let (mut studio, small) = (Studio::new(), bytes(15 * BLOCK, 1));
        let manifest = studio.version(&[("a", &small)]);
        let incoming = studio.open(&manifest);
        studio.deliver(&incoming);
        assert_eq!(incoming.persist_progress(0).unwrap(), 0);
        let stray = studio.area(&manifest).join("parts").join(format!("{}.have", ObjectHash::of(b"x")));
        File::create(&stray).unwrap();
        drop(incoming);
        studio.open(&manifest);
        assert!(!stray.exists());
    }
}
