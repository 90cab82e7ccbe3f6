//! Opening a feed: everything is read and checked once, a torn end is cut off, damage is refused.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    sync::Arc,
};

use avalon_protocol::{
    feed::{FeedError, FeedId, FeedReader, FeedRereader, SealedGroup},
    id::{NodeId, ProjectName},
    rel_path::RelPath,
    signing::RecordTrust,
};

use super::{
    FeedFile, FeedFileError, FeedIndex,
    read::Position,
    segment::{
        FORMAT, Frame, HEADER_BYTES, HEADER_LENGTH, decode_header, file_name, has_good_frame,
        newest_claimed as newest_in, number_of, read_frame,
    },
};
use crate::fs::{Dir, FileKind, IoError, Overwrite};

/// What a crash left at the end of a feed and was cut off. It had not been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The feed.
    pub feed: FeedId,
    /// The number of the segment.
    pub segment: u32,
    /// Where the torn part began.
    pub offset: u64,
    /// How long it was.
    pub bytes: u64,
}

/// Lists the feeds that are in `feeds`.
pub(crate) fn find(feeds: &Dir) -> Result<Vec<FeedId>, IoError> {
    let mut found = Vec::new();
    for entry in feeds.list(None)? {
        let (Ok(path), Some(project)) = (entry.rel_path(), parsed::<ProjectName>(&entry.display_name()))
        else {
            continue;
        };
        for entry in feeds.list(Some(&path))? {
            if let (FileKind::Dir, Some(node)) = (entry.kind, parsed::<NodeId>(&entry.display_name())) {
                found.push(FeedId { project: project.clone(), node });
            }
        }
    }
    Ok(found)
}

fn parsed<T: std::str::FromStr>(name: &str) -> Option<T> {
    name.parse().ok()
}

fn feed_path(feeds: &Dir, feed: &FeedId) -> Result<RelPath, IoError> {
    let text = feed.to_string();
    text.parse().map_err(|error| {
        IoError::new("use", feeds.path().join(&text), io::Error::new(io::ErrorKind::InvalidFilename, error))
    })
}

/// Creates the directory of a feed that has no records yet.
pub(crate) fn create(feeds: &Dir, feed: &FeedId) -> Result<FeedFile, IoError> {
    let dir = feeds.create_dirs(&feed_path(feeds, feed)?)?;
    Ok(FeedFile::new(Arc::new(FeedIndex::new(feed.clone(), dir)), FeedReader::new(feed.clone())))
}

/// Puts a damaged feed aside; returns where it lies now. The name is none that a node can have.
pub(crate) fn quarantine(feeds: &Dir, feed: &FeedId) -> Result<PathBuf, IoError> {
    let path = feed_path(feeds, feed)?;
    let project = path.parent().ok_or_else(|| {
        IoError::new(
            "rename",
            feeds.path().join(path.as_str()),
            io::Error::from(io::ErrorKind::InvalidFilename),
        )
    })?;
    let parent = feeds.open_dir(&project)?;
    let mut number = 1;
    loop {
        let name = format!("bad-{}.{number}", feed.node);
        let to = project.join_str(&name).map_err(|error| {
            IoError::new(
                "rename",
                parent.path().join(&name),
                io::Error::new(io::ErrorKind::InvalidFilename, error),
            )
        })?;
        match feeds.rename(&path, feeds, &to, Overwrite::Refuse) {
            Err(error) if error.is_already_there() => number += 1,
            renamed => {
                renamed?;
                parent.sync()?;
                return Ok(feeds.path().join(to.as_str()));
            }
        }
    }
}

/// Returns how many records a feed had, as far as what is left of it says: nothing but checksums is verified, and what cannot be
/// read counts for nothing.
pub(crate) fn newest_claimed(feeds: &Dir, feed: &FeedId) -> u64 {
    let Some(dir) = feed_path(feeds, feed).ok().and_then(|path| feeds.open_dir(&path).ok()) else { return 0 };
    let names = dir.list(None).unwrap_or_default();
    let segments = names.iter().filter_map(|entry| number_of(entry.name.to_str()?));
    let claimed = segments.filter_map(|segment| {
        let mut bytes = Vec::new();
        dir.open_file(&file_name(segment)).ok()?.read_to_end(&mut bytes).ok()?;
        Some(newest_in(&bytes))
    });
    claimed.max().unwrap_or(0)
}

