//! Taking over what came for another manifest, usually an older generation whose transfer was superseded.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use avalon_protocol::{hash::ManifestId, rel_path::RelPath};
use rayon::prelude::*;

use super::{
    Incoming, IncomingError,
    area::{area_path, blocks_name, part_name},
    claim::claim_name,
    slot::Slot,
};
use crate::{
    fs::{Dir, FileKind, FileStat, IoError, Overwrite, path_of},
    object::{block_set::BlockSet, hash::hash_file_by_pool, serve::read_list},
};

impl Incoming {
    /// Takes what is still needed here from the area of another manifest of the project, by renaming: block lists, parts
    /// that are whole or begun, and files of a tree that was being built. What no claim names is hashed again on the rayon
    /// pool that the caller runs on, and only good blocks count; a part is left when it has no more of them than the one here.
    ///
    /// Returns the bytes gained, those of an object that several files share once. What is not needed here stays where it
    /// is, and that there is no such area is no error. The caller makes sure that nobody uses the other area, and
    /// afterwards calls [`Incoming::remove`] on it; taken from, it needs again what it lost.
    ///
    /// # Errors
    /// [`IncomingError::Io`] when the other area cannot be looked through or a file not renamed; what was taken before
    /// stays here. A file there that cannot be read is passed over.
    pub fn adopt(&self, from: ManifestId) -> Result<u64, IncomingError> {
        if from == self.manifest.id() {
            return Ok(0);
        }
        let area = match self.project.open_dir(&area_path(from)) {
            Err(error) if error.is_not_found() => return Ok(0),
            opened => opened.map_err(|e| self.failed(e))?,
        };
        let from_parts = self.adopt_parts(&area)?;
        let from_tree = self.adopt_tree(&area)?;
        Ok(from_parts + from_tree)
    }

    fn adopt_parts(&self, area: &Dir) -> Result<u64, IncomingError> {
        let parts = match area.open_dir(&path_of("parts")) {
            Err(error) if error.is_not_found() => return Ok(0),
            opened => opened.map_err(|e| self.failed(e))?,
        };
        let slots: Vec<&Slot> = self.slots.values().filter(|slot| !slot.is_complete()).collect();
        let adopted = slots.par_iter().with_max_len(1).map(|slot| {
            let by_list = self.adopt_list(&parts, slot)?;
            Ok(by_list + self.adopt_part(&parts, slot)?)
        });
        adopted.sum()
    }

    /// Takes a block list, and returns how many bytes of a part that waited for it are good.
    fn adopt_list(&self, parts: &Dir, slot: &Slot) -> Result<u64, IncomingError> {
        let name = blocks_name(slot.object);
        if slot.state().blocks.is_some() {
            return Ok(0);
        }
        let Some(list) = read_list(parts, &name, slot.object, slot.size) else { return Ok(0) };
        parts.rename(&name, &self.parts, &name, Overwrite::Replace).map_err(|e| self.failed(e))?;
        let is_unchecked = {
            let mut state = slot.state();
            state.blocks = Some(Arc::new(list));
            std::mem::take(&mut state.is_unchecked)
        };
        if !is_unchecked {
            return Ok(0);
        }
        let before = slot.state().present.bytes();
        self.check_part(slot)?;
        Ok(slot.state().present.bytes().saturating_sub(before))
    }

    fn adopt_part(&self, parts: &Dir, slot: &Slot) -> Result<u64, IncomingError> {
        let name = part_name(slot.object);
        let stat = parts.stat(&name).map_err(|e| self.failed(e))?;
        let Some(stat) = stat.filter(|stat| stat.kind == FileKind::File && stat.size == slot.size) else {
            return Ok(0);
        };
        let list = slot.state().blocks.clone();
        let good = match self.good_blocks(parts, slot, list.as_deref()) {
            Ok(good) => good,
            Err(error) => {
                tracing::debug!(object = %slot.object, %error, "a part of another area cannot be read");
                return Ok(0);
            }
        };
        let found = good.map(|good| {
            let mut found = BlockSet::empty(slot.size);
            good.blocks.into_iter().for_each(|index| found.insert(index));
            found
        });
        if !stat.is_writable() && !found.as_ref().is_some_and(BlockSet::is_full) {
            return Ok(0);
        }
        let gained = self.take_as_part(parts, &name, slot, found)?;
        if gained > 0 {
            let claim = claim_name(slot.object);
            match parts.rename(&claim, &self.parts, &claim, Overwrite::Replace) {
                Err(error) if !error.is_not_found() => {
                    tracing::debug!(object = %slot.object, %error, "a claim did not come with its part");
                }
                _ => {}
            }
        }
        Ok(gained)
    }

