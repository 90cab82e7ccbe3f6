//! Stage 2, settle: which version directories are whole, one task per project.
//!
//! [`Settler`] takes what the watcher and the scans notice and what people ask for, looks at the directories concerned,
//! lets the pure [`avalon_protocol::settle::Settle`] decide about each, and hands a [`Settled`] to the next stage. A version
//! is handed over once for each state in which it was whole.
//!
//! While the project directory is missing, the project is paused: nothing is looked at, and nothing is concluded from
//! what is not there. When it is back, or another file system is in its place, everything is looked at anew.

mod look;
mod pace;
mod root;
mod task;
mod versions;
mod words;

pub use self::{
    pace::Mount,
    task::Settler,
    words::{
        PendingVersion, ProjectHealth, ProjectSource, PublishDetails, PublishOutcome, PublishedAs,
        RecordedFiles, Rewrites, ScanSummary, Settled, SettledFile, SettlerConfig, SettlerHandle,
        SettlerStopped, WatcherState,
    },
};

#[cfg(test)]
mod tests;
