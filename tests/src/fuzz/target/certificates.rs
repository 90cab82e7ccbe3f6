//! Certificates, chains, requests and lists of what is revoked. The first byte says which.

use std::sync::{Arc, OnceLock};

use avalon_certs::{
    AuthorityCertificate, CertificateRequest, Chain, RevocationList, StudioTrust, join::joiner,
    node_of_certificate, peer_certificate,
};
use avalon_protocol::signing::RecordTrust as _;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::Target;
use crate::fuzz::{Outcome, corpus::from_hex, mutate::mutate, outcome::shape, studio::studio};

pub(super) const TARGET: Target = Target {
    name: "certificates",
    what: "certificates of nodes and CAs, chains as they stand in feeds, requests, revocation lists",
    most_bytes: 64 << 10,
    needs_bytes: 0,
    examples,
    made_up,
    decode,
};

const KINDS: u8 = 7;

/// The real ones, in bytes: what may be accepted, and nothing else.
struct Real {
    authority: AuthorityCertificate,
    trust: StudioTrust,
    chains: [Vec<u8>; 2],
    issuing: Vec<u8>,
    request: Vec<u8>,
    lists: [Vec<u8>; 2],
    authority_der: Vec<u8>,
    foreign: Vec<u8>,
}

fn real() -> &'static Real {
    static REAL: OnceLock<Real> = OnceLock::new();
    REAL.get_or_init(|| {
        let studio = studio();
        let bytes = |hex: &str| from_hex(hex).expect("hex");
        let authority_der = bytes(&studio.authority);
        let authority = AuthorityCertificate::parse(authority_der.clone().into()).expect("the CA's");
        Real {
            trust: StudioTrust::new(Arc::new(authority.clone())),
            authority,
            chains: [bytes(&studio.leaf), bytes(&studio.delegated)],
            issuing: bytes(&studio.issuing),
            request: bytes(&studio.request),
            lists: [bytes(&studio.list), bytes(&studio.delegated_list)],
            authority_der,
            foreign: bytes(&studio.foreign),
        }
    })
}

fn examples() -> Vec<Vec<u8>> {
    let real = real();
    let inputs: [&[u8]; 8] = [
        &real.chains[0],
        &real.chains[1],
        &real.issuing,
        &real.request,
        &real.lists[0],
        &real.lists[1],
        &real.authority_der,
        &real.foreign,
    ];
    (0..KINDS).flat_map(|kind| inputs.map(|input| [&[kind], input].concat())).collect()
}

/// One change to one of the real ones: most of what this reads is decided by single bytes of DER.
fn made_up(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let examples = examples();
    let at = rng.random_range(0..examples.len());
    let mut input = examples[at].clone();
    match rng.random_range(0..3) {
        0 => {
            let at = rng.random_range(1..input.len());
            input[at] ^= 1 << rng.random_range(0..8);
        }
        1 => {
            let at = rng.random_range(1..input.len());
            input[at] = rng.random();
        }
        _ => {
            let other = examples[rng.random_range(0..examples.len())].clone();
            mutate(rng, &mut input, &other, TARGET.most_bytes);
        }
    }
    input
}

fn decode(input: &[u8]) -> Outcome {
    let Some((kind, der)) = input.split_first() else { return Outcome::Refused("nothing".into()) };
    let (real, kind) = (real(), kind % KINDS);
    let outcome = match kind {
        0 => trusted(real, der),
        1 => Outcome::of(node_of_certificate(der), |(studio, node)| {
            format!("{} {}", studio.as_str().len().min(20), shape(&node))
        }),
        2 => Outcome::of(AuthorityCertificate::parse(der.to_vec().into()), |authority| {
            format!("delegates: {}", authority.delegates())
        }),
        3 => Outcome::of(CertificateRequest::parse(der), |request| {
            format!("wishes: {}", request.wished().is_some())
        }),
        4 => Outcome::of(RevocationList::verify(der, &real.authority, None), |list| {
            assert_eq!(der, real.lists[0], "only what the CA signed");
            format!("{} serials", list.serials().count())
        }),
        5 => Outcome::of(RevocationList::verify(der, &real.authority, Some(&real.issuing)), |list| {
            assert_eq!(der, real.lists[1], "only what the issuing node signed");
            format!("{} serials", list.serials().count())
        }),
        _ => {
            let issuing = RevocationList::verify(&real.lists[1], &real.authority, Some(der));
            assert!(issuing.is_err() || der == real.issuing, "only who the CA lets issue");
            match (joiner(&[der.to_vec().into()]), peer_certificate(&[der.to_vec().into()])) {
                (Some(_), _) => Outcome::Accepted("joins".into()),
                (None, peer) => Outcome::of(peer, |peer| shape(&peer.role)),
            }
        }
    };
    outcome.by(&kind.to_string())
}

/// Reads a chain as it stands in feeds, and asks whether its keys may sign.
fn trusted(real: &Real, bytes: &[u8]) -> Outcome {
    let chain = Chain::from_bytes(bytes);
    if let Ok(chain) = &chain {
        assert_eq!(chain.to_bytes(), bytes, "a chain has one form");
    }
    for owner in ["ws12@london", "ws13@london"] {
        let owner = owner.parse().expect("a node");
        if real.trust.prove(bytes, &owner).is_ok() {
            assert!(real.chains.iter().any(|chain| chain == bytes), "only what the studio issued");
            return Outcome::Accepted("trusted".into());
        }
    }
    match chain {
        Err(error) => Outcome::refused(&error),
        Ok(_) => {
            let refused = real.trust.prove(bytes, &"ws12@london".parse().expect("a node"));
            Outcome::Refused(refused.err().map(|error| words(&error.reason)).unwrap_or_default())
        }
    }
}

/// Takes the numbers out of a reason.
fn words(reason: &str) -> String {
    let letters = reason.chars().filter(|character| character.is_ascii_alphabetic() || *character == ' ');
    letters.take(120).collect()
}
