//! The catalog as text, one JSON object on each line: for people, for scripts, and to be read back.
//!
//! The first line says what follows, each other is one row, the last has the BLAKE3 of all lines before it. Rows of objects
//! are not among them: they follow from those of local files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom},
};

use avalon_protocol::{
    feed::{FeedHead, FeedId},
    hash::{ChainHash, ManifestId, ObjectHash},
    id::{NodeId, ProjectName, VersionId},
    rel_path::RelPath,
    version_fold::{Generation, VersionFold},
};
use serde::{Deserialize, Serialize};

use super::{
    FORMAT, LocalFile, Table, TableSum, Value, cursor_key, feed_of_key, file_key, file_path, manifest_of_key,
    snapshot::{Checked, Rows, Snapshot, SourceError, SourceRow},
    version_key, version_of_key,
};

/// What the first line begins with; the number after it is the version of the whole.
const SCHEMA: &str = "avalon.catalog/";
const VERSION: u32 = 1;
/// How much text is made at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// A version that hundreds of nodes hold takes some kilobytes; more than this is no line of ours.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// The tables that an export has, in its order: that of [`SourceRow`]s to start from.
pub(crate) const EXPORTED: [Table; 4] =
    [Table::Cursors, Table::Versions, Table::Manifests, Table::LocalFiles];

#[derive(Serialize, Deserialize)]
struct Head {
    schema: String,
    /// The layout of keys and values that the sums are of.
    layout: u16,
    node: NodeId,
    generation: u64,
    records: u64,
    tables: BTreeMap<String, TableLine>,
}

#[derive(Serialize, Deserialize)]
struct TableLine {
    rows: u64,
    bytes: u64,
    sum: String,
}

#[derive(Serialize, Deserialize)]
struct End {
    rows: u64,
    blake3: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "kebab-case")]
enum Line {
    Cursors {
        project: ProjectName,
        node: NodeId,
        next_seq: u64,
        chain: ChainHash,
    },
    Versions {
        version: VersionId,
        /// For people; what is read back is `value`.
        #[serde(skip_deserializing)]
        generations: BTreeMap<ManifestId, Generation>,
        #[serde(skip_deserializing)]
        holders: BTreeMap<ManifestId, BTreeSet<NodeId>>,
        /// The whole fold in postcard, in hex.
        value: String,
    },
    Manifests {
        manifest: ManifestId,
        version: VersionId,
    },
    LocalFiles {
        project: ProjectName,
        path: RelPath,
        hash: ObjectHash,
        size: u64,
        mtime_ns: i64,
        ctime_ns: i64,
        inode: u64,
        manifest: ManifestId,
    },
}

impl Line {
    /// Writes a row out; `None` where it is not one.
    fn of((table, key, value): &SourceRow) -> Option<Self> {
        Some(match table {
            Table::Cursors => {
                let FeedId { project, node } = feed_of_key(key)?;
                let FeedHead { next_seq, chain } = postcard::from_bytes(value).ok()?;
                Self::Cursors { project, node, next_seq, chain }
            }
            Table::Versions => {
                let fold: VersionFold = postcard::from_bytes(value).ok()?;
                let generations = fold.generations().clone();
                let holders = generations.keys().map(|id| (*id, fold.holders(id))).collect();
                let version = version_of_key(key)?;
                Self::Versions { version, generations, holders, value: hex::encode(value) }
            }
            Table::Manifests => {
                let version = postcard::from_bytes(value).ok()?;
                Self::Manifests { manifest: manifest_of_key(key)?, version }
            }
            Table::LocalFiles => {
                let (project, path) = file_path(key)?;
                let LocalFile { hash, size, mtime_ns, ctime_ns, inode, manifest } =
                    postcard::from_bytes(value).ok()?;
                Self::LocalFiles { project, path, hash, size, mtime_ns, ctime_ns, inode, manifest }
            }
            Table::Objects => return None,
        })
    }

    /// Returns the row; `None` where a value is not what it should be.
    fn into_row(self) -> Option<SourceRow> {
        Some(match self {
            Self::Cursors { project, node, next_seq, chain } => {
                let value = FeedHead { next_seq, chain }.to_bytes();
                (Table::Cursors, cursor_key(&FeedId { project, node }), value)
            }
            Self::Versions { version, value, .. } => {
                let value = hex::decode(value).ok()?;
                let fold: VersionFold = postcard::from_bytes(&value).ok()?;
                (fold.to_bytes() == value).then_some((Table::Versions, version_key(&version), value))?
            }
            Self::Manifests { manifest, version } => {
                (Table::Manifests, manifest.as_bytes().to_vec(), version.to_bytes())
            }
            Self::LocalFiles { project, path, hash, size, mtime_ns, ctime_ns, inode, manifest } => {
                let file = LocalFile { hash, size, mtime_ns, ctime_ns, inode, manifest };
                (Table::LocalFiles, file_key(&project, &path), file.to_bytes())
            }
        })
    }
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::Versions => "versions",
        Table::Manifests => "manifests",
        Table::LocalFiles => "local-files",
        Table::Objects => "objects",
        Table::Cursors => "cursors",
    }
}

/// The catalog as it was at one moment, as text. Whatever is written meanwhile does not show in it.
pub struct Export {
    head: Option<Head>,
    rows: Checked<Rows>,
    count: u64,
    hasher: blake3::Hasher,
    ended: bool,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Export(row {})", self.count)
    }
}

