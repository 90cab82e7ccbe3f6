//! Groups of feeds, the records in them, and the policies in those. The input is the body of a group; it is signed here, as
//! a node would whose key was stolen, because nothing gets behind the signature otherwise.

use avalon_protocol::{
    audit::audit_heads,
    feed::{FeedId, FeedReader, Group, SIGNATURE_DOMAIN, SealedGroup},
    limits::MAX_GROUP_RECORDS,
    policy::Policy,
    record::{RawRecord, Record},
    signing::RecordSigner as _,
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::{
    Target,
    made_up::{NODES, PROJECTS, SLOTS, bytes, hash, list, number, pick, text},
};
use crate::{
    fuzz::{
        Outcome,
        outcome::{about, shape},
    },
    toy_trust::{ToySigner, ToyTrust},
};

pub(super) const TARGET: Target = Target {
    name: "feeds",
    what: "groups of feeds, every kind of record, and policies that come by records",
    most_bytes: (1 << 20) + 4096,
    needs_bytes: 0,
    examples,
    made_up,
    decode,
};

const NODE: &str = "ws12@london";

fn feed() -> FeedId {
    FeedId { project: "lantern".parse().expect("a name"), node: NODE.parse().expect("a node") }
}

fn signer() -> ToySigner {
    ToySigner::new(&feed().node, 1)
}

/// Returns a feed that ends after one group.
fn reader() -> (FeedReader, SealedGroup) {
    let mut reader = FeedReader::new(feed());
    let first = reader.seal(Vec::new(), 1000, &signer(), &ToyTrust);
    reader.accept(&first, &ToyTrust).expect("what was just sealed");
    (reader, first)
}

fn examples() -> Vec<Vec<u8>> {
    let (reader, first) = reader();
    let second =
        reader.seal(vec![RawRecord { kind: 900, version: 1, payload: vec![] }], 1, &signer(), &ToyTrust);
    vec![first.body, second.body]
}

fn made_up(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let (reader, _) = reader();
    let head = reader.head();
    let records = list(rng, 5000, |rng| {
        let (kind, payload) = record(rng);
        (kind, u16::from(!rng.random_ratio(1, 20)), payload)
    });
    let (seq, previous) = match rng.random_range(0..4) {
        0 => (0, [0; 32]),
        1 => (number(rng), hash(rng)),
        _ => (head.next_seq, *head.chain.as_bytes()),
    };
    let project = if rng.random_ratio(1, 10) { text(rng, &PROJECTS) } else { "lantern".into() };
    let node = if rng.random_ratio(1, 10) { text(rng, &NODES) } else { NODE.into() };
    let format: u16 = if rng.random_ratio(1, 30) { 2 } else { 1 };
    bytes(&(format, project, node, seq, previous, number(rng), records))
}

fn record(rng: &mut ChaCha8Rng) -> (u16, Vec<u8>) {
    let version = [
        pick(rng, &PROJECTS).to_owned(),
        text(rng, &["robot"]),
        text(rng, &["modelDefault"]),
        text(rng, &SLOTS),
    ];
    let note = (text(rng, &["anna"]), text(rng, &["because"]), number(rng));
    let kind = [1, 2, 3, 4, 5, 6, 7, 8, 16, 77][rng.random_range(0..10)];
    let payload = match kind {
        1 => bytes(&signer().certificate().to_vec()),
        2 => {
            let predecessor = rng.random_bool(0.5).then(|| hash(rng));
            let names = list(rng, 5000, |rng| text(rng, &["abc", "usdc"]));
            bytes(&(
                version,
                hash(rng),
                hash(rng),
                rng.random_range(0..9u32),
                predecessor,
                number(rng),
                number(rng),
                names,
                note.0,
                note.2,
            ))
        }
        3 | 4 => bytes(&(version, hash(rng))),
        5 => bytes(&(number(rng), policy(rng), note)),
        6 | 7 => bytes(&(version, rng.random_range(0..9u32), note)),
        8 => {
            let moved = list(rng, 400, |rng| (hash(rng), rng.random_range(0..2_000_000u32)));
            bytes(&(version, rng.random_range(0..9u32), hash(rng), moved, note))
        }
        16 => bytes(&(number(rng), hash(rng), number(rng))),
        _ => vec![1, 2, 3],
    };
    (kind, payload)
}

/// Writes a policy out of lines that are mostly right.
pub(super) fn policy(rng: &mut ChaCha8Rng) -> String {
    const LINES: [&str; 22] = [
        "schema = \"avalon.policy/1\"",
        "schema = \"avalon.policy/1\"",
        "schema = \"avalon.policy/1\"",
        "[defaults]",
        "keep = \"on-demand\"",
        "keep = \"here\"",
        "min_copies = 2",
        "[[rule]]",
        "name = \"x\"",
        "match = { project = \"*\" }",
        "match = { asset = \"robot*\", version = \"latest\", older_than = \"30d\" }",
        "match = { asset = \"{{{{{{{{{{[[[[****??\" }",
        "sites = [\"london\", \"@offices\"]",
        "nodes = [\"ws1@london\"]",
        "[sites]",
        "offices = [\"london\", \"montreal\"]",
        "offices = [\"@offices\"]",
        "keep_last = 99999999999999999999",
        "undo = \"999999999999999999d\"",
        "[checks]",
        "x = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        "voters = [\"ws1@london\"]",
    ];
    (0..rng.random_range(0..14)).map(|_| format!("{}\n", pick(rng, &LINES))).collect()
}

fn decode(input: &[u8]) -> Outcome {
    let mut sealed = SealedGroup { body: input.to_vec(), signature: vec![0; 64] };
    let (mut reader, first) = reader();
    let before = reader.head();
    assert!(reader.accept(&sealed, &ToyTrust).is_err(), "nothing is accepted that nobody signed");
    let message = [SIGNATURE_DOMAIN, sealed.chain().as_bytes()].concat();
    sealed.signature = signer().sign(&message).as_bytes().to_vec();
    let claimed = sealed.claimed_end();
    audit_heads(std::slice::from_ref(&sealed));

    let outcome = match reader.accept(&sealed, &ToyTrust) {
        Err(error) => {
            assert_eq!(reader.head(), before, "what is refused moves nothing");
            Outcome::refused(&error).by("second")
        }
        Ok(group) => {
            let count = group.records.len();
            assert!((1..=MAX_GROUP_RECORDS).contains(&count));
            assert_eq!(reader.head().next_seq, before.next_seq + count as u64);
            assert_eq!(claimed, Some(reader.head().next_seq));
            assert!(reader.accept(&sealed, &ToyTrust).is_err(), "a group is not accepted twice");
            assert!(reader.accept(&first, &ToyTrust).is_err(), "nor an old one");
            Outcome::Accepted(format!("{} records", about(count)))
        }
    };
    let mut empty = FeedReader::new(feed());
    let alone = Outcome::of(empty.accept(&sealed, &ToyTrust), |group| {
        format!("{} records", about(group.records.len()))
    });
    let records = match postcard::from_bytes::<Group>(input) {
        Ok(group) => group.records.first().map(of_record).unwrap_or_default(),
        Err(_) => String::new(),
    };
    let text = format!("{} {records}", shape(&alone).chars().take(80).collect::<String>());
    outcome.by(&text)
}

/// Reads a record as whoever goes by it does; what is accepted must survive its own encoding.
fn of_record(raw: &RawRecord) -> String {
    let project = "lantern".parse().expect("a name");
    let stated = Record::in_feed(raw, &project).is_ok();
    match Record::from_raw(raw) {
        Err(error) => format!("{} {}", raw.kind.min(20), shape(&error)),
        Ok(record) => {
            assert_eq!(Record::from_raw(&record.to_raw()).as_ref(), Ok(&record), "it survives its encoding");
            let policy = match &record {
                Record::Policy(policy) => match Policy::parse(policy.document()) {
                    Ok(policy) => format!("policy of {} rules", about(policy.rules().len())),
                    Err(_) => "no policy".into(),
                },
                _ => String::new(),
            };
            format!("{} {stated} {policy}", raw.kind)
        }
    }
}
