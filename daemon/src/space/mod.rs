//! Room at this node: versions are dropped when other sites prove that they have them, by command or to keep within a quota;
//! pins keep them.
//!
//! What may be dropped, and that it is safe, is decided in [`avalon_protocol::drop`]; here it is carried out: [`vouch()`]
//! answers others, [`Dropper`] drops, [`make_room`] and [`empty_trash`] run by themselves.

mod dropper;
mod judge;
mod open_files;
mod pins;
mod room;
mod trash;
mod usage;
mod vouch;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{
    drop::{AlreadyDropping, Dropping},
    id::{ProjectName, VersionId},
};
use avalon_store::fs::Dir;
use tokio::sync::Semaphore;

pub use self::{
    dropper::{Dropper, Freed},
    judge::{Purpose, Stays},
    pins::{Pin, PinError},
    room::make_room,
    trash::{empty_trash, take_back, took_back},
    usage::{Reserved, Spare},
    vouch::vouch,
};
use self::{pins::Pins, usage::Use};
use crate::health::HealthBoard;

/// How many proofs are read for peers at once, whoever asks: the disk belongs to the artists.
const PROOFS_AT_ONCE: usize = 2;

/// What the parts that make room share.
#[derive(Debug)]
pub struct Space {
    dropping: Mutex<Dropping>,
    /// Places for proofs that are read for peers.
    proofs: Semaphore,
    pins: Pins,
    used: Mutex<BTreeMap<ProjectName, Use>>,
}

impl Space {
    /// Reads the pins; the rest begins with nothing.
    pub fn open(dir: &Dir, health: &HealthBoard) -> Self {
        Self {
            dropping: Mutex::default(),
            proofs: Semaphore::new(PROOFS_AT_ONCE),
            pins: Pins::open(dir, health),
            used: Mutex::default(),
        }
    }

    /// Returns what somebody wants to stay here.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Returns what is being dropped at this moment.
    fn dropping(&self) -> Dropping {
        self.lock_dropping().clone()
    }

    /// Enters the state dropping; left when the guard goes.
    fn enter(&self, version: &VersionId) -> Result<Entered<'_>, AlreadyDropping> {
        self.lock_dropping().enter(version)?;
        Ok(Entered { space: self, version: version.clone(), stays: false })
    }

    fn lock_dropping(&self) -> MutexGuard<'_, Dropping> {
        // Every change under the lock is one insertion or removal.
        self.dropping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_used(&self) -> MutexGuard<'_, BTreeMap<ProjectName, Use>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This node is in the state dropping for a version.
#[derive(Debug)]
struct Entered<'a> {
    space: &'a Space,
    version: VersionId,
    stays: bool,
}

impl Entered<'_> {
    /// Stays in the state until the daemon ends: nobody knows whether the record is durable.
    fn stay(mut self) {
        self.stays = true;
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.space.lock_dropping().leave(&self.version);
        }
    }
}