impl Export {
    /// Takes the rows of [`EXPORTED`] from a file.
    pub(crate) fn new(snapshot: Snapshot, node: NodeId, generation: u64) -> Result<Self, SourceError> {
        let (header, rows) = snapshot.read()?;
        let sums = header.sums();
        let tables = sums.iter().map(|(table, sum)| {
            (table_name(*table).to_owned(), TableLine { rows: sum.rows, bytes: sum.bytes, sum: sum.hex() })
        });
        let head = Head {
            schema: format!("{SCHEMA}{VERSION}"),
            layout: header.layout,
            node,
            generation,
            records: header.records,
            tables: tables.collect(),
        };
        let rows = Checked::new(rows, sums);
        Ok(Self { head: Some(head), rows, count: 0, hasher: blake3::Hasher::new(), ended: false })
    }

    /// Returns the next lines, some 256 KiB of them, or `None` behind the last.
    ///
    /// # Errors
    /// [`SourceError`]; what came before is no whole export then, and its last line is missing.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        if self.ended {
            return Ok(None);
        }
        let mut text = Vec::new();
        if let Some(head) = self.head.take() {
            put_line(&mut text, &head)?;
        }
        while text.len() < CHUNK_BYTES && !self.ended {
            let Some(row) = self.rows.next().transpose()? else {
                self.ended = true;
                break;
            };
            let line = Line::of(&row);
            let line =
                line.ok_or_else(|| SourceError::damaged(format!("a row of {} is unreadable", row.0)))?;
            put_line(&mut text, &line)?;
            self.count += 1;
        }
        self.hasher.update(&text);
        if self.ended {
            let blake3 = self.hasher.finalize().to_hex().to_string();
            put_line(&mut text, &End { rows: self.count, blake3 })?;
        }
        Ok(Some(text))
    }
}

fn put_line(text: &mut Vec<u8>, line: &impl Serialize) -> Result<(), SourceError> {
    serde_json::to_writer(&mut *text, line).map_err(|error| SourceError::Io(error.into()))?;
    text.push(b'\n');
    Ok(())
}

/// An export that came from somewhere, and whose hash was compared.
pub(crate) struct Import {
    lines: BufReader<File>,
    sums: Vec<(Table, TableSum)>,
    rows: u64,
}

impl Import {
    /// Reads all of it once: what it is, how many lines it has, and their hash.
    pub(crate) fn open(mut file: File) -> Result<Self, SourceError> {
        file.seek(SeekFrom::Start(0))?;
        let mut lines = BufReader::with_capacity(1 << 18, file);
        let first = read_line(&mut lines)?.ok_or_else(|| SourceError::damaged("it is empty"))?;
        let sums = read_head(&first)?;
        let mut hasher = blake3::Hasher::new();
        let mut last = first;
        let mut count = 0u64;
        while let Some(line) = read_line(&mut lines)? {
            hasher.update(&last);
            last = line;
            count += 1;
        }
        let end: End =
            serde_json::from_slice(&last).map_err(|_| SourceError::damaged("its last line is missing"))?;
        if end.blake3 != hasher.finalize().to_hex().as_str() {
            return Err(SourceError::damaged("its hash is another one"));
        }
        let rows = count.saturating_sub(1);
        if end.rows != rows {
            return Err(SourceError::damaged(format!("it has {rows} rows and says {}", end.rows)));
        }
        lines.seek(SeekFrom::Start(0))?;
        read_line(&mut lines)?;
        Ok(Self { lines, sums, rows })
    }

    /// Starts to read the rows. The last that comes is an error where they do not add up.
    pub(crate) fn rows(self) -> impl Iterator<Item = Result<SourceRow, SourceError>> + Send + use<> {
        let Self { mut lines, sums, rows } = self;
        let mut number = 1;
        let parsed = (0..rows).map(move |_| {
            number += 1;
            let line = read_line(&mut lines)?.unwrap_or_default();
            let bad = |why: String| SourceError::damaged(format!("line {number} {why}"));
            let line: Line =
                serde_json::from_slice(&line).map_err(|error| bad(format!("is no row: {error}")))?;
            line.into_row().ok_or_else(|| bad("has a value that cannot be read".into()))
        });
        Checked::new(parsed, sums)
    }
}

fn read_head(line: &[u8]) -> Result<Vec<(Table, TableSum)>, SourceError> {
    let not_ours = || SourceError::damaged("its first line is not that of an export of a catalog");
    #[derive(Deserialize)]
    struct Schema {
        schema: String,
    }
    let Schema { schema } = serde_json::from_slice(line).map_err(|_| not_ours())?;
    let version = schema.strip_prefix(SCHEMA).and_then(|version| version.parse().ok());
    match version.ok_or_else(not_ours)? {
        VERSION => {}
        found => return Err(SourceError::Newer { found, known: VERSION }),
    }
    let head: Head = serde_json::from_slice(line).map_err(|_| not_ours())?;
    if head.layout != FORMAT {
        return Err(SourceError::OtherLayout { found: head.layout, known: FORMAT });
    }
    let sums = EXPORTED.into_iter().map(|table| {
        let line = head.tables.get(table_name(table))?;
        Some((table, TableSum::from_hex(line.rows, line.bytes, &line.sum)?))
    });
    sums.collect::<Option<_>>().ok_or_else(not_ours)
}

fn read_line(lines: &mut BufReader<File>) -> Result<Option<Vec<u8>>, SourceError> {
    let mut line = Vec::new();
    lines.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(SourceError::damaged("a line does not end")),
    }
}
