//! Making what a peer asks for shorter: a delta against an object that it holds too, zstd where a probe says that it pays.
//!
//! Stage 8, at the node that serves. What the peer gets is verified there block by block, so nothing here can do harm but
//! waste time; it gives up quickly on content that does not shrink.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
};

use avalon_protocol::{
    block::BLOCK_BYTES,
    hash::ObjectHash,
    limits::MAX_PIECE_BLOCKS,
    wire::{PieceEncoding, PieceHead},
};
use avalon_store::object::{
    encode::{BaseIndex, compress, compress_against, is_compressible},
    serve::{ObjectReader, ServeError},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    core::blocking,
    net::{Piece, PieceSource, ReadFailed},
};

/// Pieces that are encoded or decoded against a base at once; each takes about 50 MiB.
const DELTAS_AT_ONCE: usize = 2;
/// Indexes of large bases that are kept, the last used: streams of one object share one.
const INDEXES: usize = 4;
/// Bases that have not helped in a row before the rest of an object goes without.
const MISSES: u32 = 2;

/// What deltas of all peers share.
#[derive(Debug)]
pub struct Deltas {
    /// Bounds memory and processor: taken for each piece that is worked on against its base.
    pub turns: Turns,
    indexes: Mutex<VecDeque<(ObjectHash, IndexSlot)>>,
}

/// The index of one base, made by whoever needs it first; none when the base cannot be read.
type IndexSlot = Arc<OnceLock<Option<BaseIndex>>>;

impl Default for Deltas {
    fn default() -> Self {
        Self {
            turns: Turns { free: Mutex::new(DELTAS_AT_ONCE), freed: Condvar::new() },
            indexes: Mutex::default(),
        }
    }
}

