//! Reads the answer to a request from the pieces of its stream, as they come.

use std::collections::VecDeque;

use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList, block_range},
    hash::ManifestId,
    wire::{
        FRAME_HEADER_BYTES, FrameError, FrameHeader, Framed, ManifestReply, ObjectReply, ObjectStatus, Want,
    },
};

/// Something that has come in whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Got {
    /// The block list of an object.
    List(Want, Vec<[u8; 32]>),
    /// A block of an object.
    Block(Want, u64, Vec<u8>),
    /// A manifest.
    Manifest(ManifestId, Vec<u8>),
    /// The peer does not have it.
    Nothing,
    /// The bytes are not an answer to what was asked.
    Nonsense,
}

/// What was asked for on one stream, and what has come of it.
#[derive(Debug)]
pub struct Answer {
    asked: Asked,
    buffer: VecDeque<u8>,
    current: Option<Current>,
}

#[derive(Debug)]
enum Asked {
    Objects(VecDeque<Want>),
    Manifests(VecDeque<ManifestId>),
}

/// An object in the middle of its answer.
#[derive(Debug)]
struct Current {
    want: Want,
    list_values: u64,
    next_block: u64,
}

impl Answer {
    /// Expects the answer to a request for objects.
    pub fn objects(wants: &[Want]) -> Self {
        let asked = Asked::Objects(wants.iter().copied().collect());
        Self { asked, buffer: VecDeque::new(), current: None }
    }

    /// Expects the answer to a request for manifests.
    pub fn manifests(manifests: &[ManifestId]) -> Self {
        let asked = Asked::Manifests(manifests.iter().copied().collect());
        Self { asked, buffer: VecDeque::new(), current: None }
    }

    /// Returns the wants whose answer is not complete.
    pub fn open_wants(&self) -> impl Iterator<Item = Want> + '_ {
        let open = match &self.asked {
            Asked::Objects(wants) => Some(wants.iter()),
            Asked::Manifests(_) => None,
        };
        let current = self.current.as_ref().map(|current| current.want);
        current.into_iter().chain(open.into_iter().flatten().copied())
    }

    /// Returns the manifests whose answer has not come.
    pub fn open_manifests(&self) -> impl Iterator<Item = ManifestId> + '_ {
        let open = match &self.asked {
            Asked::Objects(_) => None,
            Asked::Manifests(manifests) => Some(manifests.iter()),
        };
        open.into_iter().flatten().copied()
    }

    /// Says whether it is about manifests.
    pub fn is_of_manifests(&self) -> bool {
        matches!(self.asked, Asked::Manifests(_))
    }

    /// Says whether everything was answered.
    pub fn is_complete(&self) -> bool {
        let open = match &self.asked {
            Asked::Objects(wants) => wants.len(),
            Asked::Manifests(manifests) => manifests.len(),
        };
        open == 0 && self.current.is_none() && self.buffer.is_empty()
    }

    /// Takes bytes and returns what has become whole.
    pub fn take(&mut self, piece: &[u8]) -> Vec<Got> {
        self.buffer.extend(piece);
        let mut all = Vec::new();
        loop {
            match self.step() {
                Ok(Some(Some(got))) => all.push(got),
                Ok(Some(None)) => {}
                Ok(None) => return all,
                Err(_) => {
                    all.push(Got::Nonsense);
                    return all;
                }
            }
        }
    }

    /// One step: `None` when more bytes are needed, `Some(None)` when there is progress and nothing to hand out.
    fn step(&mut self) -> Result<Option<Option<Got>>, FrameError> {
        if let Some(current) = &mut self.current {
            let got = current.step(&mut self.buffer);
            if current.is_done() {
                self.current = None;
            }
            return Ok(got.map(Some));
        }
        match &mut self.asked {
            Asked::Objects(wants) => {
                let Some(want) = wants.front().copied() else { return Ok(None) };
                let Some((reply, head_bytes)) = frame::<ObjectReply>(&mut self.buffer)? else {
                    return Ok(None);
                };
                self.buffer.drain(..head_bytes);
                wants.pop_front();
                if reply.status == ObjectStatus::NotFound {
                    return Ok(Some(Some(Got::Nothing)));
                }
                let expected = BlockList::value_count(want.size) * u64::from(want.with_list);
                let body: u64 = block_lengths(&want).sum();
                if reply.encoding != 0 || reply.list_values != expected || reply.body_bytes != body {
                    return Ok(Some(Some(Got::Nonsense)));
                }
                let next_block = want.first_block;
                let current = Current { want, list_values: reply.list_values, next_block };
                self.current = (!current.is_done()).then_some(current);
                Ok(Some(None))
            }
            Asked::Manifests(manifests) => {
                let Some(manifest) = manifests.front().copied() else { return Ok(None) };
                let Some((reply, head_bytes)) = frame::<ManifestReply>(&mut self.buffer)? else {
                    return Ok(None);
                };
                let bytes = usize::try_from(reply.bytes).expect("bounded by the codec");
                if self.buffer.len() < head_bytes + bytes {
                    return Ok(None);
                }
                self.buffer.drain(..head_bytes);
                manifests.pop_front();
                let body: Vec<u8> = self.buffer.drain(..bytes).collect();
                Ok(Some(Some(if body.is_empty() { Got::Nothing } else { Got::Manifest(manifest, body) })))
            }
        }
    }
}

