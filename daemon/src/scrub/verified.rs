//! When versions were read last and found as published: `verified.log` in the state directory.
//!
//! It is derived from nothing, and nothing depends on it but what is read next: whoever loses it, or its last minute, reads
//! again. So it is appended to without waiting for the disk, and what is damaged in it is passed over.
//!
//! A record has 28 bytes: the first 16 of the manifest's id, the time in milliseconds since 1970 as 8 bytes little-endian, and the
//! first 4 of the BLAKE3 of both. Of a manifest the last record counts. Memory: about 30 bytes for each version that was read.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    sync::{Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{hash::ManifestId, rel_path::RelPath};
use avalon_store::fs::{Dir, IoError, WriteMode};

use crate::log::ErrorChain;

const NAME: &str = "verified.log";
const KEY_BYTES: usize = 16;
const RECORD_BYTES: usize = 28;
/// A file with so many records more than there are manifests is written anew.
const MOST_STALE: usize = 4096;
/// Ten million versions; what is longer was not written by us.
const MAX_BYTES: u64 = 280_000_000;

type Key = [u8; KEY_BYTES];

/// When versions were read last.
#[derive(Debug)]
pub struct Verified {
    dir: Dir,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    times: HashMap<Key, u64>,
    /// How many records the file has.
    records: usize,
}

fn key(manifest: &ManifestId) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(manifest.as_bytes().get(..KEY_BYTES).unwrap_or(&[0; KEY_BYTES]));
    key
}

fn record(key: &Key, at_ms: u64) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    let (head, check) = bytes.split_at_mut(KEY_BYTES + 8);
    let (id, time) = head.split_at_mut(KEY_BYTES);
    id.copy_from_slice(key);
    time.copy_from_slice(&at_ms.to_le_bytes());
    let hash = blake3::hash(head);
    check.copy_from_slice(hash.as_bytes().get(..4).unwrap_or(&[0; 4]));
    bytes
}

fn read_record(bytes: &[u8]) -> Option<(Key, u64)> {
    let key: Key = bytes.get(..KEY_BYTES)?.try_into().ok()?;
    let at_ms = u64::from_le_bytes(bytes.get(KEY_BYTES..KEY_BYTES + 8)?.try_into().ok()?);
    (record(&key, at_ms).as_slice() == bytes).then_some((key, at_ms))
}

fn path() -> RelPath {
    #[expect(clippy::expect_used, reason = "the name is a constant")]
    NAME.parse().expect("it is a name")
}