    /// Makes a file the part of an object if it has more than the one here, and returns how many bytes more. Without
    /// `found`, the block list decides when it comes.
    fn take_as_part(
        &self,
        dir: &Dir,
        path: &RelPath,
        slot: &Slot,
        found: Option<BlockSet>,
    ) -> Result<u64, IncomingError> {
        // A block that is written meanwhile must not go into the file that this one replaces.
        let _alone = self.building.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = slot.state();
        let (here, there) = (state.present.bytes(), found.as_ref().map_or(0, BlockSet::bytes));
        let is_better = match &found {
            Some(_) => there > here,
            None => !state.has_part,
        };
        if !is_better {
            return Ok(0);
        }
        dir.rename(path, &self.parts, &part_name(slot.object), Overwrite::Replace)
            .map_err(|e| self.failed(e))?;
        state.has_part = true;
        state.is_unchecked = found.is_none();
        state.claimed_bytes = 0;
        if let Some(found) = found {
            state.present = found;
        }
        Ok(there.saturating_sub(here))
    }

    /// The other manifest need not be known: what a file of the tree holds, its hash says. Only files of a size that is
    /// needed are read.
    fn adopt_tree(&self, area: &Dir) -> Result<u64, IncomingError> {
        let tree = match area.open_dir(&path_of("tree")) {
            Err(error) if error.is_not_found() => return Ok(0),
            opened => opened.map_err(|e| self.failed(e))?,
        };
        let needed: HashSet<u64> =
            self.slots.values().filter(|slot| !slot.is_complete()).map(|slot| slot.size).collect();
        let mut files = files_beneath(&tree).map_err(|e| self.failed(e))?;
        files.retain(|(_, stat)| needed.contains(&stat.size));
        let adopted = files.par_iter().with_max_len(1).map(|(path, _)| {
            let hashed = match hash_file_by_pool(&tree, path) {
                Ok(hashed) => hashed,
                Err(error) => {
                    tracing::debug!(%path, %error, "a file of another area's tree cannot be read");
                    return Ok(0);
                }
            };
            let slot = self.slots.get(&hashed.object()).filter(|slot| slot.size == hashed.stat.size);
            let Some(slot) = slot.filter(|slot| !slot.is_complete()) else { return Ok(0) };
            let mut whole = BlockSet::empty(slot.size);
            whole.fill();
            self.take_as_part(&tree, path, slot, Some(whole))
        });
        adopted.sum()
    }
}

