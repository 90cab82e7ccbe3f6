//! Bytes that no honest peer sends. Over 10,000 different ones are made here, each wrong by the way it was made: all are refused
//! with an error that says so on one line, without a panic and without much memory. And what the fuzzer kept is decoded again.

use std::{collections::HashSet, error::Error, panic, sync::Mutex};

use avalon_certs::{AuthorityCertificate, CertificateRequest, RevocationList, StudioTrust};
use avalon_protocol::{
    access::{InviteId, JoinToken, Seed},
    block::{BLOCK_BYTES, BlockList, block_value},
    feed::{FeedId, FeedReader, SealedGroup},
    id::{NodeId, ProjectName},
    limits::{MAX_FRAME_BYTES, MAX_FRAME_ITEMS, MAX_INPUTS},
    manifest::Manifest,
    record::RawRecord,
    rel_path::RelPath,
    signing::RecordTrust as _,
    wire::{
        Control, FRAME_HEADER_BYTES, FrameError, FrameHeader, Framed, JoinAsk, JoinReply, ManifestReply,
        NumberReply, ObjectReply, PieceHead, ProofReply, RenewAnswer, Request,
    },
};
use avalon_store::object::encode::{compress, decompress};
use avalon_tests::{
    fuzz::{
        Campaign, Meter, TARGETS, allowed_bytes, corpus,
        mutate::{HOSTILE_TEXTS, varint},
        studio::studio,
        target::RawManifest,
    },
    toy_trust::{ToySigner, ToyTrust},
};
use peak_alloc::PeakAlloc;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One test at a time: the allocator counts for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

struct Counted;

impl Meter for Counted {
    fn now(&self) -> usize {
        MEMORY.current_usage()
    }
    fn peak(&self) -> usize {
        MEMORY.peak_usage()
    }
    fn reset(&self) {
        MEMORY.reset_peak_usage();
    }
}

/// What was refused so far.
struct Refused {
    rng: ChaCha8Rng,
    seen: HashSet<blake3::Hash>,
}

impl Refused {
    /// Decodes one input, which must be refused.
    fn by<T>(&mut self, what: &str, input: &[u8], decode: impl FnOnce(&[u8]) -> Result<T, Box<dyn Error>>) {
        Counted.reset();
        let before = Counted.now();
        let decoded = panic::catch_unwind(panic::AssertUnwindSafe(|| decode(input).map(drop)));
        let taken = Counted.peak().saturating_sub(before);
        let shown = || corpus::to_hex(&input[..input.len().min(200)]);
        let refused = decoded.unwrap_or_else(|_| panic!("{what}: a panic on {}", shown()));
        let error = refused.expect_err(&format!("{what}: accepted {}", shown())).to_string();
        assert!(!error.is_empty() && error.len() < 1000, "{what}: {error:?}");
        // What a peer sends must not move a cursor in somebody's log.
        assert!(!error.contains(char::is_control), "{what}: {error:?}");
        assert!(taken <= allowed_bytes(input.len()) + (1 << 20), "{what}: {taken} bytes for {}", input.len());
        self.seen.insert(blake3::hash(&[what.as_bytes(), input].concat()));
    }

    fn flip(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut flipped = bytes.to_vec();
        let at = self.rng.random_range(0..flipped.len());
        flipped[at] ^= 1 << self.rng.random_range(0..8);
        flipped
    }
}

/// Reads a frame as whichever message it is.
fn frame(bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let (header, payload) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or("cut off")?;
    let header = FrameHeader::parse(*header)?;
    if payload.len() < header.payload_bytes {
        return Err("the stream ended".into());
    }
    fn read<T: Framed>(kind: u16, payload: &[u8]) -> Result<(), FrameError> {
        T::from_payload(kind, payload).map(drop)
    }
    let readers = [
        read::<Control>,
        read::<Request>,
        read::<ObjectReply>,
        read::<ManifestReply>,
        read::<PieceHead>,
        read::<ProofReply>,
        read::<NumberReply>,
        read::<JoinAsk>,
        read::<JoinReply>,
        read::<RenewAnswer>,
    ];
    let read = readers.map(|read| read(header.kind, payload));
    let of_type = read.into_iter().find(|read| !matches!(read, Err(FrameError::Unexpected { .. })));
    of_type.unwrap_or(Err(FrameError::Unexpected { kind: header.kind })).map_err(Into::into)
}

