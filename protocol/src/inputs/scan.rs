//! The one face of all scanners: what they read, what they report, and how they fail.

use std::{
    collections::BTreeSet,
    io::{self, Read, Seek, SeekFrom},
};

use thiserror::Error;

use super::{blend::Blend, inventory::Inventory, maya::MayaAscii, usda::Usd};

/// The longest path that is reported, in bytes: what the systems take.
pub(super) const MAX_PATH_BYTES: usize = 4096;
/// Most paths reported of one file, and their bytes together: a manifest has to hold them.
const MAX_FINDS: usize = 10_000;
const MAX_FIND_BYTES: usize = 1 << 20;

/// What a scanner reads: a file, or what one decompresses to. A budget of time or bytes that is used up is an error of
/// reading, like a disk that fails. Seeking backwards may fail; only crate files need it.
pub trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// Finds in files of some formats what they refer to.
pub trait InputScanner: Sync {
    /// Returns the extensions of its formats, in lower case.
    fn formats(&self) -> &'static [&'static str];

    /// Reads a file from its start and reports what it refers to. What was found before an error stays found.
    ///
    /// Memory is bounded whatever the file says of itself, by the limits that each scanner names; time by what `source`
    /// gives out.
    ///
    /// # Errors
    /// [`ScanError`] when the file could not be read to its end: some of what it refers to may be missing.
    fn scan(&self, source: &mut dyn Source, finds: &mut Finds) -> Result<(), ScanError>;
}

/// Why a file was not read to its end.
#[derive(Debug, Error)]
pub enum ScanError {
    /// It cannot be read, or the budget for it is used up.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is not what its name says, or damaged.
    #[error("it is damaged or of another format: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A part of it is larger than what is held in memory.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// It is of a version of the format that the scanner does not know.
    #[error("it is of a kind that is not understood: {what}")]
    Unsupported {
        /// Which kind.
        what: &'static str,
    },
    /// It refers to more than a manifest holds.
    #[error("it refers to more than {MAX_FINDS} files")]
    TooManyFinds,
}

/// One thing that a file refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Find {
    /// A path as the file has it: absolute, or relative to the file; with `/` or `\`, variables and frame tokens.
    Path(String),
    /// Another version of the subset that the file belongs to.
    SubsetVersion(u32),
}

/// What was found in one file, each once.
#[derive(Debug, Clone, Default)]
pub struct Finds {
    found: BTreeSet<Find>,
    bytes: usize,
    is_full: bool,
}

impl Finds {
    /// Returns what was found, sorted.
    pub fn into_found(self) -> BTreeSet<Find> {
        self.found
    }

    /// Notes a path. One that is empty, too long or has control characters is no path that could be found again.
    pub fn path(&mut self, path: &str) {
        let fits = !path.is_empty() && path.len() <= MAX_PATH_BYTES && !path.chars().any(char::is_control);
        if fits {
            self.note(Find::Path(path.to_owned()), path.len());
        }
    }

    /// Notes another version of the same subset.
    pub fn subset_version(&mut self, version: u32) {
        self.note(Find::SubsetVersion(version), 8);
    }

    fn note(&mut self, find: Find, bytes: usize) {
        if self.found.contains(&find) {
            return;
        }
        if self.found.len() >= MAX_FINDS || self.bytes + bytes > MAX_FIND_BYTES {
            self.is_full = true;
            return;
        }
        self.bytes += bytes;
        self.found.insert(find);
    }

    /// Says whether all had room.
    ///
    /// # Errors
    /// [`ScanError::TooManyFinds`] when it had not.
    pub(super) fn complete(&self) -> Result<(), ScanError> {
        if self.is_full { Err(ScanError::TooManyFinds) } else { Ok(()) }
    }
}

/// Returns the scanner for files of this name.
pub fn scanner_of(name: &str) -> Option<&'static dyn InputScanner> {
    const ALL: [&dyn InputScanner; 4] = [&Usd, &MayaAscii, &Blend, &Inventory];
    let (_, extension) = name.rsplit_once('.')?;
    let extension = extension.to_ascii_lowercase();
    ALL.into_iter().find(|scanner| scanner.formats().contains(&extension.as_str()))
}

/// Reads exactly `N` bytes.
pub(super) fn read_array<const N: usize>(source: &mut dyn Source) -> Result<[u8; N], ScanError> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

/// Reads `length` bytes; memory grows with what is really there, up to `limit`.
pub(super) fn read_bytes(
    source: &mut dyn Source,
    length: u64,
    (what, limit): (&'static str, u64),
) -> Result<Vec<u8>, ScanError> {
    if length > limit {
        return Err(ScanError::TooLarge { what, limit });
    }
    let mut bytes = Vec::new();
    let read = source.take(length).read_to_end(&mut bytes).map_err(ScanError::Read)?;
    if read as u64 == length { Ok(bytes) } else { Err(ScanError::Malformed { what: "it ends too early" }) }
}

/// Goes to a place counted from the start.
pub(super) fn go_to(source: &mut dyn Source, offset: u64) -> Result<(), ScanError> {
    source.seek(SeekFrom::Start(offset)).map(drop).map_err(ScanError::Read)
}

/// A file that ends too early is damaged; anything else is an error of reading.
pub(super) fn cut(error: io::Error) -> ScanError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ScanError::Malformed { what: "it ends too early" },
        _ => ScanError::Read(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_extension_in_any_case() {
        for name in ["a.usda", "a.USDC", "a.usd", "a.b.ma", "a.blend", "TexturePack.json"] {
            assert!(scanner_of(name).is_some(), "{name}");
        }
        for name in ["a.mb", "a.exr", "usda", "a.usdz", ".ma.bak"] {
            assert!(scanner_of(name).is_none(), "{name}");
        }
    }

    #[test]
    fn more_than_a_manifest_holds_is_cut_and_said() {
        let mut finds = Finds::default();
        finds.path("a\nb");
        finds.path("");
        finds.path(&"x".repeat(MAX_PATH_BYTES + 1));
        for number in 0..MAX_FINDS {
            finds.path(&format!("/a/{number}"));
            finds.path("/a/0");
        }
        assert!(finds.complete().is_ok());
        finds.path("/b");
        assert!(matches!(finds.complete(), Err(ScanError::TooManyFinds)));
        assert_eq!(finds.into_found().len(), MAX_FINDS);
    }
}
