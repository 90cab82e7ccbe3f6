//! The canonical bytes of a manifest: `AVLM`, the format number, then the fields in postcard. `docs/storage.md`
//! describes them. Decoding encodes again and compares, so that one manifest has exactly one spelling and one name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Completeness, FileEntry, InvalidManifest, Manifest, ManifestDraft, Representation};
use crate::{
    bounded,
    hash::{ManifestId, ObjectHash},
    id::{AssetName, ProjectName, RepresentationName, SiloName, SubsetName, VersionId, VersionSlot},
    limits::{MAX_INPUTS, MAX_MANIFEST_BYTES, MAX_MANIFEST_FILES, MAX_METADATA_PAIRS, MAX_REPRESENTATIONS},
    rel_path::RelPath,
};

/// The first four bytes of every manifest.
pub const MAGIC: [u8; 4] = *b"AVLM";
/// The format that this code writes; a later one is refused.
pub const FORMAT: u16 = 1;

/// Why bytes are not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Longer than the limit, too short, or without the magic.
    #[error("the bytes are not a manifest")]
    NotAManifest,
    /// Written by a newer version of this software.
    #[error("the manifest has format {format}, this version reads up to {FORMAT}; upgrade avalond here")]
    NewerFormat {
        /// The format that it has.
        format: u16,
    },
    /// The fields do not parse.
    #[error("the manifest is damaged")]
    Damaged(#[source] postcard::Error),
    /// The same manifest could be written in another way: not what our encoder writes.
    #[error("the manifest is not in canonical form")]
    NotCanonical,
    /// It parses and breaks a rule.
    #[error("the manifest is refused")]
    Invalid(#[source] InvalidManifest),
}

/// The fields in their order on disk and on the wire. Postcard is positional: never change, only add a format.
#[derive(Serialize, Deserialize)]
struct BodyV1 {
    project: ProjectName,
    asset: AssetName,
    subset: SubsetName,
    slot: VersionSlot,
    silo: Option<SiloName>,
    generation: u32,
    predecessor: Option<ManifestId>,
    dir: RelPath,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_REPRESENTATIONS>")]
    representations: Vec<(RepresentationName, RelPath)>,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_MANIFEST_FILES>")]
    files: Vec<FileV1>,
    completeness: u8,
    author: String,
    comment: String,
    published_at_ms: u64,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_INPUTS>")]
    inputs: Vec<String>,
    #[serde(deserialize_with = "bounded::map::<_, _, _, MAX_METADATA_PAIRS>")]
    metadata: BTreeMap<String, String>,
    /// Reserved; empty in this format, and refused otherwise, because one manifest has one spelling.
    #[serde(deserialize_with = "bounded::list::<_, _, 0>")]
    extensions: Vec<(u16, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct FileV1 {
    path: RelPath,
    size: u64,
    hash: ObjectHash,
    mtime_ns: i64,
    representation: u16,
}

impl Manifest {
    /// Returns the canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.draft)
    }

    /// Reads canonical bytes and checks everything.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing of a refused manifest is usable.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(DecodeError::NotAManifest);
        }
        let rest = bytes.strip_prefix(&MAGIC).ok_or(DecodeError::NotAManifest)?;
        let (format, body) = rest.split_first_chunk::<2>().ok_or(DecodeError::NotAManifest)?;
        let format = u16::from_le_bytes(*format);
        if format != FORMAT {
            return Err(DecodeError::NewerFormat { format });
        }
        let body: BodyV1 = postcard::from_bytes(body).map_err(DecodeError::Damaged)?;
        let draft = draft_of(body).ok_or(DecodeError::NotCanonical)?;
        let manifest = draft.finish().map_err(DecodeError::Invalid)?;
        if manifest.encode() == bytes { Ok(manifest) } else { Err(DecodeError::NotCanonical) }
    }
}

