//! The documents against the code: numbers, limits, codes, examples, names of tests and files, links.
//!
//! What a person would copy out of a document must be what the code does. Each check reads both sides and fails on what
//! stands in only one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use avalon_protocol::{
    access::Action,
    audit::{AuditHead, AuditLine},
    block::{BLOCK_BYTES, BlockList},
    check,
    close_code::CloseCode,
    control::ErrorCode,
    drop::Nonce,
    exit_code::ExitCode,
    feed::{FeedId, SIGNATURE_DOMAIN, SealedGroup},
    hash::{AuditHash, ManifestId, ObjectHash},
    id::ProjectName,
    limits,
    manifest::{self, FileEntry, Manifest},
    mode::ProjectMode,
    numbers::Answer,
    plan::Priority,
    policy::Policy,
    record::{
        Crl, Held, Issued, Judged, Key, Note, Published, RawRecord, Record, Resolved, Restored, Retired,
        Revoked, Said,
    },
    studio::AppliedPolicy,
    wire::{
        AskNumber, Control, FRAME_HEADER_BYTES, FetchEncoded, FetchManifests, FetchObjects, FetchProof,
        FrameHeader, Framed, Hello, JoinAsk, JoinCertify, JoinHello, JoinOffer, JoinRefused, JoinReply,
        Joined, ManifestReply, NumberReply, ObjectReply, ObjectStatus, PROTOCOL_MAX, PROTOCOL_MIN,
        PieceEncoding, PieceHead, PolicyExtract, ProjectHeads, ProofReply, Records, Renew, RenewAnswer,
        RenewLater, RenewReply, Request,
    },
};

use avalond::hooks::{HookEvent, PLACEHOLDERS};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Markdown file of the project, with its path from the root.
fn documents() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> = walkdir::WalkDir::new(root().join("docs"))
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.extend(Some(root().join("README.md")).filter(|readme| readme.exists()));
    paths.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Every Rust source file of the project.
fn sources() -> Vec<(String, String)> {
    let crates = ["protocol", "certs", "store", "daemon", "ctl", "tests"];
    let files = crates.iter().flat_map(|name| walkdir::WalkDir::new(root().join(name)));
    let files = files.map(|entry| entry.unwrap().into_path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            (path.strip_prefix(root()).unwrap().display().to_string(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The text beneath a heading, up to the next heading of any level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let is_heading = |line: &str| line.starts_with('#') && line.trim_start_matches(['#', ' ']) == heading;
    let start = text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, *at, line))
    });
    let mut lines = start.skip_while(|(_, _, line)| !is_heading(line.trim_end()));
    let (_, from, _) = lines.next().unwrap_or_else(|| panic!("there is no heading {heading:?}"));
    let to = lines.find(|(_, _, line)| line.starts_with('#')).map_or(text.len(), |(start, _, _)| start);
    &text[from..to]
}

/// The cells of every table row in a text, without heads, backticks and escapes.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with("|---");
    let body = lines.iter().enumerate().filter(|(index, line)| {
        let is_head = lines.get(index + 1).is_some_and(|next| is_rule(next));
        line.starts_with('|') && !is_rule(line) && !is_head
    });
    body.map(|(_, line)| cells(line)).collect()
}

fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\u{1}");
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    line.split('|').map(|cell| cell.trim().replace('`', "").replace('\u{1}', "|")).collect()
}

fn protocol(heading: &str) -> Vec<Vec<String>> {
    let text = read("docs/protocol.md");
    rows(section(&text, heading))
}

#[test]
fn close_codes_are_those_of_the_code() {
    let documented: Vec<(u32, String)> =
        protocol("10. Close codes").iter().map(|row| (row[0].parse().unwrap(), row[1].clone())).collect();
    let coded: Vec<(u32, String)> =
        CloseCode::ALL.iter().map(|code| (code.code(), format!("{code:?}"))).collect();
    assert_eq!(documented, coded);
}

fn type_of(frame: &[u8]) -> u16 {
    FrameHeader::parse(frame[..FRAME_HEADER_BYTES].try_into().unwrap()).unwrap().kind
}

