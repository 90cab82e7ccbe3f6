//! Joining: what a machine with an invite and an issuing node say to each other, on one stream of a connection of its own
//! (ALPN `avalon-join/1`). And renewing: one request of a node over its connection with an issuing node.
//!
//! The machine greets; the node offers, with the certificate of the studio's CA, by which the machine checks whom it talks
//! to; the machine asks, with the request for its certificate; the node answers.

use serde::{Deserialize, Serialize};

use super::{
    Framed,
    frame::{self, FrameError},
};
use crate::{
    access::Role,
    bounded,
    id::{NodeId, NodeName, ProjectName, SiteName, StudioName},
    limits::MAX_PROJECTS,
};

/// The one version of joining.
pub const JOIN_VERSION: u16 = 1;

/// Longest frame of joining: certificates, and the names of many projects. Checked before memory is taken, because whoever
/// joins is trusted less than a peer.
pub const MAX_JOIN_FRAME_BYTES: usize = 256 << 10;

/// Longest certificate, request or chain in one of these messages.
const MAX_CERTIFICATES_BYTES: usize = 40 << 10;

/// Longest text for people.
const MAX_TEXT_BYTES: usize = 1024;

/// Most addresses of peers.
const MAX_PEERS: usize = 64;

/// What a joining machine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinAsk {
    /// Type 26: the first frame.
    Hello(JoinHello),
    /// Type 28: asks for its certificate, after it has checked the offer.
    Certify(JoinCertify),
}

/// What an issuing node says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinReply {
    /// Type 27: what the invite is for.
    Offer(JoinOffer),
    /// Type 29: it has joined.
    Joined(Joined),
    /// Type 30: it has not.
    Refused(JoinRefused),
}

/// The greeting of a joining machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinHello {
    /// [`JOIN_VERSION`].
    pub version: u16,
    /// The software's version, for people.
    pub build: String,
}

/// What an invite is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinOffer {
    /// The certificate of the studio's CA in DER; its SHA-256 stands in the token.
    pub authority: Vec<u8>,
    /// The studio.
    pub studio: StudioName,
    /// The site that it joins at.
    pub site: SiteName,
    /// Its name, where the invite says one.
    pub node: Option<NodeName>,
    /// As what it joins.
    #[serde(with = "role_text")]
    pub role: Role,
}

/// Asks for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinCertify {
    /// What it would be called; the invite's own name goes before.
    pub node: NodeName,
    /// PKCS#10 in DER: the key, and the proof that the machine has it.
    pub request: Vec<u8>,
}

/// All that a node needs to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Who it is now.
    pub node: NodeId,
    /// As what.
    #[serde(with = "role_text")]
    pub role: Role,
    /// Its certificates, as they stand in feeds.
    pub certificate: Vec<u8>,
    /// The projects that its first configuration has.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_PROJECTS>")]
    pub projects: Vec<ProjectName>,
    /// Whom it may dial beside the node that answered.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_PEERS>")]
    pub peers: Vec<String>,
}

/// Why it has not joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRefused {
    /// For the person at the machine: why, and what to do.
    pub reason: String,
}

/// Type 31: asks an issuing node for a certificate for a new key of the node that asks; name and role stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// PKCS#10 in DER.
    pub request: Vec<u8>,
}

/// Type 32: the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewReply {
    /// The certificates, as they stand in feeds; empty when it is refused.
    pub certificate: Vec<u8>,
    /// Why it is refused; empty when it is not.
    pub refused: String,
}

/// Type 34: the answer to who asks too often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewLater {
    /// How many seconds to wait before asking again.
    pub wait_s: u32,
}

/// What a node that issues answers to [`Renew`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewAnswer {
    /// A certificate, or why there is none.
    Reply(RenewReply),
    /// Not now. Nodes of earlier versions take it for a failure, and ask again later.
    Later(RenewLater),
}

/// The bit of [`Hello::features`](super::Hello::features) that says: this side issues, and answers [`Renew`].
pub const FEATURE_ISSUES: u64 = 8;

/// The word stands on the wire: the order of an enum is no format.
mod role_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::access::Role;

    pub(super) fn serialize<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(role.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

const HELLO: u16 = 26;
const OFFER: u16 = 27;
const CERTIFY: u16 = 28;
const JOINED: u16 = 29;
const REFUSED: u16 = 30;
const RENEW: u16 = 31;
const RENEW_REPLY: u16 = 32;
const RENEW_LATER: u16 = 34;

fn short(kind: u16, text: &str) -> Result<(), FrameError> {
    frame::bound(kind, "bytes of text", text.len(), MAX_TEXT_BYTES)
}

fn certificates(kind: u16, bytes: &[u8]) -> Result<(), FrameError> {
    frame::bound(kind, "bytes of certificates", bytes.len(), MAX_CERTIFICATES_BYTES)
}

impl Framed for JoinAsk {
    fn to_frame(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => frame::write(HELLO, hello),
            Self::Certify(certify) => frame::write(CERTIFY, certify),
        }
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        match kind {
            HELLO => {
                let hello: JoinHello = frame::read(kind, payload)?;
                short(kind, &hello.build)?;
                Ok(Self::Hello(hello))
            }
            CERTIFY => {
                let certify: JoinCertify = frame::read(kind, payload)?;
                certificates(kind, &certify.request)?;
                Ok(Self::Certify(certify))
            }
            kind => Err(FrameError::Unexpected { kind }),
        }
    }
}