/// Opens a feed: checks every checksum, the chain, and the signatures that vouch for all of it, cuts a torn end off, and makes durable what it has read: a
/// process that was killed may have left its last groups in memory only.
///
/// # Errors
/// [`FeedFileError`]; where `is_damage` says so, nothing on disk has been changed and the feed has to come from a peer.
pub(crate) fn open(
    feeds: &Dir,
    feed: &FeedId,
    trust: &dyn RecordTrust,
) -> Result<(FeedFile, Option<TornTail>), FeedFileError> {
    open_syncing(feeds, feed, trust, File::sync_data)
}

/// [`open`], with what makes the last segment durable. Earlier ones were when it was begun.
pub(super) fn open_syncing(
    feeds: &Dir,
    feed: &FeedId,
    trust: &dyn RecordTrust,
    sync: impl Fn(&File) -> io::Result<()>,
) -> Result<(FeedFile, Option<TornTail>), FeedFileError> {
    let (opening, torn) = read_all(feeds, feed, (trust, Torn::CutOff))?;
    if let Some((segment, _, file)) = &opening.last {
        sync(file).map_err(|error| opening.io("make durable", *segment, error))?;
    }
    Ok((opening.into_file()?, torn))
}

/// Checks a feed as [`open`] does, every signature too, and changes nothing: also what a daemon is writing to. Returns it as far as it is
/// good.
///
/// # Errors
/// [`FeedFileError`].
pub(crate) fn check(
    feeds: &Dir,
    feed: &FeedId,
    trust: &dyn RecordTrust,
) -> Result<(Arc<FeedIndex>, Option<TornTail>), FeedFileError> {
    let (opening, torn) = read_all(feeds, feed, (trust, Torn::Leave))?;
    Ok((Arc::clone(opening.into_file()?.index()), torn))
}

/// What becomes of a torn end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Torn {
    CutOff,
    Leave,
}

fn read_all<'a>(
    feeds: &Dir,
    feed: &FeedId,
    (trust, torn_end): (&'a dyn RecordTrust, Torn),
) -> Result<(Opening<'a>, Option<TornTail>), FeedFileError> {
    let io = |source| FeedFileError::Io { feed: feed.clone(), source };
    let path = feed_path(feeds, feed).map_err(io)?;
    let dir = feeds.open_dir(&path).map_err(io)?;
    let entries = dir.list(None).map_err(io)?;
    let numbers: Vec<u32> = entries.iter().filter_map(|entry| number_of(entry.name.to_str()?)).collect();
    let missing = (0u32..).zip(&numbers).find(|(expected, number)| expected != *number);
    if let Some((segment, _)) = missing {
        return Err(FeedFileError::Damaged { feed: feed.clone(), segment, offset: 0 });
    }
    let mut opening = Opening {
        index: FeedIndex::new(feed.clone(), dir),
        reader: match torn_end {
            Torn::CutOff => Reader::Again(FeedRereader::new(feed.clone())),
            Torn::Leave => Reader::Each(FeedReader::new(feed.clone())),
        },
        trust,
        torn_end,
        last: None,
        torn: None,
    };
    for segment in &numbers {
        opening.read_segment(*segment, *segment as usize + 1 == numbers.len())?;
    }
    let torn = opening.torn.take();
    Ok((opening, torn))
}

/// How signatures are checked.
enum Reader {
    /// Those that vouch for the others.
    Again(FeedRereader),
    /// Each.
    Each(FeedReader),
}

impl Reader {
    fn get(&self) -> &FeedReader {
        match self {
            Self::Again(rereader) => rereader.reader(),
            Self::Each(reader) => reader,
        }
    }

    fn accept(&mut self, group: SealedGroup, trust: &dyn RecordTrust) -> Result<(), FeedError> {
        match self {
            Self::Again(rereader) => rereader.accept(group, trust),
            Self::Each(reader) => reader.accept(&group, trust).map(drop),
        }
    }

    fn check(&self, trust: &dyn RecordTrust) -> Result<(), FeedError> {
        match self {
            Self::Again(rereader) => rereader.check(trust),
            Self::Each(_) => Ok(()),
        }
    }

    fn finish(self, trust: &dyn RecordTrust) -> Result<FeedReader, FeedError> {
        match self {
            Self::Again(rereader) => rereader.finish(trust),
            Self::Each(reader) => Ok(reader),
        }
    }
}

struct Opening<'a> {
    index: FeedIndex,
    reader: Reader,
    trust: &'a dyn RecordTrust,
    torn_end: Torn,
    last: Option<(u32, u64, File)>,
    torn: Option<TornTail>,
}

