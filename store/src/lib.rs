//! Every byte that Avalon sync keeps on disk: objects in the artists' tree, feeds, manifests and the catalog.
//!
//! Everything here blocks; callers run it on threads that may wait.

pub mod fs;
