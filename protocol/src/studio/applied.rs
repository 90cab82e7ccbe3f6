//! [`AppliedPolicy`]: a policy document as somebody applied it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    hash::PolicyHash,
    limits::{MAX_POLICY_BYTES, MAX_POLICY_NOTE_BYTES},
};

/// The payload of [`Record::Policy`](crate::record::Record::Policy): a policy document and who applied it. It cannot hold
/// a text that is over its limit, nor the serial 0, which stands for no policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct AppliedPolicy(Fields);

/// As it is on disk and on the wire, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fields {
    serial: u64,
    document: String,
    author: String,
    comment: String,
    applied_at_ms: u64,
}

/// Why a policy cannot be a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PolicyTooLong {
    /// The document.
    #[error("the policy has {bytes} bytes, at most {MAX_POLICY_BYTES} are possible")]
    Document {
        /// How long it is.
        bytes: usize,
    },
    /// The author or the comment.
    #[error(
        "author and comment of a policy have at most {MAX_POLICY_NOTE_BYTES} bytes each, one has {bytes}"
    )]
    Note {
        /// How long the longer one is.
        bytes: usize,
    },
    /// The serial is 0.
    #[error("the serial of a policy cannot be 0")]
    Serial,
}

impl TryFrom<Fields> for AppliedPolicy {
    type Error = PolicyTooLong;

    fn try_from(fields: Fields) -> Result<Self, PolicyTooLong> {
        let notes = fields.author.len().max(fields.comment.len());
        if fields.serial == 0 {
            Err(PolicyTooLong::Serial)
        } else if fields.document.len() > MAX_POLICY_BYTES {
            Err(PolicyTooLong::Document { bytes: fields.document.len() })
        } else if notes > MAX_POLICY_NOTE_BYTES {
            Err(PolicyTooLong::Note { bytes: notes })
        } else {
            Ok(Self(fields))
        }
    }
}

impl From<AppliedPolicy> for Fields {
    fn from(policy: AppliedPolicy) -> Self {
        policy.0
    }
}

impl AppliedPolicy {
    /// Takes a document with its serial, from 1 on, who applies it, what they say about it, and the time in milliseconds
    /// since 1970, which is for display only.
    ///
    /// # Errors
    /// [`PolicyTooLong`].
    pub fn new(
        serial: u64,
        document: String,
        author: String,
        comment: String,
        applied_at_ms: u64,
    ) -> Result<Self, PolicyTooLong> {
        Fields { serial, document, author, comment, applied_at_ms }.try_into()
    }

    /// Returns its serial: one more than that of the policy that it replaced.
    pub fn serial(&self) -> u64 {
        self.0.serial
    }

    /// Returns the document.
    pub fn document(&self) -> &str {
        &self.0.document
    }

    /// Returns the plain BLAKE3 of the document, so that `b3sum` of the file prints it.
    pub fn hash(&self) -> PolicyHash {
        PolicyHash::of(&self.0.document)
    }

    /// Returns who applied it.
    pub fn author(&self) -> &str {
        &self.0.author
    }

    /// Returns what they said about it.
    pub fn comment(&self) -> &str {
        &self.0.comment
    }

    /// Returns when it was applied, in milliseconds since 1970; for display only, never for order.
    pub fn applied_at_ms(&self) -> u64 {
        self.0.applied_at_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(serial: u64, document: usize, author: usize, comment: usize) -> Fields {
        let text = |bytes| "x".repeat(bytes);
        Fields {
            serial,
            document: text(document),
            author: text(author),
            comment: text(comment),
            applied_at_ms: 5,
        }
    }

    #[test]
    fn what_is_over_its_limit_is_refused_made_here_or_decoded() {
        let (most, note) = (MAX_POLICY_BYTES, MAX_POLICY_NOTE_BYTES);
        let fits = fields(1, most, note, note);
        let bytes = postcard::to_stdvec(&fits).unwrap();
        assert!(bytes.len() <= crate::limits::MAX_RECORD_BYTES, "the longest is a record");
        assert_eq!(postcard::from_bytes::<AppliedPolicy>(&bytes).unwrap().0, fits);
        for (wrong, why) in [
            (fields(0, 1, 1, 1), PolicyTooLong::Serial),
            (fields(1, most + 1, 1, 1), PolicyTooLong::Document { bytes: most + 1 }),
            (fields(1, 1, note + 1, 1), PolicyTooLong::Note { bytes: note + 1 }),
            (fields(1, 1, 1, note + 1), PolicyTooLong::Note { bytes: note + 1 }),
        ] {
            assert!(postcard::from_bytes::<AppliedPolicy>(&postcard::to_stdvec(&wrong).unwrap()).is_err());
            assert_eq!(AppliedPolicy::try_from(wrong), Err(why));
        }
    }
}
