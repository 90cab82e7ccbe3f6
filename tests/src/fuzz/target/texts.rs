//! Texts: names, paths, references, slots, join tokens, policies and lines of audits. The first byte says which.

use avalon_protocol::{
    access::{
        InviteId, JoinToken, base32,
        token::{TOKEN_PREFIX, is_address},
    },
    audit::AuditLine,
    id::{AssetName, NodeId, NodeName, ProjectName, SubsetName, VersionSlot},
    limits::MAX_POLICY_BYTES,
    policy::Policy,
    reference::Reference,
    rel_path::RelPath,
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::{
    Target, feeds,
    made_up::{NODES, PROJECTS, SLOTS, bytes, list, number, text},
    manifests::assert_stays_beneath,
};
use crate::fuzz::{Outcome, outcome::about};

pub(super) const TARGET: Target = Target {
    name: "texts",
    what: "relative paths, names, references, slots, join tokens, policy documents, lines of audits",
    most_bytes: 64 << 10,
    // The reader of TOML takes up to 170 times the length of a document that is nothing but errors; 48 KiB is the longest.
    needs_bytes: 8 << 20,
    examples,
    made_up,
    decode,
};

const KINDS: u8 = 11;

fn examples() -> Vec<Vec<u8>> {
    let audit = br#"9{"at":1}"#.to_vec();
    let texts = [
        "0a/b.c",
        "1ws12@london",
        "2robot/modelDefault/abc@v012",
        "3v012",
        "4lantern",
        "6schema = \"avalon.policy/1\"\n",
    ];
    let mut examples: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    examples.push(audit);
    for example in &mut examples {
        example[0] -= b'0';
    }
    examples
}

fn made_up(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let kind = rng.random_range(0..KINDS);
    let text = match kind {
        0 => text(rng, &["a/b.c", "assets/robot/publish/x/v001/x.abc", ".avalon/x"]),
        1 => text(rng, &NODES),
        2 => text(rng, &["robot/modelDefault", "lantern:robot/*@hero", "a/b/c@12", "a/b@latest"]),
        3 => text(rng, &SLOTS),
        4 => text(rng, &PROJECTS),
        6 => feeds::policy(rng),
        7 => {
            let payload = token(rng);
            return [&[7][..], &payload].concat();
        }
        8 => text(rng, &["aaaaaaaa", "abcdefgh"]),
        9 => {
            let entry =
                text(rng, &[r#"{"at_ms":1,"actor":{"kind":"daemon"},"action":"publish","outcome":"done"#]);
            format!("{entry},\"hash\":\"{}\"}}", "ab".repeat(32))
        }
        _ => text(rng, &["lon.example.net:4700", "[::1]:4700", "10.0.0.1:1"]),
    };
    [&[kind][..], text.as_bytes()].concat()
}

fn token(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let addresses = list(rng, 100, |rng| text(rng, &["lon:4700", "10.0.0.1:4700"]));
    let seed: [u8; 32] = rng.random();
    bytes(&(seed, addresses, seed, number(rng), text(rng, &["abcdefgh"])))
}

fn decode(input: &[u8]) -> Outcome {
    let Some((kind, rest)) = input.split_first() else { return Outcome::Refused("nothing".into()) };
    let text = String::from_utf8_lossy(rest);
    let kind = kind % KINDS;
    let outcome = match kind {
        0 => Outcome::of(text.parse::<RelPath>(), |path| {
            assert_eq!(path.as_str(), text);
            assert_stays_beneath(path.as_str());
            format!("{} parts", about(path.parts().count()))
        }),
        1 => same(&text, text.parse::<NodeId>()),
        2 => reference(&text),
        // People write 12 and v12 too.
        3 => Outcome::of(text.parse::<VersionSlot>(), |slot| {
            assert_eq!(slot.to_string().parse::<VersionSlot>().ok(), Some(slot));
            String::new()
        }),
        4 => {
            for name in [same(&text, text.parse::<AssetName>()), same(&text, text.parse::<SubsetName>())] {
                assert!(!name.is_accepted() || !text.contains(['/', '\\', '\0', ' ']), "{text:?}");
            }
            same(&text, text.parse::<NodeName>());
            same(&text, text.parse::<ProjectName>())
        }
        5 => join_token(&text),
        // A record with a longer one is refused before.
        6 if text.len() > MAX_POLICY_BYTES => Outcome::Refused("too long".into()),
        6 => Outcome::of(Policy::parse(&text).map_err(|_| "refused"), |policy| {
            format!("{} rules, {} groups", about(policy.rules().len()), about(policy.groups()))
        }),
        7 => {
            // The checksum is no secret: an attacker writes the right one.
            let sum =
                blake3::Hasher::new_derive_key("avalon 2026 join token checksum v1").update(rest).finalize();
            join_token(&format!("{TOKEN_PREFIX}{}", base32::encode(&[rest, &sum.as_bytes()[..4]].concat())))
        }
        8 => same(&text, text.parse::<InviteId>()),
        9 => Outcome::of(AuditLine::parse(rest), |_| String::new()),
        _ => match is_address(&text) {
            true => Outcome::Accepted("address".into()),
            false => Outcome::Refused("no address".into()),
        },
    };
    outcome.by(&kind.to_string())
}

/// A name is written as it was read.
fn same<T: ToString, E: std::fmt::Debug>(text: &str, read: Result<T, E>) -> Outcome {
    Outcome::of(read, |value| {
        assert_eq!(value.to_string(), text, "it has one spelling");
        String::new()
    })
}

fn reference(text: &str) -> Outcome {
    Reference::parse_listing(text).ok();
    Outcome::of(text.parse::<Reference>(), |reference| {
        let again = reference.to_string().parse::<Reference>();
        assert_eq!(again.as_ref(), Ok(&reference), "it survives its text");
        format!("exact: {}", reference.is_exact())
    })
}

fn join_token(text: &str) -> Outcome {
    Outcome::of(JoinToken::decode(text), |token| {
        let again = token.encode().expect("what was read can be written");
        assert_eq!(JoinToken::decode(&again).as_ref(), Ok(&token));
        format!("{} addresses", about(token.addresses.len()))
    })
}
