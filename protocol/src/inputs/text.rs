//! Reading text files byte by byte, with a buffer of one size however long the lines are.

use super::{ScanError, Source};

const BUFFER_BYTES: usize = 64 << 10;

/// The bytes of a file from where it stands, one after the other.
pub(super) struct Bytes<'a> {
    source: &'a mut dyn Source,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl<'a> Bytes<'a> {
    /// Takes the file.
    pub(super) fn new(source: &'a mut dyn Source) -> Self {
        Self { source, buffer: vec![0; BUFFER_BYTES], at: 0, end: 0 }
    }

    /// Returns the next byte without taking it.
    pub(super) fn peek(&mut self) -> Result<Option<u8>, ScanError> {
        if self.at == self.end {
            self.at = 0;
            self.end = self.source.read(&mut self.buffer).map_err(ScanError::Read)?;
        }
        Ok(self.buffer.get(..self.end).and_then(|filled| filled.get(self.at)).copied())
    }

    /// Takes the next byte.
    pub(super) fn take(&mut self) -> Result<Option<u8>, ScanError> {
        let byte = self.peek()?;
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    /// Takes bytes up to and including one of these, and returns it.
    pub(super) fn skip_to(&mut self, any_of: &[u8]) -> Result<Option<u8>, ScanError> {
        while self.peek()?.is_some() {
            let filled = self.buffer.get(self.at..self.end).unwrap_or_default();
            match filled.iter().position(|byte| any_of.contains(byte)) {
                Some(offset) => {
                    let byte = filled.get(offset).copied();
                    self.at += offset + 1;
                    return Ok(byte);
                }
                None => self.at = self.end,
            }
        }
        Ok(None)
    }

    /// Takes the next byte if it is this one.
    pub(super) fn take_if(&mut self, wanted: u8) -> Result<bool, ScanError> {
        let is_it = self.peek()? == Some(wanted);
        self.at += usize::from(is_it);
        Ok(is_it)
    }
}

/// A text that is kept up to a number of bytes; a longer one is no text at all.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Kept {
    /// Appends a byte.
    pub(super) fn push(&mut self, byte: u8, limit: usize) {
        if self.bytes.len() < limit {
            self.bytes.push(byte);
        } else {
            self.is_over = true;
        }
    }

    /// Returns the text if it was short enough and is UTF-8.
    pub(super) fn into_text(self) -> Option<String> {
        if self.is_over { None } else { String::from_utf8(self.bytes).ok() }
    }
}
