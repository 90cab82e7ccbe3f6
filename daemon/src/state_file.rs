//! [`StateFile`]: something small that a person has said, kept in the state directory as JSON and on disk before it holds.

use std::io::Read as _;

use avalon_protocol::rel_path::{InvalidPath, RelPath};
use avalon_store::fs::{Dir, IoError, WriteMode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Far more than such a file may hold: what is longer was not written by us.
const MAX_BYTES: u64 = 4 << 20;

/// A file in the state directory.
#[derive(Debug, Clone)]
pub struct StateFile {
    dir: Dir,
    name: &'static str,
    schema: &'static str,
}

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum StateFileError {
    /// The system refuses.
    #[error("{name} cannot be read or written")]
    Io {
        /// The file.
        name: &'static str,
        /// What and why.
        #[source]
        source: IoError,
    },
    /// Not what was written.
    #[error("{name} is damaged")]
    Json {
        /// The file.
        name: &'static str,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// Of another version of this program.
    #[error("{name} says {schema:?}, this version writes {expected:?}")]
    Schema {
        /// The file.
        name: &'static str,
        /// What it says.
        schema: String,
        /// What it should say.
        expected: &'static str,
    },
    /// The name of the file; it is one.
    #[error("{name} is no name")]
    Name {
        /// The file.
        name: &'static str,
        /// Why.
        #[source]
        source: InvalidPath,
    },
}

impl StateFileError {
    /// Says whether room on the disk would help.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.is_no_space())
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    schema: String,
    #[serde(flatten)]
    content: T,
}

impl StateFile {
    /// Names a file of the state directory and what it says of its format.
    pub fn new(dir: &Dir, name: &'static str, schema: &'static str) -> Self {
        Self { dir: dir.clone(), name, schema }
    }

    /// Reads it; nothing when there is none. Blocks.
    ///
    /// # Errors
    /// [`StateFileError`].
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, StateFileError> {
        let name = self.name;
        let file = match self.dir.open_file(&self.path()?) {
            Err(error) if error.is_not_found() => return Ok(None),
            opened => opened.map_err(|source| StateFileError::Io { name, source })?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| StateFileError::Io {
            name,
            source: IoError::new("read", self.dir.path().join(name), error),
        })?;
        let json = |source| StateFileError::Json { name, source };
        let told: Envelope<serde::de::IgnoredAny> = serde_json::from_slice(&bytes).map_err(json)?;
        if told.schema != self.schema {
            return Err(StateFileError::Schema { name, schema: told.schema, expected: self.schema });
        }
        let read: Envelope<T> = serde_json::from_slice(&bytes).map_err(json)?;
        Ok(Some(read.content))
    }

    /// Replaces it; it is on disk when this returns. Blocks.
    ///
    /// # Errors
    /// [`StateFileError`]; the old one is there then.
    pub fn write<T: Serialize>(&self, content: &T) -> Result<(), StateFileError> {
        let name = self.name;
        let envelope = Envelope { schema: self.schema.to_owned(), content };
        let mut bytes =
            serde_json::to_vec_pretty(&envelope).map_err(|source| StateFileError::Json { name, source })?;
        bytes.push(b'\n');
        let written = self.dir.write_atomic(&self.path()?, &bytes, WriteMode::Replace);
        written.map_err(|source| StateFileError::Io { name, source })
    }

    fn path(&self) -> Result<RelPath, StateFileError> {
        self.name.parse().map_err(|source| StateFileError::Name { name: self.name, source })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a damaged file needs no durability")]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Said {
        what: Vec<u32>,
    }

    #[test]
    fn what_was_said_is_read_back_and_what_was_not_written_by_us_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = StateFile::new(&Dir::open(temp.path()).unwrap(), "said.json", "avalond.said/1");
        assert_eq!(file.read::<Said>().unwrap(), None);
        let said = Said { what: vec![1, 2] };
        file.write(&said).unwrap();
        assert_eq!(file.read::<Said>().unwrap(), Some(said));
        let path = temp.path().join("said.json");
        std::fs::write(&path, "{\"schema\": \"avalond.said/2\", \"other\": 1}").unwrap();
        assert!(matches!(file.read::<Said>(), Err(StateFileError::Schema { .. })));
        for damaged in ["{", "{\"schema\": \"avalond.said/1\"}", "{\"what\": [1]}"] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(file.read::<Said>(), Err(StateFileError::Json { .. })), "{damaged}");
        }
    }
}
