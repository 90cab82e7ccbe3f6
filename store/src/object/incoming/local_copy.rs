//! Taking an object from a file that is on this machine already.

use std::fs::File;

use avalon_protocol::{hash::ObjectHash, rel_path::RelPath};

use super::{Incoming, IncomingError, area::part_name};
use crate::{
    fs::{Dir, Overwrite},
    object::copy::{CopyMeans, copy_and_name},
};

/// How an object was taken from a local file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalCopy {
    /// It shares the file's blocks on disk.
    Reflinked {
        /// Its size in bytes.
        bytes: u64,
    },
    /// Its bytes were copied.
    Copied {
        /// Its size in bytes.
        bytes: u64,
    },
    /// It was complete before; nothing was done.
    AlreadyHere,
}

impl Incoming {
    /// Takes a whole object from a local file that should hold it, and verifies what arrived.
    ///
    /// # Errors
    /// [`IncomingError::CopyMismatch`] when the file holds something else: it is damaged or was changed, and nothing of
    /// it stays here. [`IncomingError::NotNeeded`]; [`IncomingError::Io`].
    pub fn copy_local(
        &self,
        object: &ObjectHash,
        source_dir: &Dir,
        source: &RelPath,
    ) -> Result<LocalCopy, IncomingError> {
        let slot = self.slot(object)?;
        if slot.is_complete() {
            return Ok(LocalCopy::AlreadyHere);
        }
        let from = source_dir.open_file(source).map_err(|e| self.failed(e))?;
        let mismatch = || IncomingError::CopyMismatch { object: *object, path: source.clone() };
        if from.metadata().is_ok_and(|metadata| metadata.len() != slot.size) {
            return Err(mismatch());
        }
        let (name, means) = self.copy_verified(&from, *object, slot.size)?.ok_or_else(mismatch)?;
        let part = part_name(*object);
        let _writing = self.writing();
        if slot.is_complete() {
            return self
                .parts
                .remove_file(&name)
                .map(|()| LocalCopy::AlreadyHere)
                .map_err(|e| self.failed(e));
        }
        self.parts.rename(&name, &self.parts, &part, Overwrite::Replace).map_err(|e| self.failed(e))?;
        slot.complete();
        let bytes = slot.size;
        Ok(match means {
            CopyMeans::Reflink => LocalCopy::Reflinked { bytes },
            CopyMeans::Bytes => LocalCopy::Copied { bytes },
        })
    }

    /// Copies a file to a name of its own among the parts; `None` when what arrived is not the object.
    pub(super) fn copy_verified(
        &self,
        from: &File,
        object: ObjectHash,
        size: u64,
    ) -> Result<Option<(RelPath, CopyMeans)>, IncomingError> {
        let name = self.copy_name(object);
        let to = self.parts.create_file(&name).map_err(|e| self.failed(e))?;
        let copied = copy_and_name(from, &to, size);
        match copied {
            Ok((means, blocks)) if blocks.object() == object => return Ok(Some((name, means))),
            _ => self.parts.remove_file(&name).map_err(|e| self.failed(e))?,
        }
        match copied {
            // The source became shorter while it was read.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(self.part_failed("copy to", &name, error)),
            Ok(_) => Ok(None),
        }
    }
}
