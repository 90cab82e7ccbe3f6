//! Where a version that does not exist yet would lie.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer to `destination`. Nothing is reserved by asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DestinationReply {
    /// `avalonctl.destination/1`.
    pub schema: String,
    /// The version in full, with its number.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The version directory at this node; it is not there yet.
    pub path: String,
    /// The path that the template gives the representation, relative to the version directory; none when none was asked for.
    pub entry: Option<String>,
}
