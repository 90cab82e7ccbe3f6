//! Proof of possession: a keyed hash over all bytes of a version, which nobody can know who does not have them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{hash::ManifestId, id::NodeId};

/// What separates this use of keyed BLAKE3 from any other.
pub const PROOF_CONTEXT: &[u8] = b"avalon possession 1";

/// A number that is used once: 32 random bytes, drawn by whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce([u8; 32]);

impl Nonce {
    /// Takes 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce")
    }
}

/// What a node answers that holds a version.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof([u8; 32]);

impl Proof {
    /// Takes the bytes of one that came from a peer.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

/// Computes a [`Proof`]: BLAKE3, keyed with the nonce, over
///
/// ```text
/// "avalon possession 1" | length of the node's name u64 LE | name | manifest id, 32 bytes
/// then for each file, in the order of the manifest: size u64 LE | bytes
/// ```
///
/// The name is that of the node that proves, as `ws1@london`: a proof cannot be had from somebody else and passed on.
#[derive(Debug, Clone)]
pub struct Prover(blake3::Hasher);

impl Prover {
    /// Begins the proof of `node` that it holds what `manifest` describes.
    pub fn new(nonce: &Nonce, node: &NodeId, manifest: &ManifestId) -> Self {
        let name = node.to_string();
        let mut hasher = blake3::Hasher::new_keyed(&nonce.0);
        hasher.update(PROOF_CONTEXT).update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes()).update(manifest.as_bytes());
        Self(hasher)
    }

    /// Begins the next file, which has `size` bytes in the manifest.
    pub fn file(&mut self, size: u64) {
        self.0.update(&size.to_le_bytes());
    }

    /// Takes the next bytes of the file, in order.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the proof.
    pub fn finish(&self) -> Proof {
        Proof(*self.0.finalize().as_bytes())
    }
}
