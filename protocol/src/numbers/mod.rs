//! Numbers that are asked for before they are used, so that two sites cannot publish under the same one.
//!
//! The studio's policy names voters, at most one at each site. Who wants a number asks them one after the other, in one order
//! for everybody; a majority has to promise it. A voter promises a number to one node, and never takes that back. Two majorities
//! have a voter in common, so that no number is promised to two nodes; that all ask in one order keeps two who ask at once
//! from each getting half of the voters. This is the first phase of a ballot in Lamport's Paxos, without the second: what is agreed on is
//! whom a number belongs to, and nobody needs to learn it but who asked.
//!
//! Nothing here looks at a clock or the network; the daemon stores what was promised before it is said.

mod poll;
mod voter;

use crate::id::NodeId;

pub use self::{
    poll::{Outcome, Poll, Step},
    voter::{Known, Promises},
};

/// What a voter says when it is asked for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The number belongs to who asked, as far as this voter is concerned.
    Promised,
    /// It was published by, or promised to, somebody else.
    Taken {
        /// The lowest number above all that this voter knows of.
        next: u32,
        /// By or to whom.
        by: NodeId,
    },
    /// The voter cannot tell now: its catalog is being built anew, or its disk does not take the promise.
    Unsure,
    /// The voter goes by a newer policy, which may name other voters.
    OtherPolicy,
}
