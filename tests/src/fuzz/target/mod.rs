//! What is decoded, one file for each family of decoders, and what must be true of whatever is accepted.

mod api;
mod certificates;
mod feeds;
mod frames;
mod made_up;
mod manifests;
mod pieces;
mod texts;

pub use self::manifests::{RawFile, RawManifest};

use rand_chacha::ChaCha8Rng;

use super::Outcome;

/// A family of decoders.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line, and of the file of its corpus.
    pub name: &'static str,
    /// What it decodes, for people.
    pub what: &'static str,
    /// The longest input.
    pub most_bytes: usize,
    /// How many bytes of memory it needs whatever the input, such as for the content of a piece.
    pub needs_bytes: usize,
    /// Inputs that begin the corpus.
    pub examples: fn() -> Vec<Vec<u8>>,
    /// Makes an input field by field: valid but for a lie or two.
    pub made_up: fn(&mut ChaCha8Rng) -> Vec<u8>,
    /// Decodes, and panics when something that was accepted is not what it must be.
    pub decode: fn(&[u8]) -> Outcome,
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    frames::TARGET,
    feeds::TARGET,
    manifests::TARGET,
    texts::TARGET,
    certificates::TARGET,
    pieces::TARGET,
    api::TARGET,
];
