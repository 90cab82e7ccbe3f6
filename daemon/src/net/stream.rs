//! The two halves of a stream: frames and bytes in and out, without copying more than once.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use avalon_protocol::wire::{Control, FRAME_HEADER_BYTES, FrameError, FrameHeader, Framed};
use bytes::{Buf as _, Bytes, BytesMut};
use quinn::{
    Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError,
};
use tokio::time::timeout;

use crate::buffers::{POOLED_BYTES, Shelf};

/// How many pieces are taken off a stream under one lock; a piece is about a packet.
const PIECES: usize = 64;

/// How much is gathered before it is handed to QUIC: enough that small objects do not cost a lock each.
const GATHER_BYTES: usize = 256 << 10;

/// Why a stream gives no more.
#[derive(Debug)]
pub(crate) enum StreamFault {
    /// The connection is gone.
    Lost(ConnectionError),
    /// The other side gave the stream up.
    GivenUp(VarInt),
    /// It ended where more should follow.
    Ended,
    /// Not a byte came, or too few went, for as long as is allowed.
    Stalled,
    /// A frame that is not allowed.
    Frame(FrameError),
}

/// The receiving half. Every method is cancel-safe: what has come stays.
#[derive(Debug)]
pub(crate) struct Inbound {
    stream: RecvStream,
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    shelf: Arc<Shelf>,
    stall: Option<Stall>,
}

/// When a silence is a fault.
#[derive(Debug)]
struct Stall {
    limit: Duration,
    connection: Connection,
}

impl Stall {
    /// Counts what came for any stream: an answer that is less urgent than others on its connection is silent for good
    /// reason.
    fn frames(&self) -> u64 {
        self.connection.stats().frame_rx.stream
    }
}

impl Inbound {
    /// Reads a stream on which a silence is no fault.
    pub(crate) fn patient(stream: RecvStream) -> Self {
        Self { stream, ready: VecDeque::new(), ready_bytes: 0, shelf: Arc::default(), stall: None }
    }

    /// Takes the memory for content from there.
    pub(crate) fn with_buffers(self, shelf: Arc<Shelf>) -> Self {
        Self { shelf, ..self }
    }

    /// Reads a stream that fails when not a byte of any stream of `connection` comes for as long as `limit`.
    pub(crate) fn impatient(stream: RecvStream, connection: Connection, limit: Duration) -> Self {
        Self { stall: Some(Stall { limit, connection }), ..Self::patient(stream) }
    }

    /// Reads the next frame; none when the stream ended properly before it.
    pub(crate) async fn frame<T: Framed>(&mut self) -> Result<Option<T>, StreamFault> {
        if !self.fill(FRAME_HEADER_BYTES).await? {
            return if self.ready_bytes == 0 { Ok(None) } else { Err(StreamFault::Ended) };
        }
        // The header stays where it is until the payload is here, so that this can be dropped in between.
        let header = FrameHeader::parse(self.peek()).map_err(StreamFault::Frame)?;
        let frame_bytes = FRAME_HEADER_BYTES + header.payload_bytes;
        if !self.fill(frame_bytes).await? {
            return Err(StreamFault::Ended);
        }
        let frame = self.take_ready(frame_bytes);
        let payload = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        T::from_payload(header.kind, payload).map(Some).map_err(StreamFault::Frame)
    }

    /// Returns how many bytes of a frame or of content have come that is not whole yet.
    pub(crate) fn begun_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// Reads exactly `bytes` bytes. Memory is taken as they come, so a length that is not kept costs nothing.
    pub(crate) async fn exact(&mut self, bytes: usize) -> Result<Bytes, StreamFault> {
        if self.fill(bytes).await? { Ok(self.take_ready(bytes)) } else { Err(StreamFault::Ended) }
    }

