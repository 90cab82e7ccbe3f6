//! Why a connection was closed, as the QUIC application close code that the other side sees.

use std::fmt;

/// One reason; the number is on the wire and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 0: the daemon stops or restarts. Dial again.
    Shutdown,
    /// 1: no protocol version in common.
    Version,
    /// 2: a frame that does not parse, is over its limit, or comes out of turn.
    Protocol,
    /// 3: the greeting names another node or studio than the certificate.
    Identity,
    /// 4: another daemon with the same node name is connected.
    DuplicateNode,
    /// 5: both sides dialled; this connection is the one to give up. No fault.
    DuplicateConnection,
    /// 6: the peer dialled itself.
    SelfDial,
    /// 7: a feed of the peer's does not verify or has two histories.
    Feed,
    /// 8: blocks that do not hash to what they were asked for.
    Content,
    /// 9: this side is at its limit of connections, or an error of its own prevents going on. Dial again later.
    Busy,
    /// 10: the studio does not trust the peer any more.
    Revoked,
}

impl CloseCode {
    /// All of them, for the documentation's test.
    pub const ALL: [Self; 11] = [
        Self::Shutdown,
        Self::Version,
        Self::Protocol,
        Self::Identity,
        Self::DuplicateNode,
        Self::DuplicateConnection,
        Self::SelfDial,
        Self::Feed,
        Self::Content,
        Self::Busy,
        Self::Revoked,
    ];

    /// Returns the number on the wire.
    pub fn code(self) -> u32 {
        match self {
            Self::Shutdown => 0,
            Self::Version => 1,
            Self::Protocol => 2,
            Self::Identity => 3,
            Self::DuplicateNode => 4,
            Self::DuplicateConnection => 5,
            Self::SelfDial => 6,
            Self::Feed => 7,
            Self::Content => 8,
            Self::Busy => 9,
            Self::Revoked => 10,
        }
    }

    /// Reads the number, if it is one that this version knows.
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|known| u64::from(known.code()) == code)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "the daemon there stops or restarts",
            Self::Version => "no protocol version in common; upgrade the older side",
            Self::Protocol => "a message broke the protocol",
            Self::Identity => "the greeting and the certificate do not agree",
            Self::DuplicateNode => "another daemon with the same node name is connected",
            Self::DuplicateConnection => "both sides dialled; the other connection is kept",
            Self::SelfDial => "the address leads back to this node",
            Self::Feed => "a feed does not verify",
            Self::Content => "content does not match its hash",
            Self::Revoked => "this node is revoked; ask who looks after the studio",
            Self::Busy => "the other side cannot take the connection now",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for (index, code) in CloseCode::ALL.into_iter().enumerate() {
            assert_eq!(code.code() as usize, index);
            assert_eq!(CloseCode::from_code(u64::from(code.code())), Some(code));
        }
        assert_eq!(CloseCode::from_code(999), None);
    }
}
