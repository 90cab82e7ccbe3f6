//! [`FetchError`]: why a question to a peer ended before its end.

use avalon_protocol::{close_code::CloseCode, id::NodeId, wire::FrameError};
use thiserror::Error;

use super::{STALL_LIMIT, SinkStopped};
use crate::net::closed::Closed;

/// Why a fetch ended before its end. What the sink got until then is good.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The connection ended. Ask again, this peer or another.
    #[error("the connection with {node} ended")]
    Closed {
        /// The peer.
        node: NodeId,
        /// Why.
        #[source]
        closed: Closed,
    },
    /// Nothing came for [`STALL_LIMIT`]. Ask another peer first.
    #[error("{node} sent nothing for {} seconds", STALL_LIMIT.as_secs())]
    Stalled {
        /// The peer.
        node: NodeId,
    },
    /// The peer gave up in the middle of the answer, for example because a file changed while it was read.
    #[error("{node} gave up in the middle of its answer")]
    GivenUp {
        /// The peer.
        node: NodeId,
        /// The code, if it is known.
        code: Option<CloseCode>,
    },
    /// A frame that does not parse or breaks a limit. Close the link with `CloseCode::Protocol`.
    #[error("{node} sent a frame that is not allowed")]
    Frame {
        /// The peer.
        node: NodeId,
        /// What is wrong with it.
        #[source]
        source: FrameError,
    },
    /// An answer that does not fit the question. Close the link with `CloseCode::Protocol`.
    #[error("{node} sent an answer that does not fit the question: {what}")]
    Protocol {
        /// The peer.
        node: NodeId,
        /// What does not fit.
        what: &'static str,
    },
    /// An encoding that was not agreed on.
    #[error("{node} sends with encoding {encoding}, which this version does not know")]
    Encoding {
        /// The peer.
        node: NodeId,
        /// The encoding.
        encoding: u16,
    },
    /// The question has more wants than fit in one request.
    #[error("{count} wants are too many for one request, the limit is {limit}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many fit.
        limit: usize,
    },
    /// The sink stopped it.
    #[error("the receiver of what {node} sends stopped it")]
    Stopped {
        /// The peer.
        node: NodeId,
        /// The sink's word.
        #[source]
        source: SinkStopped,
    },
}

impl FetchError {
    /// Says whether the peer broke the protocol; its connection should be closed then.
    pub fn is_peers_fault(&self) -> bool {
        matches!(self, Self::Frame { .. } | Self::Protocol { .. } | Self::Encoding { .. })
    }
}
