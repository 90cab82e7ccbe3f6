//! Why a connection ended, and when to dial again. Pure.

use avalon_protocol::close_code::CloseCode;
use quinn::{ConnectionError, TransportErrorCode};
use thiserror::Error;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Closed {
    /// This side closed it.
    #[error("closed here: {reason}")]
    ByUs {
        /// The code that the peer saw.
        code: CloseCode,
        /// Why.
        reason: String,
    },
    /// The peer closed it.
    #[error("closed by the peer: {reason}")]
    ByPeer {
        /// The code, if this version knows it.
        code: Option<CloseCode>,
        /// Why.
        reason: String,
    },
    /// One side does not accept the other's certificate or TLS.
    #[error("{reason}")]
    Untrusted {
        /// Which side, and why.
        reason: String,
    },
    /// The connection was lost or never made.
    #[error("{reason}")]
    Lost {
        /// How.
        reason: String,
    },
}

/// When to dial again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// At once: the peer restarts.
    Now,
    /// After a wait that grows.
    Backoff,
    /// After a long wait, because somebody has to change something first.
    Slow,
}

impl Closed {
    pub(crate) fn by_us(code: CloseCode, reason: impl Into<String>) -> Self {
        Self::ByUs { code, reason: reason.into() }
    }

    pub(crate) fn lost(reason: impl Into<String>) -> Self {
        Self::Lost { reason: reason.into() }
    }

    /// Reads what quinn says. A connection that this side closed needs the reason from elsewhere.
    pub(crate) fn from_quinn(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(frame) => {
                Self::by_peer(frame.error_code.into_inner(), &frame.reason)
            }
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(alert) => Self::Untrusted { reason: refusal_here(alert, &error.reason) },
                None => Self::lost(format!("QUIC gave up: {}", printable(&error.to_string()))),
            },
            ConnectionError::ConnectionClosed(frame) => match alert(frame.error_code) {
                Some(alert) => Self::Untrusted { reason: refusal_there(alert) },
                None if frame.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                    Self::lost("the peer takes no more connections now")
                }
                None => Self::lost(format!("the peer's QUIC gave up: {}", printable(&frame.to_string()))),
            },
            ConnectionError::LocallyClosed => Self::by_us(CloseCode::Shutdown, "avalond stops"),
            ConnectionError::TimedOut => Self::lost("no answer"),
            ConnectionError::Reset => Self::lost("the peer was restarted"),
            ConnectionError::VersionMismatch => Self::lost("the peer does not speak this version of QUIC"),
            other => Self::lost(printable(&other.to_string())),
        }
    }

    fn by_peer(code: u64, reason: &[u8]) -> Self {
        let reason = printable(&String::from_utf8_lossy(reason));
        match CloseCode::from_code(code) {
            Some(code) if reason.is_empty() => Self::ByPeer { code: Some(code), reason: code.to_string() },
            Some(code) => Self::ByPeer { code: Some(code), reason },
            None => Self::ByPeer { code: None, reason: format!("code {code}: {reason}") },
        }
    }

    /// Returns the code that it was closed with, by either side.
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            Self::ByUs { code, .. } => Some(*code),
            Self::ByPeer { code, .. } => *code,
            Self::Untrusted { .. } | Self::Lost { .. } => None,
        }
    }

    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Lost { .. } | Self::ByPeer { code: None, .. } => Retry::Backoff,
            Self::Untrusted { .. } => Retry::Slow,
            Self::ByUs { code, .. } | Self::ByPeer { code: Some(code), .. } => match code {
                CloseCode::Shutdown => Retry::Now,
                CloseCode::Busy | CloseCode::DuplicateConnection => Retry::Backoff,
                CloseCode::Version
                | CloseCode::Protocol
                | CloseCode::Identity
                | CloseCode::DuplicateNode
                | CloseCode::SelfDial
                | CloseCode::Feed
                | CloseCode::Content
                | CloseCode::Revoked => Retry::Slow,
            },
        }
    }
}

/// Returns the TLS alert of a crypto error (RFC 9001, section 4.8).
fn alert(code: TransportErrorCode) -> Option<u64> {
    u64::from(code).checked_sub(0x100).filter(|alert| *alert < 0x100)
}

/// Says why this side's TLS refused the peer. rustls writes our own reasons as debug text, so the alert that they map to
/// is spelled out; the text of others stands for itself.
fn refusal_here(alert: u64, text: &str) -> String {
    let why = match alert {
        44 => "it was revoked".to_owned(),
        45 => "its certificate is not valid now; renew it, or check the clocks".to_owned(),
        46 => "its certificate was not issued by this studio's CA for an avalond".to_owned(),
        120 => "it does not speak avalon/1".to_owned(),
        _ => printable(text),
    };
    format!("this node refuses the peer: {why}")
}

/// Says why the peer's TLS refused this side, as far as its alert tells.
fn refusal_there(alert: u64) -> String {
    let why = match alert {
        42 | 46 | 48 => "it does not take this node's certificate for one of its studio's CA".to_owned(),
        44 => "this node's certificate was revoked".to_owned(),
        45 => "this node's certificate is not valid now; renew it, or check the clocks".to_owned(),
        116 => "it wants a certificate and got none".to_owned(),
        120 => "it does not speak avalon/1".to_owned(),
        other => format!("TLS alert {other}"),
    };
    format!("the peer refuses this node: {why}")
}

/// Makes a peer's text fit for a log and a terminal: no control characters, at most 300 characters.
fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_reason_is_kept_without_what_a_terminal_would_obey() {
        let closed = Closed::by_peer(1, b"\x1b[31mupgrade\n");
        assert_eq!(closed.code(), Some(CloseCode::Version));
        assert_eq!(closed.to_string(), "closed by the peer: \u{fffd}[31mupgrade\u{fffd}");
        assert_eq!(
            Closed::by_peer(0, b"").to_string(),
            "closed by the peer: the daemon there stops or restarts"
        );
        assert_eq!(Closed::by_peer(77, b"x").code(), None);
        let Closed::ByPeer { reason, .. } = Closed::by_peer(2, &[b'x'; 10_000]) else { panic!("by peer") };
        assert_eq!(reason.len(), 300);
    }

    #[test]
    fn only_faults_that_somebody_must_mend_are_retried_slowly() {
        let by_peer = |code| Closed::ByPeer { code: Some(code), reason: String::new() }.retry();
        assert_eq!(by_peer(CloseCode::Shutdown), Retry::Now);
        assert_eq!(by_peer(CloseCode::DuplicateConnection), Retry::Backoff);
        assert_eq!(by_peer(CloseCode::Busy), Retry::Backoff);
        for code in [CloseCode::Version, CloseCode::Identity, CloseCode::SelfDial, CloseCode::DuplicateNode] {
            assert_eq!(by_peer(code), Retry::Slow, "{code:?}");
        }
        assert_eq!(Closed::from_quinn(ConnectionError::TimedOut).retry(), Retry::Backoff);
        let untrusted = ConnectionError::TransportError(TransportErrorCode::crypto(48).into());
        assert_eq!(Closed::from_quinn(untrusted).retry(), Retry::Slow);
    }
}
