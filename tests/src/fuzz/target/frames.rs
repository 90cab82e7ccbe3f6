//! Frames: every message of the control stream, of requests and answers, and of joining; and the session that takes
//! what a peer says on the control stream.

use avalon_protocol::{
    feed::{FeedHead, FeedId},
    hash::ChainHash,
    id::NodeId,
    mode::ProjectMode,
    session::{Effect, Session},
    wire::{
        Control, FRAME_HEADER_BYTES, FrameError, FrameHeader, Framed, Hello, JoinAsk, JoinReply,
        ManifestReply, NumberReply, ObjectReply, PieceHead, ProofReply, RenewAnswer, Request, ServedProject,
    },
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::{
    Target,
    made_up::{NODES, PROJECTS, SLOTS, bytes, hash, list, number, text},
};
use crate::fuzz::{Outcome, outcome::about};

pub(super) const TARGET: Target = Target {
    name: "frames",
    what: "frame headers, all messages of control streams, requests, answers and joining, and the session",
    most_bytes: 4 << 20,
    needs_bytes: 0,
    examples,
    made_up,
    decode,
};

fn hello(node: &str) -> Hello {
    let served =
        |name: &str| ServedProject { name: name.parse().expect("a name"), mode: ProjectMode::Mirror };
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        features: 15,
        build: "0.1.0".into(),
        studio: "northlight".parse().expect("a studio"),
        node: node.parse().expect("a node"),
        instance: 300,
        projects: vec![served("lantern"), served("_studio")],
    }
}

fn examples() -> Vec<Vec<u8>> {
    vec![Control::Hello(hello("ws12@london")).to_frame(), vec![0; 6], vec![255; 6]]
}

/// Writes the fields of one message, in the order of `docs/protocol.md`.
fn made_up(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let kind: u16 = [1, 2, 3, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 99]
        [rng.random_range(0..21)];
    let payload = match kind {
        1 => {
            let projects = list(rng, 3000, |rng| (text(rng, &PROJECTS), rng.random_range(0..3u8)));
            let versions = (rng.random_range(0..3u16), rng.random_range(0..3u16), number(rng));
            let names = (text(rng, &["0.1.0"]), text(rng, &["northlight"]), text(rng, &NODES));
            bytes(&(versions, names, number(rng), projects))
        }
        2 => {
            let heads = list(rng, 9000, |rng| (text(rng, &NODES), number(rng), hash(rng)));
            bytes(&(text(rng, &PROJECTS), heads))
        }
        3 => {
            let groups = list(rng, 50_000, |rng| (vec![1u8; rng.random_range(0..40)], vec![0u8; 64]));
            let manifests = list(rng, 50_000, |rng| vec![0u8; rng.random_range(0..9)]);
            bytes(&(text(rng, &PROJECTS), text(rng, &NODES), groups, manifests))
        }
        16 | 20 => {
            let flags = (rng.random_range(0..4u8), rng.random_bool(0.5));
            let wants = list(rng, 5000, |rng| {
                (hash(rng), number(rng), number(rng), number(rng), rng.random_bool(0.5))
            });
            let bases = list(rng, 5000, |rng| (rng.random_range(0..4u32), hash(rng), number(rng)));
            match kind {
                16 => bytes(&(text(rng, &PROJECTS), wants)),
                _ => bytes(&(text(rng, &PROJECTS), flags, wants, bases)),
            }
        }
        17 => bytes(&(text(rng, &PROJECTS), list(rng, 400, hash))),
        18 => bytes(&(rng.random_range(0..3u8), number(rng), number(rng), rng.random_range(0..3u16))),
        19 => bytes(&number(rng)),
        21 => bytes(&(
            rng.random_range(0..10u64),
            rng.random_range(0..4u8),
            number(rng),
            number(rng),
            number(rng),
        )),
        22 => bytes(&(version(rng), hash(rng), hash(rng), rng.random_bool(0.5))),
        23 => bytes(&(rng.random_range(0..8u8), rng.random_range(0..9u32), number(rng), hash(rng))),
        24 => bytes(&(version(rng), rng.random_bool(0.5), number(rng))),
        25 => bytes(&(
            rng.random_range(0..5u8),
            rng.random_range(0..9u32),
            rng.random_bool(0.5).then(|| text(rng, &NODES)),
        )),
        26 => bytes(&(rng.random_range(0..3u16), text(rng, &["0.1.0"]))),
        27 => bytes(&(
            vec![0x30u8; rng.random_range(0..900)],
            text(rng, &["northlight"]),
            text(rng, &["van"]),
            rng.random_bool(0.5).then(|| text(rng, &["ws1"])),
            text(rng, &["site", "vendor", "boss"]),
        )),
        28 => bytes(&(text(rng, &["ws1"]), vec![0x30u8; rng.random_range(0..900)])),
        29 => bytes(&(
            text(rng, &NODES),
            text(rng, &["site", "farm"]),
            vec![0x30u8; rng.random_range(0..900)],
            list(rng, 3000, |rng| text(rng, &PROJECTS)),
            list(rng, 200, |rng| text(rng, &["lon:4700"])),
        )),
        30 => bytes(&text(rng, &["no"])),
        31 => bytes(&vec![0x30u8; rng.random_range(0..900)]),
        32 => bytes(&(vec![0x30u8; rng.random_range(0..900)], text(rng, &["", "no"]))),
        _ => Vec::new(),
    };
    let length = match rng.random_ratio(1, 30) {
        true => rng.random(),
        false => u32::try_from(payload.len()).unwrap_or(u32::MAX),
    };
    [&length.to_le_bytes()[..], &kind.to_le_bytes(), &payload].concat()
}

