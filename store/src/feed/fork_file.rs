//! Proofs of forks on disk: `forks/<project>/<node@site>.json`, written once, kept for whoever has to decide.
//!
//! While such a file lies there, nothing more of its feed is taken. One that cannot be read freezes the feed all the same:
//! it says by its name which.

use std::io::{self, Read as _};

use avalon_protocol::{
    feed::{FeedId, SealedGroup},
    fork::ForkProof,
    id::{NodeId, ProjectName},
    rel_path::RelPath,
};
use serde::{Deserialize, Serialize};

use crate::{
    error_chain::ErrorChain,
    fs::{Dir, FileKind, IoError, WriteMode},
};

const SCHEMA: &str = "avalond.fork/1";
/// Two groups in hexadecimal digits, and some words.
const MAX_BYTES: u64 = 8 << 20;

/// A feed with two histories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The feed.
    pub feed: FeedId,
    /// The two groups; none when the file that had them is damaged.
    pub proof: Option<ForkProof>,
    /// What somebody said about it.
    pub settled: Option<Settled>,
}

/// That a person knows of a fork and has done what was to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Who said so.
    pub by: String,
    /// What they said.
    pub comment: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    schema: String,
    feed: String,
    record: u64,
    ours: Hex,
    theirs: Hex,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<Settled>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Hex {
    body: String,
    signature: String,
}

impl Hex {
    fn of(group: &SealedGroup) -> Self {
        Self { body: hex::encode(&group.body), signature: hex::encode(&group.signature) }
    }

    fn group(&self) -> Option<SealedGroup> {
        let (body, signature) = (hex::decode(&self.body).ok()?, hex::decode(&self.signature).ok()?);
        Some(SealedGroup { body, signature })
    }
}

/// The directory of all proofs.
#[derive(Debug, Clone)]
pub(crate) struct ForkFiles {
    dir: Dir,
}

impl ForkFiles {
    pub(crate) fn new(dir: Dir) -> Self {
        Self { dir }
    }

    /// Returns all that lie there.
    pub(crate) fn all(&self) -> Result<Vec<Fork>, IoError> {
        let mut forks = Vec::new();
        for entry in self.dir.list(None)? {
            let Ok(project) = entry.display_name().parse::<ProjectName>() else { continue };
            let path = path_in(&self.dir, project.as_str())?;
            for entry in self.dir.list(Some(&path))? {
                let name = entry.display_name();
                let node = name.strip_suffix(".json").and_then(|name| name.parse::<NodeId>().ok());
                if let (FileKind::File, Some(node)) = (entry.kind, node) {
                    forks.push(self.read(FeedId { project: project.clone(), node }));
                }
            }
        }
        Ok(forks)
    }

    fn read(&self, feed: FeedId) -> Fork {
        let bytes = self.bytes(&feed).unwrap_or_else(|error| {
            tracing::error!(%feed, error = %ErrorChain(&error), "the proof of a fork cannot be read");
            Vec::new()
        });
        let file = serde_json::from_slice::<File>(&bytes).ok().filter(|file| file.schema == SCHEMA);
        let proof = file.as_ref().and_then(|file| {
            let (ours, theirs) = (file.ours.group()?, file.theirs.group()?);
            Some(ForkProof { feed: feed.clone(), seq: file.record, ours, theirs }).filter(ForkProof::holds)
        });
        if proof.is_none() {
            tracing::error!(%feed, "the proof of a fork is damaged; the feed stays frozen");
        }
        Fork { feed, proof, settled: file.and_then(|file| file.settled) }
    }

    fn bytes(&self, feed: &FeedId) -> Result<Vec<u8>, IoError> {
        let path = self.path(feed)?;
        let mut bytes = Vec::new();
        let read = self.dir.open_file(&path)?.take(MAX_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| IoError::new("read", self.dir.path().join(path.as_str()), error))?;
        Ok(bytes)
    }

    fn path(&self, feed: &FeedId) -> Result<RelPath, IoError> {
        path_in(&self.dir, &format!("{}/{}.json", feed.project, feed.node))
    }

    /// Makes a proof durable.
    pub(crate) fn write(&self, proof: &ForkProof, settled: Option<&Settled>) -> Result<(), IoError> {
        let file = File {
            schema: SCHEMA.to_owned(),
            feed: proof.feed.to_string(),
            record: proof.seq,
            ours: Hex::of(&proof.ours),
            theirs: Hex::of(&proof.theirs),
            settled: settled.cloned(),
        };
        let path = self.path(&proof.feed)?;
        let mut bytes = serde_json::to_vec_pretty(&file)
            .map_err(|error| IoError::new("write", self.dir.path().join(path.as_str()), error))?;
        bytes.push(b'\n');
        self.dir.create_dirs(&path_in(&self.dir, proof.feed.project.as_str())?)?;
        self.dir.write_atomic(&path, &bytes, WriteMode::Replace)
    }
}

/// Turns names into a path beneath a directory.
pub(crate) fn path_in(dir: &Dir, text: &str) -> Result<RelPath, IoError> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidFilename, error);
    text.parse().map_err(|error| IoError::new("name", dir.path().join(text), invalid(error)))
}