fn hello() -> Hello {
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: 0,
        build: "0.1.0".into(),
        studio: "northlight".parse().unwrap(),
        node: "ws12@london".parse().unwrap(),
        instance: 300,
        projects: vec![avalon_protocol::wire::ServedProject {
            name: "lantern".parse().unwrap(),
            mode: ProjectMode::Mirror,
        }],
    }
}

fn project() -> ProjectName {
    "lantern".parse().unwrap()
}

fn encoded() -> FetchEncoded {
    let (priority, compress) = (Priority::Waiting, true);
    FetchEncoded { project: project(), priority, compress, wants: vec![], bases: vec![] }
}

fn question() -> FetchProof {
    let (manifest, nonce) = (ManifestId::from_bytes([0; 32]), Nonce::from_bytes([0; 32]));
    FetchProof { version: version(), manifest, nonce, read: true }
}

fn number() -> AskNumber {
    AskNumber { version: version(), fresh: true, serial: 1 }
}

#[test]
fn what_a_message_needs_is_that_of_the_code() {
    let feed = FeedId { project: project(), node: "ws12@london".parse().unwrap() };
    let said = [
        Control::Heads(ProjectHeads { project: project(), heads: vec![] }),
        Control::Records(Records { feed, groups: vec![], manifests: vec![] }),
    ];
    let asked = [
        Request::Objects(FetchObjects { project: project(), wants: vec![] }),
        Request::Manifests(FetchManifests { project: project(), manifests: vec![] }),
        Request::Encoded(encoded()),
        Request::Proof(question()),
        Request::Number(number()),
        Request::Renew(Renew { request: vec![] }),
    ];
    let said = said.iter().map(|message| (message.to_frame(), message.project().map(|_| Action::See)));
    let asked = asked.iter().map(|request| (request.to_frame(), request.needs().map(|(_, action)| action)));
    let coded: Vec<(String, String)> = said
        .chain(asked)
        .map(|(frame, needs)| (type_of(&frame).to_string(), needs.map_or("none", Action::as_str).to_owned()))
        .collect();
    let documented: Vec<(String, String)> =
        protocol("6.8 What a message needs").iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    assert_eq!(documented, coded);
}

#[test]
fn frame_types_are_those_of_the_code() {
    let project = project();
    let feed = FeedId { project: project.clone(), node: "ws12@london".parse().unwrap() };
    let reply = ObjectReply { status: ObjectStatus::Found, list_values: 0, body_bytes: 0, encoding: 0 };
    let piece =
        PieceHead { blocks: 1, encoding: PieceEncoding::Raw, bytes: 0, base_offset: 0, base_bytes: 0 };
    let coded = [
        (type_of(&Control::Hello(hello()).to_frame()), "Hello"),
        (
            type_of(&Control::Heads(ProjectHeads { project: project.clone(), heads: vec![] }).to_frame()),
            "Heads",
        ),
        (
            type_of(&Control::Records(Records { feed, groups: vec![], manifests: vec![] }).to_frame()),
            "Records",
        ),
        (
            type_of(&Request::Objects(FetchObjects { project: project.clone(), wants: vec![] }).to_frame()),
            "FetchObjects",
        ),
        (
            type_of(
                &Request::Manifests(FetchManifests { project: project.clone(), manifests: vec![] })
                    .to_frame(),
            ),
            "FetchManifests",
        ),
        (type_of(&reply.to_frame()), "ObjectReply"),
        (type_of(&ManifestReply { bytes: 0 }.to_frame()), "ManifestReply"),
        (type_of(&Request::Encoded(encoded()).to_frame()), "FetchEncoded"),
        (type_of(&piece.to_frame()), "PieceHead"),
        (type_of(&Request::Proof(question()).to_frame()), "FetchProof"),
        (type_of(&ProofReply::Reading { bytes: 0 }.to_frame()), "ProofReply"),
        (type_of(&Request::Number(number()).to_frame()), "AskNumber"),
        (type_of(&NumberReply(Answer::Promised).to_frame()), "NumberReply"),
        (type_of(&JoinAsk::Hello(JoinHello { version: 1, build: String::new() }).to_frame()), "JoinHello"),
        (type_of(&JoinReply::Offer(offer()).to_frame()), "JoinOffer"),
        (
            type_of(
                &JoinAsk::Certify(JoinCertify { node: "ws12".parse().unwrap(), request: vec![] }).to_frame(),
            ),
            "JoinCertify",
        ),
        (type_of(&JoinReply::Joined(joined()).to_frame()), "Joined"),
        (type_of(&JoinReply::Refused(JoinRefused { reason: String::new() }).to_frame()), "JoinRefused"),
        (type_of(&Request::Renew(Renew { request: vec![] }).to_frame()), "Renew"),
        (type_of(&RenewReply { certificate: vec![], refused: String::new() }.to_frame()), "RenewReply"),
        (
            type_of(&Control::Extract(PolicyExtract { serial: 1, document: String::new() }).to_frame()),
            "Extract",
        ),
        (type_of(&RenewAnswer::Later(RenewLater { wait_s: 1 }).to_frame()), "RenewLater"),
    ];
    let coded: Vec<(u16, String)> = coded.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect();
    let documented: Vec<(u16, String)> =
        protocol("3.1 Frames").iter().map(|row| (row[0].parse().unwrap(), row[1].clone())).collect();
    assert_eq!(documented, coded);
    let constants = sources().into_iter().filter(|(path, _)| path.starts_with("protocol/src/wire/"));
    let declared: usize = constants.map(|(_, text)| text.matches(": u16 = ").count()).sum();
    // The types, the two protocol versions, that of joining and the two encodings: a new constant needs a row and a line above.
    assert_eq!(declared, coded.len() + 5);
}

