//! From a file that somebody writes to a version that is recorded: watch, settle, hash, manifest, record.
//!
//! The path of the data is the order of the modules. [`watch`] and [`scan`] notice that something is there (stage 1),
//! [`settle`] decides when it is whole (stage 2) and hands a [`settle::Settled`] on.
//!
//! [`hash`], [`manifest`] and [`record`] (stages 3 to 5) make it durable; [`publisher`] is the glue of one project.
//!
//! Deliberately absent: deleting. What vanishes from a healthy project is recorded as not held here ([`lost`]), and never
//! removed anywhere; while the project directory itself is missing, nothing is concluded at all.

pub mod area;
pub mod watch;
mod watch_tree;
pub mod scan;
pub mod snapshot;
mod writers;
pub mod collide;
pub mod settle;
pub mod hash;
mod inputs;
mod checks;
pub mod manifest;
pub mod record;
pub mod publisher;
pub mod author;
pub mod lost;
pub mod unsynced;

#[cfg(test)]
mod tests;
