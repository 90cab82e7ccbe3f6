//! The catalog: indexes over all feeds and manifests, derived from them and replaceable at any time.
//!
//! ```text
//! catalog/CURRENT      the number of the generation that counts
//! catalog/gen-<n>/     one generation, written by the engine
//! catalog/bad-gen-*/   the last one that was found damaged, kept for diagnosis
//! catalog/checkpoint-* what the feeds came to at some point
//! ```
//!
//! Nothing is ever acknowledged because it stands here. A generation that panics, errs, lost rows or was altered is
//! put aside, and the next one is built from the feeds. [`CatalogStore`] is the seam: `SledStore` is what ships, and
//! only `sled.rs` names the engine; [`MemStore`] is its model and serves the simulation.

mod api;
mod batch;
mod checkpoint;
mod envelope;
mod error;
mod generation;
mod jsonl;
mod mem;
mod rows;
mod sled;
mod snapshot;
mod tally;
#[cfg(test)]
mod tests;
mod unbuilt;

#[cfg(test)]
pub(crate) use self::{
    api::Fsync,
    generation::{Opener, open_syncing},
    tests::tamper,
};

/// The layout of all tables together; raised with any change of a key or a value, which then rebuilds.
const FORMAT: u16 = 3;

pub use self::{
    api::{CatalogStore, MAX_PAGE_ROWS, Row, Table, WriteSet},
    batch::LocalChange,
    envelope::TableSum,
    error::{CatalogError, Cause},
    jsonl::Export,
    mem::MemStore,
    rows::LocalFile,
    snapshot::SourceError,
};
pub(crate) use self::{
    batch::{Batch, Judge},
    checkpoint::Checkpoints,
    generation::{Generations, Opened},
    jsonl::{EXPORTED, Import},
    rows::{
        Value, cursor_key, feed_of_key, file_key, file_path, files_prefix, manifest_of_key, object_key,
        object_key_file, object_prefix, subset_prefix, version_key, version_of_key, versions_prefix,
    },
    snapshot::{Snapshot, SourceRow, write as write_snapshot},
    unbuilt::Unbuilt,
};
