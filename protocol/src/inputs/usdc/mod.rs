//! USD crate files (`.usdc`): a binary layer, read only where it names other files.
//!
//! Source: OpenUSD's `pxr/usd/sdf/crateFile.h`, the description of the file format. A table of contents leads to sections. `TOKENS`
//! holds all names, `STRINGS` numbers some of them, `FIELDS` pairs names with values. A value is eight bytes: its type, and
//! itself or where it lies. Files are named by values of the types asset path (and lists of it), reference and payload
//! (and lists of edits of them), by the sublayers of the layer, and by those in dictionaries and time samples, as clips
//! have them. Sections are compressed with LZ4, in OpenUSD's own framing.
//!
//! Files of version 0.4 and later are read; older ones were written before 2017. Limits: 64 MiB for each section unpacked,
//! a million fields, 16 nested dictionaries.

mod fields;
mod lz4;
mod value;

use super::{
    Finds, ScanError, Source,
    scan::{go_to, read_array, read_bytes},
};

/// The first bytes of every crate file.
pub(super) const MAGIC: &[u8; 8] = b"PXR-USDC";

/// The longest section, packed or unpacked.
const MAX_SECTION_BYTES: u64 = 64 << 20;
/// Sections of a file: six are known.
const MAX_SECTIONS: u64 = 64;

/// Scans a crate file from its start.
pub(super) fn scan(source: &mut dyn Source, finds: &mut Finds) -> Result<(), ScanError> {
    let version = read_version(source)?;
    let sections = read_sections(source)?;
    let section = |name: &'static str| {
        let found = sections.iter().find(|section| section.name() == name.as_bytes());
        found.ok_or(ScanError::Malformed { what: "a section is missing" })
    };
    let tokens = read_tokens(source, section("TOKENS")?)?;
    let strings = read_strings(source, section("STRINGS")?)?;
    let fields = fields::read(source, section("FIELDS")?)?;
    let names = Names { tokens, strings };
    let mut values = value::Values::new(source, &names, version, finds);
    for field in fields {
        let is_sublayers = names.token(field.name) == Some("subLayers");
        values.note(field.value, is_sublayers)?;
    }
    finds.complete()
}

/// The version of the format, major, minor and patch.
type Version = (u8, u8, u8);

fn read_version(source: &mut dyn Source) -> Result<Version, ScanError> {
    go_to(source, 0)?;
    let head: [u8; 16] = read_array(source)?;
    let (magic, version) = head.split_at(MAGIC.len());
    let [major, minor, patch, ..] = *version else {
        return Err(ScanError::Malformed { what: "no version" });
    };
    match (magic == MAGIC, (major, minor, patch)) {
        (false, _) => Err(ScanError::Malformed { what: "not a crate file" }),
        (true, version) if ((0, 4, 0)..(1, 0, 0)).contains(&version) => Ok(version),
        (true, _) => Err(ScanError::Unsupported { what: "a version of crate files that is not known" }),
    }
}

/// Where a section lies.
#[derive(Debug, Clone, Copy)]
struct Section {
    name: [u8; 16],
    start: u64,
    bytes: u64,
}

impl Section {
    fn name(&self) -> &[u8] {
        self.name.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

fn read_sections(source: &mut dyn Source) -> Result<Vec<Section>, ScanError> {
    let contents = read_u64(source)?;
    go_to(source, contents)?;
    let count = read_u64(source)?;
    if count > MAX_SECTIONS {
        return Err(ScanError::Malformed { what: "too many sections" });
    }
    let mut sections = Vec::new();
    for _ in 0..count {
        sections.push(Section {
            name: read_array(source)?,
            start: read_u64(source)?,
            bytes: read_u64(source)?,
        });
    }
    Ok(sections)
}

/// The names that values are made of.
#[derive(Debug)]
struct Names {
    tokens: Tokens,
    /// Numbers of tokens.
    strings: Vec<u32>,
}

impl Names {
    fn token(&self, index: u32) -> Option<&str> {
        self.tokens.name(index)
    }

    fn string(&self, index: u32) -> Option<&str> {
        self.token(*self.strings.get(usize::try_from(index).ok()?)?)
    }
}

/// Texts that end with a zero, and where each begins.
#[derive(Debug)]
struct Tokens {
    bytes: Vec<u8>,
    starts: Vec<u32>,
}

impl Tokens {
    /// Returns a name; one that is not UTF-8 is none.
    fn name(&self, index: u32) -> Option<&str> {
        let start = usize::try_from(*self.starts.get(usize::try_from(index).ok()?)?).ok()?;
        let text = self.bytes.get(start..)?.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(text).ok()
    }
}

fn read_tokens(source: &mut dyn Source, section: &Section) -> Result<Tokens, ScanError> {
    go_to(source, section.start)?;
    let count = read_u64(source)?;
    let (unpacked, packed) = (read_u64(source)?, read_u64(source)?);
    let packed = read_bytes(source, packed, ("the section of names", MAX_SECTION_BYTES))?;
    let bytes = lz4::unpack(&packed, unpacked, MAX_SECTION_BYTES)?;
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at + 1);
    let starts = std::iter::once(0).chain(ends).filter_map(|at| u32::try_from(at).ok());
    // Each name takes at least its zero, so a count that is a lie takes no memory.
    let starts: Vec<u32> = starts.take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
    Ok(Tokens { bytes, starts })
}

fn read_strings(source: &mut dyn Source, section: &Section) -> Result<Vec<u32>, ScanError> {
    go_to(source, section.start)?;
    let count = read_u64(source)?;
    let bytes = count.checked_mul(4).ok_or(ScanError::Malformed { what: "too many strings" })?;
    let bytes = read_bytes(source, bytes, ("the section of strings", MAX_SECTION_BYTES))?;
    Ok(bytes.chunks_exact(4).filter_map(|four| Some(u32::from_le_bytes(four.try_into().ok()?))).collect())
}

fn read_u64(source: &mut dyn Source) -> Result<u64, ScanError> {
    read_array(source).map(u64::from_le_bytes)
}

fn read_u32(source: &mut dyn Source) -> Result<u32, ScanError> {
    read_array(source).map(u32::from_le_bytes)
}

#[cfg(test)]
pub(super) mod tests;
