//! Files that end before they should, by what their own bytes say. The publisher looks at them.
//!
//! Formats with an end mark ([`crate::settle::end_mark`]) are waited for until they are closed, so they are whole by then. Here
//! are those whose marks are too weak to wait for: a file may be odd and work all the same.

use super::{Check, CheckSeverity, Found, Seen, SeenBy, first_and_more, verb};
use crate::settle::EndMark;

pub(super) const CHECK: Check =
    Check { code: "truncated-file", severity: CheckSeverity::Error, seen_by: SeenBy::Publisher, run };

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let Some(note) = seen.note(CHECK.code) else { return Vec::new() };
    let Some(first) = note.first.first() else { return Vec::new() };
    let message = format!(
        "{} {} before {} format says: the rest is missing",
        first_and_more(first, note.count),
        verb(note.count, "ends", "end"),
        verb(note.count, "its", "their"),
    );
    vec![Found::new(message, "write it again, look for a full disk, and publish the next version")]
}

/// Says whether [`length_mark`] has a rule for files of this name; where not, no byte need be read.
pub fn has_length_mark(name: &str) -> bool {
    rule(name).is_some()
}

/// Says whether a file of `size` bytes is as long as its format says, from its first
/// [`HEAD_BYTES`](crate::settle::HEAD_BYTES) and last [`TAIL_BYTES`](crate::settle::TAIL_BYTES).
///
/// | name | open when |
/// |---|---|
/// | `.jpg`, `.jpeg` | no end-of-image marker in the last bytes |
/// | `.dpx` | the header says that the file is longer |
/// | `.tif`, `.tiff`, `.tx` | the first directory lies behind the end; BigTIFF too |
/// | `.wav` | RIFF says that it is longer |
/// | `.zip`, `.usdz` | no end of the central directory in the last bytes |
/// | `.mov`, `.mp4`, `.m4v` | a box at the top goes beyond the end |
///
/// Other beginnings than the format's say nothing, nor does an empty file.
pub fn length_mark(name: &str, size: u64, head: &[u8], tail: &[u8]) -> EndMark {
    match rule(name).filter(|_| size > 0).and_then(|rule| rule(size, head, tail)) {
        Some(true) => EndMark::Closed,
        Some(false) => EndMark::Open,
        None => EndMark::Unknown,
    }
}

/// Says whether a file is as long as its format says; `None` when it is not of the format.
type Rule = fn(u64, &[u8], &[u8]) -> Option<bool>;

fn rule(name: &str) -> Option<Rule> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => Some(jpeg),
        "dpx" => Some(dpx),
        "tif" | "tiff" | "tx" => Some(tiff),
        "wav" => Some(riff),
        "zip" | "usdz" => Some(zip),
        "mov" | "mp4" | "m4v" => Some(boxes),
        _ => None,
    }
}

fn bytes<const N: usize>(from: &[u8], offset: usize) -> Option<[u8; N]> {
    from.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Cameras and editors put things behind the picture, so the marker may stand anywhere in the last bytes.
fn jpeg(_: u64, head: &[u8], tail: &[u8]) -> Option<bool> {
    head.starts_with(&[0xff, 0xd8, 0xff]).then(|| contains(tail, &[0xff, 0xd9]))
}

/// The length of the file is at byte 16, in the order of bytes that the magic shows; some writers leave it undefined.
fn dpx(size: u64, head: &[u8], _: &[u8]) -> Option<bool> {
    let field = bytes(head, 16)?;
    let length = match head.get(..4)? {
        b"SDPX" => u32::from_be_bytes(field),
        b"XPDS" => u32::from_le_bytes(field),
        _ => return None,
    };
    (length != 0 && length != u32::MAX).then(|| u64::from(length) <= size)
}

/// The position of the first directory; it often stands at the end.
fn tiff(size: u64, head: &[u8], _: &[u8]) -> Option<bool> {
    let directory = match head.get(..4)? {
        b"II*\0" => u64::from(u32::from_le_bytes(bytes(head, 4)?)),
        b"MM\0*" => u64::from(u32::from_be_bytes(bytes(head, 4)?)),
        b"II+\0" => u64::from_le_bytes(bytes(head, 8)?),
        b"MM\0+" => u64::from_be_bytes(bytes(head, 8)?),
        _ => return None,
    };
    Some(directory != 0 && directory < size)
}

/// The length follows the magic; recorders that do not know it write 0 or the largest.
fn riff(size: u64, head: &[u8], _: &[u8]) -> Option<bool> {
    let length = u32::from_le_bytes(bytes(head, 4)?);
    let is_known = head.starts_with(b"RIFF") && length != 0 && length != u32::MAX;
    is_known.then(|| u64::from(length) + 8 <= size)
}

fn zip(_: u64, head: &[u8], tail: &[u8]) -> Option<bool> {
    head.starts_with(b"PK\x03\x04").then(|| contains(tail, b"PK\x05\x06"))
}

/// Boxes as far as their heads were read: each says how long it is.
fn boxes(size: u64, head: &[u8], _: &[u8]) -> Option<bool> {
    let first: [u8; 4] = bytes(head, 4)?;
    if ![*b"ftyp", *b"wide", *b"moov", *b"mdat", *b"free", *b"skip"].contains(&first) {
        return None;
    }
    let mut at: u64 = 0;
    loop {
        let Ok(start) = usize::try_from(at) else { return Some(true) };
        // What lies farther on was not read.
        let Some(short) = bytes(head, start).map(u32::from_be_bytes) else { return Some(at <= size) };
        let length = match short {
            // To the end of the file.
            0 => return Some(true),
            1 => bytes(head, start + 8).map(u64::from_be_bytes)?,
            short => u64::from(short),
        };
        at = at.checked_add(length).filter(|_| length >= 8)?;
        if at > size {
            return Some(false);
        }
    }
}
