//! Limits on the content that a node sends and receives, as they are asked for and shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limit::{Class, Direction};

/// A limit to be set. One with the same direction, site, class and times gets the new rate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitRequest {
    /// How much, as `200Mbit/s`, `25MB/s` or `24MiB/s`; `0` for nothing at all.
    pub rate: String,
    /// Which way; each way its own limit when it is not given.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// With which site; with all others when it is not given.
    #[serde(default)]
    pub site: Option<String>,
    /// Of what urgency; of any when it is not given.
    #[serde(default)]
    pub class: Option<Class>,
    /// When, as `mon-fri 09:00-19:00`; always when it is not given.
    #[serde(default)]
    pub when: Option<String>,
}

/// The limits of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitsReply {
    /// `avalonctl.limit/1`.
    pub schema: String,
    /// The limits: those of the configuration first. After a change, those that were set or cleared.
    pub limits: Vec<LimitItem>,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LimitItem {
    /// Its id, to clear it.
    pub id: String,
    /// Where it comes from.
    pub origin: LimitOrigin,
    /// How much, in words.
    pub rate: String,
    /// How much.
    pub rate_bytes_per_second: u64,
    /// Which way.
    pub direction: Direction,
    /// With which site.
    pub site: Option<String>,
    /// Of what urgency.
    pub class: Option<Class>,
    /// When, in words.
    pub when: String,
    /// Whether this is one of these times.
    pub holds: bool,
    /// What it let through in the last five seconds.
    pub bytes_per_second: f64,
}

/// Where a limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitOrigin {
    /// The configuration file.
    Config,
    /// A command.
    Live,
}
