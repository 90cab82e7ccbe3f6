//! Rows in one file: what a checkpoint is, and what an export is made from.
//!
//! ```text
//! "AVCK" | version u32 | zstd stream | BLAKE3 of all that, 32 bytes
//! stream = length u32 | header | rows | 0 u8
//! row    = table u8 | length of the key u32 | length of the value u32 | key | value
//! ```
//!
//! All numbers are little-endian. The hash at the end is compared before a byte of the stream is decoded.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CatalogError, CatalogStore, Cause, FORMAT, MAX_PAGE_ROWS, Table, TableSum, envelope::row_mark};
use crate::fs::IoError;

const MAGIC: [u8; 4] = *b"AVCK";
const VERSION: u32 = 1;
const HASH_BYTES: u64 = 32;
const START_BYTES: u64 = 8;
/// Rows are small; the fastest level already takes most of what there is to take.
const ZSTD_LEVEL: i32 = 1;
/// No key or value comes near this; a length above it is damage, and takes no memory.
pub(super) const MAX_PART_BYTES: usize = 256 << 20;

/// A row of some table, without its envelope.
pub(crate) type SourceRow = (Table, Vec<u8>, Vec<u8>);

/// What is known of the rows before they are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    /// The layout of keys and values.
    pub(crate) layout: u16,
    /// How many records they come from.
    pub(crate) records: u64,
    /// The tables that follow, in this order.
    pub(crate) tables: Vec<(u8, TableSum)>,
}

impl SnapshotHeader {
    /// Describes what `store` has now in `tables`.
    pub(crate) fn of(store: &dyn CatalogStore, tables: &[Table], records: u64) -> Self {
        let tables = tables.iter().map(|table| (table.tag(), store.sum(*table))).collect();
        Self { layout: FORMAT, records, tables }
    }

    /// Returns what must come, for the tables that this version knows.
    pub(crate) fn sums(&self) -> Vec<(Table, TableSum)> {
        let known = self
            .tables
            .iter()
            .filter_map(|(tag, sum)| Some((Table::ALL.into_iter().find(|table| table.tag() == *tag)?, *sum)));
        known.collect()
    }
}