impl Current {
    fn is_done(&self) -> bool {
        self.list_values == 0 && self.next_block == self.want.first_block + self.want.blocks
    }

    fn step(&mut self, buffer: &mut VecDeque<u8>) -> Option<Got> {
        if self.list_values > 0 {
            let bytes = usize::try_from(self.list_values * 32).expect("bounded by the codec");
            let list: Vec<u8> = (buffer.len() >= bytes).then(|| buffer.drain(..bytes).collect())?;
            self.list_values = 0;
            let values = list.chunks_exact(32).map(|value| value.try_into().expect("32 bytes")).collect();
            return Some(Got::List(self.want, values));
        }
        let range = block_range(self.want.size, self.next_block);
        let bytes = usize::try_from(range.end - range.start).expect("at most 1 MiB");
        let block: Vec<u8> = (buffer.len() >= bytes).then(|| buffer.drain(..bytes).collect())?;
        self.next_block += 1;
        Some(Got::Block(self.want, self.next_block - 1, block))
    }
}

/// Returns the lengths of the blocks that a want asks for.
pub fn block_lengths(want: &Want) -> impl Iterator<Item = u64> + '_ {
    (want.first_block..want.first_block + want.blocks).map(|index| {
        let range = block_range(want.size, index);
        debug_assert!(range.end - range.start <= BLOCK_BYTES);
        range.end - range.start
    })
}

/// Reads the frame at the front, if it is whole, and says how long it is.
fn frame<T: Framed>(buffer: &mut VecDeque<u8>) -> Result<Option<(T, usize)>, FrameError> {
    let bytes = buffer.make_contiguous();
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    let header = FrameHeader::parse(*header)?;
    let Some(payload) = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.payload_bytes) else {
        return Ok(None);
    };
    let reply = T::from_payload(header.kind, payload)?;
    Ok(Some((reply, FRAME_HEADER_BYTES + header.payload_bytes)))
}

#[cfg(test)]
mod tests {
    use avalon_protocol::hash::ObjectHash;

    use super::*;
    use crate::content::block_list;

    #[test]
    fn an_answer_is_the_same_however_it_is_cut_into_pieces() {
        let large = vec![7u8; (1 << 20) + 5];
        let list = block_list(&large);
        let want = |object, size, blocks, with_list| Want { object, size, first_block: 0, blocks, with_list };
        let wants = [
            want(ObjectHash::of(b"abc"), 3, 1, false),
            want(ObjectHash::of(b""), 0, 1, false),
            want(list.object(), large.len() as u64, 2, true),
            want(ObjectHash::of(b"gone"), 4, 1, false),
        ];
        let reply = |status, list_values, body: &[u8]| {
            ObjectReply { status, list_values, body_bytes: body.len() as u64, encoding: 0 }.to_frame()
        };
        let mut bytes = [reply(ObjectStatus::Found, 0, b"abc"), b"abc".to_vec()].concat();
        bytes.extend(reply(ObjectStatus::Found, 0, b""));
        bytes.extend(reply(ObjectStatus::Found, 2, &large));
        bytes.extend(list.values().concat());
        bytes.extend(&large);
        bytes.extend(reply(ObjectStatus::NotFound, 0, b""));
        let whole = Answer::objects(&wants).take(&bytes);
        assert_eq!(whole.len(), 6, "two blocks, a list, two blocks, nothing");
        assert_eq!(whole.last(), Some(&Got::Nothing));
        for piece_bytes in [1 << 20, 4093, 999_983] {
            let mut answer = Answer::objects(&wants);
            let got: Vec<Got> = bytes.chunks(piece_bytes).flat_map(|piece| answer.take(piece)).collect();
            assert!(got == whole && answer.is_complete(), "pieces of {piece_bytes}");
        }
        let mut cut = Answer::objects(&wants);
        cut.take(&bytes[..bytes.len() - 20]);
        assert_eq!(cut.open_wants().count(), 2, "the object in the middle and the one after it");
    }
}
