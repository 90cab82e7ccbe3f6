//! Room at this node: versions are dropped when other sites prove that they have them, by command or to keep within a quota;
//! pins keep them.
//!
//! What may be dropped, and that it is safe, is decided in [`avalon_protocol::drop`]; here it is carried out.

mod vouch;

use std::sync::{Mutex, PoisonError};

use avalon_protocol::{
    drop::{AlreadyDropping, Dropping},
    id::VersionId,
};
use tokio::sync::Semaphore;

pub use self::vouch::vouch;

/// How many proofs are read for peers at once, whoever asks: the disk belongs to the artists.
const PROOFS_AT_ONCE: usize = 2;

/// What the parts that make room share.
#[derive(Debug)]
pub struct Space {
    dropping: Mutex<Dropping>,
    /// Places for proofs that are read for peers.
    proofs: Semaphore,
}

impl Space {
    /// Begins with nothing.
    pub fn new() -> Self {
        Self { dropping: Mutex::default(), proofs: Semaphore::new(PROOFS_AT_ONCE) }
    }

    /// Returns what is being dropped at this moment.
    fn dropping(&self) -> Dropping {
        self.dropping.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Enters the state dropping.
    ///
    /// # Errors
    /// [`AlreadyDropping`].
    pub fn enter(&self, version: &VersionId) -> Result<(), AlreadyDropping> {
        self.dropping.lock().unwrap_or_else(PoisonError::into_inner).enter(version)
    }

    /// Leaves it.
    pub fn leave(&self, version: &VersionId) {
        self.dropping.lock().unwrap_or_else(PoisonError::into_inner).leave(version);
    }
}

impl Default for Space {
    fn default() -> Self {
        Self::new()
    }
}
