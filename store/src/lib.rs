//! Every byte that Avalon sync keeps on disk: objects in the artists' tree, feeds, manifests and the catalog.
//!
//! Everything here blocks; callers run it on threads that may wait.

pub mod fs;
pub mod object;
pub mod place;
pub mod trash;

mod error_chain;
pub mod audit;
pub mod state_dir;
pub mod witness;
pub mod time;

pub mod feed;
pub mod fsck;
pub mod manifest_file;

pub mod catalog;
pub mod ledger;

#[cfg(test)]
mod toy;
