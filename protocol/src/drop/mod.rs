//! Drop safety: no version is removed at a node before enough other sites have proved that they hold it, and what to
//! remove first when room is needed.
//!
//! # The protocol
//!
//! A node that wants to drop a version makes one [`Attempt`]:
//!
//! 1. It enters the state *dropping* for the version, in memory ([`Dropping::enter`]), before it asks anybody.
//! 2. It asks holders for a proof of possession, each with a fresh [`Nonce`]. A holder is good for a copy only if, when
//!    it answers, it is not *dropping* the version itself and then still records itself as a holder, in this order
//!    ([`Dropping::vouch`]), and if the [`Proof`] is that of the bytes that the dropper has. All bytes are read for it,
//!    at both ends: what is given free was whole elsewhere a moment ago.
//! 3. It counts the sites of those that proved. It may drop when there are at least as many as it knows to be asked for,
//!    and as any of those that proved knows: nodes may have different policies for a while.
//! 4. It makes its Dropped record durable, then removes the files, then leaves the state. When anything fails before the
//!    record, it leaves the state and nothing has happened. When it is not known whether the record is durable, it stays in
//!    the state until it starts again, for then the feed tells.
//!
//! # Why that is safe
//!
//! Take all attempts for a version that have come to a record, and of them the one that entered the state last, Z. Each
//! node that proved for Z answered after Z had entered. Before its answer it had no attempt that was still open, for it
//! was not *dropping*; one that had ended with a record would have been seen, for the record is durable before the state
//! is left, and the node looks at the state first. And it has not begun one since that came to a record: that one would have
//! entered after Z. So all that proved for Z still hold the version, at as many sites as were asked for. This holds for
//! any number of droppers, in any order, however late or lost their messages are, without locks, clocks or leases.
//!
//! A crash loses the state and the attempt with it; nobody can have counted on either. A record that is durable nevertheless
//! is one of an attempt that had its proofs. An answer that is late belongs to another nonce.
//!
//! Nodes that drop one version at the same time refuse each other, perhaps all of them: they try again after a wait of
//! random length. The idea is that of git-annex, which locks the copies that it counts; here who holds a copy only has to say
//! that it is not giving it up.
//!
//! The state is about a version and not about one generation of it: a drop takes all that the node has of the version,
//! also what it holds of earlier generations, so two drops of one version are never about different things.

mod attempt;
mod dropping;
mod evict;
mod proof;
#[cfg(test)]
mod tests;

pub use self::{
    attempt::{Ask, Attempt, Counted, Doubt, GiveUp, Step},
    dropping::{AlreadyDropping, Dropping, NotCounted},
    evict::{Blocked, Candidate, Choice, Guard, Pressure, choose, choose_for},
    proof::{Nonce, PROOF_CONTEXT, Proof, Prover},
};
