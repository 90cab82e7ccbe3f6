//! The request whose answer may be compressed, or a delta against an object that both sides hold.
//!
//! Only for peers whose greeting has [`FEATURE_ENCODED`]. It is answered want by want with an
//! [`ObjectReply`](super::ObjectReply); one of encoding [`PIECES`] is followed by pieces instead of raw content.

use serde::{Deserialize, Serialize};

use super::{
    Framed, Want,
    frame::{self, FrameError},
};
use crate::{
    block::BLOCK_BYTES,
    hash::ObjectHash,
    id::ProjectName,
    limits::{MAX_BASE_WINDOW_BYTES, MAX_OBJECT_BYTES, MAX_PIECE_BLOCKS, MAX_WANTS},
    plan::Priority,
};

/// The bit of [`Hello::features`](super::Hello::features) that says: this side answers [`FetchEncoded`].
pub const FEATURE_ENCODED: u64 = 1;

/// The encoding of an [`ObjectReply`](super::ObjectReply) whose content follows as it is.
pub const RAW: u16 = 0;
/// The encoding of one whose content follows in pieces, each with a [`PieceHead`].
pub const PIECES: u16 = 1;

/// Type 20: asks for objects of one project, in whatever encoding costs least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchEncoded {
    /// The project; the server answers only for objects of manifests in it.
    pub project: ProjectName,
    /// How urgent it is; on the wire 0 is backfill, 1 publish, 2 waiting.
    #[serde(with = "priority_tag")]
    pub priority: Priority,
    /// Whether pieces may be compressed without a base. At one site that costs more time than it saves.
    pub compress: bool,
    /// What is wanted, answered in this order; at most [`MAX_WANTS`].
    pub wants: Vec<Want>,
    /// Objects that the asking side holds and expects to resemble wants; at most one for each want, in their order.
    pub bases: Vec<Base>,
}

/// An object that the asking side holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The want that it is for, as a number from 0.
    pub want: u32,
    /// The object.
    pub object: ObjectHash,
    /// Its size in bytes.
    pub size: u64,
}

/// How the content of a piece is encoded; on the wire the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum PieceEncoding {
    /// 0: one block, as it is.
    Raw,
    /// 1: one zstd frame (RFC 8878) of the blocks.
    Zstd,
    /// 2: one zstd frame with a window of the base as its reference prefix.
    Delta,
}

impl From<PieceEncoding> for u8 {
    fn from(encoding: PieceEncoding) -> Self {
        match encoding {
            PieceEncoding::Raw => 0,
            PieceEncoding::Zstd => 1,
            PieceEncoding::Delta => 2,
        }
    }
}

impl TryFrom<u8> for PieceEncoding {
    type Error = &'static str;
    fn try_from(byte: u8) -> Result<Self, &'static str> {
        match byte {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Delta),
            _ => Err("not an encoding of pieces"),
        }
    }
}

/// Type 21: precedes the bytes of each piece. The pieces of a want cover its blocks in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceHead {
    /// How many blocks it holds: 1 to [`MAX_PIECE_BLOCKS`], 1 when it is raw.
    pub blocks: u64,
    /// How they are encoded.
    pub encoding: PieceEncoding,
    /// How many bytes follow, at most [`BLOCK_BYTES`]: what a cut may cost does not grow with the piece.
    pub bytes: u64,
    /// Where the window of the base begins; 0 without a base.
    pub base_offset: u64,
    /// How long it is, at most [`MAX_BASE_WINDOW_BYTES`]; 0 without a base.
    pub base_bytes: u64,
}

const ENCODED: u16 = 20;
const PIECE: u16 = 21;

impl FetchEncoded {
    pub(super) fn frame(&self) -> Vec<u8> {
        frame::write(ENCODED, self)
    }

    /// Reads the payload when it is of this type.
    pub(super) fn from_payload(kind: u16, payload: &[u8]) -> Option<Result<Self, FrameError>> {
        (kind == ENCODED).then(|| Self::read(kind, payload))
    }

