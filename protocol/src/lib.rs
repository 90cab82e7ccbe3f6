//! The vocabulary and the decisions of Avalon sync, without sockets, files, clocks or randomness.
//!
//! Everything here is a value or a pure function of values: time comes in as an argument, output goes out as data. The
//! daemon wraps it in a thin asynchronous shell; the simulation in `tests` wraps the same code in virtual time.

// Words
pub mod backoff;
pub mod block;
pub mod close_code;
pub mod control;
pub mod exit_code;
pub mod feed;
pub mod hash;
pub mod id;
pub mod limits;
pub mod manifest;
pub mod mode;
pub mod plan;
pub mod record;
pub mod reference;
pub mod rel_path;
pub mod sequence;
pub mod session;
pub mod settle;
pub mod signing;
pub mod template;
pub mod version_fold;
pub mod wire;
