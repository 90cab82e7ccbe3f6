//! What the tests share: the simulated studio, [`daemons`] as real processes, links as slow and lossy as the real ones
//! ([`netem`]), and measurements ([`mod@bench`]).
//!
//! In the simulated studio many nodes run in one thread and virtual time, driven by one seed. The decisions are those of
//! the daemon: `avalon_protocol`'s session, feeds, folds, planner and codec run here as they are; only which stream brings
//! which blocks is simpler than by the daemon's schedule. What is simulated is what surrounds them: clocks, links, disks
//! that forget what was not synced, artists, and a peer that lies. [`world::World`] runs the steps, [`invariant::Checker`] looks at the nodes after each of them, and [`harness`] runs many seeds, replays
//! one and writes down what happened. Deliberately absent there: threads, real time, and any map whose order is not that
//! of its keys.

pub mod agenda;
#[cfg(target_os = "linux")]
pub mod bench;
pub mod cgroup;
pub mod content;
pub mod daemons;
pub mod env;
pub mod event;
pub mod event_log;
pub mod fuzz;
pub mod harness;
#[cfg(target_os = "linux")]
pub mod hostile;
pub mod incoming;
pub mod invariant;
pub mod ledger;
pub mod link;
pub mod mutation;
#[cfg(target_os = "linux")]
pub mod netem;
pub mod node;
#[cfg(target_os = "linux")]
pub mod recorded;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod reliability;
pub mod reply;
pub mod report;
pub mod sbom;
pub mod scenario;
pub mod shrink;
pub mod toy_trust;
pub mod tree;
pub mod world;
pub mod year;
