//! Whether anything is lost: real daemons, real volumes, faults wherever they can be, and a [`verifier`] that believes
//! nobody.
//!
//! Every harness is a command of `--bin reliability` and prints one line of JSON with its seed. A run is one studio that
//! meets one fault: afterwards everything is started again, has to come to the same state at all nodes without anybody's
//! help, and is verified.

#![expect(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::time::Duration;

pub use crate::report;

pub mod bit_flips;
pub mod catalog_damage;
pub mod command;
pub mod crash_points;
pub mod full_disk;
pub mod kills;
pub mod scenario;
pub mod scene;
pub mod soak;
pub mod stock;
pub mod trace;
pub mod verifier;
pub mod volume;

/// How long a victim may take to get anywhere. Under an error that stays it may never get there, and the run goes on.
const RUN_PATIENCE: Duration = Duration::from_secs(10);

/// How often a condition is looked at that no event tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
