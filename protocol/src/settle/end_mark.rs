//! [`end_mark`], what the first and the last bytes of a file say about whether its writer closed it.

/// Whether a file's format says that it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndMark {
    /// The format has an end, and it is there.
    Closed,
    /// The format has an end, and it is not there: the file is being written, or its writer died.
    Open,
    /// The format has no end that can be seen from so few bytes.
    #[default]
    Unknown,
}

/// How many bytes from the start of a file [`end_mark`] wants; all of a shorter file.
pub const HEAD_BYTES: usize = 4096;
/// How many bytes from the end of a file [`end_mark`] wants; all of a shorter file.
pub const TAIL_BYTES: usize = 4096;

/// Says whether [`end_mark`] has a rule for files of this name; where not, no byte need be read.
pub fn has_end_mark(name: &str) -> bool {
    rule(name).is_some()
}

/// Reads the end mark of a file of `size` bytes from its first [`HEAD_BYTES`] and last [`TAIL_BYTES`].
///
/// | name | closed when |
/// |---|---|
/// | `.abc` | Ogawa: byte 5 is 0xff and the root group lies within the file; HDF5 is unknown |
/// | `.exr` | the visible part of the offset table has no zero and points into the file; unknown if the header is long |
/// | `.usd`, `.usdc` | crate: the table of contents lies within the file; text is unknown |
/// | `.blend` | the last block is `ENDB`; compressed files are unknown |
/// | `.ma` | the last line is `// End of` |
/// | `.png` | the last chunk is `IEND` |
///
/// A copy in progress can look closed, because its head is there first; where the format says how long the file is, that is
/// checked too. So a mark is a reason to wait or one more proof, never the only one. An empty file is unknown.
pub fn end_mark(name: &str, size: u64, head: &[u8], tail: &[u8]) -> EndMark {
    match rule(name) {
        Some(rule) if size > 0 => rule(&Bytes { size, head, tail }),
        _ => EndMark::Unknown,
    }
}

/// The part of a file that was read.
struct Bytes<'a> {
    size: u64,
    head: &'a [u8],
    tail: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// Returns `N` bytes at `offset` of the file, if they were read.
    fn at<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let from = |bytes: &[u8], start: u64| {
            let start = usize::try_from(start).ok()?;
            bytes.get(start..start.checked_add(N)?)?.try_into().ok()
        };
        let tail_start = self.size.checked_sub(self.tail.len() as u64)?;
        from(self.head, offset).or_else(|| from(self.tail, offset.checked_sub(tail_start)?))
    }

    fn u64_at(&self, offset: u64) -> Option<u64> {
        self.at(offset).map(u64::from_le_bytes)
    }

    /// Says how the file starts compared with `magic`.
    fn starts(&self, magic: &[u8]) -> Start {
        match self.head.get(..magic.len()) {
            Some(start) if start == magic => Start::Is,
            None if magic.starts_with(self.head) => Start::MayBecome,
            _ => Start::IsNot,
        }
    }

    fn tail_trimmed(&self) -> &'a [u8] {
        self.tail.trim_ascii_end()
    }
}

enum Start {
    Is,
    MayBecome,
    IsNot,
}

type Rule = fn(&Bytes<'_>) -> EndMark;

fn rule(name: &str) -> Option<Rule> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "abc" => Some(alembic),
        "exr" => Some(openexr),
        "usd" | "usdc" => Some(usd_crate),
        "blend" => Some(blend),
        "ma" => Some(maya_ascii),
        "png" => Some(png),
        _ => None,
    }
}

fn closed_if(is_closed: bool) -> EndMark {
    if is_closed { EndMark::Closed } else { EndMark::Open }
}

/// Answers for files that begin with `magic`; others of the same extension are unknown.
fn for_magic(bytes: &Bytes<'_>, magic: &[u8], is_closed: impl FnOnce() -> bool) -> EndMark {
    match bytes.starts(magic) {
        Start::Is => closed_if(is_closed()),
        Start::MayBecome => EndMark::Open,
        Start::IsNot => EndMark::Unknown,
    }
}

