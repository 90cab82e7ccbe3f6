//! `reserve`: a version number that nobody else publishes under.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for a number of a subset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReserveRequest {
    /// The subset, `asset/subset`; with a version that very number, otherwise the next.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The project of a reference that names none.
    #[serde(default)]
    pub project: Option<String>,
}

/// The answer to `reserve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReserveReply {
    /// `avalonctl.reserve/1`.
    pub schema: String,
    /// The version that this node may publish, in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Its number.
    pub number: u32,
}
