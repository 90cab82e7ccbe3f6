//! `transfers.jsonl`: which versions came to this node, when, and how long it took. Records do not say that.
//!
//! It is for reports: it is bounded, its last lines may be lost in a crash, and nothing is decided by it.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{
    control::{EventKind, JobState, JobStatus},
    rel_path::RelPath,
};
use avalon_store::fs::{Dir, IoError, Overwrite};
use serde::{Deserialize, Serialize};

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    tasks::Tasks,
};

const NAME: &str = "transfers.jsonl";
/// What was written before the file was full.
const OLDER: &str = "transfers.1.jsonl";
/// A file with more is put aside, and the one before it is forgotten: about 40,000 transfers are known at least.
const MAX_BYTES: u64 = 16 << 20;
/// A longer line was not written by us.
const MAX_LINE_BYTES: usize = 64 << 10;

/// One version that came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// When it was all here, in milliseconds since 1970.
    pub at_ms: u64,
    /// The version in full.
    #[serde(rename = "ref")]
    pub reference: String,
    /// How many files it has.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// What came over the line.
    pub bytes_received: u64,
    /// How long it took.
    pub seconds: f64,
    /// The nodes that it came from.
    pub sources: Vec<String>,
}

/// The transfers to this node. Clones are the same log.
#[derive(Debug, Clone)]
pub struct TransferLog {
    dir: Dir,
    max_bytes: u64,
    /// One writes or reads at a time.
    writing: Arc<Mutex<()>>,
}

/// Transfers that are known.
#[derive(Debug, Default, PartialEq)]
pub struct Known {
    /// The oldest first.
    pub transfers: Vec<Transfer>,
    /// The oldest that is known, if older ones may have been forgotten.
    pub since_ms: Option<u64>,
}

impl TransferLog {
    /// Keeps the log in the state directory.
    pub fn new(dir: &Dir) -> Self {
        Self { dir: dir.clone(), max_bytes: MAX_BYTES, writing: Arc::default() }
    }

    /// Adds one. Blocks.
    ///
    /// # Errors
    /// [`IoError`] or what the system says; the transfer is in no report then.
    pub fn add(&self, transfer: &Transfer) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut line = serde_json::to_vec(transfer)?;
        line.push(b'\n');
        let _writing = self.lock();
        let mut file = self.open()?;
        let mut length = file.seek(SeekFrom::End(0))?;
        if length > self.max_bytes {
            self.dir.rename(&path(NAME)?, &self.dir, &path(OLDER)?, Overwrite::Replace)?;
            file = self.open()?;
            length = 0;
        }
        // What a crash cut off ends here, and only it is lost.
        if length > 0 && !ends_a_line(&mut file, length)? {
            file.write_all(b"\n")?;
        }
        file.write_all(&line)?;
        Ok(())
    }

    fn open(&self) -> Result<File, Box<dyn std::error::Error + Send + Sync>> {
        let name = path(NAME)?;
        match self.dir.open_rw(&name) {
            Err(error) if error.is_not_found() => Ok(self.dir.create_file(&name)?),
            opened => Ok(opened?),
        }
    }

    /// Returns the transfers since a time. Blocks. What cannot be read is left out.
    ///
    /// # Errors
    /// When a file is there and cannot be opened.
    pub fn since(&self, from_ms: u64) -> Result<Known, IoError> {
        let _writing = self.lock();
        let mut known = Known::default();
        let mut oldest = None;
        let mut was_turned = false;
        for name in [OLDER, NAME] {
            let Ok(name_path) = path(name) else { continue };
            let file = match self.dir.open_file(&name_path) {
                Err(error) if error.is_not_found() => continue,
                opened => opened?,
            };
            was_turned |= name == OLDER;
            for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
                let read =
                    (line.len() <= MAX_LINE_BYTES).then(|| serde_json::from_slice::<Transfer>(&line).ok());
                let Some(transfer) = read.flatten() else { continue };
                oldest.get_or_insert(transfer.at_ms);
                if transfer.at_ms >= from_ms {
                    known.transfers.push(transfer);
                }
            }
        }
        known.since_ms = oldest.filter(|oldest| was_turned && *oldest > from_ms);
        Ok(known)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(name: &str) -> Result<RelPath, avalon_protocol::rel_path::InvalidPath> {
    name.parse()
}

fn ends_a_line(file: &mut File, length: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    Ok(last == *b"\n")
}

/// Notes every version that comes, until the daemon stops.
pub fn start(core: &Arc<Core>, tasks: &Tasks) {
    let mut events = core.events.follow();
    let (core, stop) = (Arc::clone(core), tasks.token());
    tasks.spawn("transfers", async move {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            if let EventKind::Job { job } = &event.kind
                && job.state == JobState::Done
            {
                note(&core, job).await;
            }
        }
    });
}

async fn note(core: &Arc<Core>, job: &JobStatus) {
    let transfer = Transfer {
        at_ms: core.now_ms(),
        reference: job.reference.clone(),
        files: job.files_total,
        bytes: job.bytes_total,
        bytes_received: job.bytes_received,
        seconds: job.seconds,
        sources: job.sources.clone(),
    };
    let log = core.transfers.clone();
    if let Err(error) = blocking(move || log.add(&transfer)).await {
        tracing::warn!(error = %ErrorChain(&*error), "a transfer is missing in reports");
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a damaged file needs no durability")]
mod tests {
    use super::*;

    fn transfer(at_ms: u64) -> Transfer {
        Transfer {
            at_ms,
            reference: "lantern:robot/rig@v001".into(),
            files: 2,
            bytes: 100,
            bytes_received: 40,
            seconds: 1.5,
            sources: vec!["srv@london".into()],
        }
    }

    #[test]
    fn transfers_are_read_back_and_a_line_that_was_cut_off_costs_only_itself() {
        let temp = tempfile::tempdir().unwrap();
        let log = TransferLog::new(&Dir::open(temp.path()).unwrap());
        assert_eq!(log.since(0).unwrap(), Known::default());
        log.add(&transfer(1)).unwrap();
        let file = temp.path().join(NAME);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.extend(b"{\"at_ms\": 2, \"ref\"");
        std::fs::write(&file, bytes).unwrap();
        log.add(&transfer(3)).unwrap();
        assert_eq!(
            log.since(0).unwrap(),
            Known { transfers: vec![transfer(1), transfer(3)], since_ms: None }
        );
        assert_eq!(log.since(2).unwrap().transfers, [transfer(3)]);
    }

    #[test]
    fn the_log_is_bounded_and_says_how_far_back_it_goes() {
        let temp = tempfile::tempdir().unwrap();
        let log = TransferLog { max_bytes: 1000, ..TransferLog::new(&Dir::open(temp.path()).unwrap()) };
        (1..=100).for_each(|at_ms| log.add(&transfer(at_ms)).unwrap());
        let bytes: u64 =
            [NAME, OLDER].iter().map(|name| temp.path().join(name).metadata().unwrap().len()).sum();
        assert!(bytes < 2500, "{bytes}");
        let known = log.since(0).unwrap();
        let oldest = known.transfers[0].at_ms;
        assert!(oldest > 50 && known.since_ms == Some(oldest), "{known:?}");
        assert_eq!(known.transfers.last().unwrap().at_ms, 100);
        assert_eq!(log.since(oldest).unwrap().since_ms, None, "all that was asked for is known");
    }
}
