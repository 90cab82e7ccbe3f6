//! [`Checker`]: reads the files of an audit in their order and names what is wrong with them.

use super::{AuditAction, AuditHead, AuditLine, MAX_LINE_BYTES, segment_first};
use crate::hash::AuditHash;

/// Most faults that are told; of more only the number is known.
const MAX_FAULTS: usize = 100;
/// How many hashes are tried for the line before one, after a fault.
const MAX_CANDIDATES: usize = 6;

/// Something in the files that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: u64,
    /// What is wrong.
    pub problem: String,
}

/// What the files come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The node whose audit it is.
    pub node: Option<String>,
    /// How many files there are.
    pub files: u64,
    /// How many lines they have.
    pub lines: u64,
    /// The number of the first entry: 0 unless older ones were forgotten.
    pub first: u64,
    /// The number of the entry that would come next, with the hash of the last.
    pub head: (u64, AuditHash),
    /// With how many of the heads that are known the files were compared.
    pub heads_compared: u64,
    /// What is wrong, in the order of the files; a hundred at most.
    pub faults: Vec<Fault>,
    /// How many faults there are.
    pub faults_total: u64,
}

/// What is known of the audit from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Heads that the node has published.
    pub heads: Vec<AuditHead>,
    /// How far the running daemon is, if it is asked.
    pub running: Option<(u64, AuditHash)>,
}

/// Reads an audit.
#[derive(Debug)]
pub struct Checker {
    /// The heads that are still to come, the nearest last.
    heads: Vec<(u64, AuditHash, &'static str)>,
    node: Option<String>,
    file: String,
    files: u64,
    lines: u64,
    line: u64,
    /// The line whose end has not come.
    partial: Vec<u8>,
    /// What the hash of the line before may be: one, unless something is wrong with that line.
    before: Vec<AuditHash>,
    /// What the number of the next line may be, likewise.
    nexts: Vec<u64>,
    /// The line before could not be read.
    is_lost: bool,
    first: u64,
    /// Up to which entry the audit itself says that files were forgotten.
    forgotten: u64,
    heads_compared: u64,
    faults: Vec<Fault>,
    faults_total: u64,
}

impl Checker {
    /// Begins to check.
    pub fn new(known: &Known) -> Self {
        let published = known.heads.iter().map(|head| (head.entries, head.hash, "its node published"));
        let running = known.running.map(|(entries, hash)| (entries, hash, "the running daemon knows of"));
        let mut heads: Vec<_> = published.chain(running).collect();
        heads.sort_by_key(|(entries, ..)| std::cmp::Reverse(*entries));
        Self {
            heads,
            node: None,
            file: String::new(),
            files: 0,
            lines: 0,
            line: 0,
            partial: Vec::new(),
            before: Vec::new(),
            nexts: Vec::new(),
            is_lost: false,
            first: 0,
            forgotten: 0,
            heads_compared: 0,
            faults: Vec::new(),
            faults_total: 0,
        }
    }

    /// Begins the next file, which was named so.
    pub fn begin_file(&mut self, name: &str) {
        name.clone_into(&mut self.file);
        self.files += 1;
        self.line = 0;
    }

