//! `DNA1`: how the structures in a Blender file were laid out in memory.

use std::str;

use crate::inputs::ScanError;

/// Most names, types and structures; Blender 5 has 6,000 names.
const MAX_ENTRIES: u32 = 1 << 18;
/// Most members that are looked at of one structure.
const MAX_MEMBERS: usize = 4096;

const DAMAGED: ScanError = ScanError::Malformed { what: "the description of structures does not decode" };

/// The structures of one file.
#[derive(Debug)]
pub(super) struct Dna<'a> {
    names: Vec<&'a [u8]>,
    type_bytes: Vec<u16>,
    /// For each structure its members: the number of the type and that of the name.
    structures: Vec<Vec<(u16, u16)>>,
    pointer_bytes: usize,
}

impl<'a> Dna<'a> {
    /// Reads the content of the block.
    pub(super) fn read(bytes: &'a [u8], pointer_bytes: usize) -> Result<Self, ScanError> {
        let mut reader = Reader { bytes, at: 0 };
        reader.tag(b"SDNA")?;
        reader.tag(b"NAME")?;
        let names = reader.texts()?;
        reader.tag(b"TYPE")?;
        let types = reader.texts()?;
        reader.tag(b"TLEN")?;
        let type_bytes = types.iter().map(|_| reader.u16()).collect::<Result<_, _>>()?;
        reader.tag(b"STRC")?;
        let mut structures = Vec::new();
        for _ in 0..reader.count()? {
            let (_type, members) = (reader.u16()?, reader.u16()?);
            let members = (0..members).map(|_| Ok((reader.u16()?, reader.u16()?)));
            structures.push(members.collect::<Result<Vec<_>, ScanError>>()?);
        }
        Ok(Self { names, type_bytes, structures, pointer_bytes })
    }

    /// Returns the path in a block of a structure, unless what it names is packed into the file.
    pub(super) fn path_in<'b>(&self, structure: u32, content: &'b [u8]) -> Option<&'b str> {
        let members = self.structures.get(usize::try_from(structure).ok()?)?;
        let (mut offset, mut path, mut older) = (0usize, None, None);
        for (kind, name) in members.iter().take(MAX_MEMBERS) {
            let name = *self.names.get(usize::from(*name))?;
            let bytes = self.bytes_of(*kind, name)?;
            match stem(name) {
                b"filepath" if is_text(name) => path = text_at(content, offset, bytes),
                // Where there is both, `name` was what the user wrote and `filepath` made of it.
                b"name" if is_text(name) => older = text_at(content, offset, bytes),
                b"packedfile" | b"packedfiles" => {
                    let pointer = content.get(offset..offset.checked_add(self.pointer_bytes)?)?;
                    if pointer.iter().any(|byte| *byte != 0) {
                        return None;
                    }
                }
                _ => {}
            }
            offset = offset.checked_add(bytes)?;
        }
        older.or(path)
    }

    /// Returns how many bytes a member takes.
    fn bytes_of(&self, kind: u16, name: &[u8]) -> Option<usize> {
        let is_pointer = name.first().is_some_and(|byte| b"*(".contains(byte));
        let one = if is_pointer {
            self.pointer_bytes
        } else {
            usize::from(*self.type_bytes.get(usize::from(kind))?)
        };
        let mut bytes = one;
        for dimension in name.split(|byte| *byte == b'[').skip(1) {
            let digits = dimension.strip_suffix(b"]")?;
            let count: usize = str::from_utf8(digits).ok()?.parse().ok()?;
            bytes = bytes.checked_mul(count)?;
        }
        Some(bytes)
    }
}

/// `*packedfile` and `filepath[1024]` without what says how many.
fn stem(name: &[u8]) -> &[u8] {
    let name = name.strip_prefix(b"*").unwrap_or(name);
    name.split(|byte| *byte == b'[').next().unwrap_or(name)
}

fn is_text(name: &[u8]) -> bool {
    name.ends_with(b"]") && !name.starts_with(b"*")
}

fn text_at(content: &[u8], offset: usize, bytes: usize) -> Option<&str> {
    let text = content.get(offset..offset.checked_add(bytes)?)?;
    let text = text.split(|byte| *byte == 0).next()?;
    str::from_utf8(text).ok().filter(|text| !text.is_empty())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ScanError> {
        let end = self.at.checked_add(count).ok_or(DAMAGED)?;
        let taken = self.bytes.get(self.at..end).ok_or(DAMAGED)?;
        self.at = end;
        Ok(taken)
    }

    /// Each part begins at a multiple of four.
    fn tag(&mut self, tag: &[u8; 4]) -> Result<(), ScanError> {
        self.at = self.at.next_multiple_of(4);
        if self.take(4)? == tag { Ok(()) } else { Err(DAMAGED) }
    }

    fn u16(&mut self) -> Result<u16, ScanError> {
        let two = self.take(2)?.try_into().map_err(|_| DAMAGED)?;
        Ok(u16::from_le_bytes(two))
    }

    fn count(&mut self) -> Result<u32, ScanError> {
        let four = self.take(4)?.try_into().map_err(|_| DAMAGED)?;
        Some(u32::from_le_bytes(four)).filter(|count| *count <= MAX_ENTRIES).ok_or(DAMAGED)
    }

    fn texts(&mut self) -> Result<Vec<&'a [u8]>, ScanError> {
        let mut texts = Vec::new();
        for _ in 0..self.count()? {
            let rest = self.bytes.get(self.at..).ok_or(DAMAGED)?;
            let length = rest.iter().position(|byte| *byte == 0).ok_or(DAMAGED)?;
            texts.push(self.take(length)?);
            self.at += 1;
        }
        Ok(texts)
    }
}
