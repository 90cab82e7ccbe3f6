//! The daemon `avalond`: it notices publishes, records them and brings versions to where they are wanted.

pub mod command;
pub mod app;
pub mod config;
pub mod core;
pub mod project;
pub mod publish;
pub mod replicate;
pub mod policy;
pub mod access;
pub mod rights;
pub mod scrub;
pub mod fsck;
pub mod space;
pub mod numbers;
pub mod own_feeds;
pub mod net;
pub mod daemon_api;
pub mod api;
pub mod events;
pub mod health;
pub mod hooks;
pub mod certificate;
pub mod join;
pub mod reload;
pub mod signals;
pub mod service;
pub mod limits;
pub mod state_file;
pub mod log;
pub mod tasks;
pub mod transfers;
pub mod audit;
pub mod buffers;
pub mod clock;
#[cfg(test)]
mod fixture;