fn with_length(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&length.to_le_bytes()[..], &kind.to_le_bytes(), payload].concat()
}

fn frames(refused: &mut Refused) {
    let target = TARGETS.iter().find(|target| target.name == "frames").unwrap();
    let mut good = Vec::new();
    while good.len() < 120 {
        let made = (target.made_up)(&mut refused.rng);
        if made.len() < 2000 && made.len() > FRAME_HEADER_BYTES && frame(&made).is_ok() {
            good.push(made);
        }
    }
    for whole in good {
        let (kind, payload) = (u16::from_le_bytes([whole[4], whole[5]]), &whole[FRAME_HEADER_BYTES..]);
        for _ in 0..20 {
            let cut = refused.rng.random_range(0..payload.len());
            refused.by("a cut frame", &with_length(kind, &payload[..cut]), frame);
            refused.by("a frame that ends early", &whole[..FRAME_HEADER_BYTES + cut], frame);
        }
        refused.by("a frame with a byte too many", &with_length(kind, &[payload, &[0]].concat()), frame);
    }
    for _ in 0..500 {
        let length = refused.rng.random_range(u32::try_from(MAX_FRAME_BYTES).unwrap() + 1..=u32::MAX);
        let header = [&length.to_le_bytes()[..], &[1, 0]].concat();
        refused.by("a frame that is too long", &header, frame);
        let kind = refused.rng.random_range(33..=u16::MAX);
        refused.by("a frame of no type", &with_length(kind, &[1, 2, 3]), frame);
    }
    // Lists whose elements take a byte each: what is counted only afterwards takes 24 times as much memory.
    let names: Vec<u8> = [&[7][..], b"lantern", &[11], b"ws12@london"].concat();
    for count in [MAX_FRAME_ITEMS + 1, 100_000, 2_000_000] {
        let groups = [&names[..], &varint(count as u64)[..], &vec![0; 2 * count], &[0]].concat();
        let manifests = [&names[..], &[0], &varint(count as u64)[..], &vec![0; count]].concat();
        let heads = [&names[..8], &varint(count as u64)[..], &vec![0; count]].concat();
        for (kind, payload) in [(3, groups), (3, manifests), (2, heads)] {
            if payload.len() <= MAX_FRAME_BYTES {
                refused.by("a list without an end", &with_length(kind, &payload), frame);
            }
        }
    }
}

/// Paths that leave the directory or mean something else somewhere.
fn bad_paths(refused: &mut Refused) -> Vec<String> {
    let bad: Vec<&str> = HOSTILE_TEXTS.into_iter().filter(|text| text.parse::<RelPath>().is_err()).collect();
    let good = ["a", "assets", "robot", "v001", "x.abc", "tex 1", "ä"];
    let mut paths = HashSet::new();
    while paths.len() < 1500 {
        let mut parts: Vec<&str> = Vec::new();
        for _ in 0..refused.rng.random_range(0..5) {
            parts.push(good[refused.rng.random_range(0..good.len())]);
        }
        let at = refused.rng.random_range(0..=parts.len());
        parts.insert(at, bad[refused.rng.random_range(0..bad.len())]);
        paths.insert(parts.join("/"));
    }
    let mut paths: Vec<String> = paths.into_iter().collect();
    paths.sort();
    paths
}

fn manifests(refused: &mut Refused) {
    fn decode(bytes: &[u8]) -> Result<Manifest, Box<dyn Error>> {
        // The cause says which path it was and why.
        Manifest::decode(bytes).map_err(|error| match error.source() {
            Some(source) => format!("{error}: {source}").into(),
            None => error.into(),
        })
    }
    let good = RawManifest::good();
    assert!(decode(&good.to_bytes()).is_ok());
    for path in bad_paths(refused) {
        refused.by("a path", path.as_bytes(), |bytes| {
            Ok::<RelPath, _>(std::str::from_utf8(bytes)?.parse::<RelPath>()?)
        });
        let mut file = good.clone();
        file.files[0].path.clone_from(&path);
        refused.by("a path in a manifest", &file.to_bytes(), decode);
        let dir = RawManifest { dir: path.clone(), ..good.clone() };
        refused.by("a directory in a manifest", &dir.to_bytes(), decode);
    }
    let bytes = good.to_bytes();
    for cut in 0..bytes.len() {
        refused.by("a cut manifest", &bytes[..cut], decode);
    }
    refused.by("a manifest with a byte too many", &[&bytes[..], &[0]].concat(), decode);
    for count in [MAX_INPUTS + 1, 1_000_000, 8_000_000] {
        let inputs = RawManifest { inputs: vec![String::new(); count], ..good.clone() };
        refused.by("a manifest with inputs without an end", &inputs.to_bytes(), decode);
    }
    let inside = RawManifest { dir: "assets/.avalon/incoming".into(), ..good.clone() };
    refused.by("a version within what Avalon keeps", &inside.to_bytes(), decode);
    let mut twice = good.clone();
    twice.files[2].path = "m.exr/M.1001.EXR".into();
    refused.by("two names that are one", &twice.to_bytes(), decode);
}

