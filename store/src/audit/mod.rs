//! The files of the audit: append-only, chained by hashes, in segments. What a line is stands in [`avalon_protocol::audit`].
//!
//! One writer appends; a group of entries is durable when [`AuditFiles::append`] returns. Readers open the files for
//! themselves and go no further than [`Written`] says.

mod open;
mod read;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
};

use avalon_protocol::{
    audit::{AuditAction, AuditEntry, AuditFact, seal, segment_name},
    hash::AuditHash,
    rel_path::RelPath,
};

pub use self::{
    open::Mended,
    read::{AuditReader, Written},
};
use crate::fs::{Dir, IoError, WriteMode, path_of};

/// A file that has more is not written on; months of a busy node.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Says how far a file is acknowledged: its name and a number of bytes.
const END_NOTE: &str = "end";
const MAX_NOTE_BYTES: u64 = 256;

/// The audit of one node, open for writing.
#[derive(Debug)]
pub struct AuditFiles {
    dir: Dir,
    node: String,
    segment_bytes: u64,
    /// The number of the next entry.
    next: u64,
    hash: AuditHash,
    current: Option<Current>,
    /// Something was written that may not be there, or may be there in part: it is cut off before anything else.
    is_torn: bool,
}

/// The file that is written to.
#[derive(Debug)]
struct Current {
    name: String,
    file: File,
    /// How much of it is durable.
    bytes: u64,
}

impl AuditFiles {
    /// Returns how far the audit goes, durably.
    pub fn written(&self) -> Written {
        let segment = self.current.as_ref().map(|current| (current.name.clone(), current.bytes));
        Written { entries: self.next, hash: self.hash, segment }
    }

    /// Adds entries, each with its time, and makes them durable, all or none. A file that is full is followed by another.
    ///
    /// # Errors
    /// [`IoError`]; nothing was added, and the next call cuts off what was left of it. An fsync that failed is not tried
    /// again: what comes goes into another file.
    pub fn append(&mut self, facts: &[(String, AuditFact)]) -> Result<(), IoError> {
        let Some((at, _)) = facts.first() else { return Ok(()) };
        self.mend()?;
        if self.current.as_ref().is_none_or(|current| current.bytes >= self.segment_bytes) {
            self.begin(at)?;
        }
        let (mut next, mut hash, mut lines) = (self.next, self.hash, Vec::new());
        for (at, fact) in facts {
            let (line, after) = self.line(next, hash, at, fact.clone());
            lines.extend(line);
            (next, hash) = (next + 1, after);
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        // Until all of it is durable, it is not known what is there.
        self.is_torn = true;
        let failed = |action, error| IoError::new(action, self.dir.path().join(&current.name), error);
        current.file.write_all_at(&lines, current.bytes).map_err(|error| failed("write", error))?;
        current.file.sync_data().map_err(|error| failed("fsync", error))?;
        self.is_torn = false;
        current.bytes += lines.len() as u64;
        (self.next, self.hash) = (next, hash);
        Ok(())
    }

    fn line(&self, seq: u64, before: AuditHash, at: &str, fact: AuditFact) -> (Vec<u8>, AuditHash) {
        let entry = AuditEntry { seq, at: at.to_owned(), node: self.node.clone(), fact: fact.bounded() };
        seal(before, &entry)
    }

    /// Cuts off what an append left that failed; the next goes into a file of its own.
    fn mend(&mut self) -> Result<(), IoError> {
        if !self.is_torn {
            return Ok(());
        }
        if let Some(current) = &self.current {
            let failed = |action, error| IoError::new(action, self.dir.path().join(&current.name), error);
            current.file.set_len(current.bytes).map_err(|error| failed("truncate", error))?;
            current.file.sync_all().map_err(|error| failed("fsync", error))?;
        }
        self.current = None;
        self.is_torn = false;
        Ok(())
    }

    /// Begins a file with the entry that says what stands before it.
    fn begin(&mut self, at: &str) -> Result<(), IoError> {
        let name = segment_name(self.next);
        let fact = AuditFact::daemon(AuditAction::Begin).detail("after", self.hash.to_string());
        let (line, hash) = self.line(self.next, self.hash, at, fact);
        let path = path_of(&name);
        let mut file = match self.dir.create_file(&path) {
            // A full disk kept an earlier attempt from being finished, and from being taken back. Nothing of it was acknowledged.
            Err(error) if error.is_already_there() => {
                self.dir.remove_file(&path)?;
                self.dir.create_file(&path)?
            }
            created => created?,
        };
        let failed = |action, error| IoError::new(action, self.dir.path().join(&name), error);
        let written = file.write_all(&line).map_err(|error| failed("write", error));
        let written = written.and_then(|()| file.sync_all().map_err(|error| failed("fsync", error)));
        if let Err(error) = written.and_then(|()| self.dir.sync()) {
            // The next attempt makes one of the same name, and removes what is left.
            if let Err(left) = self.dir.remove_file(&path) {
                tracing::warn!(error = %left, "a file of the audit that was just begun stays behind");
            }
            return Err(error);
        }
        self.next += 1;
        self.hash = hash;
        self.current = Some(Current { name, file, bytes: line.len() as u64 });
        Ok(())
    }

    /// Returns the number of the first entry that stays when all files go whose entries are older than `at`; none when
    /// all stay. The file that is written to always stays.
    ///
    /// # Errors
    /// [`IoError`] when the files cannot be read.
    pub fn forgettable(&self, at: &str) -> Result<Option<u64>, IoError> {
        let reader = self.reader();
        let segments = reader.segments()?;
        let mut keep_from = None;
        for (first, name) in segments.iter().skip(1) {
            // The first entry of a file is as new as the last of the one before.
            match reader.first_line(name)? {
                Some(line) if line.entry.at.as_str() < at => keep_from = Some(*first),
                _ => break,
            }
        }
        Ok(keep_from)
    }

    /// Removes the files whose entries are all before this one. An entry that says so must be durable by then.
    ///
    /// # Errors
    /// [`IoError`]; what is left goes the next time.
    pub fn forget_before(&self, first: u64) -> Result<(), IoError> {
        let segments = self.reader().segments()?;
        for (_, name) in segments.iter().filter(|(begins, _)| *begins < first) {
            self.dir.remove_file(&path_of(name))?;
        }
        self.dir.sync()
    }

    /// Notes how far the audit is acknowledged, when nothing follows for now: what the next start misses of that no crash took.
    ///
    /// # Errors
    /// [`IoError`]; what was noted before stands.
    pub fn note_end(&self) -> Result<(), IoError> {
        let Some(current) = self.current.as_ref().filter(|_| !self.is_torn) else { return Ok(()) };
        let text = format!("{} {}\n", current.name, current.bytes);
        self.dir.write_atomic(&path_of(END_NOTE), text.as_bytes(), WriteMode::Replace)
    }

    /// Returns a file and how much of it was acknowledged, by what was noted last; none when that is not known.
    fn acknowledged(&self) -> Option<(String, u64)> {
        let file = self.dir.open_file(&path_of(END_NOTE)).ok()?;
        let mut text = String::new();
        file.take(MAX_NOTE_BYTES).read_to_string(&mut text).ok()?;
        let (name, bytes) = text.trim_end().split_once(' ')?;
        Some((name.to_owned(), bytes.parse().ok()?))
    }

    /// Returns what reads the files.
    pub fn reader(&self) -> AuditReader {
        AuditReader::new(&self.dir)
    }
}

fn path(name: &str) -> RelPath {
    path_of(name)
}

#[cfg(test)]
mod tests;