fn offer() -> JoinOffer {
    JoinOffer {
        authority: vec![],
        studio: "northlight".parse().unwrap(),
        site: "van".parse().unwrap(),
        node: None,
        role: avalon_protocol::access::Role::Farm,
    }
}

fn joined() -> Joined {
    Joined {
        node: "ws12@van".parse().unwrap(),
        role: avalon_protocol::access::Role::Farm,
        certificate: vec![],
        projects: vec![],
        peers: vec![],
    }
}

fn published() -> Published {
    Published {
        version: version(),
        manifest: ManifestId::from_bytes([7; 32]),
        content: avalon_protocol::hash::ContentId::from_bytes([8; 32]),
        generation: 1,
        predecessor: None,
        files: 2,
        bytes: 1000,
        representations: vec!["abc".parse().unwrap()],
        author: "anna".into(),
        published_at_ms: 1_763_800_000_000,
    }
}

fn version() -> avalon_protocol::id::VersionId {
    avalon_protocol::id::VersionId {
        project: "lantern".parse().unwrap(),
        asset: "robot".parse().unwrap(),
        subset: "modelDefault".parse().unwrap(),
        slot: "v002".parse().unwrap(),
    }
}

#[test]
fn record_kinds_are_those_of_the_code() {
    let held = Held { version: version(), manifest: ManifestId::from_bytes([7; 32]) };
    let all = [
        Record::Key(Key { certificate: vec![1] }),
        Record::Published(published()),
        Record::Placed(held.clone()),
        Record::Dropped(held),
        Record::Policy(AppliedPolicy::new(1, String::new(), String::new(), String::new(), 0).unwrap()),
        Record::Retired(Retired {
            version: version(),
            round: 1,
            author: Note::default(),
            comment: Note::default(),
            at_ms: 0,
        }),
        Record::Restored(Restored { version: version(), round: 1, author: Note::default(), at_ms: 0 }),
        Record::Resolved(
            Resolved::new(
                version(),
                1,
                ManifestId::from_bytes([7; 32]),
                vec![(ManifestId::from_bytes([8; 32]), 3)],
                Said::default(),
            )
            .unwrap(),
        ),
        Record::Revoked(Revoked {
            node: "ws12@van".parse().unwrap(),
            author: Note::default(),
            comment: Note::default(),
            at_ms: 0,
        }),
        Record::Judged(Judged {
            feed: FeedId { project: "lantern".parse().unwrap(), node: "ws12@van".parse().unwrap() },
            next_seq: 1,
            rights: avalon_protocol::access::Rights::ALL,
            at_ms: 0,
            chain: None,
        }),
        Record::Judged(Judged {
            feed: FeedId { project: "lantern".parse().unwrap(), node: "ws12@van".parse().unwrap() },
            next_seq: 1,
            rights: avalon_protocol::access::Rights::ALL,
            at_ms: 0,
            chain: Some(avalon_protocol::hash::ChainHash::EMPTY),
        }),
        Record::Crl(Crl { der: vec![1], author: Note::default(), comment: Note::default(), at_ms: 0 }),
        Record::Issued(Issued { node: "ws12@van".parse().unwrap(), at_ms: 0 }),
        Record::AuditHead(AuditHead { entries: 1, hash: AuditHash::START, at_ms: 0 }),
    ];
    let coded: Vec<Vec<String>> = all
        .iter()
        .map(|record| {
            let raw = record.to_raw();
            let debug = format!("{record:?}");
            let name = debug.split('(').next().unwrap().to_owned();
            vec![raw.kind.to_string(), raw.version.to_string(), name]
        })
        .collect();
    let documented: Vec<Vec<String>> = protocol("5.4 Records")
        .into_iter()
        .filter(|row| row.len() == 4)
        .map(|row| row[..3].to_vec())
        .collect();
    assert_eq!(documented, coded);
    let unknown = RawRecord { kind: u16::try_from(all.len() + 1).unwrap(), version: 1, payload: vec![] };
    let error = Record::from_raw(&unknown).unwrap_err();
    assert!(error.to_string().contains("does not know"), "a kind without a row: {error}");
}