    /// Waits until `bytes` bytes are ready; false when the stream ends before.
    pub(crate) async fn fill(&mut self, bytes: usize) -> Result<bool, StreamFault> {
        while self.ready_bytes < bytes {
            let mut pieces: [Bytes; PIECES] = std::array::from_fn(|_| Bytes::new());
            let before = self.stall.as_ref().map(Stall::frames);
            let reading = self.stream.read_chunks(&mut pieces);
            let read = match &self.stall {
                Some(stall) => match timeout(stall.limit, reading).await {
                    Ok(read) => read,
                    Err(_) if before == Some(stall.frames()) => return Err(StreamFault::Stalled),
                    Err(_) => continue,
                },
                None => reading.await,
            };
            let Some(count) = read.map_err(read_fault)? else { return Ok(false) };
            for piece in pieces.into_iter().take(count) {
                self.ready_bytes += piece.len();
                self.ready.push_back(piece);
            }
        }
        Ok(true)
    }

    fn peek(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut header = [0; FRAME_HEADER_BYTES];
        for (to, from) in header.iter_mut().zip(self.ready.iter().flatten()) {
            *to = *from;
        }
        header
    }

    /// Takes bytes that are ready; without a copy when they lie in one piece.
    fn take_ready(&mut self, bytes: usize) -> Bytes {
        self.ready_bytes -= bytes;
        match self.ready.front_mut() {
            Some(first) if first.len() > bytes => return first.split_to(bytes),
            Some(first) if first.len() == bytes => return self.ready.pop_front().unwrap_or_default(),
            _ => {}
        }
        if bytes >= POOLED_BYTES {
            return self.join(bytes);
        }
        let mut joined = BytesMut::with_capacity(bytes);
        while joined.len() < bytes {
            let Some(first) = self.ready.front_mut() else { break };
            let piece = first.split_to(first.len().min(bytes - joined.len()));
            joined.extend_from_slice(&piece);
            if first.is_empty() {
                self.ready.pop_front();
            }
        }
        joined.freeze()
    }

    /// Copies ready bytes into a buffer that was used before.
    fn join(&mut self, bytes: usize) -> Bytes {
        let mut buffer = self.shelf.take(bytes);
        let mut rest = buffer.bytes_mut();
        while !rest.is_empty() {
            let Some(first) = self.ready.front_mut() else { break };
            let piece = first.split_to(first.len().min(rest.len()));
            let (to, after) = rest.split_at_mut(piece.len());
            to.copy_from_slice(&piece);
            rest = after;
            if first.is_empty() {
                self.ready.pop_front();
            }
        }
        buffer.freeze()
    }
}

/// The sending half of an answer: gathers small pieces and hands them on together.
#[derive(Debug)]
pub(crate) struct Outbound {
    stream: SendStream,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    taken: Arc<AtomicU64>,
    least: LeastTaken,
}

/// What must be taken of all answers on one connection within some time, or one that waits is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeastTaken {
    pub(crate) bytes: u64,
    pub(crate) within: Duration,
}

impl Outbound {
    /// Writes to a stream that fails when the other side takes less than it must; `taken` counts what it took of all streams of
    /// the connection.
    pub(crate) fn new(stream: SendStream, taken: Arc<AtomicU64>, least: LeastTaken) -> Self {
        Self { stream, gathered: Vec::new(), gathered_bytes: 0, taken, least }
    }

    /// Sets how urgent it is among the streams of its connection.
    pub(crate) fn set_priority(&mut self, priority: i32) {
        // A stream that is closed already needs none.
        self.stream.set_priority(priority).ok();
    }

    /// Waits until the other side wants no more of it, or all is acknowledged.
    pub(crate) fn stopped(&self) -> impl Future<Output = StreamFault> + Send + use<> {
        let stopped = self.stream.stopped();
        async move {
            match stopped.await {
                Ok(Some(code)) => StreamFault::GivenUp(code),
                Err(StoppedError::ConnectionLost(error)) => StreamFault::Lost(error),
                Ok(None) | Err(_) => StreamFault::Ended,
            }
        }
    }

