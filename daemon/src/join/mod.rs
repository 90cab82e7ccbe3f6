//! Joining: invites of a node that issues, the server that lets their holders in, and the other side, `avalond join`.
//!
//! `invites` keeps who may join; `issuer` certifies, who joins and who renews (`renewals` says how often), and `names` knows which
//! names are given; `server` talks to who joins.
//! `dial` is the machine that joins, `first_config` writes what it starts with, `command` is its command line.
//! [`renew`] is a node whose own certificate is to be renewed.

pub mod command;
mod dial;
mod first_config;
mod invites;
mod issuer;
mod joining;
mod names;
mod offline;
pub mod renew;
mod renewals;
mod server;
mod wire;

#[cfg(test)]
mod tests;

pub use self::{
    invites::{InviteError, Invites, NewInvite},
    issuer::{Served, StudioIssuer},
    joining::Joining,
};
