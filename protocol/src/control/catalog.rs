//! The catalog: derived, so it can be checked and rebuilt at any time.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer to `catalog rebuild` and `catalog import`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RebuildReply {
    /// `avalonctl.catalog-rebuild/1` or `avalonctl.catalog-import/1`.
    pub schema: String,
    /// The generation of the new catalog.
    pub generation: u64,
    /// How many records it stands for.
    pub records: u64,
    /// How many of them were read from the feeds; a checkpoint or the export had the others.
    #[serde(default)]
    pub replayed: u64,
    /// How many rows were written.
    pub rows: u64,
    /// How long it took.
    pub seconds: f64,
}

/// The answer to `catalog verify`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VerifyReply {
    /// `avalonctl.catalog-verify/1`.
    pub schema: String,
    /// Whether nothing is missing, added or changed.
    pub ok: bool,
    /// How many rows were read.
    pub rows: u64,
    /// What is wrong.
    pub problems: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// The answer to `catalog stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CatalogStatsReply {
    /// `avalonctl.catalog-stats/1`.
    pub schema: String,
    /// The generation of the catalog.
    pub generation: u64,
    /// How many versions it knows.
    pub versions: u64,
    /// How many manifests.
    pub manifests: u64,
    /// How many files of this node's project trees.
    pub local_files: u64,
    /// How many feeds.
    pub feeds: u64,
    /// How many records they have.
    pub records: u64,
    /// What the catalog takes on disk.
    pub disk_bytes: u64,
    /// How many rows it has.
    #[serde(default)]
    pub rows: u64,
    /// What its rows take by themselves.
    #[serde(default)]
    pub live_bytes: u64,
    /// How many records the newest checkpoint stands for; 0 without one.
    #[serde(default)]
    pub checkpoint_records: u64,
}
