//! Those that are measured against each other, and what a round asks of them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// What is fetched in a round.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// How many files.
    pub files: u64,
    /// The size of each.
    pub bytes_each: u64,
}

impl Load {
    /// Returns the size of all files.
    pub fn bytes(self) -> u64 {
        self.files * self.bytes_each
    }
}

/// One round. Everybody fetches the same files.
#[derive(Debug)]
pub struct Round<'a> {
    /// From 1.
    pub number: usize,
    /// The version directory at the near end.
    pub source: &'a Path,
    /// A directory that is not there yet, at the far end.
    pub target: PathBuf,
    /// What lies in `source`.
    pub load: Load,
    /// Whoever takes longer is left out.
    pub limit: Duration,
}

/// Somebody who fetches.
pub trait Contender {
    /// Returns the name in the table and in the JSON.
    fn name(&self) -> String;

    /// Returns the servers that it keeps between rounds, whose processor time counts as its own.
    fn servers(&mut self) -> Vec<u32> {
        Vec::new()
    }

    /// Fetches all, and returns how long it took; nothing when it failed.
    fn fetch(&mut self, round: &Round<'_>) -> Option<Duration>;
}
