//! Jobs: versions that have to come here, one job each. `board` keeps count for everybody to read; `replicator` is the
//! one task that makes, starts and ends them, `handle` how others talk to it; `queue` knows whose turn it is, `orders` what
//! people said about that, `changes` when time changes what is to come; `look` is how
//! it looks at many versions.

mod board;
mod changes;
mod handle;
mod job;
mod look;
mod orders;
mod queue;
mod replicator;
#[cfg(test)]
mod tests;

pub use self::{
    board::JobBoard,
    handle::{Pulled, ReplicatorHandle, Stopped},
    job::{Job, Occupied, Outcome, RetryWhen},
    orders::{Book, Order, Orders, Paused},
    replicator::{Replicator, Run},
};
