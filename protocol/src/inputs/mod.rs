//! What a version was made from: how files name other files, and which published versions those are.
//!
//! A scanner ([`InputScanner`]) reads a scene and finds the paths that it holds; a [`Locator`] makes an [`Input`] of each:
//! the published version that the path leads to at every site, or the path itself when it leads to none. The files are
//! whatever somebody published: every scanner is bounded in memory, takes no length on trust, and never panics.
//! Deliberately absent: opening files, time budgets, and decompression; the daemon brings a [`Source`].

mod blend;
mod input;
mod inventory;
mod locate;
mod maya;
mod numbered;
mod scan;
mod sidecar;
mod text;
mod usda;
mod usdc;

pub use self::{
    input::Input,
    locate::{KnownProject, Locator, Scanned},
    scan::{Find, Finds, InputScanner, ScanError, Source, scanner_of},
    sidecar::{MAX_SIDECAR_BYTES, SIDECAR, read_sidecar},
};