impl Framed for JoinReply {
    fn to_frame(&self) -> Vec<u8> {
        match self {
            Self::Offer(offer) => frame::write(OFFER, offer),
            Self::Joined(joined) => frame::write(JOINED, joined),
            Self::Refused(refused) => frame::write(REFUSED, refused),
        }
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        match kind {
            OFFER => {
                let offer: JoinOffer = frame::read(kind, payload)?;
                certificates(kind, &offer.authority)?;
                Ok(Self::Offer(offer))
            }
            JOINED => {
                let joined: Joined = frame::read(kind, payload)?;
                certificates(kind, &joined.certificate)?;
                joined.peers.iter().try_for_each(|peer| short(kind, peer))?;
                Ok(Self::Joined(joined))
            }
            REFUSED => {
                let refused: JoinRefused = frame::read(kind, payload)?;
                short(kind, &refused.reason)?;
                Ok(Self::Refused(refused))
            }
            kind => Err(FrameError::Unexpected { kind }),
        }
    }
}

impl Renew {
    pub(super) fn frame(&self) -> Vec<u8> {
        frame::write(RENEW, self)
    }

    /// Reads the payload when it is of this type.
    pub(super) fn from_payload(kind: u16, payload: &[u8]) -> Option<Result<Self, FrameError>> {
        (kind == RENEW).then(|| {
            let renew: Self = frame::read(kind, payload)?;
            certificates(kind, &renew.request)?;
            Ok(renew)
        })
    }
}

impl Framed for RenewReply {
    fn to_frame(&self) -> Vec<u8> {
        frame::write(RENEW_REPLY, self)
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        if kind != RENEW_REPLY {
            return Err(FrameError::Unexpected { kind });
        }
        let reply: Self = frame::read(kind, payload)?;
        certificates(kind, &reply.certificate)?;
        short(kind, &reply.refused)?;
        Ok(reply)
    }
}

impl Framed for RenewAnswer {
    fn to_frame(&self) -> Vec<u8> {
        match self {
            Self::Reply(reply) => reply.to_frame(),
            Self::Later(later) => frame::write(RENEW_LATER, later),
        }
    }

    fn from_payload(kind: u16, payload: &[u8]) -> Result<Self, FrameError> {
        match kind {
            RENEW_LATER => frame::read(kind, payload).map(Self::Later),
            _ => RenewReply::from_payload(kind, payload).map(Self::Reply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FRAME_HEADER_BYTES;

    fn payload<T: Framed>(message: &T) -> (u16, Vec<u8>) {
        let frame = message.to_frame();
        (u16::from_le_bytes([frame[4], frame[5]]), frame[FRAME_HEADER_BYTES..].to_vec())
    }

    fn offer(role: Role) -> JoinReply {
        JoinReply::Offer(JoinOffer {
            authority: vec![1, 2, 3],
            studio: "northlight".parse().unwrap(),
            site: "van".parse().unwrap(),
            node: Some("ws1".parse().unwrap()),
            role,
        })
    }

    #[test]
    fn messages_read_back_and_no_cut_or_longer_one_does() {
        for role in Role::ALL {
            let (kind, bytes) = payload(&offer(role));
            assert_eq!(JoinReply::from_payload(kind, &bytes), Ok(offer(role)));
        }
        let joined = JoinReply::Joined(Joined {
            node: "ws1@van".parse().unwrap(),
            role: Role::Farm,
            certificate: vec![0x30; 700],
            projects: vec!["lantern".parse().unwrap()],
            peers: vec!["lon:4700".into()],
        });
        let (kind, bytes) = payload(&joined);
        assert_eq!(JoinReply::from_payload(kind, &bytes), Ok(joined));
        for cut in 0..bytes.len() {
            assert!(JoinReply::from_payload(kind, &bytes[..cut]).is_err(), "{cut}");
        }
        assert!(JoinReply::from_payload(kind, &[bytes.as_slice(), &[0]].concat()).is_err());
        let certify = JoinCertify { node: "ws1".parse().unwrap(), request: vec![0x30; 200] };
        let (kind, bytes) = payload(&JoinAsk::Certify(certify.clone()));
        assert_eq!(JoinAsk::from_payload(kind, &bytes), Ok(JoinAsk::Certify(certify)));
        let refused = RenewReply { certificate: vec![], refused: "no".into() };
        for answer in [RenewAnswer::Later(RenewLater { wait_s: 900 }), RenewAnswer::Reply(refused)] {
            let (kind, bytes) = payload(&answer);
            assert_eq!(RenewAnswer::from_payload(kind, &bytes), Ok(answer));
            assert!(RenewAnswer::from_payload(kind, &[bytes.as_slice(), &[0]].concat()).is_err());
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let refused = JoinReply::Refused(JoinRefused { reason: "x".repeat(MAX_TEXT_BYTES + 1) });
        let certify =
            JoinCertify { node: "ws1".parse().unwrap(), request: vec![0; MAX_CERTIFICATES_BYTES + 1] };
        let renew = RenewReply { certificate: vec![0; MAX_CERTIFICATES_BYTES + 1], refused: String::new() };
        let (kind, bytes) = payload(&refused);
        assert!(matches!(JoinReply::from_payload(kind, &bytes), Err(FrameError::TooMany { .. })));
        let (kind, bytes) = payload(&JoinAsk::Certify(certify));
        assert!(matches!(JoinAsk::from_payload(kind, &bytes), Err(FrameError::TooMany { .. })));
        let (kind, bytes) = payload(&renew);
        assert!(matches!(RenewReply::from_payload(kind, &bytes), Err(FrameError::TooMany { .. })));
    }

    #[test]
    fn neither_side_takes_what_only_it_may_say() {
        let (kind, bytes) = payload(&offer(Role::Site));
        assert_eq!(JoinAsk::from_payload(kind, &bytes), Err(FrameError::Unexpected { kind }));
        let (kind, bytes) = payload(&JoinAsk::Hello(JoinHello { version: 1, build: String::new() }));
        assert_eq!(JoinReply::from_payload(kind, &bytes), Err(FrameError::Unexpected { kind }));
    }
}
