//! From a file that somebody writes to a version that is recorded: watch, settle, hash, manifest, record.
//!
//! The path of the data is the order of the modules. [`watch`] and [`scan`] notice that something is there (stage 1),
//! [`settle`] decides when it is whole (stage 2) and hands a [`settle::Settled`] on.
//!
//! Deliberately absent: deleting. Whatever vanishes from a project directory, the directory itself included, nothing
//! here records that it is gone.

pub mod area;
pub mod scan;
pub mod settle;
pub mod snapshot;
pub mod watch;
mod watch_tree;
