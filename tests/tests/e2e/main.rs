//! The whole system as it is used: real daemons on loopback, a real command line, files on disk.

#![expect(clippy::disallowed_methods, reason = "files are written as artists write them")]

mod audit;
mod catalog;
mod changes;
mod chaos;
mod checks;
mod conflict;
mod cuts;
mod damage;
mod demo;
mod disk_full;
mod durable;
mod encoding;
mod frames;
mod farm;
mod feeds;
mod hostile;
mod identity;
mod inputs;
mod join;
mod left_over;
mod grants;
mod growth;
mod lifetime;
mod limits;
mod lossy;
mod mirror;
mod mounts;
mod names;
mod numbers;
mod peers;
mod policy;
mod placement;
mod policy_diff;
mod publish;
mod pull;
mod queue;
mod rights;
mod roots;
mod service;
mod space;
mod start;
mod support;
mod users;
mod vanish;
