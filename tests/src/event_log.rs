//! The trace of a run: a hash over every step, and on demand the steps themselves.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde::Serialize;

/// Whether the steps are kept beside their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// Only the hash: what a run of many seeds needs.
    HashOnly,
    /// Every step as a line of JSON: what a failure needs. The hash is the same.
    Full,
}

/// The trace of one run.
#[derive(Debug)]
pub struct EventLog {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    lines: Option<Vec<String>>,
    steps: u64,
    counts: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    step: u64,
    at_ms: u64,
    #[serde(flatten)]
    what: What<'a, T>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum What<'a, T> {
    Event(&'a T),
    Note(&'a T),
}

impl EventLog {
    /// Starts an empty trace.
    pub fn new(recording: Recording) -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            buffer: Vec::new(),
            lines: (recording == Recording::Full).then(Vec::new),
            steps: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Adds a step.
    pub fn step(&mut self, at_ms: u64, event: &impl Serialize) {
        self.steps += 1;
        self.hash(at_ms, event);
        if let Some(lines) = &mut self.lines {
            lines.push(line(&Line { step: self.steps, at_ms, what: What::Event(event) }));
        }
    }

    /// Adds what a node did in the current step, counted by a name.
    pub fn note(&mut self, at_ms: u64, name: &'static str, note: &impl Serialize) {
        *self.counts.entry(name).or_default() += 1;
        self.hash(at_ms, note);
        if let Some(lines) = &mut self.lines {
            lines.push(line(&Line { step: self.steps, at_ms, what: What::Note(note) }));
        }
    }

    fn hash(&mut self, at_ms: u64, what: &impl Serialize) {
        self.buffer.clear();
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = postcard::to_extend(&(at_ms, what), buffer).expect("events are plain data");
        self.hasher.update(&self.buffer);
    }

    /// Returns how many steps there were.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns how often each kind of note was made.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Returns the hash of everything so far.
    pub fn trace(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    /// Writes the steps as lines of JSON; nothing when they were not recorded.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(file)?);
        for line in self.lines.iter().flatten() {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }
}

fn line(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("events are plain data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Note};

    #[test]
    fn recording_does_not_change_the_trace_and_any_difference_does() {
        let trace = |recording, times: &[u64]| {
            let mut log = EventLog::new(recording);
            for at_ms in times {
                log.step(*at_ms, &Event::Judge);
            }
            let note = Note::Skipped(1);
            log.note(9, note.name(), &note);
            log.trace()
        };
        assert_eq!(trace(Recording::Full, &[1, 2]), trace(Recording::HashOnly, &[1, 2]));
        assert_ne!(trace(Recording::Full, &[1, 2]), trace(Recording::Full, &[1, 3]));
    }
}
