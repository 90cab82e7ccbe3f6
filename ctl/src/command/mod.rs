//! One file per command.

pub(crate) mod ca;
pub(crate) mod cancel;
pub(crate) mod catalog;
pub(crate) mod completions;
pub(crate) mod conflict;
pub(crate) mod demo;
pub(crate) mod drop;
pub(crate) mod info;
pub(crate) mod inputs;
pub(crate) mod lifetime;
pub(crate) mod limit;
pub(crate) mod log;
pub(crate) mod ls;
pub(crate) mod pin;
pub(crate) mod policy;
pub(crate) mod problems;
pub(crate) mod publish;
pub(crate) mod pull;
pub(crate) mod queue;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod wait;
pub(crate) mod where_is;
pub(crate) mod why;
