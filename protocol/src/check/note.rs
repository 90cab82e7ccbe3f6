//! What the publishing node notes in a manifest's metadata for a check that needs more than the manifest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the keys of notes begin with; the code of the check follows. What a pipeline sets under such a key is replaced.
pub const PREFIX: &str = "check.";

/// Names that a check found, as JSON in the manifest's metadata: `{"count": 35, "first": ["a.jpg", "b.jpg"]}`.
///
/// A note of another form says nothing: it comes from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How many there are.
    pub count: usize,
    /// The first of them, at most [`Self::MAX_NAMES`].
    pub first: Vec<String>,
}

impl Note {
    /// Most names in a note: with the longest paths it stays below what a value of the metadata takes.
    pub const MAX_NAMES: usize = 8;
    /// Longest name in bytes that a note keeps; a longer one is cut.
    const MAX_NAME_BYTES: usize = 1024;

    /// Adds a name.
    pub fn add(&mut self, name: &str) {
        self.count += 1;
        if self.first.len() < Self::MAX_NAMES {
            let cut = name.floor_char_boundary(Self::MAX_NAME_BYTES);
            self.first.push(name.get(..cut).unwrap_or_default().to_owned());
        }
    }

    /// Puts it into the metadata for a check; nothing if there is nothing to say.
    pub fn put(&self, code: &str, metadata: &mut BTreeMap<String, String>) {
        if let (1.., Ok(text)) = (self.count, serde_json::to_string(self)) {
            metadata.insert(format!("{PREFIX}{code}"), text);
        }
    }

    /// Returns the note for a check.
    pub fn of(code: &str, metadata: &BTreeMap<String, String>) -> Option<Self> {
        let note: Self = serde_json::from_str(metadata.get(&format!("{PREFIX}{code}"))?).ok()?;
        let fits =
            !note.first.is_empty() && note.first.len() <= Self::MAX_NAMES && note.count >= note.first.len();
        fits.then_some(note)
    }
}
