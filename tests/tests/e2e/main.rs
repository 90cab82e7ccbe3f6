//! The whole system as it is used: real daemons on loopback, a real command line, files on disk.

mod catalog;
mod changes;
mod conflict;
mod cuts;
mod demo;
mod disk_full;
mod identity;
mod mirror;
mod names;
mod peers;
mod publish;
mod pull;
mod roots;
mod service;
mod start;
mod support;
mod vanish;