pub(super) fn encode(draft: &ManifestDraft) -> Vec<u8> {
    let body = BodyV1 {
        project: draft.version.project.clone(),
        asset: draft.version.asset.clone(),
        subset: draft.version.subset.clone(),
        slot: draft.version.slot,
        silo: draft.silo.clone(),
        generation: draft.generation,
        predecessor: draft.predecessor,
        dir: draft.dir.clone(),
        representations: draft.representations.iter().map(|r| (r.name.clone(), r.entry.clone())).collect(),
        files: draft.files.iter().map(file_v1).collect(),
        completeness: completeness_tag(draft.completeness),
        author: draft.author.clone(),
        comment: draft.comment.clone(),
        published_at_ms: draft.published_at_ms,
        inputs: draft.inputs.clone(),
        metadata: draft.metadata.clone(),
        extensions: Vec::new(),
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    #[expect(clippy::expect_used, reason = "plain data into a vector: postcard has nothing to fail on")]
    let body = postcard::to_stdvec(&body).expect("a manifest always serialises");
    bytes.extend_from_slice(&body);
    bytes
}

fn file_v1(file: &FileEntry) -> FileV1 {
    FileV1 {
        path: file.path.clone(),
        size: file.size,
        hash: file.hash,
        mtime_ns: file.mtime_ns,
        representation: file.representation,
    }
}

fn draft_of(body: BodyV1) -> Option<ManifestDraft> {
    let file = |f: FileV1| FileEntry {
        path: f.path,
        size: f.size,
        hash: f.hash,
        mtime_ns: f.mtime_ns,
        representation: f.representation,
    };
    Some(ManifestDraft {
        version: VersionId { project: body.project, asset: body.asset, subset: body.subset, slot: body.slot },
        silo: body.silo,
        generation: body.generation,
        predecessor: body.predecessor,
        dir: body.dir,
        representations: body
            .representations
            .into_iter()
            .map(|(name, entry)| Representation { name, entry })
            .collect(),
        files: body.files.into_iter().map(file).collect(),
        completeness: completeness_of(body.completeness)?,
        author: body.author,
        comment: body.comment,
        published_at_ms: body.published_at_ms,
        inputs: body.inputs,
        metadata: body.metadata,
    })
}

fn completeness_tag(completeness: Completeness) -> u8 {
    match completeness {
        Completeness::Explicit => 1,
        Completeness::EndMarks => 2,
        Completeness::Quiet => 3,
    }
}

fn completeness_of(tag: u8) -> Option<Completeness> {
    [Completeness::Explicit, Completeness::EndMarks, Completeness::Quiet]
        .into_iter()
        .find(|completeness| completeness_tag(*completeness) == tag)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn draft() -> ManifestDraft {
        let file = |path: &str, representation| FileEntry {
            path: path.parse().unwrap(),
            size: 3,
            hash: ObjectHash::of(b"abc"),
            mtime_ns: 1_700_000_000_123_456_789,
            representation,
        };
        ManifestDraft {
            version: VersionId {
                project: "lantern".parse().unwrap(),
                asset: "robot".parse().unwrap(),
                subset: "modelDefault".parse().unwrap(),
                slot: VersionSlot::Number(2),
            },
            silo: Some("assets".parse().unwrap()),
            generation: 1,
            predecessor: None,
            dir: "assets/robot/publish/modelDefault/v002".parse().unwrap(),
            representations: ["abc", "usdc"]
                .map(|name| Representation {
                    name: name.parse().unwrap(),
                    entry: format!("modelDefault.{name}").parse().unwrap(),
                })
                .to_vec(),
            files: vec![file("modelDefault.usdc", 1), file("modelDefault.abc", 0)],
            completeness: Completeness::Explicit,
            author: "anna".into(),
            comment: "knee fixed".into(),
            published_at_ms: 1_763_800_000_000,
            inputs: vec!["robot/rigDefault@v001".into()],
            metadata: BTreeMap::from([("fps".into(), "24".into())]),
        }
    }

    const GOLDEN: &[&str] = &[
        "41564c4d0100076c616e7465726e05726f626f740c6d6f64656c44656661756c74047630303201066173736574",
        "730100266173736574732f726f626f742f7075626c6973682f6d6f64656c44656661756c742f76303032020361",
        "6263106d6f64656c44656661756c742e6162630475736463116d6f64656c44656661756c742e7573646302106d",
        "6f64656c44656661756c742e616263036437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5",
        "bd9d85aab4aed8c7bfce972f00116d6f64656c44656661756c742e75736463036437b3ac38465133ffb63b7527",
        "3a8db548c558465d79db03fd359c6cd5bd9d85aab4aed8c7bfce972f010104616e6e610a6b6e65652066697865",
        "6480ccb0d5aa330115726f626f742f72696744656661756c744076303031010366707302323400",
    ];

    /// Frozen: a change here means a new format number, not a new expectation.
    #[test]
    fn golden_bytes_and_name_of_format_1() {
        let manifest = draft().finish().unwrap();
        assert_eq!(hex::encode(manifest.encode()), GOLDEN.concat());
        assert_eq!(
            manifest.id().to_string(),
            "d2ee3ddfb963195923582db6b060277044eacc266a54718cef6a4c0fdc749f63"
        );
        assert_eq!(
            manifest.content().to_string(),
            "1c553ba45563130ed1bc7f23773c8482a40787d16eccf7777be39558e0145e13"
        );
    }

    #[test]
    fn decodes_what_it_encodes() {
        let manifest = draft().finish().unwrap();
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn content_does_not_depend_on_who_and_when() {
        let mut other = draft();
        (other.author, other.published_at_ms) = ("ben".into(), 5);
        other.files[0].mtime_ns = 1;
        let (one, two) = (draft().finish().unwrap(), other.finish().unwrap());
        assert_eq!(one.content(), two.content());
        assert_ne!(one.id(), two.id());
    }

    #[test]
    fn every_truncation_and_flip_is_refused_or_another_manifest() {
        let manifest = draft().finish().unwrap();
        let bytes = manifest.encode();
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 0x10;
            if let Ok(other) = Manifest::decode(&flipped) {
                assert_ne!(other.id(), manifest.id());
            }
        }
    }

    #[test]
    fn a_newer_format_and_trailing_bytes_are_refused() {
        let mut bytes = draft().finish().unwrap().encode();
        bytes.push(0);
        assert_eq!(Manifest::decode(&bytes), Err(DecodeError::NotCanonical));
        bytes[4] = 9;
        assert_eq!(Manifest::decode(&bytes), Err(DecodeError::NewerFormat { format: 9 }));
    }

    fn check_refused(change: impl FnOnce(&mut ManifestDraft), expected: &str) {
        let mut changed = draft();
        change(&mut changed);
        assert_eq!(changed.finish().unwrap_err().to_string(), expected);
    }

    #[test]
    fn rules_name_what_breaks_them() {
        check_refused(|d| d.files.clear(), "the version has no files");
        check_refused(
            |d| d.files[0].path = "modelDefault.abc".parse().unwrap(),
            "the file modelDefault.abc stands twice in the manifest or out of order",
        );
        check_refused(
            |d| d.files[0].path = "MODELDEFAULT.abc".parse().unwrap(),
            "MODELDEFAULT.abc and modelDefault.abc are one name where case or Unicode composition is ignored; \
             rename one of them",
        );
        check_refused(
            |d| d.files[0].path = "modelDefault.abc/x".parse().unwrap(),
            "modelDefault.abc is a file and also a directory of other files",
        );
        check_refused(
            |d| d.files[0].representation = 7,
            "the representations of modelDefault.usdc do not fit its files",
        );
        check_refused(|d| d.generation = 2, "generation 2 does not fit its predecessor");
        check_refused(
            |d| d.dir = ".avalon/x".parse().unwrap(),
            "the version directory .avalon/x lies in .avalon, which is never synced",
        );
        check_refused(|d| d.comment = "x".repeat(20_000), "the comment of the manifest is over its limit");
    }
}
