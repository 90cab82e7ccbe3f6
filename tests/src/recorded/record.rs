//! Making a recording.

use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use avalon_protocol::{
    exit_code::ExitCode,
    feed::SealedGroup,
    id::ProjectName,
    manifest::Manifest,
    mode::ProjectMode,
    wire::{
        Control, FRAME_HEADER_BYTES, FetchManifests, FetchObjects, FrameHeader, Framed as _, Hello,
        ManifestReply, PROTOCOL_MAX, PROTOCOL_MIN, ProjectHeads, Request, ServedProject, Want,
    },
};

use walkdir::WalkDir;

use super::{Answer, Talk, Told, WRITER, to_hex};
use crate::daemons::{PROJECT, Programs, Studio, api::Api, daemon::Daemon, tree};

const MODEL: &str = "assets/robot/publish/modelDefault";
const POLICY: &str = "# recorded\nschema = \"avalon.policy/1\"\n[defaults]\nkeep = \"here\"\nmin_copies = 1\n\
                      [[grant]]\nto = \"role:workstation\"\nprojects = \"lantern\"\nactions = [\"see\", \"pull\", \"publish\"]\n";

/// Runs a node of this version through a short life, and writes into a new directory what it leaves behind.
pub fn record(programs: Programs, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let studio = Studio::new(programs);
    let mut london = studio.node(WRITER, ProjectMode::Mirror);
    london.start();
    live(&london);
    let montreal = studio.dir().join("montreal");
    studio.issue("nas@montreal", &montreal, crate::daemons::now());
    let talk = Talk::dial(&montreal, &london.listen());
    let (said, answers) = listen(talk, &london.api());
    let api = london.api();
    let mut told = Told {
        version: env!("CARGO_PKG_VERSION").into(),
        list: api.list(),
        limits: api.get(avalon_protocol::control::route::LIMITS).unwrap(),
        policy_serial: api.policy().unwrap().policy.serial,
        mtimes_ns: BTreeMap::new(),
        said,
        answers,
    };
    let ended = london.terminate();
    assert_eq!(ended.code(), Some(0), "{}", london.log());
    tree::copy_private(&studio.authority_dir(), &to.join("ca"));
    tree::copy_private(&london.config.state_dir, &to.join("state"));
    // Keys and certificates end; whoever takes it up has its own.
    fs::remove_dir_all(to.join("state/identity")).unwrap();
    let root = &london.config.root;
    for entry in
        WalkDir::new(root).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file())
    {
        let path = entry.path().strip_prefix(root).unwrap().to_owned();
        let changed = entry.metadata().unwrap().modified().unwrap();
        let since = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        told.mtimes_ns.insert(path, u64::try_from(since.as_nanos()).unwrap());
    }
    tree::copy(root, &to.join("root"));
    let mut text = serde_json::to_string_pretty(&told).unwrap();
    text.push('\n');
    fs::write(to.join("told.json"), text).unwrap();
}

/// Lets there be records of many kinds.
fn live(london: &Daemon) {
    let good = |args: &[&str]| drop(london.ctl(args).expect(ExitCode::Ok));
    for version in 1..=3_u8 {
        let dir = london.path(&format!("{MODEL}/v{version:03}"));
        tree::write(&dir.join("modelDefault.abc"), &tree::noise(version.into(), 3000));
        tree::write(&dir.join("modelDefault.obj"), format!("# version {version}\nv 0 0 0\n").as_bytes());
        let item = london.api().publish(&dir);
        assert_eq!(item.error, None, "{item:?}");
    }
    good(&["retire", "lantern:robot/modelDefault@v001", "-m", "wrong scale"]);
    good(&["retire", "lantern:robot/modelDefault@v002", "-m", "by mistake"]);
    good(&["restore", "lantern:robot/modelDefault@v002"]);
    let policy = london.config.dir.join("policy.toml");
    fs::write(&policy, POLICY).unwrap();
    good(&["policy", "apply", policy.to_str().unwrap()]);
    good(&["node", "revoke", "ws9@home", "-m", "stolen on the train"]);
    good(&["limit", "set", "90MiB/s", "--direction", "send"]);
}

/// Hears all that a node says to a peer that has nothing, and asks it for a manifest and for content.
fn listen(mut talk: Talk, api: &Api) -> (Vec<String>, Vec<Answer>) {
    let projects = [PROJECT.parse().unwrap(), ProjectName::studio()];
    let served = |name: &ProjectName| ServedProject { name: name.clone(), mode: ProjectMode::OnDemand };
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: 0,
        build: "recorder".into(),
        studio: "northlight".parse().unwrap(),
        node: "nas@montreal".parse().unwrap(),
        instance: 1,
        projects: projects.iter().map(served).collect(),
    };
    talk.say(&[Control::Hello(hello).to_frame()]);
    let mut said = Vec::new();
    let mut missing = BTreeMap::new();
    let mut heads = 0;
    while heads < projects.len() || !missing.is_empty() {
        let frame = talk.hear();
        let (header, payload) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
        let kind = FrameHeader::parse(*header).unwrap().kind;
        match Control::from_payload(kind, payload).unwrap() {
            Control::Hello(_) => {
                let nothing =
                    |project: &ProjectName| ProjectHeads { project: project.clone(), heads: vec![] };
                let empty: Vec<_> =
                    projects.iter().map(|project| Control::Heads(nothing(project)).to_frame()).collect();
                talk.say(&empty);
            }
            Control::Heads(of_project) => {
                heads += 1;
                for (node, head) in of_project.heads {
                    missing.insert((of_project.project.clone(), node), head.next_seq);
                }
            }
            Control::Records(records) => {
                let end = records.groups.last().and_then(SealedGroup::claimed_end).unwrap();
                missing.retain(|(project, node), next_seq| {
                    (project, node) != (&records.feed.project, &records.feed.node) || end < *next_seq
                });
            }
            Control::Extract(_) => panic!("an admin gets the feeds"),
        }
        said.push(to_hex(&frame));
    }
    (said, ask(&talk, api))
}

fn ask(talk: &Talk, api: &Api) -> Vec<Answer> {
    let project: ProjectName = PROJECT.parse().unwrap();
    let info = api.info("lantern:robot/modelDefault@v003").unwrap();
    let manifests =
        FetchManifests { project: project.clone(), manifests: vec![info.manifest.parse().unwrap()] };
    let answer_to = |what: &str, request: Request| {
        let frame = request.to_frame();
        let bytes = talk.ask(&frame);
        (Answer { what: what.into(), request: to_hex(&frame), answer: to_hex(&bytes) }, bytes)
    };
    let (first, bytes) = answer_to("a manifest", Request::Manifests(manifests));
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
    let header = FrameHeader::parse(*header).unwrap();
    let (reply, manifest) = rest.split_at(header.payload_bytes);
    let reply = ManifestReply::from_payload(header.kind, reply).unwrap();
    assert_eq!(reply.bytes, manifest.len() as u64);
    let manifest = Manifest::decode(manifest).unwrap();
    let wants = manifest.files().iter().map(|file| Want {
        object: file.hash,
        size: file.size,
        first_block: 0,
        blocks: 1,
        with_list: true,
    });
    let objects = FetchObjects { project, wants: wants.collect() };
    let (second, _) = answer_to("the content of its files", Request::Objects(objects));
    vec![first, second]
}
