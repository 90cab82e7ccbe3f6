//! Asking a peer: manifests, and objects by ranges of blocks. The other end is `serve`.
//!
//! A peer is not trusted: every reply is held against what was asked, lengths before memory. Whether the bytes are those
//! of the object is for the [`BlockSink`] to check; the bytes of a manifest for the caller.

mod error;
mod number;
mod proof;
mod renew;

use std::{collections::VecDeque, time::Duration};

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockValue, block_range},
    close_code::CloseCode,
    hash::{ManifestId, ObjectHash},
    id::ProjectName,
    limit::Direction,
    limits::{MAX_MANIFEST_WANTS, MAX_WANTS},
    plan::Priority,
    wire::{
        FetchEncoded, FetchManifests, FetchObjects, Framed, ManifestReply, ObjectReply, ObjectStatus, PIECES,
        PieceHead, RAW, Request, Want,
    },
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use quinn::{RecvStream, VarInt};
use thiserror::Error;
use tokio::time::timeout;

pub use self::error::FetchError;
use super::{
    link::PeerLink,
    paced,
    piece_fit::{body_bytes, fits, list_values},
    seam::{Piece, Terms},
    stream::{Inbound, StreamFault},
    throttle::{Asked, Flow, TooMuch},
};

/// A peer that sends not one byte of an answer for as long is given up; a slow line is not that slow.
pub const STALL_LIMIT: Duration = Duration::from_secs(30);

/// Values of a block list that are read at once, 64 KiB.
const LIST_PIECE_VALUES: u64 = 2048;

/// Takes what a peer sends, in the order of the wants and of the blocks.
///
/// While a method waits, the peer is slowed down; one block is in memory at a time. The sink keeps its own error and
/// returns [`SinkStopped`], which ends the fetch.
pub trait BlockSink: Send {
    /// Takes an object's block list, not verified: `BlockList::verified` decides. Called only for a want that asked for
    /// the list of an object of several blocks, before its blocks.
    fn list(
        &mut self,
        object: ObjectHash,
        size: u64,
        values: Vec<BlockValue>,
    ) -> BoxFuture<'_, Result<(), SinkStopped>>;

    /// Takes block `index` of an object, whole and not verified. The empty object has one, of no bytes.
    fn block(
        &mut self,
        object: ObjectHash,
        index: u64,
        bytes: Bytes,
    ) -> BoxFuture<'_, Result<(), SinkStopped>>;

    /// Takes a piece of encoded content whose first block is `first_block`, not decoded and not verified; its head fits
    /// what was asked for. A sink that asks for none gets none.
    fn piece(
        &mut self,
        _object: ObjectHash,
        _first_block: u64,
        _piece: Piece,
    ) -> BoxFuture<'_, Result<(), SinkStopped>> {
        Box::pin(std::future::ready(Err(SinkStopped)))
    }

    /// Keeps what it has taken and only gathered so far. Called before a large object, which takes long to come, and at the
    /// end of an answer.
    fn flush(&mut self) -> BoxFuture<'_, Result<(), SinkStopped>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Hears that the peer does not have an object; nothing else comes for that want.
    fn not_found(&mut self, object: ObjectHash) -> BoxFuture<'_, Result<(), SinkStopped>>;
}

/// Content up to this length a sink may gather until [`BlockSink::flush`].
pub const GATHERED_BYTES: u64 = 64 << 10;

/// The sink wants no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the receiver wants no more")]
pub struct SinkStopped;

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FetchSummary {
    /// How many wants were answered with content.
    pub found: u64,
    /// How many were not.
    pub not_found: u64,
    /// How many bytes of content came, as they were encoded.
    pub bytes: u64,
}

/// One part of a request that was sent.
#[derive(Debug)]
struct Part {
    wants: Vec<(Want, Option<Terms>)>,
    answer: Inbound,
    /// Until the answer has been read.
    _asked: Option<Asked>,
}

/// Room to ask for the first part of a request, under the limits on what is received.
#[derive(Debug)]
pub struct Room(Option<Asked>);

/// A request that was sent. Dropping it cancels it.
#[derive(Debug)]
pub struct Begun {
    class: Priority,
    encoded: bool,
    /// What is not asked for yet.
    parts: VecDeque<FetchEncoded>,
    /// What is, with the answers.
    asked: VecDeque<Part>,
}

impl Begun {
    /// Returns how much content the next part asks for, in bytes; what comes of a base is expected to be small.
    fn next_bytes(&self) -> u64 {
        let Some(part) = self.parts.front() else { return 0 };
        let mut bases = part.bases.iter().peekable();
        let wants = (0u32..).zip(&part.wants);
        wants
            .map(|(number, want)| {
                bases.next_if(|base| base.want == number).map_or_else(|| body_bytes(want), |_| 0)
            })
            .sum()
    }
}

