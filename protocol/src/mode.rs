//! Whether a node fetches a project's versions by itself.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a node takes part in a project. A studio-wide policy will refine it; this is the node's own default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectMode {
    /// Every published version is fetched as it appears.
    Mirror,
    /// Versions are known, and fetched when somebody pulls them.
    #[default]
    OnDemand,
}

impl fmt::Display for ProjectMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mirror => "mirror",
            Self::OnDemand => "on-demand",
        })
    }
}
