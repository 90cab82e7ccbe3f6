//! Opening an audit after a stop, however that was.

use std::{io::Read as _, os::unix::fs::FileExt as _};

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
    /// The last line is whole and its end is missing; it got one. Whether it was acknowledged is not known, and its hash proves it.
    Unended {
        /// The file.
        file: String,
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
    /// How many of its lines are good.
    lines: u64,
}

impl End {
    /// Compares with how much of the file was acknowledged: what is missing of that no crash took.
    fn is_short_of(&mut self, name: &str, bytes: u64) {
        if self.good_bytes < bytes && !matches!(self.mended, Some(Mended::Damaged { .. })) {
            self.mended = Some(Mended::Damaged { file: name.to_owned(), line: self.lines + 1 });
            // So that whoever checks later sees that one is missing.
            self.next += 1;
        }
    }
}

/// What stands behind the last good line of a file.
enum Tail {
    /// A crash left the beginning of what was appended, or zeros where it should be.
    Torn,
    /// A whole line, with this hash, without its end.
    Unended(AuditHash),
    /// Something that no append of ours leaves.
    Damaged,
}

/// Judges what follows the entry with hash `before`, where the entry with the number `next` should.
fn tail(rest: &[u8], next: u64, before: Option<AuditHash>) -> Tail {
    let zeros = rest.iter().rev().take_while(|byte| **byte == 0).count();
    let written = rest.get(..rest.len() - zeros).unwrap_or_default();
    if written.contains(&b'\n') {
        return Tail::Damaged;
    }
    let whole = |line: &[u8]| {
        let line = AuditLine::parse(line).ok()?;
        before.is_some_and(|before| line.follows(before)).then_some(line.stated)
    };
    match whole(written) {
        Some(stated) if zeros == 0 => return Tail::Unended(stated),
        // Where its newline should be stands another byte.
        None if written.split_last().is_some_and(|(_, line)| whole(line).is_some()) => return Tail::Damaged,
        _ => {}
    }
    let begins = format!("{{\"seq\":{next},\"at\":\"");
    let same = written.iter().zip(begins.as_bytes()).all(|(one, other)| one == other);
    if same { Tail::Torn } else { Tail::Damaged }
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
        let acknowledged = files.acknowledged();
        while let Some((first, name)) = segments.pop() {
            let mut end = files.read_end(first, &name)?;
            if let Some((_, bytes)) = acknowledged.as_ref().filter(|(file, _)| *file == name) {
                end.is_short_of(&name, *bytes);
            }
            mended.extend(end.mended.clone());
            if !end.begins {
                files.put_aside(&name, end.mended.as_ref())?;
                continue;
            }
            (files.next, files.hash) = (end.next, end.hash);
            if !matches!(end.mended, Some(Mended::Damaged { .. })) {
                let file = dir.open_rw(&path(&name))?;
                let failed = |error| IoError::new("mend", dir.path().join(&name), error);
                if matches!(end.mended, Some(Mended::Unended { .. })) {
                    file.write_all_at(b"\n", end.good_bytes - 1).map_err(failed)?;
                }
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
        let mut end =
            End { next: first, hash: AuditHash::START, good_bytes: 0, mended: None, begins: false, lines: 0 };
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
                end.lines += 1;
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
        let before = if end.begins { Some(end.hash) } else { None };
        match tail(rest, end.next, before) {
            Tail::Torn => {
                end.mended = Some(Mended::Torn { file: name.to_owned(), bytes: rest.len() as u64 });
                return Ok(end);
            }
            Tail::Unended(stated) => {
                end.mended = Some(Mended::Unended { file: name.to_owned() });
                (end.next, end.hash) = (end.next + 1, stated);
                end.good_bytes += rest.len() as u64 + 1;
                return Ok(end);
            }
            Tail::Damaged => {}
        }
        end.mended = Some(Mended::Damaged { file: name.to_owned(), line: end.lines + 1 });
        if let Some((next, hash)) = said.filter(|(next, _)| *next > end.next) {
            (end.next, end.hash) = (next, hash);
        } else if end.begins {
            end.next += 1;
        }
        Ok(end)
    }
}