/// Why rows cannot be taken from a file. The catalog in use is as it was.
#[derive(Debug, Error)]
pub enum SourceError {
    /// It cannot be read or written.
    #[error("its bytes cannot be read or written")]
    Io(#[from] io::Error),
    /// Its file cannot be opened, made or made durable.
    #[error("its file cannot be used")]
    File(#[from] IoError),
    /// It is not what was written.
    #[error("it is damaged: {what}")]
    Damaged {
        /// Where that shows.
        what: String,
    },
    /// Written by a newer version of this software.
    #[error("it has version {found}, this avalond reads {known}; upgrade avalond here")]
    Newer {
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Its rows are those of another version of this software.
    #[error("its rows have layout {found}, those of this avalond have {known}; rebuild the catalog instead")]
    OtherLayout {
        /// Its layout.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// Some records count now that did not when it was made, or the other way round.
    #[error("who may do what has changed since it was made")]
    Rights,
    /// It was made from records that the feed here does not have: it is of another node, or newer than the feeds.
    #[error("it is ahead of feed {feed} or beside it")]
    Cursor {
        /// The feed.
        feed: avalon_protocol::feed::FeedId,
    },
    /// It stands for more records than there are: the feeds are those of a backup.
    #[error("it stands for {records} records, the feeds have {total}")]
    AheadOfFeeds {
        /// How many it stands for.
        records: u64,
        /// How many there are.
        total: u64,
    },
    /// Its rows do not add up to what it says itself.
    #[error("rows of table {table} are missing or too many in it")]
    Rows {
        /// The table.
        table: Table,
    },
    /// The catalog that it is made from fails.
    #[error("the catalog cannot be read")]
    Catalog(#[source] CatalogError),
}

impl SourceError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// Passes bytes on and hashes them.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes all rows of `tables`, page by page. Nothing may be committed meanwhile; rows that do not add up to what the store
/// says are damage of the store.
pub(crate) fn write(
    store: &dyn CatalogStore,
    tables: &[Table],
    records: u64,
    file: &File,
) -> Result<(), SourceError> {
    let mut out = Hashing { inner: BufWriter::with_capacity(1 << 18, file), hasher: blake3::Hasher::new() };
    out.write_all(&MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    let mut stream = zstd::Encoder::new(out, ZSTD_LEVEL)?;
    let header = SnapshotHeader::of(store, tables, records);
    let bytes = postcard::to_stdvec(&header).map_err(|error| SourceError::damaged(error.to_string()))?;
    stream.write_all(&length(&bytes)?)?;
    stream.write_all(&bytes)?;
    for (table, expected) in header.sums() {
        let sum = write_table(store, table, &mut stream)?;
        if sum != expected {
            return Err(SourceError::Catalog(CatalogError::damaged(
                store.generation(),
                Cause::Rows { table },
            )));
        }
    }
    stream.write_all(&[0])?;
    let Hashing { mut inner, hasher } = stream.finish()?;
    inner.write_all(hasher.finalize().as_bytes())?;
    Ok(inner.flush()?)
}

fn write_table(
    store: &dyn CatalogStore,
    table: Table,
    out: &mut impl Write,
) -> Result<TableSum, SourceError> {
    let mut sum = TableSum::default();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store.scan(table, &[], after.as_deref(), MAX_PAGE_ROWS).map_err(SourceError::Catalog)?;
        let Some((last, _)) = rows.last() else { return Ok(sum) };
        after = Some(last.clone());
        for (key, value) in rows {
            sum.add(&row_mark(table.tag(), &key, &value));
            out.write_all(&[table.tag()])?;
            out.write_all(&length(&key)?)?;
            out.write_all(&length(&value)?)?;
            out.write_all(&key)?;
            out.write_all(&value)?;
        }
    }
}

fn length(bytes: &[u8]) -> Result<[u8; 4], SourceError> {
    let length = u32::try_from(bytes.len()).map_err(|_| SourceError::damaged("a row is over 4 GiB"))?;
    Ok(length.to_le_bytes())
}

/// A file of rows whose hash was compared.
#[derive(Debug)]
pub(crate) struct Snapshot {
    file: File,
    end: u64,
}

impl Snapshot {
    /// Reads all of the file once and compares its hash.
    pub(crate) fn open(mut file: File) -> Result<Self, SourceError> {
        let bytes = file.metadata()?.len();
        let end = bytes.checked_sub(HASH_BYTES).filter(|end| *end >= START_BYTES);
        let end = end.ok_or_else(|| SourceError::damaged("it is too short"))?;
        file.seek(SeekFrom::Start(0))?;
        let mut start = [0; 8];
        file.read_exact(&mut start)?;
        let (magic, version) = start.split_at(4);
        if magic != MAGIC {
            return Err(SourceError::damaged("it does not begin as one"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&start);
        io::copy(&mut (&file).take(end - START_BYTES), &mut hasher)?;
        let mut expected = [0; 32];
        file.read_exact(&mut expected)?;
        if hasher.finalize() != expected {
            return Err(SourceError::damaged("its hash is another one"));
        }
        match <[u8; 4]>::try_from(version).map(u32::from_le_bytes) {
            Ok(VERSION) => Ok(Self { file, end }),
            found => Err(SourceError::Newer { found: found.unwrap_or(0), known: VERSION }),
        }
    }

    /// Starts to read the rows. The last that comes is an error where they do not add up.
    pub(crate) fn rows(self) -> Result<Checked<Rows>, SourceError> {
        let (header, rows) = self.read()?;
        Ok(Checked::new(rows, header.sums()))
    }

    /// Starts to read the rows, and returns what they add up to.
    pub(crate) fn read(mut self) -> Result<(SnapshotHeader, Rows), SourceError> {
        self.file.seek(SeekFrom::Start(START_BYTES))?;
        let input = BufReader::with_capacity(1 << 18, self.file.take(self.end - START_BYTES));
        let mut stream = zstd::Decoder::with_buffer(input)?;
        let header = read_part(&mut stream)?;
        let layout = postcard::take_from_bytes::<u16>(&header).map(|(layout, _)| layout);
        match layout {
            Ok(FORMAT) => {}
            Ok(found) => return Err(SourceError::OtherLayout { found, known: FORMAT }),
            Err(_) => return Err(SourceError::damaged("its header cannot be read")),
        }
        let header = postcard::from_bytes(&header);
        let header = header.map_err(|_| SourceError::damaged("its header cannot be read"))?;
        Ok((header, Rows { stream, ended: false }))
    }
}

/// The rows of a file, in their order.
pub(crate) struct Rows {
    stream: zstd::Decoder<'static, BufReader<io::Take<File>>>,
    ended: bool,
}

impl Rows {
    fn read(&mut self) -> Result<Option<SourceRow>, SourceError> {
        let mut tag = [0];
        self.stream.read_exact(&mut tag)?;
        let [tag] = tag;
        if tag == 0 {
            return Ok(None);
        }
        let table = Table::ALL.into_iter().find(|table| table.tag() == tag);
        let table = table.ok_or_else(|| SourceError::damaged("a row is of no table"))?;
        let mut lengths = [0; 8];
        self.stream.read_exact(&mut lengths)?;
        let [a, b, c, d, rest @ ..] = lengths;
        let key = read_bytes(&mut self.stream, u32::from_le_bytes([a, b, c, d]))?;
        let value = read_bytes(&mut self.stream, u32::from_le_bytes(rest))?;
        Ok(Some((table, key, value)))
    }
}

impl Iterator for Rows {
    type Item = Result<SourceRow, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.read().transpose();
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}

/// Passes rows on and, at the end, compares what they add up to with what must come.
pub(crate) struct Checked<I> {
    rows: I,
    expected: Vec<(Table, TableSum)>,
    seen: BTreeMap<Table, TableSum>,
    ended: bool,
}

impl<I> Checked<I> {
    pub(crate) fn new(rows: I, expected: Vec<(Table, TableSum)>) -> Self {
        Self { rows, expected, seen: BTreeMap::new(), ended: false }
    }

    fn difference(&mut self) -> Option<Table> {
        let differs = |(table, sum): &(Table, TableSum)| self.seen.remove(table).unwrap_or_default() != *sum;
        let wrong = std::mem::take(&mut self.expected).iter().copied().find(differs).map(|(table, _)| table);
        wrong.or_else(|| self.seen.keys().next().copied())
    }
}

impl<I: Iterator<Item = Result<SourceRow, SourceError>>> Iterator for Checked<I> {
    type Item = Result<SourceRow, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.rows.next();
        if let Some(Ok((table, key, value))) = &row {
            self.seen.entry(*table).or_default().add(&row_mark(table.tag(), key, value));
            return row;
        }
        self.ended = true;
        row.or_else(|| self.difference().map(|table| Err(SourceError::Rows { table })))
    }
}

fn read_part(stream: &mut impl Read) -> Result<Vec<u8>, SourceError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    read_bytes(stream, u32::from_le_bytes(length))
}

fn read_bytes(stream: &mut impl Read, length: u32) -> Result<Vec<u8>, SourceError> {
    let length = length as usize;
    if length > MAX_PART_BYTES {
        return Err(SourceError::damaged("a row is too long"));
    }
    let mut bytes = Vec::new();
    let read = stream.take(length as u64).read_to_end(&mut bytes)?;
    if read == length { Ok(bytes) } else { Err(SourceError::damaged("it ends in a row")) }
}
