//! What a side is told of the policy that may not see every project: see [`Policy::extract`](crate::policy::Policy::extract).
//!
//! Only for peers whose greeting has [`FEATURE_EXTRACT`].

use serde::{Deserialize, Serialize};

use super::frame::{self, FrameError};
use crate::limits::MAX_POLICY_BYTES;

/// The bit of [`Hello::features`](super::Hello::features) that says: this side takes a [`PolicyExtract`].
pub const FEATURE_EXTRACT: u64 = 16;

/// Type 33: what the receiver may know of the policy in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyExtract {
    /// The serial of the policy.
    pub serial: u64,
    /// The extract; at most [`MAX_POLICY_BYTES`].
    pub document: String,
}

pub(super) const EXTRACT: u16 = 33;

impl PolicyExtract {
    pub(super) fn from_payload(payload: &[u8]) -> Result<Self, FrameError> {
        let extract: Self = frame::read(EXTRACT, payload)?;
        frame::bound(EXTRACT, "bytes of a policy", extract.document.len(), MAX_POLICY_BYTES)?;
        Ok(extract)
    }
}