/// Returns the regular files of a tree; a name that no version can have is passed over.
fn files_beneath(tree: &Dir) -> Result<Vec<(RelPath, FileStat)>, IoError> {
    let mut files = Vec::new();
    let mut dirs: Vec<Option<RelPath>> = vec![None];
    while let Some(dir) = dirs.pop() {
        for entry in tree.list(dir.as_ref())? {
            let Ok(name) = entry.rel_path() else { continue };
            let Ok(path) = dir.as_ref().map_or(Ok(name.clone()), |dir| dir.join(&name)) else { continue };
            match entry.kind {
                FileKind::Dir => dirs.push(Some(path)),
                FileKind::File => files.extend(tree.stat(&path)?.map(|stat| (path, stat))),
                FileKind::Symlink | FileKind::Other => {}
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{FileExt as _, MetadataExt as _},
        sync::Arc,
    };

    use avalon_protocol::{
        hash::{ManifestId, ObjectHash},
        manifest::Manifest,
    };

    use super::Incoming;
    use crate::object::fixture::{BLOCK, Studio, block_of, bytes, list_of};

    fn parts(studio: &Studio, manifest: &Manifest) -> usize {
        fs::read_dir(studio.area(manifest).join("parts")).unwrap().count()
    }

    #[test]
    fn whole_and_begun_parts_change_hands_by_rename_and_the_rest_is_left() {
        let mut studio = Studio::new();
        let (large, small, other) = (bytes(3 * BLOCK + 7, 1), bytes(100, 2), bytes(200, 3));
        let old = studio.version(&[("a", &large), ("b", &small), ("gone", &other)]);
        let new = studio.version(&[("a", &large), ("b", &small), ("new", b"new"), ("twin", &small)]);
        let object = ObjectHash::of(&large);
        {
            let incoming = studio.open(&old);
            incoming.set_blocks(list_of(&large)).unwrap();
            for index in [0, 2, 3] {
                incoming.write_block(&object, index, block_of(&large, index)).unwrap();
            }
            incoming.write_block(&ObjectHash::of(&small), 0, &small).unwrap();
            incoming.write_block(&ObjectHash::of(&other), 0, &other).unwrap();
        }
        fs::OpenOptions::new()
            .write(true)
            .open(studio.part(&old, &large))
            .and_then(|part| part.write_all_at(b"rot", 2 * BLOCK as u64 + 9))
            .unwrap();
        let inode = |manifest| studio.part(manifest, &large).metadata().unwrap().ino();
        let before = inode(&old);
        let incoming = studio.open(&new);
        assert_eq!(incoming.adopt(old.id()).unwrap(), BLOCK as u64 + 7 + 100);
        assert_eq!(inode(&new), before, "renamed, not copied");
        let need = incoming.need(&object).unwrap();
        assert_eq!(need.missing, [1..3], "a block that rotted does not count");
        assert_eq!(need.blocks.as_deref(), Some(&list_of(&large)), "the list came with it");
        assert!(incoming.need(&ObjectHash::of(&small)).is_none());
        assert_eq!(fs::read(studio.part(&old, &other)).unwrap(), other);
        assert_eq!(parts(&studio, &old), 1, "only what is not needed stays");
        assert_eq!(incoming.adopt(old.id()).unwrap(), 0);
        Incoming::remove(&studio.project, old.id()).unwrap();
        studio.deliver(&incoming);
        incoming.finish().unwrap();
        assert_eq!(fs::read(studio.area(&new).join("tree/a")).unwrap(), large);
        assert_eq!(fs::read(studio.area(&new).join("tree/twin")).unwrap(), small);
    }

    #[test]
    fn a_tree_that_was_being_built_is_taken_by_content_and_not_by_name() {
        let mut studio = Studio::new();
        let (large, small, other) = (bytes(BLOCK + 1, 1), bytes(300, 2), bytes(300, 3));
        let old = studio.version(&[("a", &large), ("b/c", &small), ("b/d", &other), ("e", &small)]);
        let new = studio.version(&[("a", &other), ("moved", &large)]);
        studio.receive(&old);
        let incoming = studio.open(&new);
        assert_eq!(incoming.adopt(old.id()).unwrap(), BLOCK as u64 + 1 + 300);
        assert!(incoming.needs().is_empty());
        let tree = studio.area(&old).join("tree");
        assert_eq!(fs::read(tree.join("b/c")).unwrap(), small);
        assert_eq!(fs::read(tree.join("e")).unwrap(), small);
        assert!(!tree.join("a").exists() && !tree.join("b/d").exists());
        drop(incoming);
        assert!(studio.open(&new).needs().is_empty(), "it holds after a restart too");
        studio.open(&new).finish().unwrap();
        assert_eq!(fs::read(studio.area(&new).join("tree/moved")).unwrap(), large);
        assert_eq!(fs::read(studio.area(&new).join("tree/a")).unwrap(), other);
    }

    #[test]
    fn a_part_with_less_than_ours_stays_there_and_one_with_more_replaces_it() {
        let mut studio = Studio::new();
        let large = bytes(4 * BLOCK, 1);
        let object = ObjectHash::of(&large);
        let write = |incoming: &Incoming, blocks: &[u64]| {
            incoming.set_blocks(list_of(&large)).unwrap();
            for index in blocks {
                incoming.write_block(&object, *index, block_of(&large, *index)).unwrap();
            }
        };
        let manifests: Vec<Arc<Manifest>> =
            [b"1", b"2", b"3"].map(|other| studio.version(&[("a", &large), ("b", other)])).into();
        for (manifest, blocks) in manifests.iter().zip([&[0, 1][..], &[2], &[1, 2, 3]]) {
            write(&studio.open(manifest), blocks);
        }
        let incoming = studio.open(&manifests[0]);
        assert_eq!(incoming.adopt(manifests[1].id()).unwrap(), 0);
        assert_eq!(incoming.need(&object).unwrap().missing, [2..4]);
        assert!(studio.part(&manifests[1], &large).exists());
        assert_eq!(incoming.adopt(manifests[2].id()).unwrap(), BLOCK as u64);
        assert_eq!(incoming.need(&object).unwrap().missing, [0..1]);
        write(&incoming, &[0]);
        assert!(incoming.need(&object).is_none());
    }

    #[test]
    fn a_begun_part_without_its_list_waits_for_the_list() {
        let mut studio = Studio::new();
        let large = bytes(3 * BLOCK, 1);
        let object = ObjectHash::of(&large);
        let (old, new) = (studio.version(&[("a", &large)]), studio.version(&[("b", &large)]));
        {
            let incoming = studio.open(&old);
            incoming.set_blocks(list_of(&large)).unwrap();
            incoming.write_block(&object, 1, block_of(&large, 1)).unwrap();
        }
        fs::remove_file(studio.part(&old, &large).with_extension("blocks")).unwrap();
        let incoming = studio.open(&new);
        assert_eq!(incoming.adopt(old.id()).unwrap(), 0);
        assert!(!studio.part(&old, &large).exists());
        incoming.set_blocks(list_of(&large)).unwrap();
        assert_eq!(incoming.need(&object).unwrap().missing, [0..1, 2..3]);
    }

    #[test]
    fn no_such_area_an_empty_one_and_its_own_give_nothing() {
        let mut studio = Studio::new();
        let small = bytes(100, 1);
        let manifest = studio.version(&[("a", &small), ("b", b"b")]);
        let incoming = studio.open(&manifest);
        incoming.write_block(&ObjectHash::of(&small), 0, &small).unwrap();
        let nobody = ManifestId::from_bytes([7; 32]);
        assert_eq!(incoming.adopt(nobody).unwrap(), 0);
        assert!(!studio.path().join(format!(".avalon/incoming/{nobody}")).exists());
        fs::create_dir(studio.path().join(format!(".avalon/incoming/{nobody}"))).unwrap();
        assert_eq!(incoming.adopt(nobody).unwrap(), 0);
        assert_eq!(incoming.adopt(manifest.id()).unwrap(), 0);
        assert_eq!(incoming.needs().len(), 1);
        assert!(studio.part(&manifest, &small).exists());
    }
}
