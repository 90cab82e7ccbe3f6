//! The request for a number of a subset, before it is used: see [`numbers`](crate::numbers).
//!
//! Only for peers whose greeting has [`FEATURE_NUMBERS`]. The answer is one [`NumberReply`].

use serde::{Deserialize, Serialize};

use super::{
    Framed,
    frame::{self, FrameError},
};
use crate::{
    id::{NodeId, VersionId, VersionSlot},
    numbers::Answer,
};

/// The bit of [`Hello::features`](super::Hello::features) that says: this side answers [`AskNumber`].
pub const FEATURE_NUMBERS: u64 = 4;

/// Type 24: asks the other side to promise a number to the node that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskNumber {
    /// Which number of which subset; never a hero. The server answers only for projects that both sides serve.
    pub version: VersionId,
    /// Whether a number that belongs to the node that asks already is of no use to it.
    pub fresh: bool,
    /// The serial of the policy that the asking side goes by.
    pub serial: u64,
}

/// Type 25: the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberReply(pub Answer);

/// What stands on the wire: fields that mean nothing are zero and empty.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    /// 0 promised, 1 taken, 2 unsure, 3 another policy.
    status: u8,
    next: u32,
    by: Option<NodeId>,
}

const ASK: u16 = 24;
const REPLY: u16 = 25;

impl AskNumber {
    pub(super) fn frame(&self) -> Vec<u8> {
        frame::write(ASK, self)
    }

    /// Reads the payload when it is of this type.
    pub(super) fn from_payload(kind: u16, payload: &[u8]) -> Option<Result<Self, FrameError>> {
        (kind == ASK).then(|| {
            let ask: Self = frame::read(kind, payload)?;
            match ask.version.slot {
                VersionSlot::Number(_) => Ok(ask),
                VersionSlot::Hero => Err(FrameError::Damaged { kind }),
            }
        })
    }
}

impl Framed for NumberReply {
    fn to_frame(&self) -> Vec<u8> {
        let nothing = Reply { status: 0, next: 0, by: None };
        let reply = match &self.0 {
            Answer::Promised => nothing,
            Answer::Taken { next, by } => Reply { status: 1, next: *next, by: Some(by.clone()) },
            Answer::Unsure => Reply { status: 2, ..nothing },
            Answer::OtherPolicy => Reply { status: 3, ..nothing },
        };
        frame::write(REPLY, &reply)
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        if kind != REPLY {
            return Err(FrameError::Unexpected { kind });
        }
        let Reply { status, next, by } = frame::read(kind, payload)?;
        match (status, by) {
            (0, None) => Ok(Self(Answer::Promised)),
            (1, Some(by)) => Ok(Self(Answer::Taken { next, by })),
            (2, None) => Ok(Self(Answer::Unsure)),
            (3, None) => Ok(Self(Answer::OtherPolicy)),
            _ => Err(FrameError::Damaged { kind }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::tests::version,
        wire::{FRAME_HEADER_BYTES, FrameHeader, Request},
    };

    fn reread<T: Framed>(frame: &[u8]) -> Result<T, FrameError> {
        let header = FrameHeader::parse(frame[..FRAME_HEADER_BYTES].try_into().unwrap())?;
        T::from_payload(header.kind, &frame[FRAME_HEADER_BYTES..])
    }

    /// Frozen: a change here means a new type, not a new expectation.
    #[test]
    fn golden_bytes_of_a_question_and_its_answers() {
        let request = Request::Number(AskNumber { version: version(2), fresh: true, serial: 300 });
        assert_eq!(reread::<Request>(&request.to_frame()).unwrap(), request);
        assert_eq!(
            hex::encode(request.to_frame()),
            "230000001800076c616e7465726e05726f626f740c6d6f64656c44656661756c74047630303201ac02"
        );
        let taken = Answer::Taken { next: 5, by: "ws1@home".parse().unwrap() };
        let replies = [
            (Answer::Promised, "030000001900000000"),
            (taken, "0c0000001900010501087773314068 6f6d65"),
            (Answer::Unsure, "030000001900020000"),
            (Answer::OtherPolicy, "030000001900030000"),
        ];
        for (answer, bytes) in replies {
            let frame = NumberReply(answer.clone()).to_frame();
            assert_eq!(reread::<NumberReply>(&frame).unwrap(), NumberReply(answer));
            assert_eq!(hex::encode(&frame), bytes.replace(' ', ""));
        }
    }

    #[test]
    fn a_hero_is_no_number_and_an_answer_that_contradicts_itself_is_damaged() {
        let hero = VersionId { slot: VersionSlot::Hero, ..version(2) };
        let frame = AskNumber { version: hero, fresh: false, serial: 1 }.frame();
        assert!(matches!(reread::<Request>(&frame), Err(FrameError::Damaged { .. })));
        for (status, by) in [(0, true), (1, false), (2, true), (4, false)] {
            let by = by.then(|| "ws1@home".parse().unwrap());
            let frame = frame::write(REPLY, &Reply { status, next: 0, by });
            assert!(matches!(reread::<NumberReply>(&frame), Err(FrameError::Damaged { .. })), "{status}");
        }
    }
}
