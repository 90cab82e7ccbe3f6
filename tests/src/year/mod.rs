//! A simulated studio year: policies change, sites are cut off for weeks, artists publish, pull, pin and drop, disks fill and
//! rot, and all holders of a version drop it at once.
//!
//! The decisions are those of the daemon: policy, plan, folds and drop safety of `avalon_protocol` run here as they are, in the order
//! in which the daemon calls them, with proofs over real bytes. Simpler than there: how records get from node to node (the
//! other simulation, [`crate::world`], runs the session), and files, which are a few bytes long. [`checker`] says what is promised;
//! [`mutation`] has the wrong ways to do it that it must notice. A year has no steps but those that somebody causes,
//! so 364 days pass in milliseconds.

mod book;
pub mod checker;
mod dropper;
mod event;
mod faults;
mod fetch;
pub mod mutation;
mod node;
mod policies;
mod room;
mod script;
mod talk;
mod vouch;
mod world;

pub use self::world::run;
