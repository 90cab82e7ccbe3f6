//! Taking up what an earlier run left: nothing counts that was not hashed again.

use std::{fs::File, io, ops::Range, sync::Arc};

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
    slot::Slot,
};
use crate::{
    fs::{Dir, FileKind, FileStat, IoError, Overwrite, path_of},
    object::{
        hash::hash_file_by_pool,
        name::{Spread, name_file, with_block},
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

impl Incoming {
    /// Brings the area into order after whatever happened to it.
    pub(super) fn take_up(&self) -> Result<(), IncomingError> {
        self.dismantle_tree()?;
        for entry in self.parts.list(None).map_err(|e| self.failed(e))? {
            let object = entry.name.to_str().map(|name| name.strip_suffix(".blocks").unwrap_or(name));
            let object = object.and_then(|hex| hex.parse::<ObjectHash>().ok());
            let is_known = object.is_some_and(|object| self.slots.contains_key(&object));
            if let (false, Ok(name)) = (is_known, entry.rel_path()) {
                self.parts.remove_tree(&name).map_err(|e| self.failed(e))?;
            }
        }
        let slots: Vec<&Slot> = self.slots.values().filter(|slot| !slot.is_complete()).collect();
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
        let Some(part) = part else { return Ok(()) };
        if part.kind != FileKind::File || part.size != slot.size {
            return self.parts.remove_tree(&name).map_err(|e| self.failed(e));
        }
        self.check_part(slot)?;
        if !slot.is_complete() && !part.is_writable() {
            slot.reset();
            return self.parts.remove_file(&name).map_err(|e| self.failed(e));
        }
        Ok(())
    }

    /// Hashes the part of an object that has its full length, and notes which blocks are good.
    pub(super) fn check_part(&self, slot: &Slot) -> Result<(), IncomingError> {
        let list = slot.state().blocks.clone();
        let good = self.good_blocks(&self.parts, slot, list.as_deref())?;
        let mut state = slot.state();
        state.has_part = true;
        state.is_unchecked = good.is_none();
        good.into_iter().flatten().for_each(|index| state.present.insert(index));
        Ok(())
    }

    /// Hashes an object's part of full length in `parts`, and returns the blocks that are good; `None` when only the block
    /// list, which is not here, could tell.
    pub(super) fn good_blocks(
        &self,
        parts: &Dir,
        slot: &Slot,
        list: Option<&BlockList>,
    ) -> Result<Option<Vec<u64>>, IncomingError> {
        let name = part_name(slot.object);
        let read_failed =
            |error: io::Error| self.failed(IoError::new("read", parts.path().join(name.as_str()), error));
        let file = parts.open_file(&name).map_err(|e| self.failed(e))?;
        let runs = written_blocks(&file, slot.size).map_err(|e| read_failed(e.into()))?;
        let blocks: Vec<u64> = runs.into_iter().flatten().collect();
        let Some(list) = list else {
            let is_whole = blocks.len() as u64 == block_count(slot.size)
                && name_file(&file, slot.size, Spread::Pool, &|_, _| Ok(())).map_err(read_failed)?.object()
                    == slot.object;
            return Ok(is_whole.then_some(blocks));
        };
        let check = |index| {
            let is_good = with_block(&file, slot.size, index, |bytes| Ok(list.accepts(index, bytes)))?;
            Ok(is_good.then_some(index))
        };
        let good = blocks.into_par_iter().filter_map(|index| check(index).transpose());
        good.collect::<io::Result<_>>().map(Some).map_err(read_failed)
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
