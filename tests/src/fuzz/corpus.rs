//! The inputs that are kept: one file for each target in `tests/data/fuzz`, one input in hex on each line, sorted.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// What one target keeps at most, in bytes of hex.
const MOST_BYTES: usize = 96 << 10;

/// Longer inputs are not kept: they are about memory, which [`super::mutate`] finds again.
const LONGEST_BYTES: usize = 3 << 10;

/// Returns where the corpus of this repository lies.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fuzz")
}

/// Reads what is kept for a target; nothing when there is no file yet.
///
/// # Errors
/// When the file cannot be read or is not hex.
pub fn read(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let path = directory().join(format!("{target}.hex"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    text.lines()
        .map(|line| from_hex(line).ok_or_else(|| io::Error::other(path.display().to_string())))
        .collect()
}

/// Replaces what is kept for a target by the shortest of `inputs`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(target: &str, inputs: &[Vec<u8>]) -> io::Result<()> {
    let mut shortest: Vec<&Vec<u8>> = inputs.iter().filter(|input| input.len() <= LONGEST_BYTES).collect();
    shortest.sort_by_key(|input| (input.len(), *input));
    let (mut lines, mut bytes) = (BTreeSet::new(), 0);
    for input in shortest {
        let line = to_hex(input);
        bytes += line.len() + 1;
        if bytes > MOST_BYTES {
            break;
        }
        lines.insert(line);
    }
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    fs::write(directory().join(format!("{target}.hex")), text)
}

/// Writes bytes in hex.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads hex.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