    fn read(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        let fetch: Self = frame::read(kind, payload)?;
        frame::bound(kind, "wants", fetch.wants.len(), MAX_WANTS)?;
        frame::bound(kind, "bases", fetch.bases.len(), fetch.wants.len())?;
        let sizes = fetch.wants.iter().map(|want| want.size).chain(fetch.bases.iter().map(|base| base.size));
        if sizes.max().is_some_and(|largest| largest > MAX_OBJECT_BYTES) {
            return Err(FrameError::TooMany { kind, what: "bytes of an object" });
        }
        let wants = fetch.bases.iter().map(|base| base.want);
        if !wants.is_sorted_by(|a, b| a < b)
            || fetch.bases.last().is_some_and(|base| base.want as usize >= fetch.wants.len())
        {
            return Err(FrameError::TooMany { kind, what: "bases of a want" });
        }
        Ok(fetch)
    }
}

impl Framed for PieceHead {
    fn to_frame(&self) -> Vec<u8> {
        frame::write(PIECE, self)
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        if kind != PIECE {
            return Err(FrameError::Unexpected { kind });
        }
        let head: Self = frame::read(kind, payload)?;
        if head.blocks == 0 || head.blocks > MAX_PIECE_BLOCKS {
            return Err(FrameError::TooMany { kind, what: "blocks of a piece" });
        }
        if head.bytes > BLOCK_BYTES || head.base_bytes > MAX_BASE_WINDOW_BYTES {
            return Err(FrameError::TooMany { kind, what: "bytes of a piece" });
        }
        Ok(head)
    }
}

/// The tag is written by hand: the order of an enum is no format.
mod priority_tag {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::plan::Priority;

    pub(super) fn serialize<S: Serializer>(priority: &Priority, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match priority {
            Priority::Backfill => 0,
            Priority::Publish => 1,
            Priority::Waiting => 2,
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Priority, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Priority::Backfill),
            1 => Ok(Priority::Publish),
            2 => Ok(Priority::Waiting),
            _ => Err(D::Error::custom("not a priority")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FRAME_HEADER_BYTES, FrameHeader, Request};

    fn fetch() -> FetchEncoded {
        let want = |byte| Want {
            object: ObjectHash::from_bytes([byte; 32]),
            size: 9,
            first_block: 0,
            blocks: 1,
            with_list: false,
        };
        FetchEncoded {
            project: "lantern".parse().unwrap(),
            priority: Priority::Waiting,
            compress: true,
            wants: vec![want(1), want(2)],
            bases: vec![Base { want: 1, object: ObjectHash::from_bytes([3; 32]), size: 8 }],
        }
    }

    fn reread<T: Framed>(frame: &[u8]) -> Result<T, FrameError> {
        let header = FrameHeader::parse(frame[..FRAME_HEADER_BYTES].try_into().unwrap())?;
        T::from_payload(header.kind, &frame[FRAME_HEADER_BYTES..])
    }

    #[test]
    fn request_and_piece_survive_the_wire() {
        let request = Request::Encoded(fetch());
        assert_eq!(reread::<Request>(&request.to_frame()).unwrap(), request);
        let head = PieceHead {
            blocks: 8,
            encoding: PieceEncoding::Delta,
            bytes: 812,
            base_offset: 5,
            base_bytes: 7,
        };
        assert_eq!(reread::<PieceHead>(&head.to_frame()).unwrap(), head);
    }

    #[test]
    fn bounds_are_checked_before_anything_is_done() {
        let base = fetch().bases[0];
        let bad = [
            FetchEncoded { bases: vec![Base { want: 2, ..base }], ..fetch() },
            FetchEncoded { bases: vec![base, base], ..fetch() },
            FetchEncoded { bases: vec![Base { want: 0, ..base }; 3], ..fetch() },
            FetchEncoded { bases: vec![Base { size: MAX_OBJECT_BYTES + 1, ..base }], ..fetch() },
        ];
        for fetch in bad {
            assert!(reread::<Request>(&Request::Encoded(fetch.clone()).to_frame()).is_err(), "{fetch:?}");
        }
        let good =
            PieceHead { blocks: 1, encoding: PieceEncoding::Raw, bytes: 1, base_offset: 0, base_bytes: 0 };
        let bad = [
            PieceHead { blocks: 0, ..good },
            PieceHead { blocks: MAX_PIECE_BLOCKS + 1, ..good },
            PieceHead { bytes: BLOCK_BYTES + 1, ..good },
            PieceHead { base_bytes: MAX_BASE_WINDOW_BYTES + 1, ..good },
        ];
        for head in bad {
            assert!(reread::<PieceHead>(&head.to_frame()).is_err(), "{head:?}");
        }
        assert!(PieceEncoding::try_from(3).is_err());
    }
}
