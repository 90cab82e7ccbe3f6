//! The request for a proof of possession, before a version is dropped: see [`drop`](crate::drop).
//!
//! Only for peers whose greeting has [`FEATURE_PROOF`]. The answer is any number of [`ProofReply::Reading`] and then one of
//! the others.

use serde::{Deserialize, Serialize};

use super::{
    Framed,
    frame::{self, FrameError},
};
use crate::{
    drop::{Nonce, NotCounted, Proof},
    hash::ManifestId,
    id::VersionId,
};

/// The bit of [`Hello::features`](super::Hello::features) that says: this side answers [`FetchProof`].
pub const FEATURE_PROOF: u64 = 2;

/// Type 22: asks whether the other side is good for a copy of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchProof {
    /// Which version; the server answers only for projects that both sides serve.
    pub version: VersionId,
    /// Which generation of it.
    pub manifest: ManifestId,
    /// The key of the proof.
    pub nonce: Nonce,
    /// Whether all bytes are to be read. If not, the answer is by the records alone, and its proof is that of nothing: for
    /// whoever wants to know beforehand how it would come out.
    pub read: bool,
}

/// Type 23: the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofReply {
    /// It is read; another reply follows. Sent every few seconds, so that nobody takes a large version for a dead peer.
    Reading {
        /// How many bytes were read so far.
        bytes: u64,
    },
    /// It is held and not being dropped.
    Held {
        /// The proof.
        proof: Proof,
        /// At how many sites it has to be, by the policy as this side knows it.
        min_copies: u32,
    },
    /// It does not count.
    Not(NotCounted),
}

/// What stands on the wire: fields that mean nothing are zero.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    /// 0 held, 1 to 5 why not, 6 reading.
    status: u8,
    min_copies: u32,
    bytes: u64,
    proof: [u8; 32],
}

const PROOF: u16 = 22;
const PROOF_REPLY: u16 = 23;
const HELD: u8 = 0;
const READING: u8 = 6;

impl FetchProof {
    pub(super) fn frame(&self) -> Vec<u8> {
        frame::write(PROOF, self)
    }

    /// Reads the payload when it is of this type.
    pub(super) fn from_payload(kind: u16, payload: &[u8]) -> Option<Result<Self, FrameError>> {
        (kind == PROOF).then(|| frame::read(kind, payload))
    }
}

impl Framed for ProofReply {
    fn to_frame(&self) -> Vec<u8> {
        let nothing = Reply { status: HELD, min_copies: 0, bytes: 0, proof: [0; 32] };
        let reply = match self {
            Self::Reading { bytes } => Reply { status: READING, bytes: *bytes, ..nothing },
            Self::Held { proof, min_copies } => {
                Reply { min_copies: *min_copies, proof: *proof.as_bytes(), ..nothing }
            }
            Self::Not(why) => Reply { status: (*why).into(), ..nothing },
        };
        frame::write(PROOF_REPLY, &reply)
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        if kind != PROOF_REPLY {
            return Err(FrameError::Unexpected { kind });
        }
        let Reply { status, min_copies, bytes, proof } = frame::read(kind, payload)?;
        match status {
            HELD => Ok(Self::Held { proof: Proof::from_bytes(proof), min_copies }),
            READING => Ok(Self::Reading { bytes }),
            why => NotCounted::try_from(why).map(Self::Not).map_err(|_| FrameError::Damaged { kind }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FRAME_HEADER_BYTES, FrameHeader, Request};

    fn reread<T: Framed>(frame: &[u8]) -> Result<T, FrameError> {
        let header = FrameHeader::parse(frame[..FRAME_HEADER_BYTES].try_into().unwrap())?;
        T::from_payload(header.kind, &frame[FRAME_HEADER_BYTES..])
    }

    fn ask() -> FetchProof {
        FetchProof {
            version: crate::record::tests::version(2),
            manifest: ManifestId::from_bytes([7; 32]),
            nonce: Nonce::from_bytes([9; 32]),
            read: true,
        }
    }

    /// Frozen: a change here means a new type, not a new expectation.
    #[test]
    fn golden_bytes_of_a_question_and_its_answers() {
        let request = Request::Proof(ask());
        assert_eq!(reread::<Request>(&request.to_frame()).unwrap(), request);
        let question = concat!(
            "610000001600076c616e7465726e05726f626f740c6d6f64656c44656661756c740476303032070707070707070707070707",
            "0707070707070707070707070707070707070707090909090909090909090909090909090909090909090909090909090909090901",
        );
        assert_eq!(hex::encode(request.to_frame()), question);
        let replies = [
            (ProofReply::Reading { bytes: 300 }, "240000001700", "0600ac02", 0),
            (
                ProofReply::Held { proof: Proof::from_bytes([3; 32]), min_copies: 2 },
                "230000001700",
                "000200",
                3,
            ),
            (ProofReply::Not(NotCounted::Dropping), "230000001700", "020000", 0),
        ];
        for (reply, header, fields, proof) in replies {
            let frame = reply.to_frame();
            assert_eq!(reread::<ProofReply>(&frame).unwrap(), reply);
            assert_eq!(hex::encode(&frame), format!("{header}{fields}{}", hex::encode([proof; 32])));
        }
    }

    #[test]
    fn an_answer_of_an_unknown_status_is_damaged() {
        let reply = Reply { status: 7, min_copies: 0, bytes: 0, proof: [0; 32] };
        let frame = frame::write(PROOF_REPLY, &reply);
        assert_eq!(reread::<ProofReply>(&frame), Err(FrameError::Damaged { kind: PROOF_REPLY }));
    }
}