impl Verified {
    /// Reads what was kept in the state directory. What cannot be read counts as never. Blocks.
    pub fn open(dir: &Dir) -> Self {
        let mut kept = Kept::default();
        match read(dir) {
            Ok(bytes) => {
                kept.records = bytes.len().div_ceil(RECORD_BYTES);
                kept.times = bytes.chunks(RECORD_BYTES).filter_map(read_record).collect();
            }
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "when versions were verified is not known any more")
            }
        }
        Self { dir: dir.clone(), kept: Mutex::new(kept) }
    }

    /// Says when, in milliseconds since 1970.
    pub fn of(&self, manifest: &ManifestId) -> Option<u64> {
        self.lock().times.get(&key(manifest)).copied()
    }

    /// Notes that all of a manifest was read and is good. Blocks.
    pub fn note(&self, manifest: &ManifestId, at_ms: u64) {
        let key = key(manifest);
        let mut kept = self.lock();
        kept.times.insert(key, at_ms);
        let written = if kept.records >= kept.times.len() + MOST_STALE {
            self.write_anew(&mut kept)
        } else {
            self.append(&mut kept, &record(&key, at_ms))
        };
        if let Err(error) = written {
            tracing::warn!(error = %ErrorChain(&error), "that a version was verified is forgotten at the next start");
        }
    }

    fn append(&self, kept: &mut Kept, bytes: &[u8]) -> Result<(), IoError> {
        let failed = |error| IoError::new("append to", self.dir.path().join(NAME), error);
        let mut file = match self.dir.open_rw(&path()) {
            Err(error) if error.is_not_found() => self.dir.create_file(&path())?,
            opened => opened?,
        };
        // A record that was cut off is written over.
        let whole = |length: u64| length - length % RECORD_BYTES as u64;
        let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let write = |file: &mut File| -> io::Result<()> {
            file.seek(SeekFrom::Start(whole(length)))?;
            file.write_all(bytes)
        };
        write(&mut file).map_err(failed)?;
        kept.records += 1;
        Ok(())
    }

    fn write_anew(&self, kept: &mut Kept) -> Result<(), IoError> {
        let mut bytes = Vec::with_capacity(kept.times.len() * RECORD_BYTES);
        kept.times.iter().for_each(|(key, at_ms)| bytes.extend_from_slice(&record(key, *at_ms)));
        self.dir.write_atomic(&path(), &bytes, WriteMode::Replace)?;
        kept.records = kept.times.len();
        Ok(())
    }

    /// Forgets what is not held any more. The file follows when it is written anew.
    pub fn retain(&self, is_held: impl Fn(&[u8]) -> bool) {
        self.lock().times.retain(|key, _| is_held(key));
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic between two changes leaves at most a time that is not in the file.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(dir: &Dir) -> Result<Vec<u8>, IoError> {
    let file = match dir.open_file(&path()) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| IoError::new("read", dir.path().join(NAME), error))?;
    Ok(bytes)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a damaged file needs no durability")]
mod tests {
    use super::*;

    fn id(number: u8) -> ManifestId {
        ManifestId::from_bytes([number; 32])
    }

    #[test]
    fn what_was_read_is_known_after_a_restart_and_what_is_damaged_is_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let verified = Verified::open(&dir);
        assert_eq!(verified.of(&id(1)), None);
        for (number, at_ms) in [(1, 10), (2, 20), (3, 30), (1, 40)] {
            verified.note(&id(number), at_ms);
        }
        let known = |dir: &Dir| [1, 2, 3].map(|number| Verified::open(dir).of(&id(number)));
        assert_eq!(known(&dir), [Some(40), Some(20), Some(30)]);
        let file = temp.path().join(NAME);
        let good = std::fs::read(&file).unwrap();
        for (at, byte) in good.iter().enumerate() {
            let mut bad = good.clone();
            bad[at] = byte ^ 4;
            std::fs::write(&file, bad).unwrap();
            let (known, of) = (known(&dir), at / RECORD_BYTES);
            let expected = match of {
                0 => [Some(40), Some(20), Some(30)],
                1 => [Some(40), None, Some(30)],
                2 => [Some(40), Some(20), None],
                _ => [Some(10), Some(20), Some(30)],
            };
            assert_eq!(known, expected, "byte {at}");
        }
        std::fs::write(&file, &good[..good.len() - 5]).unwrap();
        let verified = Verified::open(&dir);
        assert_eq!(verified.of(&id(1)), Some(10), "the last one was cut off");
        verified.note(&id(4), 50);
        assert_eq!(Verified::open(&dir).of(&id(4)), Some(50), "and what follows counts");
    }

    #[test]
    fn the_file_stays_small_however_often_a_version_is_read() {
        let temp = tempfile::tempdir().unwrap();
        let verified = Verified::open(&Dir::open(temp.path()).unwrap());
        for at_ms in 0..3 * MOST_STALE as u64 {
            verified.note(&id(1), at_ms);
        }
        let length = std::fs::metadata(temp.path().join(NAME)).unwrap().len();
        assert!(length <= ((MOST_STALE + 2) * RECORD_BYTES) as u64, "{length}");
        assert_eq!(
            Verified::open(&Dir::open(temp.path()).unwrap()).of(&id(1)),
            Some(3 * MOST_STALE as u64 - 1)
        );
    }
}