/// A number of turns, for threads that may wait. Not for futures: one that has its turn and is not polled, because another
/// of the same task is, would keep it for ever.
#[derive(Debug)]
pub struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A turn; dropping it gives it back.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for a turn. Blocks.
    pub fn take(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

impl Deltas {
    /// Returns the part of a base that a piece is best compressed against; none when the piece does not resemble it, or it
    /// cannot be read.
    fn window(&self, base: &ObjectReader, offset: u64, content: &[u8]) -> Option<Range<u64>> {
        let slot = {
            let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
            let known = indexes.iter().position(|(object, _)| *object == base.object());
            let entry = known.and_then(|place| indexes.remove(place));
            let entry = entry.unwrap_or_else(|| (base.object(), Arc::default()));
            indexes.push_front(entry.clone());
            indexes.truncate(INDEXES);
            entry.1
        };
        let index = slot.get_or_init(|| {
            BaseIndex::read(base).inspect_err(|error| tracing::debug!(%error, "a base cannot be read")).ok()
        });
        index.as_ref().and_then(|index| index.window(offset, content))
    }
}

/// A block up to this length is compressed without a probe.
const SMALL_BYTES: usize = 64 << 10;

/// The blocks of one want on their way out.
pub(super) struct Encoder {
    deltas: Arc<Deltas>,
    reader: Arc<ObjectReader>,
    base: Option<Arc<ObjectReader>>,
    compress: bool,
    blocks: Range<u64>,
    /// How many blocks the next delta takes.
    span: u64,
    misses: u32,
    /// The piece that was made to see whether encoding pays.
    first: Option<Piece>,
}

impl Encoder {
    /// Encodes the first piece; none when the content should go as it is.
    pub(super) async fn begin(
        deltas: Arc<Deltas>,
        reader: Arc<ObjectReader>,
        base: Option<Arc<ObjectReader>>,
        compress: bool,
        blocks: Range<u64>,
    ) -> Option<Box<dyn PieceSource>> {
        let mut encoder =
            Self { deltas, reader, base, compress, blocks, span: MAX_PIECE_BLOCKS, misses: 0, first: None };
        let first = encoder.next().await.ok()??;
        if encoder.base.is_none() && first.head.encoding == PieceEncoding::Raw {
            return None;
        }
        encoder.first = Some(first);
        Some(Box::new(encoder))
    }

    async fn encode(&mut self) -> Result<Option<Piece>, ReadFailed> {
        if self.blocks.is_empty() {
            return Ok(None);
        }
        let object = self.reader.object();
        let failed =
            |source| ReadFailed { what: format!("object {}", object.short()), source: Box::new(source) };
        while let Some(base) = self.base.clone() {
            let span = self.span.min(self.blocks.end - self.blocks.start);
            if let Some(piece) = self.delta(base, span).await.map_err(failed)? {
                self.blocks.start += span;
                // What a piece costs on the wire stays around half a block.
                self.span = match piece.head.bytes {
                    0..=0x8_0000 => (self.span * 2).min(MAX_PIECE_BLOCKS),
                    0x8_0001..=0xc_0000 => self.span,
                    _ => (self.span / 2).max(1),
                };
                self.misses = 0;
                return Ok(Some(piece));
            }
            if span > 1 {
                self.span = 1;
                continue;
            }
            self.misses += 1;
            if self.misses >= MISSES {
                self.base = None;
            }
            break;
        }
        let (reader, compress, block) = (Arc::clone(&self.reader), self.compress, self.blocks.start);
        self.blocks.start += 1;
        blocking(move || plain(&reader, block, compress)).await.map(Some).map_err(failed)
    }

    /// Encodes some blocks against the base; none when that does not make them short enough.
    async fn delta(&self, base: Arc<ObjectReader>, span: u64) -> Result<Option<Piece>, ServeError> {
        let (deltas, reader) = (Arc::clone(&self.deltas), Arc::clone(&self.reader));
        let first = self.blocks.start;
        blocking(move || {
            let _turn = deltas.turns.take();
            let offset = first * BLOCK_BYTES;
            let length = usize::try_from((reader.size() - offset).min(span * BLOCK_BYTES)).unwrap_or(0);
            let content = reader.read_range(offset, length)?;
            let Some(window) = deltas.window(&base, offset, &content) else { return Ok(None) };
            let window_bytes = window.end - window.start;
            // A base that cannot be read is no base.
            let Ok(prefix) = base.read_range(window.start, usize::try_from(window_bytes).unwrap_or(0)) else {
                return Ok(None);
            };
            let encoded = compress_against(&prefix, &content);
            let encoded = encoded.filter(|encoded| encoded.len() as u64 <= BLOCK_BYTES);
            Ok(encoded.map(|encoded| Piece {
                head: PieceHead {
                    blocks: span,
                    encoding: PieceEncoding::Delta,
                    bytes: encoded.len() as u64,
                    base_offset: window.start,
                    base_bytes: window_bytes,
                },
                content: Bytes::from(encoded),
            }))
        })
        .await
    }
}

/// Encodes one block without a base: compressed where that is wanted and pays.
pub(super) fn plain(reader: &ObjectReader, block: u64, compressed: bool) -> Result<Piece, ServeError> {
    let content = reader.read_block(block)?;
    // A small block is no more than the probe would look at.
    let is_worth = compressed && (content.len() <= SMALL_BYTES || is_compressible(&content));
    let encoded = if is_worth { compress(&content) } else { None };
    let (encoding, content) = match encoded {
        Some(encoded) => (PieceEncoding::Zstd, encoded),
        None => (PieceEncoding::Raw, content),
    };
    let head = PieceHead { blocks: 1, encoding, bytes: content.len() as u64, base_offset: 0, base_bytes: 0 };
    Ok(Piece { head, content: Bytes::from(content) })
}

impl PieceSource for Encoder {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Piece>, ReadFailed>> {
        Box::pin(async move {
            match self.first.take() {
                Some(piece) => Ok(Some(piece)),
                None => self.encode().await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn no_more_than_the_turns_are_taken_and_each_comes_back() {
        let deltas = Deltas::default();
        let (first, second) = (deltas.turns.take(), deltas.turns.take());
        let (said, heard) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let turn = deltas.turns.take();
                said.send(()).unwrap();
                drop(turn);
            });
            assert!(heard.try_recv().is_err(), "there is no turn left");
            drop(first);
            heard.recv().unwrap();
        });
        drop(second);
        assert_eq!(*deltas.turns.free.lock().unwrap(), DELTAS_AT_ONCE);
    }
}
