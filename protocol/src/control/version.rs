//! Versions: what there is, where it is, and publishing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ErrorCode;
use crate::{check::CheckProblem, manifest::Completeness};

/// The answer to `ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListReply {
    /// `avalonctl.ls/1`.
    pub schema: String,
    /// The versions in order.
    pub versions: Vec<VersionItem>,
    /// The version behind which to go on, as `after`, where there are more; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How many versions one answer to `ls` has at most, and without a limit.
pub const MAX_LISTED: usize = 10_000;

/// One version in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionItem {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Its representations.
    pub representations: Vec<String>,
    /// How many files it has.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// How much of it is at this node.
    pub here: Presence,
    /// The newest generation.
    pub generation: u32,
    /// Who published it.
    pub author: String,
    /// When.
    pub published: String,
    /// Whether sites disagree about it.
    pub conflict: bool,
    /// Who took it out of use, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<RetiredItem>,
    /// The representations that still grow; looked up only for versions of the last days.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub growing: Vec<String>,
}

/// Who took a version out of use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetiredItem {
    /// Who.
    pub author: String,
    /// Why.
    pub comment: String,
    /// At which node.
    pub node: String,
    /// When.
    pub at: String,
}

/// How much of a version is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// All of its newest generation.
    Complete,
    /// An older generation, or a transfer that is under way.
    Partial,
    /// Nothing.
    None,
}

/// The answer to `where`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhereReply {
    /// `avalonctl.where/1`.
    pub schema: String,
    /// The versions in order.
    pub versions: Vec<WhereItem>,
}

/// Where one version is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhereItem {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The newest generation.
    pub generation: u32,
    /// Its manifest; the first of several when sites disagree.
    pub manifest: String,
    /// Whether sites disagree about it.
    #[serde(default)]
    pub conflict: bool,
    /// The node's of the project, in order.
    pub nodes: Vec<NodeHolding>,
    /// What it was made from; empty too while its manifest has not come.
    #[serde(default)]
    pub inputs: Vec<String>,
}

/// What one node has of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeHolding {
    /// The node, as `ws12`.
    pub node: String,
    /// Its site.
    pub site: String,
    /// How much it has.
    pub state: HoldingState,
    /// How many files of the newest generation it has.
    pub files_present: u64,
    /// How many there are.
    pub files_total: u64,
    /// When all its bytes were last read again and found as published; only this node's own, and only what it holds whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<String>,
}

/// How much a node has of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HoldingState {
    /// All of it, durable and verified.
    Complete,
    /// A part: an older generation, or a transfer that is under way.
    Partial,
    /// Nothing yet; it is going to fetch it.
    Queued,
    /// Nothing.
    None,
}

/// The answer to `info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InfoReply {
    /// `avalonctl.info/1`.
    pub schema: String,
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The manifest's name.
    pub manifest: String,
    /// The generation.
    pub generation: u32,
    /// How it was known to be whole.
    pub completeness: Completeness,
    /// Who published it.
    pub author: String,
    /// The node that it was published at.
    pub node: String,
    /// What they said.
    pub comment: String,
    /// When.
    pub published: String,
    /// Who took it out of use, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<RetiredItem>,
    /// The representations that still grow: somebody is at work in it where it was published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub growing: Vec<String>,
    /// The version directory at this node, whether it is there or not.
    pub path: Option<String>,
    /// The version directory, relative to the project.
    #[serde(default)]
    pub dir: String,
    /// How much of it is here.
    pub here: Presence,
    /// How many of its files lie in their place here.
    #[serde(default)]
    pub files_here: u64,
    /// Which ones, in short, where it is not all: `beauty.[1001-1041x10].exr`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub some_here: Vec<String>,
    /// The files, in the order of their paths.
    pub files: Vec<FileItem>,
    /// What it was made from.
    pub inputs: Vec<String>,
    /// What else the pipeline said.
    pub metadata: BTreeMap<String, String>,
    /// What checks found.
    #[serde(default)]
    pub problems: Vec<CheckProblem>,
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileItem {
    /// Relative to the version directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its content, as `b3sum` prints it.
    pub hash: String,
    /// Its representation.
    pub representation: String,
}

/// Asks to publish what is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishRequest {
    /// Absolute paths: version directories, files in them, or directories above.
    pub paths: Vec<String>,
    /// What there is to say.
    #[serde(default)]
    pub comment: String,
    /// Who publishes; the file's owner or the caller when empty.
    #[serde(default)]
    pub author: String,
    /// What it was made from: references or paths.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// What else to keep: family, task, fps.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// The answer to `publish`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishReply {
    /// `avalonctl.publish/1`.
    pub schema: String,
    /// Every version directory that the paths lead to.
    pub versions: Vec<PublishItem>,
}

/// What became of one version directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishItem {
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What became of it.
    pub state: PublishState,
    /// Why it was refused, or what to look at.
    pub messages: Vec<String>,
    /// What kind of error refused it.
    pub error: Option<ErrorCode>,
    /// The generation that stands now.
    pub generation: u32,
    /// Its manifest; empty when refused.
    pub manifest: String,
    /// How many files it has.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// What checks found; it is published all the same.
    #[serde(default)]
    pub problems: Vec<CheckProblem>,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PublishState {
    /// It is recorded and durable.
    Published,
    /// It was known already, just so.
    Unchanged,
    /// It was not published; the messages say why.
    Refused,
}
