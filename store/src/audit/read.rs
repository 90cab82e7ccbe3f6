//! [`AuditReader`]: the files as they lie there, for checks and exports.

use std::io::{BufRead as _, BufReader, Read};

use avalon_protocol::{
    audit::{AuditLine, Checker, Known, MAX_LINE_BYTES, Verdict, segment_first},
    hash::AuditHash,
};

use super::path;
use crate::fs::{Dir, IoError};

/// Read at once.
const PIECE_BYTES: usize = 256 << 10;

/// How far an audit goes, durably.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// How many entries there are, those that were forgotten included.
    pub entries: u64,
    /// The hash of the last.
    pub hash: AuditHash,
    /// The file that is written to, and how much of it is durable.
    pub segment: Option<(String, u64)>,
}

/// Reads an audit, also while somebody writes.
#[derive(Debug, Clone)]
pub struct AuditReader {
    dir: Dir,
}

impl AuditReader {
    /// Reads what lies in a directory.
    pub fn new(dir: &Dir) -> Self {
        Self { dir: dir.clone() }
    }

    /// Returns the files in their order, with the number of the first entry by the name. Others are passed over.
    ///
    /// # Errors
    /// [`IoError`].
    pub fn segments(&self) -> Result<Vec<(u64, String)>, IoError> {
        let entries = self.dir.list(None)?;
        let names = entries.iter().filter_map(|entry| entry.rel_path().ok());
        let mut segments: Vec<_> = names
            .filter_map(|name| Some((segment_first(name.as_str())?, name.as_str().to_owned())))
            .collect();
        segments.sort();
        Ok(segments)
    }

    /// Returns the first line of a file; none when there is no whole one.
    pub(super) fn first_line(&self, name: &str) -> Result<Option<AuditLine>, IoError> {
        let file = self.dir.open_file(&path(name))?;
        let mut line = Vec::new();
        let read = BufReader::new(file.take(MAX_LINE_BYTES as u64 + 1)).read_until(b'\n', &mut line);
        read.map_err(|error| IoError::new("read", self.dir.path().join(name), error))?;
        Ok(line.strip_suffix(b"\n").and_then(|line| AuditLine::parse(line).ok()))
    }

    /// Checks all files, and hands every entry with its line to `each`. What is written meanwhile is left out.
    ///
    /// # Errors
    /// [`IoError`] when a file cannot be read.
    pub fn check(
        &self,
        known: &Known,
        upto: Option<&Written>,
        mut each: impl FnMut(&AuditLine, &[u8]),
    ) -> Result<Verdict, IoError> {
        let mut checker = Checker::new(known);
        let mut piece = vec![0; PIECE_BYTES];
        for (_, name) in self.segments()? {
            let end = match upto.and_then(|written| written.segment.as_ref()) {
                Some((last, _)) if name > *last => break,
                Some((last, bytes)) if name == *last => *bytes,
                _ => u64::MAX,
            };
            let failed = |error| IoError::new("read", self.dir.path().join(&name), error);
            let mut file = self.dir.open_file(&path(&name))?.take(end);
            checker.begin_file(&name);
            loop {
                let read = file.read(&mut piece).map_err(failed)?;
                if read == 0 {
                    break;
                }
                checker.bytes(piece.get(..read).unwrap_or_default(), &mut each);
            }
            checker.end_file();
        }
        Ok(checker.finish())
    }
}