/// Ogawa: `Ogawa`, 0xff once closed, version, then the position of the root group: a count and so many positions.
fn alembic(bytes: &Bytes<'_>) -> EndMark {
    for_magic(bytes, b"Ogawa", || {
        let is_frozen = bytes.at(5) == Some([0xff]);
        let root = bytes.u64_at(8).unwrap_or(0);
        is_frozen && root != 0 && list_fits(bytes, root, 8)
    })
}

/// A crate: `PXR-USDC`, 8 bytes of version, then the position of the table of contents: a count and so many sections.
fn usd_crate(bytes: &Bytes<'_>) -> EndMark {
    for_magic(bytes, b"PXR-USDC", || {
        let contents = bytes.u64_at(16).unwrap_or(0);
        contents != 0 && list_fits(bytes, contents, 32)
    })
}

/// Says whether a count at `start` and so many entries after it lie within the file; where the count was not read, whether
/// it starts in it.
fn list_fits(bytes: &Bytes<'_>, start: u64, entry_bytes: u64) -> bool {
    let count = bytes.u64_at(start).unwrap_or(0);
    let end = count.checked_mul(entry_bytes).and_then(|list| list.checked_add(8)?.checked_add(start));
    end.is_some_and(|end| end <= bytes.size)
}

/// `ENDB` starts the last block, which is all header: 20, 24 or, since Blender 5, 32 bytes.
fn blend(bytes: &Bytes<'_>) -> EndMark {
    const HEADER_BYTES: [usize; 3] = [20, 24, 32];
    for_magic(bytes, b"BLENDER", || {
        HEADER_BYTES.iter().any(|length| {
            let start = bytes.tail.len().checked_sub(*length);
            start.and_then(|start| bytes.tail.get(start..)).is_some_and(|block| block.starts_with(b"ENDB"))
        })
    })
}

fn maya_ascii(bytes: &Bytes<'_>) -> EndMark {
    for_magic(bytes, b"//Maya ASCII", || {
        let last = bytes.tail_trimmed().rsplit(|b| *b == b'\n').next().unwrap_or_default();
        last.starts_with(b"// End of")
    })
}

/// Some programs append bytes of their own behind `IEND`.
fn png(bytes: &Bytes<'_>) -> EndMark {
    for_magic(bytes, b"\x89PNG\r\n\x1a\n", || bytes.tail.windows(8).any(|end| end == b"IEND\xaeB`\x82"))
}

/// OpenEXR writes zeros for the offset table after the header, and the table itself when the file is closed.
fn openexr(bytes: &Bytes<'_>) -> EndMark {
    match bytes.starts(b"\x76\x2f\x31\x01") {
        Start::MayBecome => return EndMark::Open,
        Start::IsNot => return EndMark::Unknown,
        Start::Is => {}
    }
    let Some(table) = exr_table_start(bytes.head) else {
        // A header that ends behind what was read may be fine; one that the file itself cuts off is not.
        return if bytes.size <= bytes.head.len() as u64 { EndMark::Open } else { EndMark::Unknown };
    };
    let entries = bytes.head.get(table..).unwrap_or_default().chunks_exact(8);
    let entries = entries.map(|entry| entry.try_into().map_or(0, u64::from_le_bytes));
    // The table ends where the first chunk begins, wherever in the table that chunk stands.
    let mut first_chunk = bytes.size;
    let mut seen = 0usize;
    for (index, entry) in entries.enumerate() {
        if (table + index * 8) as u64 >= first_chunk {
            break;
        }
        if entry == 0 || entry >= bytes.size {
            return EndMark::Open;
        }
        first_chunk = first_chunk.min(entry);
        seen += 1;
    }
    match seen {
        0 if bytes.size <= bytes.head.len() as u64 => EndMark::Open,
        0 => EndMark::Unknown,
        _ => EndMark::Closed,
    }
}

