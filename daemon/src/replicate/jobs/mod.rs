//! Jobs: versions that have to come here, one job each. `board` keeps count for everybody to read; `replicator` is the
//! one task that makes, starts and ends them, `handle` how others talk to it; `changes` knows when time changes what it does.

mod board;
mod changes;
mod handle;
mod job;
mod replicator;
#[cfg(test)]
mod tests;

pub use self::{
    board::JobBoard,
    handle::{Pulled, ReplicatorHandle, Stopped},
    job::{Job, Outcome, RetryWhen},
    replicator::{Replicator, Run},
};