    /// Adds bytes; waits while the stream is full. Not cancel-safe.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> Result<(), StreamFault> {
        if !bytes.is_empty() {
            self.gathered_bytes += bytes.len();
            self.gathered.push(bytes);
        }
        if self.gathered_bytes >= GATHER_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Hands on what is gathered. Not cancel-safe.
    pub(crate) async fn flush(&mut self) -> Result<(), StreamFault> {
        self.write_gathered().await?;
        self.gathered.clear();
        self.gathered_bytes = 0;
        Ok(())
    }

    async fn write_gathered(&mut self) -> Result<(), StreamFault> {
        let (stream, taken) = (&mut self.stream, &self.taken);
        let mut rest = self.gathered.as_mut_slice();
        let mut writing = std::pin::pin!(async move {
            while !rest.is_empty() {
                let written = stream.write_chunks(rest).await.map_err(write_fault)?;
                taken.fetch_add(written.bytes as u64, Ordering::Relaxed);
                rest = rest.get_mut(written.chunks..).unwrap_or_default();
            }
            Ok(())
        });
        // One byte now and then would keep a mere deadline for each write from ever being reached.
        loop {
            let before = taken.load(Ordering::Relaxed);
            match timeout(self.least.within, &mut writing).await {
                Ok(written) => return written,
                Err(_) if taken.load(Ordering::Relaxed) - before >= self.least.bytes => {}
                Err(_) => return Err(StreamFault::Stalled),
            }
        }
    }

    /// Hands on the rest and says that nothing follows.
    pub(crate) async fn finish(&mut self) -> Result<(), StreamFault> {
        self.flush().await?;
        self.stream.finish().map_err(|_| StreamFault::Ended)
    }

    /// Gives the stream up; the other side sees the code.
    pub(crate) fn give_up(mut self, code: VarInt) {
        // A stream that is closed already needs no reset.
        self.stream.reset(code).ok();
    }
}

/// The sending half of the control stream: a queue that the driver fills and that empties itself.
#[derive(Debug)]
pub(crate) struct Outbox {
    stream: SendStream,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
}

impl Outbox {
    /// Before all answers: a record must not wait behind a cache.
    const PRIORITY: i32 = 10;

    pub(crate) fn new(stream: SendStream) -> Self {
        // A stream that is closed already needs none.
        stream.set_priority(Self::PRIORITY).ok();
        Self { stream, queue: VecDeque::new(), queued_bytes: 0 }
    }

    pub(crate) fn push(&mut self, message: &Control) {
        let frame = Bytes::from(message.to_frame());
        self.queued_bytes += frame.len();
        self.queue.push_back(frame);
    }

    /// Returns how many messages wait.
    pub(crate) fn messages(&self) -> usize {
        self.queue.len()
    }

    /// Returns how many bytes wait.
    pub(crate) fn bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Sends some of what waits; waits for ever when nothing does. Cancel-safe.
    pub(crate) async fn progress(&mut self) -> Result<(), StreamFault> {
        let Some(first) = self.queue.front_mut() else { return std::future::pending().await };
        let written = self.stream.write(first).await.map_err(write_fault)?;
        first.advance(written);
        self.queued_bytes -= written;
        if first.is_empty() {
            self.queue.pop_front();
        }
        Ok(())
    }
}

fn read_fault(error: ReadError) -> StreamFault {
    match error {
        ReadError::Reset(code) => StreamFault::GivenUp(code),
        ReadError::ConnectionLost(error) => StreamFault::Lost(error),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            StreamFault::Ended
        }
    }
}

fn write_fault(error: WriteError) -> StreamFault {
    match error {
        WriteError::Stopped(code) => StreamFault::GivenUp(code),
        WriteError::ConnectionLost(error) => StreamFault::Lost(error),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => StreamFault::Ended,
    }
}
