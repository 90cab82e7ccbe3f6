//! Jobs: versions that have to come here, one job each. `board` keeps count for everybody to read; `replicator` is the
//! one task that makes, starts and ends them.

mod board;
mod changes;
mod job;
mod replicator;
#[cfg(test)]
mod tests;

pub use self::{
    board::JobBoard,
    job::{Job, Outcome, RetryWhen},
    replicator::{Pulled, Replicator, ReplicatorHandle, Run, Stopped},
};
