//! `avalonctl`: what artists, pipelines and operators say to a daemon, and how its answers are shown.
//!
//! A command is a file in `command/`. It reads its arguments, asks the daemon through [`client`] and hands what it has
//! to `output`, the only place that prints: data on stdout, talk on stderr. Nothing here opens a catalog or a project;
//! `ca` works on the studio's own authority without a daemon, and `demo` starts daemons of its own.

pub mod app;
pub mod args;
pub mod client;
pub mod sse;

mod command;
mod context;
mod copying;
mod environment;
mod escape;
mod failure;
mod interrupt;
mod measure;
mod output;
mod table;
mod upload;

#[cfg(test)]
mod fake;
