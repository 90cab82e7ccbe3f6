//! What checks look at: a manifest, with its numbered files grouped once.

use std::collections::BTreeMap;

use super::Note;
use crate::{
    manifest::{FileEntry, Manifest},
    sequence::{self, FrameName, Sequence},
};

/// A manifest with what several checks need of it.
pub(super) struct Seen<'m> {
    pub(super) manifest: &'m Manifest,
    /// The sequences, sorted by name.
    pub(super) sequences: Vec<Sequence>,
    is_known: &'m dyn Fn(&str) -> bool,
}

impl<'m> Seen<'m> {
    pub(super) fn new(manifest: &'m Manifest, is_known: &'m dyn Fn(&str) -> bool) -> Self {
        let sequences = sequence::group(manifest.files().iter().map(|file| file.path.as_str()));
        Self { manifest, sequences, is_known }
    }

    pub(super) fn files(&self) -> &'m [FileEntry] {
        self.manifest.files()
    }

    /// Returns what the publisher noted for a check.
    pub(super) fn note(&self, code: &str) -> Option<Note> {
        Note::of(code, &self.manifest.draft().metadata)
    }

    /// Says whether a reference that the publisher did not know is known by now.
    pub(super) fn is_known(&self, reference: &str) -> bool {
        (self.is_known)(reference)
    }

    /// Says whether numbers are texture tiles, of which any may be unused.
    ///
    /// Beside the rule of [`Sequence::is_udim`]: four digits from 1001 to 1999 in what the pipeline calls a texture, by its
    /// family, or by the subset's name, which begins with the family in Avalon.
    pub(super) fn is_tiles(&self, sequence: &Sequence) -> bool {
        let in_range = || sequence.frames.iter().all(|frame| (1001..=1999).contains(frame));
        sequence.is_udim() || (sequence.padding == 4 && in_range() && self.is_texture())
    }

    fn is_texture(&self) -> bool {
        let draft = self.manifest.draft();
        let says = |text: &str| text.to_lowercase().contains("texture");
        let families = ["family", "families"].iter().filter_map(|key| draft.metadata.get(*key));
        says(draft.version.subset.as_str()) || families.into_iter().any(|text| says(text))
    }

    /// Returns the files of each sequence that is none of tiles, by the text before and behind the number.
    pub(super) fn numbered(&self) -> BTreeMap<(String, String), Vec<&'m FileEntry>> {
        let mut groups: BTreeMap<(String, String), Vec<&FileEntry>> = BTreeMap::new();
        for file in self.files() {
            if let Some(name) = FrameName::parse(file.path.as_str()) {
                groups.entry((name.prefix, name.suffix)).or_default().push(file);
            }
        }
        let tiles = self.sequences.iter().filter(|sequence| self.is_tiles(sequence));
        for sequence in tiles {
            groups.remove(&(sequence.prefix.clone(), sequence.suffix.clone()));
        }
        groups
    }
}