fn feeds(refused: &mut Refused) {
    let feed: FeedId = FeedId { project: "lantern".parse().unwrap(), node: "ws12@london".parse().unwrap() };
    let signer = ToySigner::new(&feed.node, 1);
    let mut reader = FeedReader::new(feed.clone());
    let record = |byte| RawRecord { kind: 900, version: 1, payload: vec![byte; 20] };
    let first = reader.seal(vec![record(1)], 1000, &signer, &ToyTrust);
    reader.accept(&first, &ToyTrust).unwrap();
    let next = reader.seal(vec![record(2), record(3)], 2000, &signer, &ToyTrust);
    let refuse = |refused: &mut Refused, what: &str, group: SealedGroup| {
        let input = [&group.body[..], &group.signature].concat();
        refused.by(what, &input, |_| Ok(reader.clone().accept(&group, &ToyTrust)?));
    };
    for _ in 0..1200 {
        let body = refused.flip(&next.body);
        refuse(refused, "a group that was changed", SealedGroup { body, ..next.clone() });
        let signature = refused.flip(&next.signature);
        refuse(refused, "a signature that was changed", SealedGroup { signature, ..next.clone() });
    }
    refuse(refused, "a replayed group", first.clone());
    for number in 2..200 {
        let thief = ToySigner::new(&"ws13@london".parse().unwrap(), number);
        let forged = reader.seal(vec![record(u8::try_from(number).unwrap())], 2000, &thief, &ToyTrust);
        refuse(refused, "a group that another node signed", forged);
        let other = FeedReader::new(FeedId { node: "ws13@london".parse().unwrap(), ..feed.clone() });
        let forged = other.seal(vec![record(u8::try_from(number).unwrap())], 2000, &thief, &ToyTrust);
        refuse(refused, "a group of another feed", forged);
        let second = FeedReader::new(feed.clone()).seal(
            vec![record(u8::try_from(number).unwrap())],
            1000,
            &signer,
            &ToyTrust,
        );
        refuse(refused, "a second history", second);
    }
    assert!(reader.clone().accept(&next, &ToyTrust).is_ok(), "the group that all this was made of is good");
}

fn certificates(refused: &mut Refused) {
    let bytes = |hex: &str| corpus::from_hex(hex).unwrap();
    let authority = AuthorityCertificate::parse(bytes(&studio().authority).into()).unwrap();
    let trust = StudioTrust::new(std::sync::Arc::new(authority.clone()));
    let (leaf, delegated) = (bytes(&studio().leaf), bytes(&studio().delegated));
    let (list, request) = (bytes(&studio().list), bytes(&studio().request));
    let owner: NodeId = "ws12@london".parse().unwrap();
    let other: NodeId = "ws13@london".parse().unwrap();
    assert!(trust.prove(&leaf, &owner).is_ok() && trust.prove(&delegated, &other).is_ok());
    assert!(
        RevocationList::verify(&list, &authority, None).is_ok()
            && CertificateRequest::parse(&request).is_ok()
    );
    for _ in 0..700 {
        let changed = refused.flip(&leaf);
        refused.by("a certificate", &changed, |bytes| Ok(trust.prove(bytes, &owner)?));
        let changed = refused.flip(&delegated);
        refused.by("a chain", &changed, |bytes| Ok(trust.prove(bytes, &other)?));
        let changed = refused.flip(&list);
        refused.by("a list", &changed, |bytes| Ok(RevocationList::verify(bytes, &authority, None)?));
        let changed = refused.flip(&request);
        refused.by("a request", &changed, |bytes| Ok(CertificateRequest::parse(bytes)?));
    }
    refused.by("another node's certificate", &leaf, |bytes| Ok(trust.prove(bytes, &other)?));
    refused.by("another studio's", &bytes(&studio().foreign), |bytes| Ok(trust.prove(bytes, &owner)?));
}

