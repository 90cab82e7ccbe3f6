//! The frame: `length u32 LE | type u16 LE | payload`; the length is that of the payload.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::limits::MAX_FRAME_BYTES;

/// The length of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 6;

/// A header whose length is within the limit: memory for the payload may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which message it is.
    pub kind: u16,
    /// The length of the payload in bytes, at most [`MAX_FRAME_BYTES`].
    pub payload_bytes: usize,
}

/// Why a frame was refused. The connection is closed with `CloseCode::Protocol`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Longer than the limit.
    #[error("a frame of type {kind} says that it has {bytes} bytes, the limit is {MAX_FRAME_BYTES}")]
    TooLong {
        /// The type.
        kind: u16,
        /// The length that it names.
        bytes: u32,
    },
    /// A type that is not known, or not at this point.
    #[error("a frame of type {kind} is not expected here")]
    Unexpected {
        /// The type.
        kind: u16,
    },
    /// The payload does not parse.
    #[error("the payload of a frame of type {kind} is damaged")]
    Damaged {
        /// The type.
        kind: u16,
    },
    /// More elements than the limit.
    #[error("a frame of type {kind} has more {what} than the limit")]
    TooMany {
        /// The type.
        kind: u16,
        /// Of what there are too many.
        what: &'static str,
    },
}

impl FrameHeader {
    /// Reads a header and checks the length.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn parse(bytes: [u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let [a, b, c, d, e, f] = bytes;
        let (length, kind) = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]));
        match usize::try_from(length) {
            Ok(payload_bytes) if payload_bytes <= MAX_FRAME_BYTES => Ok(Self { kind, payload_bytes }),
            _ => Err(FrameError::TooLong { kind, bytes: length }),
        }
    }
}

pub(super) fn write(kind: u16, message: &impl Serialize) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    #[expect(clippy::expect_used, reason = "plain data into a vector: postcard has nothing to fail on")]
    let mut frame = {
        frame = postcard::to_extend(message, frame).expect("a message always serialises");
        frame
    };
    let length = u32::try_from(frame.len() - FRAME_HEADER_BYTES).unwrap_or(u32::MAX);
    if let Some(header) = frame.first_chunk_mut::<FRAME_HEADER_BYTES>() {
        let [a, b, c, d] = length.to_le_bytes();
        let [e, f] = kind.to_le_bytes();
        *header = [a, b, c, d, e, f];
    }
    frame
}

pub(super) fn read<T: DeserializeOwned>(kind: u16, payload: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Damaged { kind }),
    }
}

pub(super) fn bound(kind: u16, what: &'static str, count: usize, limit: usize) -> Result<(), FrameError> {
    if count <= limit { Ok(()) } else { Err(FrameError::TooMany { kind, what }) }
}
