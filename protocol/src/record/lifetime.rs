//! The records about what becomes of a version after it was published: taken out of use, brought back, and renumbered
//! where sites published different content under one number.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    hash::ManifestId,
    id::{VersionId, VersionSlot},
    limits::{MAX_MOVED, MAX_POLICY_NOTE_BYTES},
};

/// What people write in a record: their name, or a comment. It cannot be over its limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Note(String);

/// A note has more bytes than a record takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an author or a comment has at most {MAX_POLICY_NOTE_BYTES} bytes, this one has {bytes}")]
pub struct NoteTooLong {
    bytes: usize,
}

impl TryFrom<String> for Note {
    type Error = NoteTooLong;

    fn try_from(text: String) -> Result<Self, NoteTooLong> {
        match text.len() {
            bytes if bytes > MAX_POLICY_NOTE_BYTES => Err(NoteTooLong { bytes }),
            _ => Ok(Self(text)),
        }
    }
}

impl From<Note> for String {
    fn from(note: Note) -> Self {
        note.0
    }
}

impl Note {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The payload of [`Record::Retired`](super::Record::Retired).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Which version.
    pub version: VersionId,
    /// 1 the first time; one more than the highest known each time after that.
    pub round: u32,
    /// Who took it out of use.
    pub author: Note,
    /// Why.
    pub comment: Note,
    /// When, in milliseconds since 1970: the undo window runs from then.
    pub at_ms: u64,
}

/// The payload of [`Record::Restored`](super::Record::Restored).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Which version.
    pub version: VersionId,
    /// The round that it takes back.
    pub round: u32,
    /// Who brought it back.
    pub author: Note,
    /// When, in milliseconds since 1970; for display only.
    pub at_ms: u64,
}

/// The payload of [`Record::Resolved`](super::Record::Resolved): which of several contents under one number keeps it, and
/// which numbers the others get. It cannot move what it keeps, nor nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Resolved(Fields);

/// As it is on disk and on the wire, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fields {
    version: VersionId,
    round: u32,
    keep: ManifestId,
    moved: Vec<(ManifestId, u32)>,
    author: Note,
    comment: Note,
    at_ms: u64,
}

/// Why a resolution cannot be a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidResolution {
    /// It is about a hero, which is a pointer and has no conflicts.
    #[error("a hero has no number that sites could disagree about")]
    Hero,
    /// It moves nothing, or too much.
    #[error("a resolution moves 1 to {MAX_MOVED} generations, this one {count}")]
    Count {
        /// How many.
        count: usize,
    },
    /// It moves what it keeps, moves something twice, or moves something to where it is.
    #[error("a resolution gives each generation one new number, and none to the one that is kept")]
    Contradiction,
}

impl TryFrom<Fields> for Resolved {
    type Error = InvalidResolution;

    fn try_from(fields: Fields) -> Result<Self, InvalidResolution> {
        let VersionSlot::Number(own) = fields.version.slot else { return Err(InvalidResolution::Hero) };
        let count = fields.moved.len();
        if !(1..=MAX_MOVED).contains(&count) {
            return Err(InvalidResolution::Count { count });
        }
        let is_twice = |(index, (id, _)): (usize, &(ManifestId, u32))| {
            fields.moved.iter().skip(index + 1).any(|(other, _)| other == id)
        };
        let contradicts = fields.moved.iter().any(|(id, number)| *id == fields.keep || *number == own)
            || fields.moved.iter().enumerate().any(is_twice);
        if contradicts { Err(InvalidResolution::Contradiction) } else { Ok(Self(fields)) }
    }
}

impl From<Resolved> for Fields {
    fn from(resolved: Resolved) -> Self {
        resolved.0
    }
}

/// Who decided something, why and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Who.
    pub author: Note,
    /// Why.
    pub comment: Note,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Resolved {
    /// Decides in the given round, from 1 on, that `keep` keeps the number of `version`, and that the others get theirs.
    ///
    /// # Errors
    /// [`InvalidResolution`].
    pub fn new(
        version: VersionId,
        round: u32,
        keep: ManifestId,
        moved: Vec<(ManifestId, u32)>,
        said: Said,
    ) -> Result<Self, InvalidResolution> {
        let Said { author, comment, at_ms } = said;
        Fields { version, round, keep, moved, author, comment, at_ms }.try_into()
    }

    /// Returns which version it is about.
    pub fn version(&self) -> &VersionId {
        &self.0.version
    }

    /// Returns its round: what a higher one says of a generation counts.
    pub fn round(&self) -> u32 {
        self.0.round
    }

    /// Returns what keeps the number.
    pub fn keep(&self) -> ManifestId {
        self.0.keep
    }

    /// Returns what gets which number instead.
    pub fn moved(&self) -> &[(ManifestId, u32)] {
        &self.0.moved
    }

    /// Returns who decided it, why and when.
    pub fn said(&self) -> Said {
        Said { author: self.0.author.clone(), comment: self.0.comment.clone(), at_ms: self.0.at_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::version;

    #[test]
    fn what_is_over_its_limit_is_refused_made_here_or_decoded() {
        let longest = "x".repeat(MAX_POLICY_NOTE_BYTES);
        assert!(Note::try_from(longest.clone()).is_ok());
        assert_eq!(Note::try_from(longest.clone() + "x"), Err(NoteTooLong { bytes: longest.len() + 1 }));
        let bytes = postcard::to_stdvec(&(longest + "x")).unwrap();
        assert!(postcard::from_bytes::<Note>(&bytes).is_err());
    }

    #[test]
    fn a_resolution_that_contradicts_itself_is_refused_made_here_or_decoded() {
        let id = |byte: u8| ManifestId::from_bytes([byte; 32]);
        let many = |count: usize| -> Vec<(ManifestId, u32)> {
            (0..count)
                .map(|i| {
                    (
                        ManifestId::from_bytes(
                            [u8::try_from(i / 200 + 2).unwrap(), u8::try_from(i % 200).unwrap()]
                                .repeat(16)
                                .try_into()
                                .unwrap(),
                        ),
                        9,
                    )
                })
                .collect()
        };
        let hero = VersionId { slot: VersionSlot::Hero, ..version(1) };
        for (version, moved, why) in [
            (hero, vec![(id(2), 2)], InvalidResolution::Hero),
            (version(1), vec![], InvalidResolution::Count { count: 0 }),
            (version(1), many(MAX_MOVED + 1), InvalidResolution::Count { count: MAX_MOVED + 1 }),
            (version(1), vec![(id(1), 2)], InvalidResolution::Contradiction),
            (version(1), vec![(id(2), 1)], InvalidResolution::Contradiction),
            (version(1), vec![(id(2), 2), (id(2), 3)], InvalidResolution::Contradiction),
        ] {
            let fields = Fields {
                version,
                round: 1,
                keep: id(1),
                moved,
                author: Note::default(),
                comment: Note::default(),
                at_ms: 0,
            };
            assert!(postcard::from_bytes::<Resolved>(&postcard::to_stdvec(&fields).unwrap()).is_err());
            assert_eq!(Resolved::try_from(fields), Err(why));
        }
        let longest = Note::try_from("x".repeat(MAX_POLICY_NOTE_BYTES)).unwrap();
        let said = Said { author: longest.clone(), comment: longest, at_ms: u64::MAX };
        let most = Resolved::new(version(1), u32::MAX, id(1), many(MAX_MOVED), said).unwrap();
        let bytes = postcard::to_stdvec(&most).unwrap();
        assert!(bytes.len() <= crate::limits::MAX_RECORD_BYTES, "the longest is a record");
    }
}
