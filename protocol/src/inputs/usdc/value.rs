//! The values of a crate file that name other files.

use super::{Names, Version, read_u32, read_u64};
use crate::inputs::{
    Finds, ScanError, Source,
    scan::{go_to, read_array, read_bytes},
    usda,
};

/// The types of values that may name files, by the numbers of OpenUSD's `crateDataTypes.h`.
mod kind {
    pub(super) const ASSET_PATH: u64 = 12;
    pub(super) const DICTIONARY: u64 = 31;
    pub(super) const REFERENCE_LIST_OP: u64 = 35;
    pub(super) const TIME_SAMPLES: u64 = 46;
    pub(super) const PAYLOAD: u64 = 47;
    pub(super) const STRING_VECTOR: u64 = 50;
    pub(super) const PAYLOAD_LIST_OP: u64 = 55;
}

/// Longest list that is read: more files than a manifest holds.
const MAX_LIST: u64 = 1 << 20;
/// How deep dictionaries may be nested.
const MAX_DEPTH: u32 = 16;
/// Most values looked at in dictionaries and samples: a damaged file may lead in circles.
const MAX_NESTED: u32 = 1 << 20;

/// The bits that say which lists of edits follow, in their order: explicit, added, prepended, appended, deleted, ordered.
/// Those that a layer takes away are noted as well: the text of a layer names them, too.
const EDITS: [u8; 6] = [1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 3, 1 << 4];

/// Reads values and notes the files that they name.
pub(super) struct Values<'a> {
    source: &'a mut dyn Source,
    names: &'a Names,
    version: Version,
    finds: &'a mut Finds,
    nested: u32,
}

impl<'a> Values<'a> {
    /// Takes the file with its names.
    pub(super) fn new(
        source: &'a mut dyn Source,
        names: &'a Names,
        version: Version,
        finds: &'a mut Finds,
    ) -> Self {
        Self { source, names, version, finds, nested: 0 }
    }

    /// Notes the files that a field's value names.
    pub(super) fn note(&mut self, value: u64, is_sublayers: bool) -> Result<(), ScanError> {
        match Rep(value).kind() {
            kind::STRING_VECTOR if is_sublayers => self.strings(Rep(value).payload()),
            _ => self.value(Rep(value), MAX_DEPTH),
        }
    }

    fn value(&mut self, rep: Rep, depth: u32) -> Result<(), ScanError> {
        match rep.kind() {
            kind::ASSET_PATH if rep.is_array() => self.asset_paths(rep.payload()),
            kind::ASSET_PATH => self.asset_path(rep),
            kind::REFERENCE_LIST_OP => self.list_edits(rep.payload(), Self::reference),
            kind::PAYLOAD_LIST_OP => self.list_edits(rep.payload(), Self::payload),
            kind::PAYLOAD => {
                go_to(self.source, rep.payload())?;
                self.payload()
            }
            kind::DICTIONARY if !rep.is_inlined() => {
                go_to(self.source, rep.payload())?;
                self.dictionary(depth)
            }
            kind::TIME_SAMPLES => self.time_samples(rep.payload(), depth),
            _ => Ok(()),
        }
    }

    fn token(&mut self, index: u32) {
        if let Some(path) = self.names.token(index) {
            usda::note(self.finds, path);
        }
    }

    fn string(&mut self, index: u32) {
        if let Some(path) = self.names.string(index) {
            usda::note(self.finds, path);
        }
    }

    fn asset_path(&mut self, rep: Rep) -> Result<(), ScanError> {
        if rep.is_inlined() {
            u32::try_from(rep.payload()).into_iter().for_each(|index| self.token(index));
        } else {
            go_to(self.source, rep.payload())?;
            let index = read_u32(self.source)?;
            self.string(index);
        }
        Ok(())
    }

    /// A list in the file; place 0 is an empty one. Alone, an asset path is a token; in a list it is a string.
    fn asset_paths(&mut self, at: u64) -> Result<(), ScanError> {
        if at == 0 {
            return Ok(());
        }
        go_to(self.source, at)?;
        if self.version < (0, 5, 0) {
            // The number of dimensions, always 1.
            read_u32(self.source)?;
        }
        let is_short = self.version < (0, 7, 0);
        let count = if is_short { u64::from(read_u32(self.source)?) } else { read_u64(self.source)? };
        for index in self.indices(count)? {
            self.string(index);
        }
        Ok(())
    }

    fn strings(&mut self, at: u64) -> Result<(), ScanError> {
        go_to(self.source, at)?;
        let count = read_u64(self.source)?;
        for index in self.indices(count)? {
            self.string(index);
        }
        Ok(())
    }