impl PeerLink {
    /// Asks for manifests and returns their bytes in the order of `ids`, none where the peer has not got one. They are
    /// within the limit of a manifest and not verified. Dropping the future cancels the request.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch_manifests(
        &self,
        project: &ProjectName,
        ids: Vec<ManifestId>,
    ) -> Result<Vec<Option<Vec<u8>>>, FetchError> {
        let count = ids.len();
        self.check_count(count, MAX_MANIFEST_WANTS)?;
        let request = Request::Manifests(FetchManifests { project: project.clone(), manifests: ids });
        let mut answer = self.ask(&request).await?;
        let mut manifests = Vec::with_capacity(count);
        for _ in 0..count {
            let reply: ManifestReply = self.reply(&mut answer).await?;
            let length = usize::try_from(reply.bytes).map_err(|_| self.protocol("a manifest is too long"))?;
            let bytes = answer.exact(length).await.map_err(|fault| self.fault(fault))?;
            manifests.push((length > 0).then(|| bytes.to_vec()));
        }
        self.check_end(&mut answer).await?;
        Ok(manifests)
    }

    /// Asks for objects and hands what comes to `sink`, in the order of `wants`. One request is one stream, without a
    /// round trip for each object; [`Schedule`](avalon_protocol::schedule::Schedule) makes requests of a good size.
    ///
    /// Dropping the future cancels the request; the sink then has whole blocks only.
    ///
    /// # Errors
    /// [`FetchError`]; what the sink got before is good.
    pub async fn fetch_objects<S: BlockSink + ?Sized>(
        &self,
        project: &ProjectName,
        wants: Vec<Want>,
        sink: &mut S,
    ) -> Result<FetchSummary, FetchError> {
        let begun = self.begin_objects(project, wants).await?;
        self.take(begun, sink).await
    }

    /// Sends a request for objects in whatever encoding costs least; [`PeerLink::take`] takes the answer. A peer that does
    /// not [encode](PeerLink::encodes) is asked for them as they are. Until it is taken, as much of the answer waits as
    /// QUIC's windows admit.
    ///
    /// Under a limit on what is received, only a part is asked for, and the rest as the answer comes: what a peer was asked
    /// for cannot be slowed down any more. Waits while a limit lets nothing through.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn begin(&self, fetch: FetchEncoded, room: Room) -> Result<Begun, FetchError> {
        self.begin_parts(fetch, self.encodes(), room).await
    }

    /// Waits until the limits on what is received leave room to ask for more; at once without any. Take it before it is
    /// decided what to ask for: whoever waits with blocks of its own keeps others from bringing them.
    pub async fn room(&self, class: Priority) -> Room {
        let flow = self.receiving(class);
        let Some(bytes) = self.throttle().request_bytes(flow) else { return Room(None) };
        Room(self.throttle().ask(flow, bytes.max(BLOCK_BYTES), self.rtt()).await)
    }

    async fn begin_objects(&self, project: &ProjectName, wants: Vec<Want>) -> Result<Begun, FetchError> {
        let (project, priority) = (project.clone(), Priority::Publish);
        let fetch = FetchEncoded { project, priority, compress: false, wants, bases: Vec::new() };
        let room = self.room(priority).await;
        self.begin_parts(fetch, false, room).await
    }

    async fn begin_parts(&self, fetch: FetchEncoded, encoded: bool, room: Room) -> Result<Begun, FetchError> {
        self.check_count(fetch.wants.len(), MAX_WANTS)?;
        let class = fetch.priority;
        let parts = match self.throttle().request_bytes(self.receiving(class)) {
            Some(bytes) => paced::parts(fetch, bytes),
            None => VecDeque::from([fetch]),
        };
        let mut begun = Begun { class, encoded, parts, asked: VecDeque::new() };
        self.ask_next(&mut begun, room.0).await?;
        Ok(begun)
    }

    /// Asks for the next part, if there is one.
    async fn ask_next(&self, begun: &mut Begun, asked: Option<Asked>) -> Result<(), FetchError> {
        let Some(part) = begun.parts.pop_front() else { return Ok(()) };
        self.throttle().opened(self.receiving(begun.class)).await;
        let mut bases = part.bases.iter().peekable();
        let terms = (0u32..).zip(&part.wants).map(|(number, want)| {
            let base = bases.next_if(|base| base.want == number).copied();
            (*want, begun.encoded.then_some(Terms { compress: part.compress, base }))
        });
        let wants = terms.collect();
        let request = match begun.encoded {
            true => Request::Encoded(part),
            false => Request::Objects(FetchObjects { project: part.project, wants: part.wants }),
        };
        self.channel().expect_content();
        let answer = self.ask(&request).await?;
        begun.asked.push_back(Part { wants, answer, _asked: asked });
        Ok(())
    }

    /// Takes the answer to a request and hands what comes to `sink`, as [`PeerLink::fetch_objects`] does.
    ///
    /// # Errors
    /// [`FetchError`]; what the sink got before is good.
    pub async fn take<S: BlockSink + ?Sized>(
        &self,
        mut begun: Begun,
        sink: &mut S,
    ) -> Result<FetchSummary, FetchError> {
        let mut summary = FetchSummary::default();
        loop {
            while begun.asked.len() < paced::PARTS_AHEAD && !begun.parts.is_empty() {
                let (flow, bytes) = (self.receiving(begun.class), begun.next_bytes());
                let asked = match self.throttle().try_ask(flow, bytes, self.rtt()) {
                    Ok(asked) => asked,
                    // What was asked for may wait for this very answer to come to its end.
                    Err(TooMuch) if begun.asked.is_empty() => self.throttle().ask_at_once(flow, bytes),
                    Err(TooMuch) => break,
                };
                self.ask_next(&mut begun, asked).await?;
            }
            let Some(Part { wants, mut answer, _asked }) = begun.asked.pop_front() else {
                return Ok(summary);
            };
            let wants = wants.iter().map(|(want, terms)| (want, *terms));
            let taken = self.take_answer(wants, self.receiving(begun.class), &mut answer, sink).await?;
            summary.found += taken.found;
            summary.not_found += taken.not_found;
            summary.bytes += taken.bytes;
        }
    }

    fn receiving(&self, class: Priority) -> Flow<'_> {
        Flow { direction: Direction::Receive, peer: self.node(), class }
    }

    async fn take_answer<S: BlockSink + ?Sized>(
        &self,
        wants: impl Iterator<Item = (&Want, Option<Terms>)>,
        flow: Flow<'_>,
        answer: &mut Inbound,
        sink: &mut S,
    ) -> Result<FetchSummary, FetchError> {
        let mut summary = FetchSummary::default();
        for (want, terms) in wants {
            if body_bytes(want) > GATHERED_BYTES {
                sink.flush().await.map_err(|source| self.stopped(source))?;
            }
            let reply: ObjectReply = self.reply(answer).await?;
            match self.check_reply(want, terms.is_some(), &reply)? {
                ObjectStatus::NotFound => {
                    summary.not_found += 1;
                    sink.not_found(want.object).await.map_err(|source| self.stopped(source))?;
                }
                ObjectStatus::Found => {
                    self.take_list(want, &reply, answer, sink).await?;
                    summary.bytes += match terms.filter(|_| reply.encoding == PIECES) {
                        Some(terms) => self.take_pieces(want, terms, flow, answer, sink).await?,
                        None => self.take_blocks(want, flow, answer, sink).await?,
                    };
                    summary.found += 1;
                }
            }
        }
        sink.flush().await.map_err(|source| self.stopped(source))?;
        self.check_end(answer).await?;
        Ok(summary)
    }

    async fn ask(&self, request: &Request) -> Result<Inbound, FetchError> {
        let asking = async {
            let (mut send, receive) = self
                .channel()
                .quinn()
                .open_bi()
                .await
                .map_err(|error| self.fault(StreamFault::Lost(error)))?;
            // An error here means that the connection ended or that the peer has answered without listening; the answer
            // tells which.
            if send.write_all(&request.to_frame()).await.is_ok() {
                send.finish().ok();
            }
            Ok::<RecvStream, FetchError>(receive)
        };
        let receive = timeout(STALL_LIMIT, asking).await.map_err(|_| self.fault(StreamFault::Stalled))??;
        let answer = Inbound::impatient(receive, self.channel().quinn().clone(), STALL_LIMIT);
        Ok(answer.with_buffers(self.buffers().shelf()))
    }

    async fn reply<T: Framed>(&self, answer: &mut Inbound) -> Result<T, FetchError> {
        let frame = answer.frame().await.map_err(|fault| self.fault(fault))?;
        frame.ok_or_else(|| self.fault(StreamFault::Ended))
    }

    /// Holds a reply against its want before any memory is taken for it.
    fn check_reply(
        &self,
        want: &Want,
        encoded: bool,
        reply: &ObjectReply,
    ) -> Result<ObjectStatus, FetchError> {
        let in_pieces = encoded && reply.encoding == PIECES;
        if reply.encoding != RAW && !in_pieces {
            return Err(FetchError::Encoding { node: self.node().clone(), encoding: reply.encoding });
        }
        let (list_values, body_bytes) = match reply.status {
            ObjectStatus::NotFound => (0, 0),
            // How long the pieces are shows only as they come.
            ObjectStatus::Found => (list_values(want), if in_pieces { 0 } else { body_bytes(want) }),
        };
        if reply.list_values != list_values {
            return Err(self.protocol("the block list has another length"));
        }
        if reply.body_bytes != body_bytes {
            return Err(self.protocol("the content has another length"));
        }
        Ok(reply.status)
    }

    async fn take_list<S: BlockSink + ?Sized>(
        &self,
        want: &Want,
        reply: &ObjectReply,
        answer: &mut Inbound,
        sink: &mut S,
    ) -> Result<(), FetchError> {
        if reply.list_values == 0 {
            return Ok(());
        }
        let mut values: Vec<BlockValue> = Vec::new();
        let mut missing = reply.list_values;
        while missing > 0 {
            let count = missing.min(LIST_PIECE_VALUES);
            let bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(size_of::<BlockValue>());
            let piece = answer.exact(bytes).await.map_err(|fault| self.fault(fault))?;
            let (whole, _) = piece.as_chunks::<{ size_of::<BlockValue>() }>();
            values.extend_from_slice(whole);
            missing -= count;
        }
        sink.list(want.object, want.size, values).await.map_err(|source| self.stopped(source))
    }

    async fn take_blocks<S: BlockSink + ?Sized>(
        &self,
        want: &Want,
        flow: Flow<'_>,
        answer: &mut Inbound,
        sink: &mut S,
    ) -> Result<u64, FetchError> {
        for index in want.first_block..want.first_block.saturating_add(want.blocks) {
            let range = block_range(want.size, index);
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let bytes = self.content(flow, answer, length).await?;
            self.metrics().bytes_fetched.add(range.end - range.start);
            sink.block(want.object, index, bytes).await.map_err(|source| self.stopped(source))?;
        }
        Ok(body_bytes(want))
    }

    /// Takes the pieces of a want and returns their length as encoded.
    async fn take_pieces<S: BlockSink + ?Sized>(
        &self,
        want: &Want,
        terms: Terms,
        flow: Flow<'_>,
        answer: &mut Inbound,
        sink: &mut S,
    ) -> Result<u64, FetchError> {
        let (mut next, end) = (want.first_block, want.first_block.saturating_add(want.blocks));
        let mut received = 0;
        while next < end {
            let head: PieceHead = self.reply(answer).await?;
            if !fits(&head, want.size, next..end, terms) {
                return Err(self.protocol("a piece is not of what was asked for"));
            }
            let length = usize::try_from(head.bytes).unwrap_or(usize::MAX);
            let content = self.content(flow, answer, length).await?;
            self.metrics().bytes_fetched.add(head.bytes);
            received += head.bytes;
            let piece = Piece { head, content };
            sink.piece(want.object, next, piece).await.map_err(|source| self.stopped(source))?;
            next += head.blocks;
        }
        Ok(received)
    }

    /// Reads content at the pace of the limits.
    async fn content(&self, flow: Flow<'_>, answer: &mut Inbound, bytes: usize) -> Result<Bytes, FetchError> {
        let read = paced::read(self.throttle(), flow, answer, bytes).await;
        read.map_err(|fault| self.fault(fault))
    }

    async fn check_end(&self, answer: &mut Inbound) -> Result<(), FetchError> {
        match answer.exact(1).await {
            Err(StreamFault::Ended) => Ok(()),
            Err(fault) => Err(self.fault(fault)),
            Ok(_) => Err(self.protocol("it goes on after its end")),
        }
    }

    fn check_count(&self, count: usize, limit: usize) -> Result<(), FetchError> {
        if count <= limit { Ok(()) } else { Err(FetchError::TooMany { count, limit }) }
    }

    fn fault(&self, fault: StreamFault) -> FetchError {
        let node = self.node().clone();
        match fault {
            StreamFault::Lost(error) => FetchError::Closed { node, closed: self.channel().why(error) },
            StreamFault::GivenUp(code) => {
                FetchError::GivenUp { node, code: CloseCode::from_code(VarInt::into_inner(code)) }
            }
            StreamFault::Stalled => FetchError::Stalled { node },
            StreamFault::Ended => FetchError::GivenUp { node, code: None },
            StreamFault::Frame(source) => FetchError::Frame { node, source },
        }
    }

    fn protocol(&self, what: &'static str) -> FetchError {
        FetchError::Protocol { node: self.node().clone(), what }
    }

    fn stopped(&self, source: SinkStopped) -> FetchError {
        FetchError::Stopped { node: self.node().clone(), source }
    }
}
