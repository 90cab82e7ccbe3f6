//! What a node of a released version wrote and said, kept so that later versions go on with it.
//!
//! A recording is a directory, `tests/data/recorded/VERSION`: the studio's authority (its key lies open and is worth nothing), the
//! state directory of a node without its identity, the files of its project, what the node said to a peer and answered, and what its
//! local API told about all that. It is never changed; a release adds its own.

#![expect(clippy::disallowed_methods, reason = "real processes live in real time")]

mod record;
mod talk;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use avalon_protocol::{
    control::{LimitsReply, ListReply, VersionItem},
    mode::ProjectMode,
};
use serde::{Deserialize, Serialize};

pub use self::{
    record::record,
    talk::{Ended, Talk},
};
use crate::daemons::{Programs, Studio, daemon::Daemon, tree};

/// The node that was recorded.
pub const WRITER: &str = "srv@london";

/// What the recorded node told of itself, and what a copy of the recording cannot keep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    /// Its version.
    pub version: String,
    /// Its list of versions.
    pub list: ListReply,
    /// Its limits that a command has set.
    pub limits: LimitsReply,
    /// The serial of the policy.
    pub policy_serial: u64,
    /// When each file of the project was changed, in nanoseconds since 1970: a checkout forgets it.
    pub mtimes_ns: BTreeMap<PathBuf, u64>,
    /// Frames that it said on the control stream, one after the other, in hexadecimal.
    pub said: Vec<String>,
    /// What it was asked, and what it answered, likewise.
    pub answers: Vec<Answer>,
}

/// A request and all that came for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What it is about, for people.
    pub what: String,
    /// The frame.
    pub request: String,
    /// The bytes.
    pub answer: String,
}

/// A recording.
#[derive(Debug)]
pub struct Recording {
    dir: PathBuf,
    /// What was told then.
    pub told: Told,
}

impl Recording {
    /// Returns all recordings, of which there is at least one.
    pub fn all() -> Vec<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/recorded");
        let mut dirs: Vec<PathBuf> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        dirs.sort();
        assert!(!dirs.is_empty(), "nothing recorded in {}", dir.display());
        dirs.into_iter().map(Self::open).collect()
    }

    fn open(dir: PathBuf) -> Self {
        let told = serde_json::from_slice(&fs::read(dir.join("told.json")).unwrap()).unwrap();
        Self { dir, told }
    }

    /// Makes its studio anew, with the same authority.
    pub fn studio(&self, programs: Programs) -> Studio {
        Studio::with_authority(programs, &self.dir.join("ca"))
    }

    /// Makes a node that is not started, with what the recorded one left behind.
    pub fn take_up(&self, studio: &Studio) -> Daemon {
        let daemon = studio.node(WRITER, ProjectMode::Mirror);
        tree::copy_private(&self.dir.join("state"), &daemon.config.state_dir);
        tree::copy(&self.dir.join("root"), &daemon.config.root);
        for (path, at_ns) in &self.told.mtimes_ns {
            let file = fs::File::options().write(true).open(daemon.config.root.join(path)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(*at_ns)).unwrap();
        }
        daemon
    }

    /// Returns what the node said on the control stream, frame by frame.
    pub fn said(&self) -> Vec<Vec<u8>> {
        self.told.said.iter().map(|frame| from_hex(frame)).collect()
    }
}

/// Returns what is told of each version wherever and whenever somebody asks.
pub fn lasting(list: &ListReply) -> Vec<String> {
    let line = |item: &VersionItem| {
        let VersionItem { reference, representations, files, bytes, generation, author, published, .. } =
            item;
        let retired = item.retired.as_ref().map(|retired| (&retired.author, &retired.comment, &retired.at));
        let conflict = item.conflict;
        format!(
            "{reference} {representations:?}, {files} files of {bytes}, {generation} by {author} at {published}, conflict: \
             {conflict}, retired: {retired:?}"
        )
    };
    list.versions.iter().map(line).collect()
}

/// Writes bytes in hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads bytes in hexadecimal.
pub fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