#[test]
fn limits_are_those_of_the_code() {
    macro_rules! limits {
        ($($name:ident)*) => { [$((stringify!($name), limits::$name as u64)),*] };
    }
    let coded = limits![
        MAX_FRAME_BYTES RECORDS_FRAME_TARGET_BYTES MAX_FRAME_ITEMS MAX_GROUP_BYTES MAX_GROUP_RECORDS MAX_RECORD_BYTES
        MAX_MANIFEST_BYTES MAX_MANIFEST_FILES INLINE_MANIFEST_BYTES MAX_REPRESENTATIONS MAX_OBJECT_BYTES MAX_METADATA_PAIRS
        MAX_TEXT_BYTES MAX_POLICY_BYTES MAX_POLICY_NOTE_BYTES MAX_MOVED MAX_INPUTS MAX_WANTS MAX_PIECE_BLOCKS MAX_BASE_WINDOW_BYTES MAX_MANIFEST_WANTS MAX_PROJECTS MAX_FEEDS MAX_CRL_BYTES MAX_CRLS_KEPT
    ];
    let coded: BTreeMap<String, u64> =
        coded.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let source = read("protocol/src/limits.rs");
    let declared = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    assert_eq!(declared.map(str::to_owned).collect::<BTreeSet<_>>(), coded.keys().cloned().collect());
    let documented: BTreeMap<String, u64> =
        protocol("9.2 Limits").into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap())).collect();
    assert_eq!(documented, coded);
}

#[test]
fn magic_numbers_and_contexts_are_those_of_the_code() {
    let documented: BTreeMap<String, String> = protocol("9.3 Magic numbers and contexts")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let says = |what: &str| documented.get(what).unwrap_or_else(|| panic!("no row {what:?}")).clone();
    let alpn = format!("ALPN: &[u8] = b\"{}\";", says("ALPN"));
    assert!(read("certs/src/tls.rs").contains(&alpn), "{alpn}");
    assert_eq!(says("manifest").as_bytes(), manifest::MAGIC);
    let segment = format!("*b\"{}\"", says("segment of a feed, on disk only"));
    assert!(read("store/src/feed/segment.rs").contains(&segment), "{segment}");
    let domain = says("signature domain of feeds").replace(" and a zero byte", "\0");
    assert_eq!(domain.as_bytes(), SIGNATURE_DOMAIN);

    let group = SealedGroup { body: b"a body".to_vec(), signature: vec![] };
    let context = says("derive-key context of the chain hash");
    assert_eq!(*group.chain().as_bytes(), blake3::derive_key(&context, b"a body"));
    let context = says("derive-key context of the content id");
    assert_eq!(*manifest::content_id(&[]).as_bytes(), blake3::derive_key(&context, b""));
    let proof = says("begins what a proof of possession is computed over");
    assert_eq!(proof.as_bytes(), avalon_protocol::drop::PROOF_CONTEXT);
    assert_eq!(documented.len(), 7, "each row is checked here");
}