fn contents(refused: &mut Refused) {
    let zeros = vec![0; 8 << 20];
    let bomb = compress(&zeros).unwrap();
    assert!(decompress(&bomb, None, zeros.len()).is_ok());
    for _ in 0..100 {
        let length = refused.rng.random_range(0..100_000);
        let input = [&u32::try_from(length).unwrap().to_le_bytes()[..], &bomb].concat();
        refused.by("a bomb", &input, |bytes| Ok(decompress(&bytes[4..], None, length)?));
    }
    let text: Vec<u8> = (0..4000u32).flat_map(|n| format!("v {n} 0.5\n").into_bytes()).collect();
    let encoded = compress(&text).unwrap();
    for cut in (0..encoded.len()).step_by(encoded.len() / 400 + 1) {
        refused.by("a cut piece", &encoded[..cut], |bytes| Ok(decompress(bytes, None, text.len())?));
    }
    let values: Vec<_> = (0..9).map(|index| block_value(index, &[7; 1000])).collect();
    let size = 8 * BLOCK_BYTES + 5;
    let object = BlockList::of_values(size, values.clone()).object();
    for _ in 0..400 {
        let changed = refused.flip(values.as_flattened());
        refused.by("a block list", &changed, |bytes| {
            Ok(BlockList::verified(object, size, bytes.as_chunks::<32>().0.to_vec())?)
        });
    }
}

fn texts(refused: &mut Refused) {
    let token = JoinToken {
        fingerprint: [7; 32],
        addresses: vec!["lon.example.net:4700".into()],
        seed: Seed::from_bytes([9; 32]),
        expires_at_s: 1_900_000_000,
        invite: InviteId::from_bytes([1, 2, 3, 4, 5]),
    };
    let text = token.encode().unwrap();
    assert_eq!(JoinToken::decode(&text).as_ref(), Ok(&token));
    let decode =
        |bytes: &[u8]| Ok::<JoinToken, Box<dyn Error>>(JoinToken::decode(&String::from_utf8_lossy(bytes))?);
    for at in 0..text.len() {
        for replacement in [b'a', b'7', b'A', b'\n', 0xff] {
            let mut changed = text.clone().into_bytes();
            if changed[at] != replacement {
                changed[at] = replacement;
                refused.by("a token", &changed, decode);
            }
        }
        refused.by("a cut token", &text.as_bytes()[..at], decode);
    }
    for bad in HOSTILE_TEXTS.into_iter().filter(|text| !matches!(*text, "_studio")) {
        for name in [format!("{bad}@london"), format!("ws1@{bad}"), format!("{bad}@{bad}")] {
            refused.by("a node", name.as_bytes(), |_| Ok(name.parse::<NodeId>()?));
        }
        // Names that Windows reserves are names of projects; a path they are not.
        if bad.parse::<RelPath>().is_err() && !matches!(bad, "NUL" | "con.txt") {
            refused.by("a project", bad.as_bytes(), |_| Ok(bad.parse::<ProjectName>()?));
        }
    }
}

#[test]
fn over_ten_thousand_hostile_inputs_are_refused_with_a_typed_error() {
    let _alone = ALONE.lock().unwrap();
    let mut refused = Refused { rng: ChaCha8Rng::seed_from_u64(10_000), seen: HashSet::new() };
    for kind in [frames, manifests, feeds, certificates, contents, texts] {
        kind(&mut refused);
    }
    assert!(refused.seen.len() > 10_000, "{} different inputs", refused.seen.len());
}

#[test]
fn what_the_fuzzer_kept_is_decoded_as_it_must_be_and_so_are_inputs_made_of_it() {
    let _alone = ALONE.lock().unwrap();
    for target in &TARGETS {
        let kept = corpus::read(target.name).unwrap();
        assert!(!kept.is_empty(), "there is a corpus of {}", target.name);
        let mut campaign =
            Campaign::new(target, 7, kept, &Counted).unwrap_or_else(|broken| panic!("{broken}"));
        let all = campaign.figures();
        assert!(all.accepted > 0 && all.refused > 0, "{}: both outcomes are there", target.name);
        campaign.run_inputs(300).unwrap_or_else(|broken| panic!("{broken}"));
    }
}