    fn indices(&mut self, count: u64) -> Result<Vec<u32>, ScanError> {
        let bytes = read_bytes(self.source, count.saturating_mul(4), ("a list", MAX_LIST * 4))?;
        let four = bytes.chunks_exact(4);
        Ok(four.filter_map(|four| Some(u32::from_le_bytes(four.try_into().ok()?))).collect())
    }

    fn list_edits(
        &mut self,
        at: u64,
        item: impl Fn(&mut Self) -> Result<(), ScanError>,
    ) -> Result<(), ScanError> {
        go_to(self.source, at)?;
        let [bits] = read_array(self.source)?;
        for _ in EDITS.into_iter().filter(|bit| bits & bit != 0) {
            let count = read_u64(self.source)?;
            for _ in 0..count {
                self.count_nested()?;
                item(self)?;
            }
        }
        Ok(())
    }

    /// An asset path, a prim, an offset in time, and whatever the studio adds.
    fn reference(&mut self) -> Result<(), ScanError> {
        self.asset_of_arc()?;
        read_array::<16>(self.source)?;
        self.dictionary(MAX_DEPTH)
    }

    /// An asset path, a prim and, since version 0.8, an offset in time.
    fn payload(&mut self) -> Result<(), ScanError> {
        self.asset_of_arc()?;
        if self.version >= (0, 8, 0) {
            read_array::<16>(self.source)?;
        }
        Ok(())
    }

    fn asset_of_arc(&mut self) -> Result<(), ScanError> {
        let (path, _prim) = (read_u32(self.source)?, read_u32(self.source)?);
        self.string(path);
        Ok(())
    }

    /// Reads a dictionary from where the file stands, and stands behind it afterwards.
    fn dictionary(&mut self, depth: u32) -> Result<(), ScanError> {
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(ScanError::Malformed { what: "dictionaries are nested too deep" });
        };
        let count = read_u64(self.source)?;
        for _ in 0..count {
            self.count_nested()?;
            let _key = read_u32(self.source)?;
            let rep = self.forward()?;
            let behind = self.position()?;
            self.value(rep, deeper)?;
            go_to(self.source, behind)?;
        }
        Ok(())
    }

    /// Times, then values: how far it is to where what they need ends, and there the list of them.
    fn time_samples(&mut self, at: u64, depth: u32) -> Result<(), ScanError> {
        let Some(deeper) = depth.checked_sub(1) else { return Ok(()) };
        go_to(self.source, at)?;
        self.forward()?;
        self.skip_forward()?;
        let count = read_u64(self.source)?;
        let mut at = self.position()?;
        for _ in 0..count {
            self.count_nested()?;
            go_to(self.source, at)?;
            let rep = Rep(read_u64(self.source)?);
            at = self.position()?;
            // All samples are of one type, but for those that say that there is none.
            if !matches!(rep.kind(), kind::ASSET_PATH | VALUE_BLOCK) {
                return Ok(());
            }
            self.value(rep, deeper)?;
        }
        Ok(())
    }

    /// Reads a value that lies behind what it needs.
    fn forward(&mut self) -> Result<Rep, ScanError> {
        self.skip_forward()?;
        read_u64(self.source).map(Rep)
    }

    fn skip_forward(&mut self) -> Result<(), ScanError> {
        let start = self.position()?;
        let distance = i64::from_le_bytes(read_array(self.source)?);
        let target = start.checked_add_signed(distance);
        go_to(self.source, target.ok_or(ScanError::Malformed { what: "a value lies nowhere" })?)
    }

    fn position(&mut self) -> Result<u64, ScanError> {
        self.source.stream_position().map_err(ScanError::Read)
    }

    fn count_nested(&mut self) -> Result<(), ScanError> {
        self.nested += 1;
        match self.nested > MAX_NESTED {
            true => Err(ScanError::TooLarge { what: "the number of values", limit: u64::from(MAX_NESTED) }),
            false => Ok(()),
        }
    }
}

/// A sample that says that there is no value.
const VALUE_BLOCK: u64 = 51;

/// A value of eight bytes: type, and payload.
#[derive(Debug, Clone, Copy)]
struct Rep(u64);

impl Rep {
    fn kind(self) -> u64 {
        self.0 >> 48 & 0xff
    }

    fn payload(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    fn is_array(self) -> bool {
        self.0 >> 63 == 1
    }

    fn is_inlined(self) -> bool {
        self.0 >> 62 & 1 == 1
    }
}
