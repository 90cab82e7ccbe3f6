//! What a node is dropping now, and whether it is good for a copy.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::VersionId;

/// The versions that a node is dropping: in memory alone, and empty at the start.
///
/// One value belongs to one node; everybody there sees the same.
#[derive(Debug, Clone, Default)]
pub struct Dropping {
    versions: BTreeSet<VersionId>,
}

/// The version is being dropped already.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{version} is being dropped already")]
pub struct AlreadyDropping {
    /// Which version.
    pub version: VersionId,
}

/// Why a node that was asked for a proof is not good for a copy; on the wire the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Error)]
#[serde(try_from = "u8", into = "u8")]
pub enum NotCounted {
    /// 1: it does not have it, or does not say: the two look the same.
    #[error("does not have it")]
    NotHeld,
    /// 2: it is dropping it too.
    #[error("is dropping it too")]
    Dropping,
    /// 3: its files are not what they were, or cannot be read.
    #[error("has files that are not what they should be")]
    Damaged,
    /// 4: it reads for another proof; ask later.
    #[error("is busy with another proof")]
    Busy,
    /// 5: it cannot tell how many copies are asked for, because it lacks the manifest or its catalog is being rebuilt.
    #[error("does not know yet how many copies are asked for")]
    Unsure,
}

impl Dropping {
    /// Enters the state for a version. Whoever enters asks only after that, and leaves however it ends.
    ///
    /// # Errors
    /// [`AlreadyDropping`] by this node.
    pub fn enter(&mut self, version: &VersionId) -> Result<(), AlreadyDropping> {
        match self.versions.insert(version.clone()) {
            true => Ok(()),
            false => Err(AlreadyDropping { version: version.clone() }),
        }
    }

    /// Leaves the state: the attempt was given up, or its record is durable and the node does not count as a holder any
    /// more. Not to be called when it is unknown whether the record is durable.
    pub fn leave(&mut self, version: &VersionId) {
        self.versions.remove(version);
    }

    /// Says whether a version is being dropped.
    pub fn contains(&self, version: &VersionId) -> bool {
        self.versions.contains(version)
    }

    /// Says whether this node is good for a copy of a version, now. `holds` says whether its records say that it holds it;
    /// it is asked after the state was looked at, for a drop that ends in between has its record by then.
    ///
    /// A node that reads for a while to make its proof asks this when it has read, right before it answers.
    ///
    /// # Errors
    /// [`NotCounted`] says why not.
    pub fn vouch(&self, version: &VersionId, holds: impl FnOnce() -> bool) -> Result<(), NotCounted> {
        if self.contains(version) {
            return Err(NotCounted::Dropping);
        }
        if holds() { Ok(()) } else { Err(NotCounted::NotHeld) }
    }
}

impl From<NotCounted> for u8 {
    fn from(why: NotCounted) -> Self {
        match why {
            NotCounted::NotHeld => 1,
            NotCounted::Dropping => 2,
            NotCounted::Damaged => 3,
            NotCounted::Busy => 4,
            NotCounted::Unsure => 5,
        }
    }
}

impl TryFrom<u8> for NotCounted {
    type Error = &'static str;
    fn try_from(byte: u8) -> Result<Self, &'static str> {
        match byte {
            1 => Ok(Self::NotHeld),
            2 => Ok(Self::Dropping),
            3 => Ok(Self::Damaged),
            4 => Ok(Self::Busy),
            5 => Ok(Self::Unsure),
            _ => Err("not a reason for no proof"),
        }
    }
}
