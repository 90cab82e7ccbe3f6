//! Where the blocks of one stream go: checked, written and counted one by one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList, BlockListError, BlockValue, block_range},
    hash::ObjectHash,
    schedule::{Next, StreamId},
    wire::PieceEncoding,
};
use avalon_store::object::{
    encode::{DecodeError, decompress},
    incoming::IncomingError,
    serve::ObjectReader,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;

use super::{streams::Round, tell_progress};
use crate::{
    core::blocking,
    net::{BlockSink, GATHERED_BYTES, Piece, SinkStopped},
};

/// Why the stream's bytes were not taken.
#[derive(Debug, Error)]
pub(super) enum SinkError {
    /// The peer's block list is not that of the object.
    #[error("the peer's block list is refused")]
    List(#[source] BlockListError),
    /// The block does not verify, or cannot be written.
    #[error("a block is refused")]
    Block(#[source] IncomingError),
    /// What is no delta does not decode.
    #[error("a compressed piece is refused")]
    Piece(#[source] DecodeError),
    /// A delta against this node's own copy of the base does not give the object: one of the two copies is damaged.
    #[error("the base of {} is not what the peer has", .0.short())]
    Base(ObjectHash),
}

impl SinkError {
    /// Says whether the peer is to blame.
    pub(super) fn is_senders_fault(&self) -> bool {
        match self {
            Self::List(_) | Self::Piece(_) => true,
            Self::Block(error) => error.is_senders_fault(),
            Self::Base(_) => false,
        }
    }
}

/// Takes what one stream brings.
#[derive(Debug)]
pub(super) struct JobSink {
    round: Arc<Round>,
    stream: StreamId,
    /// How long before its end the stream's next request should go out.
    ahead: Duration,
    /// The base that was used last; the pieces of an object follow one another.
    base: Option<(ObjectHash, Arc<ObjectReader>)>,
    /// Small blocks that are written together: a thread takes longer to come than to write one.
    gathered: Vec<Gathered>,
    gathered_bytes: usize,
    /// Objects that the peer does not have.
    pub(super) not_found: BTreeSet<ObjectHash>,
    /// Why the last call failed.
    pub(super) error: Option<SinkError>,
    /// The rest of the answer is another stream's now.
    pub(super) robbed: bool,
}

/// A small block: its object, its number and its content.
type Gathered = (ObjectHash, u64, Bytes);

/// How many small blocks are written together at most, and how many bytes: those of four streams are part of what a cut
/// costs.
const GATHERED_BLOCKS: usize = 64;
const GATHERED_TOTAL_BYTES: usize = 256 << 10;

impl JobSink {
    pub(super) fn new(round: Arc<Round>, stream: StreamId, ahead: Duration) -> Self {
        Self {
            round,
            stream,
            ahead,
            base: None,
            gathered: Vec::new(),
            gathered_bytes: 0,
            not_found: BTreeSet::new(),
            error: None,
            robbed: false,
        }
    }

    /// Keeps a small block until there are enough of them.
    async fn gather(&mut self, object: ObjectHash, index: u64, content: Bytes) -> Result<Next, SinkError> {
        self.gathered_bytes += content.len();
        self.gathered.push((object, index, content));
        if self.gathered.len() >= GATHERED_BLOCKS || self.gathered_bytes >= GATHERED_TOTAL_BYTES {
            return self.write_gathered().await;
        }
        Ok(Next::Read)
    }

    /// Writes what was gathered. Of blocks in front of one that is refused it is known that they are here.
    async fn write_gathered(&mut self) -> Result<Next, SinkError> {
        self.gathered_bytes = 0;
        let (incoming, gathered) = (Arc::clone(&self.round.incoming), std::mem::take(&mut self.gathered));
        if gathered.is_empty() {
            return Ok(Next::Read);
        }
        let write = move || {
            let mut blocks = gathered.iter().enumerate();
            let refused = blocks.try_for_each(|(place, (object, index, content))| {
                match incoming.write_block(object, *index, content) {
                    Ok(_) | Err(IncomingError::NotNeeded { .. }) => Ok(()),
                    Err(error) => Err((place, error)),
                }
            });
            (gathered, refused.err())
        };
        let (mut gathered, refused) = {
            // Files of one directory are made one after the other anyway; threads that spin for their turn take the
            // processor from those that receive.
            let _alone = self.round.making_files.lock().await;
            blocking(write).await
        };
        if let Some((place, _)) = &refused {
            gathered.truncate(*place);
        }
        let mut next = Next::Read;
        for (object, index, content) in &gathered {
            let bytes = content.len() as u64;
            if self.round.arrived((self.stream, self.ahead), object, (*index, 1), bytes) == Next::Stop {
                next = Next::Stop;
            }
        }
        if self.round.job.progress_is_due() {
            tell_progress(&self.round.job, &self.round.incoming);
        }
        match refused {
            Some((_, error)) => Err(SinkError::Block(error)),
            None => Ok(next),
        }
    }

    /// Ends a call: with what went wrong, or with whether the stream reads on.
    fn end(&mut self, result: Result<Next, SinkError>) -> Result<(), SinkStopped> {
        match result {
            Ok(Next::Read) => return Ok(()),
            Ok(Next::Stop) => self.robbed = true,
            Err(error) => self.error = Some(error),
        }
        Err(SinkStopped)
    }

    async fn write(&mut self, object: ObjectHash, first: u64, content: Bytes) -> Result<Next, SinkError> {
        let incoming = Arc::clone(&self.round.incoming);
        let (blocks, bytes) = (blocks_of(&content).count() as u64, content.len() as u64);
        let written = blocking(move || {
            for (index, block) in (first..).zip(blocks_of(&content)) {
                match incoming.write_block(&object, index, block) {
                    Ok(_) | Err(IncomingError::NotNeeded { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        written.await.map_err(SinkError::Block)?;
        if self.round.job.progress_is_due() {
            tell_progress(&self.round.job, &self.round.incoming);
        }
        Ok(self.round.arrived((self.stream, self.ahead), &object, (first, blocks), bytes))
    }

    /// Returns the content of a piece.
    async fn decode(
        &mut self,
        (object, size): (ObjectHash, u64),
        first_block: u64,
        piece: Piece,
    ) -> Result<Bytes, SinkError> {
        let Piece { head, content } = piece;
        let last = block_range(size, first_block.saturating_add(head.blocks).saturating_sub(1));
        let length = last.end.saturating_sub(block_range(size, first_block).start);
        let length = usize::try_from(length).unwrap_or(0);
        match head.encoding {
            PieceEncoding::Raw => Ok(content),
            PieceEncoding::Zstd => {
                let decode = move || decompress(&content, None, length);
                let decoded = if length as u64 <= GATHERED_BYTES { decode() } else { blocking(decode).await };
                decoded.map(Bytes::from).map_err(SinkError::Piece)
            }
            PieceEncoding::Delta => {
                let spoiled = SinkError::Base(object);
                let Some(base) = self.base_of(object).await else { return Err(spoiled) };
                let deltas = Arc::clone(&self.round.core.deltas);
                let decoded = blocking(move || {
                    let _turn = deltas.turns.take();
                    let window =
                        base.read_range(head.base_offset, usize::try_from(head.base_bytes).ok()?).ok()?;
                    decompress(&content, Some(&window), length).ok()
                });
                let decoded = decoded.await;
                decoded.map(Bytes::from).ok_or(spoiled)
            }
        }
    }

    async fn base_of(&mut self, object: ObjectHash) -> Option<Arc<ObjectReader>> {
        if let Some((of, base)) = &self.base
            && *of == object
        {
            return Some(Arc::clone(base));
        }
        let (core, bases, version) =
            (Arc::clone(&self.round.core), Arc::clone(&self.round.bases), self.round.job.version.clone());
        let opened = blocking(move || bases.open(&core, &version, &object)).await.map(Arc::new)?;
        self.base = Some((object, Arc::clone(&opened)));
        Some(opened)
    }

    async fn take_piece(
        &mut self,
        object: ObjectHash,
        first_block: u64,
        piece: Piece,
    ) -> Result<Next, SinkError> {
        let (encoding, wire_bytes) = (piece.head.encoding, piece.head.bytes);
        self.round.job.add_received(wire_bytes);
        // Another stream has brought it, or the file went away from the manifest's needs: nothing to decode it for.
        let Some(need) = self.round.incoming.need(&object) else {
            let blocks = (first_block, piece.head.blocks);
            return Ok(self.round.arrived((self.stream, self.ahead), &object, blocks, wire_bytes));
        };
        let content = self.decode((object, need.size), first_block, piece).await?;
        self.round.job.add_content(encoding, content.len() as u64);
        if encoding != PieceEncoding::Delta && content.len() as u64 <= GATHERED_BYTES {
            return self.gather(object, first_block, content).await;
        }
        match self.write(object, first_block, content).await {
            // The peer's bytes decoded to another object: its copy of the base or ours is damaged.
            Err(SinkError::Block(error)) if encoding == PieceEncoding::Delta && error.is_senders_fault() => {
                Err(SinkError::Base(object))
            }
            written => written,
        }
    }
}

impl BlockSink for JobSink {
    fn list(
        &mut self,
        object: ObjectHash,
        size: u64,
        values: Vec<BlockValue>,
    ) -> BoxFuture<'_, Result<(), SinkStopped>> {
        Box::pin(async move {
            self.round.job.add_received(values.len() as u64 * size_of::<BlockValue>() as u64);
            let list = match BlockList::verified(object, size, values) {
                Ok(list) => list,
                Err(error) => return self.end(Err(SinkError::List(error))),
            };
            let incoming = Arc::clone(&self.round.incoming);
            match blocking(move || incoming.set_blocks(list)).await {
                Ok(()) | Err(IncomingError::NotNeeded { .. }) => Ok(()),
                Err(error) => self.end(Err(SinkError::Block(error))),
            }
        })
    }

    fn block(
        &mut self,
        object: ObjectHash,
        index: u64,
        bytes: Bytes,
    ) -> BoxFuture<'_, Result<(), SinkStopped>> {
        Box::pin(async move {
            self.round.job.add_received(bytes.len() as u64);
            self.round.job.add_content(PieceEncoding::Raw, bytes.len() as u64);
            if bytes.len() as u64 > GATHERED_BYTES {
                let written = self.write(object, index, bytes).await;
                return self.end(written);
            }
            let gathered = self.gather(object, index, bytes).await;
            self.end(gathered)
        })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SinkStopped>> {
        Box::pin(async move {
            let written = self.write_gathered().await;
            self.end(written)
        })
    }

    fn piece(
        &mut self,
        object: ObjectHash,
        first_block: u64,
        piece: Piece,
    ) -> BoxFuture<'_, Result<(), SinkStopped>> {
        Box::pin(async move {
            let taken = self.take_piece(object, first_block, piece).await;
            self.end(taken)
        })
    }

    fn not_found(&mut self, object: ObjectHash) -> BoxFuture<'_, Result<(), SinkStopped>> {
        self.not_found.insert(object);
        self.round.passed_over(self.stream, &object);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Cuts content into blocks; content of no bytes is one block of none.
fn blocks_of(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = content.is_empty().then_some(content);
    content.chunks(usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX)).chain(empty)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use avalon_protocol::{
        control::JobKind,
        manifest::{FileEntry, Manifest},
        mode::ProjectMode,
        plan::Priority,
        wire::Want,
    };
    use avalon_store::object::incoming::Incoming;

    use super::*;
    use crate::{
        fixture::{Node, Studio, draft},
        replicate::{jobs::Job, transfer::bases::Bases},
    };

    const CONTENTS: [&[u8]; 3] = [b"one", b"two", b"three"];

    /// A version of three small files.
    fn small_files() -> Manifest {
        let mut draft = draft(1, CONTENTS[0]);
        let first = draft.files[0].clone();
        let file = |(number, content): (usize, &&[u8])| FileEntry {
            path: format!("modelDefault.{number}.abc").parse().unwrap(),
            size: content.len() as u64,
            hash: ObjectHash::of(content),
            ..first.clone()
        };
        draft.files = CONTENTS.iter().enumerate().map(file).collect();
        draft.representations[0].entry = draft.files[0].path.clone();
        draft.finish().unwrap()
    }

    /// A sink that takes them, and the area that they go to.
    async fn sink(node: &Node) -> (JobSink, Arc<Incoming>) {
        let manifest = Arc::new(small_files());
        let core = &node.core;
        let dir = node.project().dir().unwrap();
        let incoming = Arc::new(Incoming::open(&dir, Arc::clone(&manifest)).unwrap());
        let wish = (JobKind::Pull, Priority::Waiting);
        let (clock, events) = (Arc::clone(&core.clock), core.events.clone());
        let job = Job::new("t-1".into(), manifest.version().clone(), manifest.id(), wish, clock, events);
        let job = Arc::new(job);
        let bases = Arc::new(Bases::find(core, &job, &manifest, &incoming).await);
        let wants = manifest.files().iter().map(|file| Want {
            object: file.hash,
            size: file.size,
            first_block: 0,
            blocks: 1,
            with_list: false,
        });
        let round = Arc::new(Round::new(core, &job, &incoming, &bases, wants.collect()));
        assert_eq!(round.ask_all(0), 3);
        (JobSink::new(round, 0, Duration::ZERO), incoming)
    }

    fn missing(incoming: &Incoming) -> Vec<ObjectHash> {
        incoming.needs().iter().map(|need| need.object).collect()
    }

    #[tokio::test]
    async fn small_blocks_are_gathered_and_kept_at_the_end_of_the_answer() {
        let studio = Studio::new();
        let node = studio.node("srv@montreal", ProjectMode::Mirror);
        let (mut sink, incoming) = sink(&node).await;
        for content in CONTENTS {
            sink.block(ObjectHash::of(content), 0, Bytes::from_static(content)).await.unwrap();
        }
        assert_eq!(missing(&incoming).len(), 3, "not yet");
        sink.flush().await.unwrap();
        assert!(missing(&incoming).is_empty() && sink.error.is_none());
    }

    #[tokio::test]
    async fn of_gathered_blocks_those_in_front_of_a_lie_are_kept_and_the_sender_is_to_blame() {
        let studio = Studio::new();
        let node = studio.node("srv@montreal", ProjectMode::Mirror);
        let (mut sink, incoming) = sink(&node).await;
        let [one, two, three] = CONTENTS.map(ObjectHash::of);
        sink.block(one, 0, Bytes::from_static(CONTENTS[0])).await.unwrap();
        sink.block(two, 0, Bytes::from_static(b"lie")).await.unwrap();
        sink.block(three, 0, Bytes::from_static(CONTENTS[2])).await.unwrap();
        assert!(sink.flush().await.is_err());
        let error = sink.error.take().unwrap();
        assert!(error.is_senders_fault(), "{error:?}");
        let mut expected = vec![two, three];
        expected.sort();
        let mut left = missing(&incoming);
        left.sort();
        assert_eq!(left, expected);
    }
}
