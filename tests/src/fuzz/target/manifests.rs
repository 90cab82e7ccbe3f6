//! Manifests: the canonical bytes, and every path in them.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use avalon_protocol::{hash::ObjectHash, manifest::Manifest};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{
    Target,
    made_up::{PROJECTS, SLOTS, bytes, hash, list, number, text},
};
use crate::fuzz::{Outcome, outcome::about};

pub(super) const TARGET: Target = Target {
    name: "manifests",
    what: "manifests, and that every path in an accepted one stays beneath its project",
    most_bytes: 8 << 20,
    needs_bytes: 0,
    examples,
    made_up,
    decode,
};

/// The fields of a manifest, in the order of `docs/protocol.md`, as anybody can write them.
#[derive(Debug, Clone, Serialize)]
pub struct RawManifest {
    /// Project, asset, subset and slot.
    pub version: [String; 4],
    /// The silo.
    pub silo: Option<String>,
    /// The generation.
    pub generation: u32,
    /// The one before.
    pub predecessor: Option<[u8; 32]>,
    /// The version directory.
    pub dir: String,
    /// Names and entries.
    pub representations: Vec<(String, String)>,
    /// The files.
    pub files: Vec<RawFile>,
    /// 1 to 3.
    pub completeness: u8,
    /// Author and comment.
    pub notes: [String; 2],
    /// When.
    pub published_at_ms: u64,
    /// What it was made from.
    pub inputs: Vec<String>,
    /// Whatever else.
    pub metadata: BTreeMap<String, String>,
    /// Must be empty.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

/// One file of a [`RawManifest`].
#[derive(Debug, Clone, Serialize)]
pub struct RawFile {
    /// Where.
    pub path: String,
    /// How long.
    pub size: u64,
    /// Its object.
    pub hash: [u8; 32],
    /// When it was changed.
    pub mtime_ns: i64,
    /// Of which representation.
    pub representation: u16,
}

impl RawManifest {
    /// Returns one that is accepted.
    pub fn good() -> Self {
        let file = |path: &str, representation| RawFile {
            path: path.into(),
            size: 3,
            hash: *ObjectHash::of(b"abc").as_bytes(),
            mtime_ns: 1_700_000_000_123_456_789,
            representation,
        };
        Self {
            version: ["lantern", "robot", "modelDefault", "v002"].map(str::to_owned),
            silo: Some("assets".into()),
            generation: 1,
            predecessor: None,
            dir: "assets/robot/publish/modelDefault/v002".into(),
            representations: vec![("abc".into(), "m.abc".into()), ("exr".into(), "m.exr".into())],
            files: vec![file("m.abc", 0), file("m.exr/m.1001.exr", 1), file("m.exr/m.1002.exr", 1)],
            completeness: 1,
            notes: ["anna".into(), "knee fixed".into()],
            published_at_ms: 1_763_800_000_000,
            inputs: vec!["robot/rigDefault@v001".into()],
            metadata: [("fps".to_owned(), "24".to_owned())].into(),
            extensions: Vec::new(),
        }
    }

    /// Writes it, whatever it is.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&b"AVLM\x01\0"[..], &bytes(self)].concat()
    }
}

fn examples() -> Vec<Vec<u8>> {
    let good = RawManifest::good();
    let grown = RawManifest { generation: 2, predecessor: Some([7; 32]), ..good.clone() };
    vec![good.to_bytes(), grown.to_bytes()]
}

fn made_up(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut raw = RawManifest::good();
    for _ in 0..rng.random_range(0..3) {
        match rng.random_range(0..14) {
            0 => raw.version[0] = text(rng, &PROJECTS),
            1 => raw.version[rng.random_range(1..3)] = text(rng, &["robot"]),
            2 => raw.version[3] = text(rng, &SLOTS),
            3 => raw.silo = rng.random_bool(0.5).then(|| text(rng, &["film"])),
            4 => raw.generation = rng.random_range(0..4),
            5 => raw.predecessor = rng.random_bool(0.5).then(|| hash(rng)),
            6 => raw.dir = path(rng),
            7 => raw.representations = list(rng, 50_000, |rng| (text(rng, &["abc", "exr"]), path(rng))),
            8 => {
                raw.files = list(rng, 20_000, |rng| RawFile {
                    path: path(rng),
                    size: number(rng),
                    hash: hash(rng),
                    mtime_ns: rng.random(),
                    representation: rng.random_range(0..3),
                });
                if rng.random_bool(0.8) {
                    raw.files.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
                }
            }
            9 => {
                let at = rng.random_range(0..raw.files.len().max(1));
                if let Some(file) = raw.files.get_mut(at) {
                    file.path = path(rng);
                }
            }
            10 => raw.completeness = rng.random_range(0..5),
            11 => raw.notes[rng.random_range(0..2)] = text(rng, &["anna"]),
            12 => {
                raw.inputs =
                    list(
                        rng,
                        120_000,
                        |rng| if rng.random_bool(0.9) { String::new() } else { text(rng, &["a"]) },
                    )
            }
            _ => {
                raw.metadata =
                    list(rng, 400, |rng| (number(rng).to_string(), text(rng, &["24"]))).into_iter().collect()
            }
        }
    }
    if rng.random_ratio(1, 50) {
        raw.extensions = vec![(1, vec![2]); rng.random_range(0..3)];
    }
    raw.to_bytes()
}

fn path(rng: &mut ChaCha8Rng) -> String {
    text(rng, &["m.abc", "M.ABC", "m.exr/m.1001.exr", "m.exr", "assets/a/b", "straße", "STRASSE"])
}

fn decode(input: &[u8]) -> Outcome {
    Outcome::of(Manifest::decode(input), |manifest| {
        assert_eq!(manifest.encode(), input, "a manifest has one spelling");
        assert_eq!(manifest.id().as_bytes(), blake3::hash(input).as_bytes());
        assert!(!manifest.files().is_empty());
        let mut keys = std::collections::HashSet::new();
        for file in manifest.files() {
            let joined = manifest.dir().join(&file.path).expect("joined paths are within the limits");
            assert_stays_beneath(joined.as_str());
            assert!(keys.insert(file.path.collision_key()), "{} collides", file.path);
            assert!(manifest.representations().get(usize::from(file.representation)).is_some());
        }
        let (files, representations) = (manifest.files().len(), manifest.representations().len());
        format!("{} files, {} representations", about(files), about(representations))
    })
}

/// Panics when a path could leave the directory that it is joined to, here or on Windows.
pub(super) fn assert_stays_beneath(path: &str) {
    assert!(!path.is_empty() && !path.contains(['\\', ':', '\0', '\n']), "{path:?}");
    let parts: Vec<_> = Path::new(path).components().collect();
    assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
    assert_eq!(parts.len(), path.split('/').count(), "{path:?}");
}