#[test]
fn a_content_id_is_hashed_as_described() {
    let file = FileEntry {
        path: "a/b.exr".parse().unwrap(),
        size: 3,
        hash: ObjectHash::of(b"abc"),
        mtime_ns: 0,
        representation: 0,
    };
    let described = [&7u64.to_le_bytes()[..], b"a/b.exr", file.hash.as_bytes()].concat();
    let expected = blake3::derive_key("avalon 2026 version content v1", &described);
    assert_eq!(*manifest::content_id(&[file]).as_bytes(), expected);
}

#[test]
fn blocks_are_verified_as_described() {
    assert_eq!(BLOCK_BYTES, 1_048_576);
    // Three blocks and a bit: the left half has two, the right one and the bit.
    let size = usize::try_from(BLOCK_BYTES).unwrap() * 3 + 5;
    let data: Vec<u8> = (0..size).map(|index| u8::try_from(index / 9 % 251).unwrap()).collect();
    use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
    let value = |(index, block): (usize, &[u8])| {
        let offset = index as u64 * 1_048_576;
        blake3::Hasher::new().set_input_offset(offset).update(block).finalize_non_root()
    };
    let values: Vec<[u8; 32]> = data.chunks(1_048_576).enumerate().map(value).collect();
    let parent = |left, right| merge_subtrees_non_root(left, right, Mode::Hash);
    let name =
        merge_subtrees_root(&parent(&values[0], &values[1]), &parent(&values[2], &values[3]), Mode::Hash);
    let list = BlockList::verified(ObjectHash::of(&data), size as u64, values).unwrap();
    assert_eq!(list.object().as_bytes(), name.as_bytes());
}