/// Finds the end of the header, or of all headers of a file with several parts, within `head`.
fn exr_table_start(head: &[u8]) -> Option<usize> {
    const MULTIPART: u8 = 0x10;
    let is_multipart = head.get(5)? & MULTIPART != 0;
    let mut at = 8;
    loop {
        at = exr_header_end(head, at)?;
        if !is_multipart {
            return Some(at);
        }
        // The headers of a file with several parts end with an empty one.
        if *head.get(at)? == 0 {
            return Some(at + 1);
        }
    }
}

/// A header is attributes, each a name, a type, a length and a value, up to an empty name.
fn exr_header_end(head: &[u8], start: usize) -> Option<usize> {
    let after_text = |at: usize| Some(at + head.get(at..)?.iter().position(|b| *b == 0)? + 1);
    let mut at = start;
    while *head.get(at)? != 0 {
        let length_at = after_text(after_text(at)?)?;
        let length = head.get(length_at..length_at + 4)?.try_into().ok().map(u32::from_le_bytes)?;
        at = length_at.checked_add(4)?.checked_add(usize::try_from(length).ok()?)?;
    }
    Some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(name: &str, content: &[u8]) -> EndMark {
        let head = &content[..content.len().min(HEAD_BYTES)];
        let tail = &content[content.len().saturating_sub(TAIL_BYTES)..];
        end_mark(name, content.len() as u64, head, tail)
    }

    /// 16 bytes of header, a body, and at its end a root group of two.
    fn ogawa(frozen: u8) -> Vec<u8> {
        let mut file = [b"Ogawa".as_slice(), &[frozen, 0, 1]].concat();
        let root: u64 = 5016;
        file.extend(root.to_le_bytes());
        file.extend([7; 5000]);
        for number in [2u64, 16, 32] {
            file.extend(number.to_le_bytes());
        }
        file
    }

    fn usdc(contents: u64) -> Vec<u8> {
        let mut file = [b"PXR-USDC".as_slice(), &[0, 8, 0, 0, 0, 0, 0, 0]].concat();
        file.extend(contents.to_le_bytes());
        file.resize(88, 0);
        file.extend(1u64.to_le_bytes());
        file.extend([0; 32]);
        file
    }

    /// A header with one attribute, a table of `offsets`, and four chunks of 16 bytes.
    fn exr(flags: u8, end_of_headers: &[u8], offsets: impl Fn(u64) -> [u64; 4]) -> Vec<u8> {
        let mut file = [b"\x76\x2f\x31\x01\x02".as_slice(), &[flags, 0, 0]].concat();
        file.extend(b"owner\0string\0\x03\0\0\0abc");
        file.extend(end_of_headers);
        let first = file.len() as u64 + 32;
        for offset in offsets(first) {
            file.extend(offset.to_le_bytes());
        }
        file.extend([1; 64]);
        file
    }

    #[test]
    fn ogawa_is_closed_once_byte_5_is_set_and_the_root_is_there() {
        assert_eq!(mark("a.abc", &ogawa(0xff)), EndMark::Closed);
        assert_eq!(mark("a.abc", &ogawa(0)), EndMark::Open);
        let whole = ogawa(0xff);
        assert_eq!(mark("a.abc", &whole[..whole.len() - 1]), EndMark::Open, "the copy is not done");
        assert_eq!(mark("a.abc", &whole[..3000]), EndMark::Open);
        assert_eq!(mark("a.abc", b"Oga"), EndMark::Open);
        assert_eq!(mark("a.abc", b"\x89HDF\r\n\x1a\n"), EndMark::Unknown);
    }

    #[test]
    fn a_usd_crate_is_closed_once_its_contents_lie_within_it() {
        assert_eq!(mark("a.usdc", &usdc(88)), EndMark::Closed);
        assert_eq!(mark("a.usd", &usdc(88)), EndMark::Closed);
        assert_eq!(mark("a.usdc", &usdc(0)), EndMark::Open);
        assert_eq!(mark("a.usdc", &usdc(88)[..127]), EndMark::Open);
        assert_eq!(mark("a.usdc", &usdc(u64::MAX)), EndMark::Open);
        assert_eq!(mark("a.usd", b"#usda 1.0\n"), EndMark::Unknown);
    }

    #[test]
    fn openexr_is_closed_once_its_offset_table_is_filled() {
        let rising = |first| [first, first + 16, first + 32, first + 48];
        let falling = |first| [first + 48, first + 32, first + 16, first];
        assert_eq!(mark("a.exr", &exr(0, b"\0", rising)), EndMark::Closed);
        assert_eq!(mark("a.exr", &exr(0, b"\0", falling)), EndMark::Closed);
        assert_eq!(mark("a.EXR", &exr(0x10, b"\0own\0string\0\x01\0\0\0a\0\0", rising)), EndMark::Closed);
        assert_eq!(mark("a.exr", &exr(0, b"\0", |_| [0; 4])), EndMark::Open);
        assert_eq!(mark("a.exr", &exr(0, b"\0", |first| [first, first + 16, 0, 0])), EndMark::Open);
        let whole = exr(0, b"\0", rising);
        assert_eq!(mark("a.exr", &whole[..whole.len() - 20]), EndMark::Open, "points behind its end");
        assert_eq!(mark("a.exr", &whole[..12]), EndMark::Open, "the header is cut off");
        assert_eq!(mark("a.exr", b"II*\0"), EndMark::Unknown);
    }

    #[test]
    fn a_header_of_openexr_that_is_longer_than_what_is_read_says_nothing() {
        let mut file = b"\x76\x2f\x31\x01\x02\0\0\0cryptomatte\0string\0".to_vec();
        file.extend(8000u32.to_le_bytes());
        file.extend([b'x'; 9000]);
        assert_eq!(mark("a.exr", &file), EndMark::Unknown);
    }

    #[test]
    fn text_and_block_formats_are_closed_by_their_last_words() {
        for (name, start, end) in [
            ("a.blend", b"BLENDER17-01v0500".as_slice(), [b"ENDB".as_slice(), &[0; 28]].concat()),
            ("a.blend", b"BLENDER-v279", [b"ENDB".as_slice(), &[0; 20]].concat()),
            ("a.blend", b"BLENDER_v249", [b"ENDB".as_slice(), &[0; 16]].concat()),
            ("a.ma", b"//Maya ASCII 2024 scene\n", b"createNode x;\n// End of a.ma\n".to_vec()),
            ("a.ma", b"//Maya ASCII 2024 scene\r\n", b"\r\n// End of a.ma\r\n\r\n".to_vec()),
            ("a.png", b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82".to_vec()),
        ] {
            let body = [b'.'; 9000];
            let whole = [start, &body, &end].concat();
            assert_eq!(mark(name, &whole), EndMark::Closed, "{name}");
            assert_eq!(mark(name, &whole[..9000]), EndMark::Open, "{name}");
            assert_eq!(mark(name, &start[..4]), EndMark::Open, "{name}");
            assert_eq!(mark(name, b"(anything else)"), EndMark::Unknown, "{name}");
        }
        assert_eq!(mark("a.blend", b"\x28\xb5\x2f\xfd...."), EndMark::Unknown, "compressed");
    }

    #[test]
    fn an_empty_file_and_an_unknown_format_say_nothing() {
        assert_eq!(mark("a.abc", b""), EndMark::Unknown);
        for name in ["a.vdb", "a", ".abc.", "abc"] {
            assert_eq!(mark(name, b"Ogawa\0"), EndMark::Unknown);
            assert!(!has_end_mark(name));
        }
    }

    #[test]
    fn damaged_files_of_every_format_are_answered_without_a_panic() {
        for name in ["a.abc", "a.exr", "a.usdc", "a.blend", "a.ma", "a.png"] {
            for file in
                [ogawa(0xff), usdc(88), exr(0, b"\0", |first| [first; 4]), exr(0x10, b"\0", |_| [9; 4])]
            {
                for end in 0..file.len().min(200) {
                    mark(name, &file[..end]);
                    end_mark(name, u64::MAX, &file[..end], &file[end..]);
                    end_mark(name, 1, &file[..end], &file[end..]);
                }
            }
        }
    }
}
