//! The whole system as it is used: real daemons on loopback, a real command line, files on disk.

mod cuts;
mod mirror;
mod pull;
mod support;
