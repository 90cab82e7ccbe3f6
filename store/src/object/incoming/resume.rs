//! Taking up what an earlier run left: nothing counts that was not hashed again, or claimed after a sync.

use std::{
    collections::HashSet,
    fs::File,
    io,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList, block_count},
    hash::ObjectHash,
    manifest::{FileEntry, Manifest},
    rel_path::RelPath,
};
use rayon::prelude::*;
use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

use super::{
    Incoming, IncomingError,
    area::{blocks_name, part_name},
    claim::{Claim, claim_name},
    slot::Slot,
};
use crate::{
    fs::{Dir, FileKind, FileStat, IoError, Overwrite, path_of},
    object::{
        block_set::BlockSet,
        hash::hash_file_by_pool,
        name::{Spread, block_bytes, name_file, with_block},
        serve::read_list,
    },
};

/// Finds the files of the manifest that lie in their final place with the right content.
pub(super) fn find_in_place(
    project: &Dir,
    manifest: &Manifest,
    known: &(dyn Fn(&RelPath, &FileStat) -> Option<ObjectHash> + Sync),
) -> Result<Vec<Option<FileStat>>, IoError> {
    let version_dir = match project.open_dir(manifest.dir()) {
        Err(error) if error.is_not_found() => return Ok(vec![None; manifest.files().len()]),
        opened => opened?,
    };
    let find = |file: &FileEntry| {
        let Some(stat) = version_dir.stat(&file.path)? else { return Ok(None) };
        if stat.kind != FileKind::File || stat.size != file.size {
            return Ok(None);
        }
        let in_project = manifest.dir().join(&file.path).ok();
        if in_project.and_then(|path| known(&path, &stat)) == Some(file.hash) {
            return Ok(Some(stat));
        }
        match hash_file_by_pool(&version_dir, &file.path) {
            Ok(hashed) if hashed.object() == file.hash => Ok(Some(hashed.stat)),
            // Something else, or somebody works on it: placing will say so.
            _ => Ok(None),
        }
    };
    manifest.files().par_iter().map(find).collect()
}

/// The blocks of a part that are what they should be.
pub(super) struct GoodBlocks {
    pub(super) blocks: Vec<u64>,
    /// How many bytes of them a claim names.
    claimed_bytes: u64,
}

impl Incoming {
    /// Brings the area into order after whatever happened to it.
    pub(super) fn take_up(&self) -> Result<(), IncomingError> {
        self.dismantle_tree()?;
        let mut found = HashSet::new();
        for entry in self.parts.list(None).map_err(|e| self.failed(e))? {
            let object = entry.name.to_str().and_then(object_of);
            let known = object.filter(|object| self.slots.contains_key(object));
            if let (None, Ok(name)) = (known, entry.rel_path()) {
                self.parts.remove_tree(&name).map_err(|e| self.failed(e))?;
            }
            found.extend(known);
        }
        // Many objects have nothing here yet: they cost no call of the system.
        let slots = found.iter().filter_map(|object| self.slots.get(object));
        let slots: Vec<&Slot> = slots.filter(|slot| !slot.is_complete()).collect();
        slots.par_iter().with_max_len(1).try_for_each(|slot| self.take_up_slot(slot))?;
        self.copy_from_place();
        Ok(())
    }

    /// Moves the files of a tree that was being built back among the parts.
    fn dismantle_tree(&self) -> Result<(), IncomingError> {
        let name = path_of("tree");
        let tree = match self.area.open_dir(&name) {
            Err(error) if error.is_not_found() => return Ok(()),
            opened => opened.map_err(|e| self.failed(e))?,
        };
        for file in self.manifest.files() {
            match tree.rename(&file.path, &self.parts, &part_name(file.hash), Overwrite::Refuse) {
                Err(error) if !(error.is_not_found() || error.is_already_there()) => {
                    return Err(self.failed(error));
                }
                _ => {}
            }
        }
        self.area.remove_tree(&name).map_err(|e| self.failed(e))
    }

    fn take_up_slot(&self, slot: &Slot) -> Result<(), IncomingError> {
        let name = part_name(slot.object);
        let part = self.parts.stat(&name).map_err(|e| self.failed(e))?;
        if !slot.is_single()
            && let Some(list) = read_list(&self.parts, &blocks_name(slot.object), slot.object, slot.size)
        {
            slot.state().blocks = Some(Arc::new(list));
        }
        let Some(part) = part else {
            return self.parts.remove_tree(&claim_name(slot.object)).map_err(|e| self.failed(e));
        };
        if part.kind != FileKind::File || part.size != slot.size {
            let removed = self.parts.remove_tree(&claim_name(slot.object));
            return removed.and_then(|()| self.parts.remove_tree(&name)).map_err(|e| self.failed(e));
        }
        self.check_part(slot)?;
        if !slot.is_complete() && !part.is_writable() {
            slot.reset();
            return self.parts.remove_file(&name).map_err(|e| self.failed(e));
        }
        Ok(())
    }

    /// Looks which blocks of an object's part are good, which has its full length, and notes them.
    pub(super) fn check_part(&self, slot: &Slot) -> Result<(), IncomingError> {
        let list = slot.state().blocks.clone();
        let good = self.good_blocks(&self.parts, slot, list.as_deref())?;
        let mut state = slot.state();
        state.has_part = true;
        state.is_unchecked = good.is_none();
        if let Some(good) = good {
            good.blocks.into_iter().for_each(|index| state.present.insert(index));
            state.claimed_bytes = good.claimed_bytes;
        }
        Ok(())
    }

