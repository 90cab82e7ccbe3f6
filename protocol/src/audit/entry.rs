//! [`AuditEntry`]: one thing that somebody did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest text in an entry, in bytes; what is longer is cut.
const MAX_TEXT_BYTES: usize = 1024;
/// Most things that an entry is about; of more it says how many.
const MAX_ABOUT: usize = 16;
/// Most details.
const MAX_DETAILS: usize = 16;

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, from 0.
    pub seq: u64,
    /// When, by the node's clock: RFC 3339 in UTC with milliseconds. Clocks jump; the order is that of the numbers.
    pub at: String,
    /// The node whose audit it is.
    pub node: String,
    /// What happened.
    #[serde(flatten)]
    pub fact: AuditFact,
}

/// What happened, without its place in the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditFact {
    /// Who did it.
    pub actor: AuditActor,
    /// What they did.
    pub action: AuditAction,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// The project, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The versions, paths, nodes or hashes that it is about, as they were named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub about: Vec<String>,
    /// What else is to be known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum AuditActor {
    /// A user of this machine, as the kernel says.
    User {
        /// Their number.
        uid: u32,
        /// Their name at that time.
        name: String,
    },
    /// Whoever has the token of the local API on TCP.
    Token,
    /// Another node, by its certificate.
    Peer {
        /// Its name, or its address when it never showed a certificate that counts.
        node: String,
    },
    /// The daemon by itself.
    Daemon,
}

/// What somebody did. A word that this version does not know reads as [`AuditAction::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditAction {
    /// A file of the audit begins; the detail `after` is the hash of the entry before.
    Begin,
    /// A crash had torn the end of the audit; it was cut off.
    Repair,
    /// Entries were lost, because they could not be written or too many came.
    Lost,
    /// Old files of the audit were removed, as the configuration says.
    Forget,
    /// The audit was read or checked.
    Audit,
    /// The daemon started.
    Start,
    /// The daemon was told to stop.
    Stop,
    /// The configuration was read again.
    Reload,
    /// A version was published, or somebody asked for it.
    Publish,
    /// Somebody asked for versions.
    Pull,
    /// Content was given to a peer.
    Serve,
    /// A version became visible at this node.
    Place,
    /// A version was dropped at this node, or somebody asked for it.
    Drop,
    /// A version was taken out of use.
    Retire,
    /// A version was brought back.
    Restore,
    /// Changes in place were accepted.
    Accept,
    /// A conflict was decided.
    Resolve,
    /// A number was asked for.
    Reserve,
    /// Versions were pinned or unpinned.
    Pin,
    /// Jobs were paused, resumed or put into another order.
    Queue,
    /// A job was given up.
    Cancel,
    /// A limit was set or cleared.
    Limit,
    /// A policy was applied.
    Policy,
    /// The catalog was rebuilt, verified, exported or imported.
    Catalog,
    /// Files were read again, or found damaged.
    Verify,
    /// A feed was released or settled, or found to have two histories.
    Feed,
    /// A hook ran.
    Hook,
    /// A node connected, or was refused.
    Connect,
    /// A join token was made or withdrawn.
    Invite,
    /// A node joined the studio.
    Join,
    /// A certificate was issued or renewed.
    Certificate,
    /// A node was revoked.
    Revoke,
    /// A grant was given or taken.
    Grant,
    /// A state of the daemon was read over the local API.
    Read,
    /// A call of the local API that has no word of its own.
    Call,
    /// A newer version wrote a word that this one does not know.
    #[serde(other)]
    Other,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditOutcome {
    /// It begins: calls that need the role admin are written before they are carried out.
    Asked,
    /// It was done.
    Done,
    /// It was not allowed.
    Denied,
    /// It was allowed and did not succeed.
    Failed,
}

impl AuditAction {
    /// Returns the word that stands in the audit.
    pub fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

impl AuditOutcome {
    /// Returns the word that stands in the audit.
    pub fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Done => "done",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

impl std::fmt::Display for AuditActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User { name, uid } => write!(f, "{name} (uid {uid})"),
            Self::Token => f.write_str("the API token"),
            Self::Peer { node } => f.write_str(node),
            Self::Daemon => f.write_str("avalond"),
        }
    }
}

impl AuditFact {
    /// Says that something was done, about nothing in particular.
    pub fn new(actor: AuditActor, action: AuditAction, outcome: AuditOutcome) -> Self {
        Self { actor, action, outcome, project: None, about: Vec::new(), detail: BTreeMap::new() }
    }

    /// Says that the daemon did something.
    pub fn daemon(action: AuditAction) -> Self {
        Self::new(AuditActor::Daemon, action, AuditOutcome::Done)
    }

    /// Names the project.
    #[must_use]
    pub fn project(self, project: impl Into<String>) -> Self {
        Self { project: Some(project.into()), ..self }
    }

    /// Adds something that it is about.
    #[must_use]
    pub fn about(mut self, what: impl Into<String>) -> Self {
        self.about.push(what.into());
        self
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<String>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }

    /// Cuts what is too long, so that a line never has more than [`MAX_LINE_BYTES`](super::MAX_LINE_BYTES).
    #[must_use]
    pub fn bounded(mut self) -> Self {
        while self.detail.len() > MAX_DETAILS {
            self.detail.pop_last();
        }
        self.detail = self.detail.into_iter().map(|(key, value)| (cut(key), cut(value))).collect();
        if self.about.len() > MAX_ABOUT {
            let more = self.about.len() - MAX_ABOUT;
            self.about.truncate(MAX_ABOUT);
            self.detail.insert("about_more".into(), more.to_string());
        }
        self.about = self.about.into_iter().map(cut).collect();
        self.project = self.project.map(cut);
        match &mut self.actor {
            AuditActor::User { name, .. } | AuditActor::Peer { node: name } => {
                *name = cut(std::mem::take(name));
            }
            AuditActor::Token | AuditActor::Daemon => {}
        }
        self
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        let end = (0..=MAX_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}
