//! Reading the files of versions again: whether they still hold what was published.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks to read versions that this node holds, all bytes of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyRequest {
    /// References, as `[project:]asset/subset[@version]`, with globs, or names of projects; everything that is held without.
    #[serde(default)]
    pub refs: Vec<String>,
    /// The project of references that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Whether what is damaged is fetched again from another node.
    #[serde(default)]
    pub repair: bool,
}

/// How such a reading stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerifyStatus {
    /// `avalonctl.verify/1`.
    pub schema: String,
    /// Its id, until the daemon stops or a hundred others have ended after it.
    pub id: String,
    /// Whether it goes on.
    pub state: VerifyState,
    /// Whether what is damaged is fetched again.
    pub repair: bool,
    /// How many versions there are to read.
    pub versions_total: u64,
    /// How many of them were read.
    pub versions_done: u64,
    /// How many bytes they have.
    pub bytes_total: u64,
    /// How many of these were read.
    pub bytes_done: u64,
    /// How long it takes so far.
    pub seconds: f64,
    /// The version that is read now, or repaired.
    pub current: Option<String>,
    /// What is not as it was published, in the order in which it was found, 1000 at most.
    pub damaged: Vec<DamagedFile>,
    /// How many more of them are not listed.
    #[serde(default)]
    pub damaged_more: u64,
    /// Versions of which nothing can be said, each with why: somebody writes there, or the project is paused. 1000 at most.
    pub unread: Vec<String>,
}

/// Whether a reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyState {
    /// It does.
    Running,
    /// All was read.
    Done,
    /// Somebody ended it.
    Cancelled,
}

/// A file that is not as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DamagedFile {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The manifest that says how the file should be.
    pub manifest: String,
    /// The file, relative to the project.
    pub path: String,
    /// What is wrong with it.
    pub damage: DamageKind,
    /// The same in words.
    pub detail: String,
    /// What was done about it.
    pub repair: RepairState,
    /// Why it was not repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DamageKind {
    /// It is not there.
    Missing,
    /// Size and time are as published, and the bytes are not: they rotted.
    Rot,
    /// Its time is as published, and its size is not.
    Size,
    /// The disk cannot give it back, or the daemon may not read it.
    Unreadable,
    /// Somebody wrote it: its time is another one, and so are its bytes.
    Changed,
}

impl DamageKind {
    /// Says whether the disk did that: what is there is worth nothing, and is replaced when somebody wants a repair.
    pub fn is_of_disk(self) -> bool {
        matches!(self, Self::Rot | Self::Size | Self::Unreadable)
    }

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Rot => "rot",
            Self::Size => "size",
            Self::Unreadable => "unreadable",
            Self::Changed => "changed",
        }
    }
}

/// What was done about a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RepairState {
    /// Nothing: nobody asked for it, or a person has to decide.
    None,
    /// Nothing can be: no other node is known to have it. The file stays where it is.
    NoCopy,
    /// Nobody who has it can be reached; it is fetched when somebody comes. The file stays until then.
    Waiting,
    /// It is being fetched.
    Fetching,
    /// It was fetched, verified and put in its place; the damaged file is in the trash.
    Repaired,
    /// It could not be fetched or put in its place.
    Failed,
}

/// How the reading by itself stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubStatus {
    /// What it does.
    pub state: ScrubState,
    /// How many versions were read since the daemon started, by commands too.
    pub versions_verified: u64,
    /// How many bytes.
    pub bytes_verified: u64,
    /// How many damaged files were found since then.
    pub files_damaged: u64,
    /// How many held versions are due, as far as it has looked.
    pub versions_due: u64,
    /// When the version that was not read for longest was read or published, as far as it has looked.
    pub oldest: Option<String>,
}

/// What the reading by itself does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScrubState {
    /// The configuration wants none.
    Off,
    /// Nothing is due.
    Idle,
    /// It reads.
    Running,
    /// It waits: for its hours, for transfers to end, or for somebody's own verify.
    Waiting,
}
