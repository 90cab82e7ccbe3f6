//! Appending to a feed: the moment at which records become durable.

use std::sync::Arc;

use avalon_protocol::feed::{FeedHead, FeedId, FeedReader, SealedGroup};
use thiserror::Error;

use super::{
    FeedIndex,
    read::Position,
    segment::{HEADER_BYTES, SEGMENT_BYTES, SegmentFile, encode_frame, encode_header, file_name},
};
use crate::fs::{IoError, WriteMode};

/// A feed that may be written. One thread has it.
#[derive(Debug)]
pub(crate) struct FeedFile {
    index: Arc<FeedIndex>,
    reader: FeedReader,
    last: Option<LastSegment>,
    next_segment: u32,
    segment_bytes: u64,
    poisoned: bool,
}

#[derive(Debug)]
struct LastSegment {
    number: u32,
    length: u64,
    file: Box<dyn SegmentFile>,
}

/// A group that was accepted and is to be written, with where the feed stands then.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    pub(crate) group: SealedGroup,
    pub(crate) after: FeedReader,
}

/// Why groups could not be appended. Those up to the feed's head are durable, the others are not there.
#[derive(Debug, Error)]
pub(crate) enum AppendError {
    /// An earlier write or fsync failed in a way that leaves open what is on disk.
    #[error("feed {feed} is closed after a write that failed")]
    Poisoned { feed: FeedId },
    /// Nothing was changed, and it may be tried again.
    #[error("feed {feed} cannot be written")]
    Io {
        feed: FeedId,
        #[source]
        source: IoError,
    },
}

impl FeedFile {
    /// Takes a feed whose segments have been read up to where `reader` stands.
    pub(super) fn new(index: Arc<FeedIndex>, reader: FeedReader) -> Self {
        Self { index, reader, last: None, next_segment: 0, segment_bytes: SEGMENT_BYTES, poisoned: false }
    }

    /// Goes on in segment `number`, which has `length` good bytes.
    pub(super) fn with_last(mut self, number: u32, length: u64, file: Box<dyn SegmentFile>) -> Self {
        self.last = Some(LastSegment { number, length, file });
        self.next_segment = number + 1;
        self
    }

    pub(crate) fn index(&self) -> &Arc<FeedIndex> {
        &self.index
    }

    /// Returns where the feed stands: what follows must be accepted by a clone of this.
    pub(crate) fn reader(&self) -> &FeedReader {
        &self.reader
    }

    /// Returns how far the feed is durable.
    pub(crate) fn head(&self) -> FeedHead {
        self.reader.head()
    }

    fn feed(&self) -> FeedId {
        self.reader.feed().clone()
    }

    /// Writes groups in their order, with one fdatasync per segment that they reach. When this returns `Ok`, all are
    /// durable; when it fails, those up to [`FeedFile::head`] are.
    ///
    /// # Errors
    /// [`AppendError`]. An fdatasync that fails is never tried again: the feed stays closed until it is opened anew.
    pub(crate) fn append(&mut self, staged: Vec<Staged>) -> Result<FeedHead, AppendError> {
        let mut run: Vec<(Staged, u64)> = Vec::new();
        let mut bytes = Vec::new();
        for staged in staged {
            let Some(frame) = encode_frame(&staged.group) else { return Err(self.poison()) };
            let full = self.last.as_ref().is_none_or(|last| {
                let used = last.length + bytes.len() as u64;
                used > HEADER_BYTES && used + frame.len() as u64 > self.segment_bytes
            });
            if full {
                self.write(std::mem::take(&mut run), &std::mem::take(&mut bytes))?;
                self.start_segment()?;
            }
            run.push((staged, frame.len() as u64));
            bytes.extend_from_slice(&frame);
        }
        self.write(run, &bytes)?;
        Ok(self.head())
    }

    /// Writes one run of frames and makes it durable.
    fn write(&mut self, run: Vec<(Staged, u64)>, bytes: &[u8]) -> Result<(), AppendError> {
        let feed = self.feed();
        if self.poisoned {
            return Err(AppendError::Poisoned { feed });
        }
        let Some(last) = self.last.as_mut().filter(|_| !run.is_empty()) else { return Ok(()) };
        let failed = |error| self.index.io_error("append to", last.number, error);
        if let Err(error) = last.file.write_at(bytes, last.length) {
            let source = failed(error);
            if let Err(error) = last.file.cut(last.length) {
                tracing::error!(%feed, %error, "feed closed: a failed append cannot be undone");
                self.poisoned = true;
            }
            return Err(AppendError::Io { feed, source });
        }
        if let Err(error) = last.file.sync() {
            tracing::error!(%feed, %error, "feed closed: fdatasync failed");
            self.poisoned = true;
            // The system keeps what the disk did not take and counts it as written: the next start would read it, and no later
            // sync would tell.
            if let Err(error) = last.file.cut(last.length) {
                tracing::error!(%feed, %error, "what could not be made durable stays behind in the feed");
            }
            return Err(AppendError::Poisoned { feed });
        }
        for (staged, frame_bytes) in run {
            let position = Position { segment: last.number, offset: last.length };
            self.index.add_group(position, frame_bytes, &staged.after);
            last.length += frame_bytes;
            self.reader = staged.after;
        }
        Ok(())
    }

    fn start_segment(&mut self) -> Result<(), AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned { feed: self.feed() });
        }
        let name = file_name(self.next_segment);
        let header = encode_header(self.head().next_seq);
        let dir = self.index.dir();
        // What may be there is a header that was written and could not be opened again.
        let created = dir.write_atomic(&name, &header, WriteMode::Replace);
        let file = created
            .and_then(|()| dir.open_rw(&name))
            .map_err(|source| AppendError::Io { feed: self.feed(), source })?;
        self.last =
            Some(LastSegment { number: self.next_segment, length: HEADER_BYTES, file: Box::new(file) });
        self.next_segment += 1;
        self.index.add_segment();
        Ok(())
    }

    /// Says whether a write failed in a way that leaves open what is on disk; nothing is written any more then.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    fn poison(&mut self) -> AppendError {
        self.poisoned = true;
        AppendError::Poisoned { feed: self.feed() }
    }

    /// Makes segments small.
    #[cfg(test)]
    pub(super) fn limit_segments(&mut self, segment_bytes: u64) {
        self.segment_bytes = segment_bytes;
    }

    /// Puts another file in the place of the last segment's.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: Box<dyn SegmentFile>) {
        self.last.as_mut().unwrap().file = file;
    }
}
