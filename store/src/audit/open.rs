//! Opening an audit after a stop, however that was.

use std::io::Read as _;

use avalon_protocol::{audit::AuditLine, hash::AuditHash};

use super::{AuditFiles, AuditReader, Current, SEGMENT_BYTES, path};
use crate::fs::{Dir, IoError, Overwrite};

/// More than a file and a group of entries can have; what is larger was not written by us.
const MAX_READ_BYTES: u64 = 128 << 20;

/// What was found wrong at the end of an audit when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mended {
    /// A crash had left part of an entry, which was never acknowledged; it was cut off.
    Torn {
        /// The file.
        file: String,
        /// How many bytes.
        bytes: u64,
    },
    /// Lines at the end are not what was written. They stay where they are; what comes goes into another file.
    Damaged {
        /// The file.
        file: String,
        /// The first of the lines.
        line: u64,
    },
}

/// Where a file ends.
struct End {
    next: u64,
    hash: AuditHash,
    good_bytes: u64,
    mended: Option<Mended>,
    /// What stands before it, if it has a first line at all.
    begins: bool,
}

impl AuditFiles {
    /// Opens the audit of a node, and mends its end.
    ///
    /// Only the last file is read here; [`AuditReader::check`] reads all.
    ///
    /// # Errors
    /// [`IoError`] when it cannot be read or mended.
    pub fn open(dir: &Dir, node: &str) -> Result<(Self, Vec<Mended>), IoError> {
        let mut files = Self {
            dir: dir.clone(),
            node: node.to_owned(),
            segment_bytes: SEGMENT_BYTES,
            next: 0,
            hash: AuditHash::START,
            current: None,
            is_torn: false,
        };
        let mut segments = AuditReader::new(dir).segments()?;
        let mut mended = Vec::new();
        while let Some((first, name)) = segments.pop() {
            let end = files.read_end(first, &name)?;
            mended.extend(end.mended.clone());
            if !end.begins {
                files.put_aside(&name, end.mended.as_ref())?;
                continue;
            }
            (files.next, files.hash) = (end.next, end.hash);
            if !matches!(end.mended, Some(Mended::Damaged { .. })) {
                let file = dir.open_rw(&path(&name))?;
                let failed = |error| IoError::new("truncate", dir.path().join(&name), error);
                file.set_len(end.good_bytes).and_then(|()| file.sync_all()).map_err(failed)?;
                files.current = Some(Current { name, file, bytes: end.good_bytes });
            }
            break;
        }
        Ok((files, mended))
    }

    /// A file without its first line: nothing of it was acknowledged, or it is not ours.
    fn put_aside(&self, name: &str, why: Option<&Mended>) -> Result<(), IoError> {
        match why {
            Some(Mended::Damaged { .. }) => {
                let aside = path(&format!("damaged-{name}"));
                self.dir.rename(&path(name), &self.dir, &aside, Overwrite::Replace)?;
            }
            _ => self.dir.remove_file(&path(name))?,
        }
        self.dir.sync()
    }

    fn read_end(&self, first: u64, name: &str) -> Result<End, IoError> {
        let mut bytes = Vec::new();
        let file = self.dir.open_file(&path(name))?;
        let failed = |error| IoError::new("read", self.dir.path().join(name), error);
        file.take(MAX_READ_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        let mut end = End { next: first, hash: AuditHash::START, good_bytes: 0, mended: None, begins: false };
        // What the last line that can be read says, whether it is right or not: what comes goes on from there.
        let mut said = None;
        let (mut number, mut is_good) = (0, true);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            number += 1;
            let Some(whole) = line.strip_suffix(b"\n") else { break };
            let Ok(read) = AuditLine::parse(whole) else {
                is_good = false;
                continue;
            };
            let before = if number == 1 { read.after() } else { Some(end.hash) };
            if is_good && read.entry.seq == end.next && before.is_some_and(|before| read.follows(before)) {
                end.good_bytes += line.len() as u64;
                (end.next, end.hash, end.begins) = (end.next + 1, read.stated, true);
            } else {
                is_good = false;
                said = Some((read.entry.seq.saturating_add(1), read.stated));
            }
        }
        let rest = bytes.get(usize::try_from(end.good_bytes).unwrap_or(0)..).unwrap_or_default();
        if rest.is_empty() {
            if bytes.is_empty() {
                end.mended = Some(Mended::Torn { file: name.to_owned(), bytes: 0 });
            }
            return Ok(end);
        }
        // A crash leaves the beginning of what was appended, or zeros where it should be.
        let ends = rest.iter().filter(|byte| **byte == b'\n').count();
        if ends == 0 || rest.iter().all(|byte| *byte == 0) {
            end.mended = Some(Mended::Torn { file: name.to_owned(), bytes: rest.len() as u64 });
            return Ok(end);
        }
        let good_lines =
            bytes.iter().take(usize::try_from(end.good_bytes).unwrap_or(0)).filter(|byte| **byte == b'\n');
        end.mended = Some(Mended::Damaged { file: name.to_owned(), line: good_lines.count() as u64 + 1 });
        if let Some((next, hash)) = said.filter(|(next, _)| *next > end.next) {
            (end.next, end.hash) = (next, hash);
        } else if end.begins {
            end.next += 1;
        }
        Ok(end)
    }
}
