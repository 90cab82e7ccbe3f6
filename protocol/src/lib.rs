//! The vocabulary and the decisions of Avalon sync, without sockets, files, clocks or randomness.
//!
//! Everything here is a value or a pure function of values: time comes in as an argument, output goes out as data. The
//! daemon wraps it in a thin asynchronous shell; the simulation in `tests` wraps the same code in virtual time.

// Words
pub mod id;
pub mod hash;
pub mod rel_path;
pub mod reference;
pub mod template;
pub mod inputs;
pub mod sequence;
pub mod frames;
pub mod check;
pub mod block;
pub mod manifest;
pub mod record;
pub mod shown;
pub mod signing;
pub mod access;
pub mod feed;
pub mod fork;
pub mod own_feed;
pub mod studio;
pub mod version_fold;
mod bounded;
pub mod limits;
pub mod mode;
pub mod wire;
pub mod close_code;
pub mod settle;
pub mod session;
pub mod plan;
pub mod drop;
pub mod numbers;
pub mod closure;
pub mod schedule;
pub mod delta_base;
pub mod limit;
pub mod policy;
pub mod backoff;
pub mod audit;
pub mod control;
pub mod exit_code;