    /// Takes the next bytes of the file, and hands every whole line that is an entry to `each`, with its bytes.
    pub fn bytes(&mut self, mut bytes: &[u8], mut each: impl FnMut(&AuditLine, &[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(line);
            self.take(&whole, &mut each);
        }
        // More than any line has is kept only as far as it takes to say so.
        let room = (MAX_LINE_BYTES + 1).saturating_sub(self.partial.len());
        self.partial.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// Ends the file.
    pub fn end_file(&mut self) {
        if !self.partial.is_empty() {
            self.partial.clear();
            self.line += 1;
            self.fault(self.line, "the line has no end: it was cut off, or something was added".into());
        } else if self.line == 0 {
            self.fault(0, "the file is empty".into());
        }
    }

    /// Says what all of it comes to.
    pub fn finish(mut self) -> Verdict {
        let reached = self.next();
        self.line = self.line.max(1);
        while let Some((entries, _, who)) = self.heads.pop() {
            if entries > reached {
                let problem = format!(
                    "the audit ends after entry {}, but {who} one with {entries} entries: the end was removed",
                    reached.saturating_sub(1)
                );
                self.fault(self.line, problem);
            }
        }
        if self.first > self.forgotten {
            let problem = format!("entries 0 to {} are missing before this file", self.first - 1);
            let fault = Fault { file: self.first_file(), line: 0, problem };
            self.faults.insert(0, fault);
            self.faults_total += 1;
        }
        let hash = self.before.first().copied().unwrap_or(AuditHash::START);
        Verdict {
            node: self.node,
            files: self.files,
            lines: self.lines,
            first: self.first,
            head: (reached, hash),
            heads_compared: self.heads_compared,
            faults: self.faults,
            faults_total: self.faults_total,
        }
    }

    fn first_file(&self) -> String {
        super::segment_name(self.first)
    }

    fn fault(&mut self, line: u64, problem: String) {
        self.faults_total += 1;
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault { file: self.file.clone(), line, problem });
        }
    }

    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(&AuditLine, &[u8])) {
        self.line += 1;
        self.lines += 1;
        let line = match AuditLine::parse(bytes) {
            Ok(line) => line,
            Err(error) => {
                self.fault(self.line, format!("{error}: it was changed or added"));
                self.is_lost = true;
                return;
            }
        };
        each(&line, bytes);
        if self.line == 1 {
            self.begin(&line);
        }
        let number = line.entry.seq;
        let expected = self.next();
        match self.problem(&line) {
            None => (self.before, self.nexts) = (vec![line.stated], vec![number.saturating_add(1)]),
            Some(problem) => {
                self.fault(self.line, problem);
                // Its number, its hash or the line as a whole may be what is wrong: whatever of them the next line goes on
                // from, that one is right.
                let should_be = self.before.iter().map(|before| line.hash_after(*before));
                let mut before: Vec<_> = [line.stated].into_iter().chain(should_be).collect();
                before.append(&mut self.before);
                before.truncate(MAX_CANDIDATES);
                self.before = before;
                self.nexts = vec![number.saturating_add(1), expected.saturating_add(1), expected];
            }
        }
        self.is_lost = false;
        if line.entry.fact.action == AuditAction::Forget
            && let Some(before) = line.entry.fact.detail.get("before").and_then(|text| text.parse().ok())
        {
            self.forgotten = self.forgotten.max(before);
        }
        self.compare(number.saturating_add(1), line.stated);
    }

    fn next(&self) -> u64 {
        self.nexts.first().copied().unwrap_or(0)
    }

    /// The first line of a file says what stands before it; of the first file nothing else does.
    fn begin(&mut self, line: &AuditLine) {
        let named = segment_first(&self.file);
        if named != Some(line.entry.seq) {
            self.fault(
                1,
                format!("the first entry is {}, which is not what the file's name says", line.entry.seq),
            );
        }
        match (line.after(), self.before.is_empty()) {
            (None, is_first) => {
                if is_first {
                    self.nexts = vec![line.entry.seq];
                }
                self.fault(1, "the file does not begin as files of an audit do".into());
            }
            (Some(after), true) => {
                self.first = line.entry.seq;
                self.nexts = vec![line.entry.seq];
                self.before = vec![after];
                if self.first == 0 && after != AuditHash::START {
                    self.fault(1, "the first entry of all names one before it".into());
                }
            }
            (Some(_), false) => {}
        }
    }

    fn problem(&mut self, line: &AuditLine) -> Option<String> {
        let (number, expected) = (line.entry.seq, self.next());
        let node = self.node.get_or_insert_with(|| line.entry.node.clone());
        if *node != line.entry.node {
            return Some(format!("the entry is of {}, the audit of {node}", line.entry.node));
        }
        // After a line that cannot be read nothing says what this one should follow; that one was told.
        if self.is_lost && number > expected {
            return None;
        }
        let follows = self.before.iter().any(|before| line.follows(*before));
        if self.nexts.contains(&number) {
            return (!follows).then(|| {
                format!("entry {number} is not what was written: it was changed, or what stands before it")
            });
        }
        let missing = match number.checked_sub(expected) {
            None => {
                return Some(format!(
                    "entry {number} stands where entry {expected} should: it was added, or lines were swapped"
                ));
            }
            Some(1) => format!("entry {expected} was"),
            Some(_) => format!("entries {expected} to {} were", number.saturating_sub(1)),
        };
        Some(format!(
            "entry {number} stands where entry {expected} should: {missing} removed, or lines were swapped"
        ))
    }

    /// Compares with the heads of so many entries.
    fn compare(&mut self, entries: u64, hash: AuditHash) {
        while let Some((known, expected, who)) = self.heads.last().copied() {
            if known > entries {
                return;
            }
            self.heads.pop();
            if known < entries {
                // Of entries that were forgotten, or that were told about already.
                continue;
            }
            self.heads_compared += 1;
            if expected != hash {
                let problem = format!(
                    "up to here the audit is another than {who}: {entries} entries with hash {expected}; it was rewritten"
                );
                self.fault(self.line, problem);
            }
        }
    }
}

#[cfg(test)]
mod tests;
