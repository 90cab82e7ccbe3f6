//! What peers say to each other over QUIC, and how it is framed. `docs/protocol.md` is the specification.
//!
//! Every message is one frame: length, type, payload in postcard. Postcard is positional, so a message never gains a
//! field: a change is a new type number. The connection's first bidirectional stream, opened by the side that dialled,
//! is the *control* stream: greeting, heads, records. Every other stream is one request of the side that opened it.

mod encoded;
mod extract;
mod frame;
mod join;
mod message;
mod number;
mod proof;
mod request;

pub use self::{
    encoded::{Base, FEATURE_ENCODED, FetchEncoded, PIECES, PieceEncoding, PieceHead, RAW},
    extract::{FEATURE_EXTRACT, PolicyExtract},
    frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader},
    join::{
        FEATURE_ISSUES, JOIN_VERSION, JoinAsk, JoinCertify, JoinHello, JoinOffer, JoinRefused, JoinReply,
        Joined, MAX_JOIN_FRAME_BYTES, Renew, RenewAnswer, RenewLater, RenewReply,
    },
    message::{
        Control, Hello, HelloRefused, PROTOCOL_MAX, PROTOCOL_MIN, ProjectHeads, Records, ServedProject,
    },
    number::{AskNumber, FEATURE_NUMBERS, NumberReply},
    proof::{FEATURE_PROOF, FetchProof, ProofReply},
    request::{FetchManifests, FetchObjects, ManifestReply, ObjectReply, ObjectStatus, Request, Want},
};

/// What can be sent in a frame.
pub trait Framed: Sized {
    /// Writes the message with its header.
    fn to_frame(&self) -> Vec<u8>;

    /// Reads the payload of a frame whose header says `kind`.
    ///
    /// # Errors
    /// [`FrameError`] for a type that does not belong here, a payload that does not parse, or one that breaks a bound.
    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError>;
}
