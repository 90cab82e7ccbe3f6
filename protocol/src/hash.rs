//! BLAKE3 names: of objects, manifests, contents and feed heads. They never mix: each is a type of its own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::InvalidId;

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "HashRepr", into = "HashRepr")]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the 32 bytes of a BLAKE3 hash.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// Returns the 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// Returns the first 10 hex digits, for logs.
            pub fn short(&self) -> String {
                self.to_string().chars().take(10).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            /// Reads 64 lower-case hex digits.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_hex(text).map(Self).ok_or_else(|| {
                    InvalidId::new($what, text, "64 lower-case hex digits of a BLAKE3 hash")
                })
            }
        }

        impl TryFrom<HashRepr> for $name {
            type Error = InvalidId;
            fn try_from(repr: HashRepr) -> Result<Self, InvalidId> {
                match repr {
                    HashRepr::Text(text) => text.parse(),
                    HashRepr::Bytes(bytes) => Ok(Self(bytes)),
                }
            }
        }

        impl From<$name> for HashRepr {
            fn from(hash: $name) -> Self {
                Self::Bytes(hash.0)
            }
        }
    };
}

/// How a hash is serialised: hex for people (JSON), 32 plain bytes on the wire and on disk (postcard).
#[derive(Debug)]
enum HashRepr {
    Text(String),
    Bytes([u8; 32]),
}

impl Serialize for HashRepr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) if serializer.is_human_readable() => {
                serializer.serialize_str(&ObjectHash(*bytes).to_string())
            }
            Self::Bytes(bytes) => bytes.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for HashRepr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer).map(Self::Text)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self::Bytes)
        }
    }
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = hex_digit(high)? << 4 | hex_digit(low)?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

hash_id!(
    /// The name of an object: the plain BLAKE3 of a file's content, as `b3sum` prints it.
    ObjectHash, "object hash"
);
hash_id!(
    /// The name of a manifest: BLAKE3 of its canonical bytes. It names one generation of a version.
    ManifestId, "manifest id"
);
hash_id!(
    /// What a version consists of, regardless of who recorded it and when: BLAKE3 over its paths and object hashes.
    /// Two sites that hold the same files agree on it.
    ContentId, "content id"
);
hash_id!(
    /// The head of a feed's hash chain: covers every record up to it.
    ChainHash, "chain hash"
);
hash_id!(
    /// The hash of an entry of the audit and of all before it.
    AuditHash, "audit hash"
);
hash_id!(
    /// Names the text of a policy document: its plain BLAKE3, as `b3sum` of the file prints it.
    PolicyHash, "policy hash"
);

impl PolicyHash {
    /// Hashes the text of a document.
    pub fn of(document: &str) -> Self {
        Self(*blake3::hash(document.as_bytes()).as_bytes())
    }
}

impl ChainHash {
    /// The head of an empty feed.
    pub const EMPTY: Self = Self([0; 32]);
}

impl ObjectHash {
    /// Hashes bytes that are in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_hash_of_nothing_is_what_b3sum_prints() {
        let empty = ObjectHash::of(b"");
        let text = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(empty.to_string(), text);
        assert_eq!(text.parse::<ObjectHash>().unwrap(), empty);
        assert_eq!(empty.short(), "af1349b9f5");
    }

    #[test]
    fn hex_must_be_64_lower_case_digits() {
        for bad in ["", "af13", &"G".repeat(64), &"A".repeat(64), &"a".repeat(65)] {
            assert!(bad.parse::<ObjectHash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn is_hex_in_json_and_32_bytes_in_postcard() {
        let hash = ObjectHash::of(b"x");
        assert_eq!(serde_json::to_string(&hash).unwrap(), format!("\"{hash}\""));
        let bytes = postcard::to_stdvec(&hash).unwrap();
        assert_eq!(bytes, hash.as_bytes());
        assert_eq!(postcard::from_bytes::<ObjectHash>(&bytes).unwrap(), hash);
    }
}