/// The bytes of the example with this name: hex digits up to two spaces or the end of the line.
fn example(name: &str) -> Vec<u8> {
    let text = read("docs/protocol.md");
    let start = format!("```hex {name}\n");
    let (_, rest) = text.split_once(&start).unwrap_or_else(|| panic!("there is no example {name:?}"));
    let (body, _) = rest.split_once("```").unwrap();
    let digits: String = body.lines().map(|line| line.split("  ").next().unwrap().replace(' ', "")).collect();
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn frame<T: Framed>(bytes: &[u8]) -> (T, Vec<u8>) {
    let (header, rest) = bytes.split_at(FRAME_HEADER_BYTES);
    let header = FrameHeader::parse(header.try_into().unwrap()).unwrap();
    let (payload, behind) = rest.split_at(header.payload_bytes);
    (T::from_payload(header.kind, payload).unwrap(), behind.to_vec())
}

#[test]
fn worked_examples_are_what_the_code_writes() {
    assert_eq!(example("hello"), Control::Hello(hello()).to_frame());
    assert_eq!(frame::<Control>(&example("hello")), (Control::Hello(hello()), vec![]));

    let want = avalon_protocol::wire::Want {
        object: ObjectHash::of(b"abc"),
        size: 3,
        first_block: 0,
        blocks: 1,
        with_list: false,
    };
    let request = Request::Objects(FetchObjects { project: "lantern".parse().unwrap(), wants: vec![want] });
    assert_eq!(example("fetch-objects"), request.to_frame());
    let (reply, content) = frame::<ObjectReply>(&example("object-reply"));
    assert_eq!((reply.status, reply.body_bytes, content), (ObjectStatus::Found, 3, b"abc".to_vec()));
    assert_eq!(example("published"), Record::Published(published()).to_raw().payload);

    let manifest = Manifest::decode(&example("manifest")).unwrap();
    let names = protocol("12.4 A manifest");
    assert_eq!(names[0][1], manifest.id().to_string());
    assert_eq!(names[1][1], manifest.content().to_string());
    assert_eq!(manifest.version(), &version());
}

#[test]
fn the_audit_in_the_documents_is_a_chain() {
    let text = read("docs/storage.md");
    let (_, example) = section(&text, "11. The audit").split_once("```text\n").unwrap();
    let mut before = AuditHash::START;
    for line in example.split_once("```").unwrap().0.lines() {
        let line = AuditLine::parse(line.as_bytes()).unwrap();
        assert!(line.follows(before), "{line:?}");
        before = line.stated;
    }
    assert_ne!(before, AuditHash::START);
}

/// Every `AVL-dddd` in a text.
fn error_codes(text: &str) -> BTreeSet<String> {
    let places = text.match_indices("AVL-").filter_map(|(at, _)| text.get(at..at + 8));
    places.filter(|code| code[4..].bytes().all(|b| b.is_ascii_digit())).map(str::to_owned).collect()
}

#[test]
fn error_codes_are_those_of_the_code() {
    let declared = error_codes(&read("protocol/src/control/error.rs"));
    assert!(declared.len() > 10);
    let table = rows(&read("docs/errors.md"));
    let documented: BTreeSet<String> = table.iter().map(|row| row[0].clone()).collect();
    assert_eq!(documented, declared);
    assert_eq!(table.len(), declared.len(), "each code once");
    for row in &table {
        let code: ErrorCode = serde_json::from_str(&format!("{:?}", row[0])).unwrap();
        let [exit, status] = [&row[2], &row[3]].map(|number| number.parse::<u16>().unwrap());
        assert_eq!(exit, u16::from(code.exit().code()), "{}", row[0]);
        assert_eq!(status, code.http_status(), "{}", row[0]);
        assert!(row[1].len() > 10 && row[4].len() > 10, "{} says nothing", row[0]);
    }
}

#[test]
fn no_error_code_is_used_that_is_not_documented() {
    let documented = error_codes(&read("docs/errors.md"));
    for (path, text) in sources().into_iter().chain(documents()) {
        // 0000 is never given out; tests that forge a message use it.
        for code in error_codes(&text).into_iter().filter(|code| code != "AVL-0000") {
            assert!(documented.contains(&code), "{path}: {code} stands in no row of docs/errors.md");
        }
    }
}

#[test]
fn exit_codes_are_those_of_the_code() {
    let text = read("docs/operations.md");
    let documented: Vec<(u8, String)> = rows(section(&text, "Exit codes"))
        .iter()
        .map(|row| (row[0].parse().unwrap(), row[1].clone()))
        .collect();
    let coded: Vec<(u8, String)> =
        ExitCode::ALL.iter().map(|code| (code.code(), format!("{code:?}"))).collect();
    assert_eq!(documented, coded);
}

#[test]
fn checks_are_those_of_the_code() {
    let text = read("docs/checks.md");
    let documented: Vec<Vec<String>> =
        rows(section(&text, "Which there are")).iter().map(|row| row[..3].to_vec()).collect();
    let coded: Vec<Vec<String>> = check::ALL
        .iter()
        .map(|check| vec![check.code.to_owned(), check.severity.to_string(), check.seen_by.to_string()])
        .collect();
    assert_eq!(documented, coded);
    let (_, example) = text.split_once("```toml\n").unwrap();
    let policy = Policy::parse(example.split_once("```").unwrap().0).unwrap();
    assert!(!policy.checks().is_empty());
}

#[test]
fn what_hooks_are_given_is_that_of_the_code() {
    let text = read("docs/operations.md");
    let hooks = section(&text, "Hooks");
    let documented: Vec<String> = rows(hooks).iter().map(|row| row[0].clone()).collect();
    let coded: Vec<&str> = HookEvent::ALL.iter().map(|(word, _)| *word).collect();
    assert_eq!(documented, coded);
    let braced: BTreeSet<&str> = hooks
        .split("`{")
        .skip(1)
        .filter_map(|rest| rest.split_once("}`").map(|(name, _)| name))
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase()))
        .collect();
    assert_eq!(braced, PLACEHOLDERS.into_iter().collect());
}

#[test]
fn configuration_keys_are_those_of_the_code() {
    let keys = configuration_keys();
    assert!(keys.contains("node.state_dir") && keys.contains("project.root"), "{keys:?}");
    let text = read("docs/operations.md");
    let documented: BTreeSet<String> =
        rows(section(&text, "Configuration")).into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(documented, keys);
}

