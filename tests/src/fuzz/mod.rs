//! Mutated and made-up bytes for every decoder of what a peer sends: [`target`] says what is decoded and what must hold,
//! [`mutate`] changes inputs, [`campaign`] runs a target for some time, [`corpus`] keeps what was worth keeping.
//!
//! There is no coverage feedback, which needs a compiler's instrumentation and unsafe code. What steers instead is the
//! *outcome*: the variant of the error with its texts and numbers taken out, or the shape of what was read. An input with an
//! outcome that was not seen before is kept and mutated further. Two thirds of the inputs are such mutations; the others
//! are made field by field by the target, valid but for a lie or two, which is what reaches behind the first check.

#![expect(clippy::disallowed_methods, reason = "a run has a time, and the corpus is written as sources are")]

pub mod campaign;
pub mod corpus;
pub mod mutate;
pub mod outcome;
pub mod studio;
pub mod target;

pub use self::{
    campaign::{Campaign, Figures, Violation},
    outcome::Outcome,
    target::{TARGETS, Target},
};

/// Tells how much memory was taken; a program that fuzzes has an allocator that counts.
pub trait Meter: Sync {
    /// Returns how many bytes are taken now.
    fn now(&self) -> usize;
    /// Returns the most since the last [`Meter::reset`].
    fn peak(&self) -> usize;
    /// Begins to look for the most anew.
    fn reset(&self);
}

/// The most memory that decoding `input_bytes` bytes may take, beside what a target needs anyway: serde reserves up to 1 MiB
/// for a list of bytes before the first is there, a text of one byte costs 24 more as a `String`, and a list that grows is
/// there twice for a moment.
pub fn allowed_bytes(input_bytes: usize) -> usize {
    (4 << 20) + 8 * input_bytes
}

/// A decoder may take so long for one input, in milliseconds, on a machine that is shared.
pub const SLOW_MS: u128 = 5000;
