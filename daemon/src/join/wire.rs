//! Frames of joining, on one stream; shorter ones than peers may send.

use std::io;

use avalon_protocol::wire::{FRAME_HEADER_BYTES, FrameError, FrameHeader, Framed, MAX_JOIN_FRAME_BYTES};
use quinn::{ReadExactError, RecvStream, SendStream};
use thiserror::Error;

/// Why a frame did not come or go.
#[derive(Debug, Error)]
pub(super) enum WireFault {
    /// The other side ended the stream or the connection.
    #[error("the other side ended the conversation")]
    Ended(#[source] io::Error),
    /// It sent what is not allowed.
    #[error("the other side sent what is not allowed")]
    Frame(#[source] FrameError),
}

/// Reads one frame. Memory is taken after its length was checked.
pub(super) async fn read<T: Framed>(stream: &mut RecvStream) -> Result<T, WireFault> {
    let mut header = [0; FRAME_HEADER_BYTES];
    exactly(stream, &mut header).await?;
    let header = FrameHeader::parse(header).map_err(WireFault::Frame)?;
    if header.payload_bytes > MAX_JOIN_FRAME_BYTES {
        let bytes = u32::try_from(header.payload_bytes).unwrap_or(u32::MAX);
        return Err(WireFault::Frame(FrameError::TooLong { kind: header.kind, bytes }));
    }
    let mut payload = vec![0; header.payload_bytes];
    exactly(stream, &mut payload).await?;
    T::from_payload(header.kind, &payload).map_err(WireFault::Frame)
}

/// Sends one frame.
pub(super) async fn write(stream: &mut SendStream, message: &impl Framed) -> Result<(), WireFault> {
    let ended = |error: quinn::WriteError| WireFault::Ended(error.into());
    stream.write_all(&message.to_frame()).await.map_err(ended)
}

async fn exactly(stream: &mut RecvStream, bytes: &mut [u8]) -> Result<(), WireFault> {
    stream.read_exact(bytes).await.map_err(|error| {
        WireFault::Ended(match error {
            ReadExactError::FinishedEarly(_) => io::ErrorKind::UnexpectedEof.into(),
            ReadExactError::ReadError(error) => error.into(),
        })
    })
}