#[test]
fn health_codes_are_those_of_the_code() {
    let coded: BTreeSet<String> = sources()
        .iter()
        .filter(|(path, _)| path.starts_with("daemon/src/") && !path.contains("tests"))
        .flat_map(|(_, text)| health_codes(text.split("\nmod tests {").next().unwrap()))
        .collect();
    assert!(coded.len() > 10, "{coded:?}");
    let text = read("docs/operations.md");
    let documented: BTreeSet<String> =
        rows(section(&text, "When something is wrong")).into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(documented, coded);
}

/// The codes that a source file raises: `code: "word".into()` or `code: CONSTANT.into()` of a `Health`.
fn health_codes(text: &str) -> Vec<String> {
    let raised = text.split("Health {").skip(1).filter_map(|rest| rest.trim_start().strip_prefix("code: "));
    let words = raised.filter_map(|rest| rest.split(".into()").next());
    words
        .map(|word| match word.strip_prefix('"') {
            Some(literal) => literal.trim_end_matches('"').to_owned(),
            None => {
                let declared = format!("const {word}: &str = \"");
                let (_, value) = text.split_once(&declared).unwrap_or_else(|| panic!("no constant {word}"));
                value.split('"').next().unwrap().to_owned()
            }
        })
        .collect()
}

/// The keys of the configuration file, as `node.listen`, read from the structures that serde fills.
fn configuration_keys() -> BTreeSet<String> {
    let source = read("daemon/src/config/raw.rs");
    let fields = |name: &str| -> Vec<(String, String)> {
        let (_, body) = source.split_once(&format!("struct {name} {{")).unwrap();
        let body = body.split_once("\n}").unwrap().0;
        let fields =
            body.lines().filter_map(|line| line.trim().strip_prefix("pub(super) ")?.split_once(": "));
        // A field with the name of a keyword is written with `r#`.
        fields
            .map(|(field, kind)| {
                (field.trim_start_matches("r#").to_owned(), kind.trim_end_matches(',').to_owned())
            })
            .collect()
    };
    let mut keys = BTreeSet::new();
    for (table, kind) in fields("RawConfig") {
        let kind = kind.trim_start_matches("Vec<").trim_end_matches('>');
        keys.extend(fields(kind).into_iter().map(|(field, _)| format!("{table}.{field}")));
    }
    keys
}

/// What stands between single backticks in running text, blocks left out.
fn quoted(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

#[test]
fn files_that_documents_name_exist() {
    const TOP: [&str; 7] = ["protocol/", "certs/", "store/", "daemon/", "ctl/", "tests/", "docs/"];
    let mut named = 0;
    for (document, text) in documents() {
        for path in quoted(&text).iter().filter(|path| TOP.iter().any(|top| path.starts_with(top))) {
            assert!(root().join(path).exists(), "{document} names {path}, which is not there");
            named += 1;
        }
    }
    assert!(named > 20, "only {named} paths were found");
}

#[test]
fn tests_that_documents_promise_by_exist() {
    let declared: BTreeSet<String> = sources()
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| line.trim().trim_start_matches("async ").strip_prefix("fn ")?.split('(').next())
        .map(str::to_owned)
        .collect();
    let text = read("docs/storage.md");
    for (named, at_least) in [
        (quoted(section(&text, "10. What an acknowledgement means")), 20),
        (quoted(&read("docs/threat-model.md")), 45),
        (quoted(&read("docs/reliability.md")), 3),
    ] {
        let names: Vec<&String> = named.iter().filter(|name| name.matches('_').count() > 2).collect();
        assert!(names.len() > at_least, "only {} tests are named", names.len());
        for name in names {
            assert!(declared.contains(name), "there is no test {name}");
        }
    }
}

/// The anchor that a heading gets on the usual hosts.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace('`', "");
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn relative_links_resolve() {
    let mut checked = 0;
    for (document, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '\n']).next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let own = root().join(&document);
            let target = if path.is_empty() { own.clone() } else { own.parent().unwrap().join(path) };
            assert!(target.exists(), "{document} links to {link}, which is not there");
            if !fragment.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|h| anchor(h) == fragment), "{document}: no heading for {link}");
            }
            checked += 1;
        }
    }
    assert!(checked > 10, "only {checked} links were found");
}