    /// Hashes what no claim names of an object's part of full length in `parts`, and returns the blocks that are good;
    /// `None` when only the block list, which is not here, could tell.
    pub(super) fn good_blocks(
        &self,
        parts: &Dir,
        slot: &Slot,
        list: Option<&BlockList>,
    ) -> Result<Option<GoodBlocks>, IncomingError> {
        let name = part_name(slot.object);
        let read_failed =
            |error: io::Error| self.failed(IoError::new("read", parts.path().join(name.as_str()), error));
        let file = parts.open_file(&name).map_err(|e| self.failed(e))?;
        let runs = written_blocks(&file, slot.size).map_err(|e| read_failed(e.into()))?;
        let written: Vec<u64> = runs.into_iter().flatten().collect();
        let Some(list) = list else {
            if written.len() as u64 != block_count(slot.size) {
                return Ok(None);
            }
            self.count_rehashed(slot.size);
            let named = name_file(&file, slot.size, Spread::Pool, &|_, _| Ok(())).map_err(read_failed)?;
            let whole = GoodBlocks { blocks: written, claimed_bytes: 0 };
            return Ok((named.object() == slot.object).then_some(whole));
        };
        let check = |index| {
            self.count_rehashed(block_bytes(slot.size, index));
            with_block(&file, slot.size, index, |bytes| Ok(list.accepts(index, bytes)))
        };
        let claimed = believed_blocks(parts, &file, slot, &written, &check).map_err(read_failed)?;
        let (mut blocks, unknown): (Vec<u64>, Vec<u64>) =
            written.into_iter().partition(|index| claimed.contains(*index));
        let checked = unknown.into_par_iter().map(|index| Ok((index, check(index)?)));
        let checked = checked.collect::<io::Result<Vec<(u64, bool)>>>().map_err(read_failed)?;
        blocks.extend(checked.into_iter().filter_map(|(index, is_good)| is_good.then_some(index)));
        Ok(Some(GoodBlocks { blocks, claimed_bytes: claimed.bytes() }))
    }

    fn count_rehashed(&self, bytes: u64) {
        self.bytes_rehashed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A file in its final place may serve others of the same content. A failure costs a transfer, no more.
    fn copy_from_place(&self) {
        for (file, in_place) in self.manifest.files().iter().zip(&self.in_place) {
            let is_needed =
                in_place.is_some() && self.slots.get(&file.hash).is_some_and(|s| !s.is_complete());
            if !is_needed {
                continue;
            }
            let Ok(path) = self.manifest.dir().join(&file.path) else { continue };
            if let Err(error) = self.copy_local(&file.hash, &self.project, &path) {
                tracing::debug!(%path, %error, "a file in place did not serve its twin");
            }
        }
    }
}

/// Returns the blocks of a part that need not be read: those of its claim. A claim that names a hole, or whose first or last
/// block does not verify, is none: something else was written into the part since.
fn believed_blocks(
    parts: &Dir,
    part: &File,
    slot: &Slot,
    written: &[u64],
    check: &dyn Fn(u64) -> io::Result<bool>,
) -> io::Result<BlockSet> {
    let nothing = BlockSet::empty(slot.size);
    let Some(claim) = Claim::read(parts, part, slot.object, slot.size) else { return Ok(nothing) };
    let named = || written.iter().copied().filter(|index| claim.blocks.contains(*index));
    if named().count() as u64 != claim.blocks.count() {
        return Ok(nothing);
    }
    for index in named().next().into_iter().chain(named().next_back()) {
        if !check(index)? {
            return Ok(nothing);
        }
    }
    Ok(claim.blocks)
}

/// Returns the object that a name among the parts belongs to; copies that are not verified belong to none.
fn object_of(name: &str) -> Option<ObjectHash> {
    let hex = name.strip_suffix(".blocks").or_else(|| name.strip_suffix(".have")).unwrap_or(name);
    hex.parse().ok()
}

/// Returns the runs of blocks that are not entirely holes: room that was reserved and never written reads as a hole.
fn written_blocks(file: &File, size: u64) -> rustix::io::Result<Vec<Range<u64>>> {
    let all = 0..block_count(size);
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(vec![all]),
            Err(errno) => return Err(errno),
        };
        let hole = seek(file, SeekFrom::Hole(data))?.min(size);
        let first = (data / BLOCK_BYTES).max(runs.last().map_or(0, |run| run.end));
        let end = hole.div_ceil(BLOCK_BYTES);
        if first < end {
            runs.push(first..end);
        }
        at = hole.max(at + 1);
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::fs::preallocate;

    #[test]
    fn only_blocks_that_were_written_are_looked_at() {
        let file = tempfile::tempfile().unwrap();
        let size = 8 * BLOCK_BYTES + 3;
        preallocate(&file, size).unwrap();
        assert_eq!(written_blocks(&file, size).unwrap(), Vec::<Range<u64>>::new());
        file.write_all_at(b"x", 2 * BLOCK_BYTES - 1).unwrap();
        file.write_all_at(b"x", 2 * BLOCK_BYTES + 100_000).unwrap();
        file.write_all_at(b"xyz", 8 * BLOCK_BYTES).unwrap();
        let blocks: Vec<u64> = written_blocks(&file, size).unwrap().into_iter().flatten().collect();
        assert_eq!(blocks, [1, 2, 8]);
    }
}
