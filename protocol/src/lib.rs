//! The vocabulary and the decisions of Avalon sync, without sockets, files, clocks or randomness.
//!
//! Everything here is a value or a pure function of values: time comes in as an argument, output goes out as data. The
//! daemon wraps it in a thin asynchronous shell; the simulation in `tests` wraps the same code in virtual time.

// Words
pub mod block;
pub mod feed;
pub mod hash;
pub mod id;
pub mod limits;
pub mod manifest;
pub mod record;
pub mod reference;
pub mod rel_path;
pub mod sequence;
pub mod signing;
pub mod template;
pub mod version_fold;
pub mod mode;
pub mod close_code;
pub mod exit_code;
pub mod wire;
pub mod session;
pub mod plan;
pub mod backoff;
pub mod control;
pub mod settle;