impl Opening<'_> {
    fn into_file(self) -> Result<FeedFile, FeedFileError> {
        let feed = self.feed();
        let (segment, offset) = self.last.as_ref().map_or((0, 0), |(segment, end, _)| (*segment, *end));
        let reader = self.reader.finish(self.trust);
        let reader = reader.map_err(|source| FeedFileError::Refused { feed, segment, offset, source })?;
        let opened = FeedFile::new(Arc::new(self.index), reader);
        Ok(match self.last {
            Some((number, length, file)) => opened.with_last(number, length, Box::new(file)),
            None => opened,
        })
    }

    fn feed(&self) -> FeedId {
        self.index.feed().clone()
    }

    fn io(&self, action: &'static str, segment: u32, error: io::Error) -> FeedFileError {
        FeedFileError::Io { feed: self.feed(), source: self.index.io_error(action, segment, error) }
    }

    /// A sector that cannot be read is damage like any other.
    fn damaged(&self, at: Position) -> FeedFileError {
        FeedFileError::Damaged { feed: self.feed(), segment: at.segment, offset: at.offset }
    }

    fn read_segment(&mut self, segment: u32, is_last: bool) -> Result<(), FeedFileError> {
        let file = match self.torn_end {
            Torn::CutOff => self.index.dir().open_rw(&file_name(segment)),
            Torn::Leave => self.index.dir().open_file(&file_name(segment)),
        };
        let file = file.map_err(|source| FeedFileError::Io { feed: self.feed(), source })?;
        let mut position = Position { segment, offset: 0 };
        let mut input = BufReader::with_capacity(1 << 20, &file);
        if !self.check_header(&mut input, position)? {
            return self.end_torn(position, is_last, file);
        }
        self.index.add_segment();
        position.offset = HEADER_BYTES;
        loop {
            match read_frame(&mut input).map_err(|_| self.damaged(position))? {
                Frame::End => break,
                Frame::Bad => return self.end_torn(position, is_last, file),
                Frame::Good(group, bytes) => {
                    let Position { segment, offset } = position;
                    self.reader.accept(group, self.trust).map_err(|source| match source {
                        FeedError::Damaged { feed } => FeedFileError::Damaged { feed, segment, offset },
                        source => FeedFileError::Refused { feed: self.feed(), segment, offset, source },
                    })?;
                    self.index.add_group(position, bytes, self.reader.get());
                    position.offset += bytes;
                }
            }
        }
        self.last = Some((segment, position.offset, file));
        Ok(())
    }

    /// Says whether the header is whole; a whole one that does not fit is an error.
    fn check_header(&self, input: &mut impl io::Read, at: Position) -> Result<bool, FeedFileError> {
        let mut header = [0; HEADER_LENGTH];
        match input.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read.map_err(|_| self.damaged(at))?,
        }
        match decode_header(&header) {
            Some((FORMAT, first_seq)) if first_seq == self.reader.get().head().next_seq => Ok(true),
            // One bit that rotted makes no newer version: what it would write behind that is not known here.
            Some((format, _))
                if (format ^ FORMAT).is_power_of_two()
                    && matches!(read_frame(input), Ok(Frame::Good(..))) =>
            {
                Err(self.damaged(at))
            }
            Some((format, _)) if format > FORMAT => {
                Err(FeedFileError::NewerFormat { feed: self.feed(), segment: at.segment, format })
            }
            None if header.iter().all(|byte| *byte == 0) => Ok(false),
            _ => Err(self.damaged(at)),
        }
    }

    /// Cuts off what is bad from `at` on, if it can only be the torn end of an append.
    fn end_torn(&mut self, at: Position, is_last: bool, mut file: File) -> Result<(), FeedFileError> {
        let io = |this: &Self, error| this.io("repair", at.segment, error);
        // Damage is found before anything is cut off.
        let Position { segment, offset } = at;
        let checked = self.reader.check(self.trust);
        checked.map_err(|source| FeedFileError::Refused { feed: self.feed(), segment, offset, source })?;
        file.seek(SeekFrom::Start(at.offset)).map_err(|error| io(self, error))?;
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).map_err(|_| self.damaged(at))?;
        if !is_last || has_good_frame(rest.get(1..).unwrap_or_default()) {
            return Err(self.damaged(at));
        }
        if self.torn_end == Torn::Leave {
            // It is only told.
        } else if at.offset < HEADER_BYTES {
            let dir = self.index.dir();
            let removed = dir.remove_file(&file_name(at.segment)).and_then(|()| dir.sync());
            removed.map_err(|source| FeedFileError::Io { feed: self.feed(), source })?;
        } else {
            file.set_len(at.offset).and_then(|()| file.sync_all()).map_err(|error| io(self, error))?;
            self.last = Some((at.segment, at.offset, file));
        }
        let bytes = rest.len() as u64;
        self.torn = Some(TornTail { feed: self.feed(), segment: at.segment, offset: at.offset, bytes });
        Ok(())
    }
}
