//! The bodies of requests to the local API. Not of a peer, but of any user of the machine. The first byte says which.

use avalon_protocol::control::{
    DropRequest, InviteRequest, LifetimeRequest, LimitRequest, PinRequest, PolicyRequest, PullRequest,
    QueueRequest, ReserveRequest, ResolveRequest,
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Target,
    made_up::{NODES, PROJECTS, number, pick, text},
};
use crate::fuzz::Outcome;

pub(super) const TARGET: Target = Target {
    name: "api",
    what: "JSON bodies of requests to the local API",
    most_bytes: 64 << 10,
    needs_bytes: 0,
    examples,
    made_up,
    decode,
};

const KINDS: u8 = 10;

fn examples() -> Vec<Vec<u8>> {
    let bodies = [
        r#"{"refs":["robot/modelDefault"],"project":"lantern","dry_run":true,"unpin":true,"comment":"x","author":"anna"}"#,
        r#"{"change":"pause","jobs":["3"],"project":"lantern"}"#,
        r#"{"reference":"robot/modelDefault@v001","keep":"srv@london","comment":"x","author":"anna"}"#,
        r#"{"site":"van","role":"workstation","node":"ws1","ttl_seconds":3600,"projects":["lantern"],"addresses":["a:1"]}"#,
        r#"{"document":"schema = \"avalon.policy/1\"","comment":"x","author":"anna","replaces":3}"#,
        r#"{"rate":"10 MB/s","site":"london","class":"backfill","direction":"send","when":"mon 10:00-12:00"}"#,
        "{}",
    ];
    (0..KINDS).flat_map(|kind| bodies.map(|body| [&[kind], body.as_bytes()].concat())).collect()
}

fn made_up(rng: &mut ChaCha8Rng) -> Vec<u8> {
    const KEYS: [&str; 24] = [
        "refs",
        "reference",
        "project",
        "dry_run",
        "with_inputs",
        "frames",
        "change",
        "jobs",
        "comment",
        "author",
        "unpin",
        "rate",
        "direction",
        "site",
        "class",
        "when",
        "keep",
        "role",
        "node",
        "ttl_seconds",
        "projects",
        "addresses",
        "document",
        "replaces",
    ];
    let mut body = String::from("{");
    for index in 0..rng.random_range(0..8) {
        let value = match rng.random_range(0..8) {
            0 => number(rng).to_string(),
            1 => "true".into(),
            2 => "null".into(),
            3 => format!("[{:?}]", text(rng, &["robot/modelDefault@v001"])),
            4 => "[".repeat(rng.random_range(0..300)),
            5 => "-1e999".into(),
            6 => format!("{:?}", text(rng, &NODES)),
            _ => format!("{:?}", text(rng, &PROJECTS)),
        };
        let comma = if index == 0 { "" } else { "," };
        body.push_str(&format!("{comma}\"{}\":{value}", pick(rng, &KEYS)));
    }
    body.push('}');
    [&[rng.random_range(0..KINDS)], body.as_bytes()].concat()
}

fn decode(input: &[u8]) -> Outcome {
    let Some((kind, body)) = input.split_first() else { return Outcome::Refused("nothing".into()) };
    let kind = kind % KINDS;
    let outcome = match kind {
        0 => read::<PullRequest>(body),
        1 => read::<QueueRequest>(body),
        2 => read::<LifetimeRequest>(body),
        3 => read::<ReserveRequest>(body),
        4 => read::<DropRequest>(body),
        5 => read::<PinRequest>(body),
        6 => read::<LimitRequest>(body),
        7 => read::<ResolveRequest>(body),
        8 => read::<InviteRequest>(body),
        _ => read::<PolicyRequest>(body),
    };
    outcome.by(&kind.to_string())
}

fn read<T: DeserializeOwned + Serialize>(body: &[u8]) -> Outcome {
    match serde_json::from_slice::<T>(body) {
        Ok(request) => {
            let value = serde_json::to_value(&request).expect("a request can be written");
            let again: T = serde_json::from_value(value.clone()).expect("and read again");
            assert_eq!(serde_json::to_value(&again).ok(), Some(value), "it survives its JSON");
            Outcome::Accepted(String::new())
        }
        // Without the line and column.
        Err(error) => {
            let text = error.to_string();
            let words = text.split_whitespace().take(2).filter(|word| !word.contains('`'));
            Outcome::Refused(format!("{:?} {}", error.classify(), words.collect::<Vec<_>>().join(" ")))
        }
    }
}
