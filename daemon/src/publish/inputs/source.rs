//! What scanners read from: a file, or what a compressed one holds, within a budget.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt as _,
    time::Duration,
};

use crate::clock::Clock;

const BUFFER_BYTES: usize = 32 << 10;
/// The first bytes of a zstd frame, in which Blender 3.0 and later compress.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The most memory that a compressed file may ask for, as a power of two: 16 MiB. Blender asks for 2.
const ZSTD_WINDOW_LOG: u32 = 24;

/// How much may still be read of a file, and until when.
pub(super) struct Budget<'a> {
    clock: &'a dyn Clock,
    until: Duration,
    bytes: Cell<u64>,
}

impl<'a> Budget<'a> {
    /// Starts with `bytes`, until `until` by the monotonic clock.
    pub(super) fn new(clock: &'a dyn Clock, until: Duration, bytes: u64) -> Self {
        Self { clock, until, bytes: Cell::new(bytes) }
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let left = self.bytes.get().checked_sub(bytes as u64);
        self.bytes.set(left.unwrap_or(0));
        if left.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it is too large to be looked into whole",
            ));
        }
        if self.clock.monotonic() > self.until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "looking into it took too long"));
        }
        Ok(())
    }
}

/// A file, read by its places: to seek costs nothing, and what is skipped is not read.
pub(super) struct FileSource<'a> {
    file: File,
    budget: &'a Budget<'a>,
    buffer: Vec<u8>,
    /// Where the buffer's first byte is in the file.
    start: u64,
    position: u64,
}

impl<'a> FileSource<'a> {
    /// Stands at the start.
    pub(super) fn new(file: File, budget: &'a Budget<'a>) -> Self {
        Self { file, budget, buffer: Vec::new(), start: 0, position: 0 }
    }

    fn buffered(&self) -> &[u8] {
        let skipped = self.position.checked_sub(self.start).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.buffer.get(skipped..)).unwrap_or_default()
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.resize(BUFFER_BYTES, 0);
        let read = self.file.read_at(&mut self.buffer, self.position)?;
        self.buffer.truncate(read);
        self.start = self.position;
        self.budget.spend(read)
    }
}

impl Read for FileSource<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.buffered().is_empty() {
            self.fill()?;
        }
        let read = self.buffered().read(room)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for FileSource<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(target) => Some(target),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
            SeekFrom::End(distance) => self.file.metadata()?.len().checked_add_signed(distance),
        };
        // Offsets of the system are signed.
        let target = target.filter(|target| i64::try_from(*target).is_ok());
        self.position =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a place before the file"))?;
        Ok(self.position)
    }
}

/// Says whether a file is compressed with zstd; it stands at its start afterwards.
pub(super) fn is_zstd(file: &mut FileSource<'_>) -> io::Result<bool> {
    let mut magic = [0; 4];
    let is_it = match file.read_exact(&mut magic) {
        Ok(()) => magic == ZSTD_MAGIC,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(0))?;
    Ok(is_it)
}

/// What a compressed file holds, from its start to its end.
pub(super) struct Inflated<'a> {
    decoder: zstd::Decoder<'static, BufReader<FileSource<'a>>>,
    budget: &'a Budget<'a>,
    position: u64,
}

impl<'a> Inflated<'a> {
    /// Stands at the start.
    pub(super) fn new(file: FileSource<'a>, budget: &'a Budget<'a>) -> io::Result<Self> {
        let mut decoder = zstd::Decoder::new(file)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Ok(Self { decoder, budget, position: 0 })
    }
}

impl Read for Inflated<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(room)?;
        self.position += read as u64;
        self.budget.spend(read)?;
        Ok(read)
    }
}

impl Seek for Inflated<'_> {
    /// Goes forward by decompressing what lies between; never back.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(target) => Some(target),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
            SeekFrom::End(_) => None,
        };
        let distance = target.and_then(|target| target.checked_sub(self.position));
        let distance = distance.ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "a compressed file is read from start to end")
        })?;
        let passed = io::copy(&mut self.by_ref().take(distance), &mut io::sink())?;
        if passed == distance { Ok(self.position) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