fn version(rng: &mut ChaCha8Rng) -> [String; 4] {
    [text(rng, &PROJECTS), text(rng, &["robot"]), text(rng, &["modelDefault"]), text(rng, &SLOTS)]
}

fn decode(input: &[u8]) -> Outcome {
    let Some((header, payload)) = input.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Outcome::Refused("header cut off".into());
    };
    let header = match FrameHeader::parse(*header) {
        Ok(header) => header,
        Err(error) => return Outcome::refused(&error).by("header"),
    };
    // A mutated payload has another length than its header says. A reader would wait for more or read less; here it is
    // taken as it is, so that the decoders behind the header see it.
    let (kind, payload) = (header.kind, &payload[..payload.len().min(4 << 20)]);
    let mut outcome = Outcome::Refused(format!("type {}", if kind < 40 { "unexpected" } else { "unknown" }));
    let mut take = |found: Option<Outcome>| {
        if let Some(found) = found {
            outcome = found.by(&kind.to_string());
        }
    };
    take(read::<Control>(kind, payload, talk));
    take(read::<Request>(kind, payload, |request| request_shape(&request)));
    take(read::<ObjectReply>(kind, payload, |reply| format!("{:?} {}", reply.status, reply.encoding.min(2))));
    take(read::<ManifestReply>(kind, payload, |_| String::new()));
    take(read::<PieceHead>(kind, payload, |head| format!("{:?}", head.encoding)));
    take(read::<ProofReply>(kind, payload, |_| String::new()));
    take(read::<NumberReply>(kind, payload, |_| String::new()));
    take(read::<JoinAsk>(kind, payload, |_| String::new()));
    take(read::<JoinReply>(kind, payload, |_| String::new()));
    take(read::<RenewAnswer>(kind, payload, |_| String::new()));
    outcome
}

/// Reads one message; none when the type belongs to another one. What is accepted must survive its own encoding.
fn read<T: Framed + PartialEq + std::fmt::Debug>(
    kind: u16,
    payload: &[u8],
    of: impl FnOnce(T) -> String,
) -> Option<Outcome> {
    match T::from_payload(kind, payload) {
        Err(FrameError::Unexpected { .. }) => None,
        Err(error) => Some(Outcome::refused(&error)),
        Ok(message) => {
            let frame = message.to_frame();
            let (header, again) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("a header");
            let header = FrameHeader::parse(*header).expect("what was read is within the limit");
            assert_eq!(header.payload_bytes, again.len());
            assert_eq!(
                T::from_payload(header.kind, again).as_ref(),
                Ok(&message),
                "it survives its encoding"
            );
            Some(Outcome::Accepted(of(message)))
        }
    }
}

fn request_shape(request: &Request) -> String {
    match request {
        Request::Objects(fetch) => format!("objects {}", about(fetch.wants.len())),
        Request::Manifests(fetch) => format!("manifests {}", about(fetch.manifests.len())),
        Request::Encoded(fetch) => {
            format!("encoded {} {}", about(fetch.wants.len()), about(fetch.bases.len()))
        }
        Request::Proof(_) => "proof".into(),
        Request::Number(_) => "number".into(),
        Request::Renew(renew) => format!("renew {}", about(renew.request.len())),
    }
}

/// Lets a session that has greeted, and one that has not, hear a message; returns what they did.
fn talk(message: Control) -> String {
    let feed = |node: &str| FeedId {
        project: "lantern".parse().expect("a name"),
        node: node.parse().expect("a node"),
    };
    let head = FeedHead { next_seq: 7, chain: ChainHash::from_bytes([1; 32]) };
    let peer: NodeId = "ws12@london".parse().expect("a node");
    let heads = [(feed("srv@montreal"), head), (feed("ws12@london"), head)];
    let (mut session, _) = Session::new(hello("srv@montreal"), peer.clone(), heads.clone());
    let first = shape(&session.received(message.clone()));
    let (mut session, _) = Session::new(hello("srv@montreal"), peer, heads);
    session.received(Control::Hello(hello("ws12@london")));
    format!("{first}, {}", shape(&session.received(message)))
}

fn shape(effects: &[Effect]) -> String {
    let words = effects.iter().take(6).map(|effect| match effect {
        Effect::Send(_) => "send".to_owned(),
        Effect::Ready(_) => "ready".to_owned(),
        Effect::ReadGroups { .. } => "read".to_owned(),
        Effect::StoreGroups(_) => "store".to_owned(),
        Effect::Extract(_) => "extract".to_owned(),
        Effect::Fork(_) => "fork".to_owned(),
        Effect::ProveFork { .. } => "prove".to_owned(),
        Effect::OwnFeed { .. } => "own".to_owned(),
        Effect::PeerHead { .. } => "head".to_owned(),
        Effect::Close { code, .. } => format!("close {code:?}"),
    });
    words.collect::<Vec<_>>().join(" ")
}
