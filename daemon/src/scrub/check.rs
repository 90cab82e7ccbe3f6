//! Reading one version: which of its files are not what was published, and in which way.

use std::{sync::Arc, time::Duration};

use avalon_protocol::{
    control::{DamageKind, ScrubState},
    hash::ObjectHash,
    manifest::FileEntry,
    rel_path::RelPath,
};
use avalon_store::{
    fs::{Dir, FileIdentity, FileKind, FileStat, FsKind},
    object::reread::{PIECE_BYTES, Reread, RereadError},
};

use super::{Reader, Scrubber, Target};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    project::Project,
};

/// How often it is asked, while a large file is read, whether somebody else wants the disk.
const PIECES_BETWEEN_LOOKS: u64 = 16;
/// How long what happens by itself waits before it looks again whether the disk is free.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A file that is not what was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    /// Where it lies, relative to the project.
    pub(super) path: RelPath,
    /// What it should hold.
    pub(super) object: ObjectHash,
    pub(super) damage: DamageKind,
    pub(super) detail: String,
    /// What the system said of it; nothing when it is not there.
    pub(super) stat: Option<FileStat>,
    /// Whether the version is not held any more because of it: not for what the daemon may only not read.
    pub(super) is_lost: bool,
}

/// What was found in a version.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// All its files were read; these are bad.
    Read(Vec<Bad>),
    /// Nothing can be said, and why.
    Unread(String),
    /// Nobody wants to know any more.
    Stopped,
}

/// What became of one file.
enum File {
    Good,
    Bad(Box<Bad>),
    Unread(String),
    /// It is longer than a piece, and was opened.
    Open(Box<Reread>),
}

/// A file of the manifest, in its place.
#[derive(Debug, Clone)]
struct Place {
    project: Arc<Project>,
    dir: Dir,
    path: RelPath,
    entry: FileEntry,
    /// What identified it when the catalog saw it with the content that it should have.
    known: Option<FileIdentity>,
}

impl Scrubber {
    /// Reads all files of a version. `read` is told the bytes as they were read, or would have been.
    pub(super) async fn check(
        &self,
        target: &Target,
        reader: Reader<'_>,
        read: &(dyn Fn(u64) + Send + Sync),
    ) -> Checked {
        let Some(dir) = target.project.dir() else {
            return Checked::Unread(format!("project {} is paused", target.project.name()));
        };
        let (mut bad, mut unread) = (Vec::new(), None);
        for entry in target.manifest.files() {
            let Ok(path) = target.manifest.dir().join(&entry.path) else { continue };
            if !self.may_go_on(reader).await {
                return Checked::Stopped;
            }
            let project = Arc::clone(&target.project);
            let place = Place { project, dir: dir.clone(), path, entry: entry.clone(), known: None };
            match self.check_file(place, reader).await {
                Some(File::Good) => {}
                Some(File::Bad(found)) => bad.push(*found),
                Some(File::Unread(why)) => unread = Some(why),
                Some(File::Open(_)) | None => return Checked::Stopped,
            }
            read(entry.size);
        }
        let project = Arc::clone(&target.project);
        if blocking(move || project.is_current()).await {
            match unread {
                // What is damaged is told all the same.
                Some(why) if bad.is_empty() => Checked::Unread(why),
                _ => Checked::Read(bad),
            }
        } else {
            Checked::Unread(format!("another directory lies at {} now", target.project.path().display()))
        }
    }

    /// Returns nothing when nobody wants to know any more.
    async fn check_file(&self, place: Place, reader: Reader<'_>) -> Option<File> {
        let size = place.entry.size.min(PIECE_BYTES as u64);
        self.0.pace.take(size).await;
        let (core, first) = (Arc::clone(&self.0.core), place.clone());
        let (place, mut file) = match blocking(move || begin(&core, first)).await {
            (place, File::Open(file)) => (place, file),
            (_, done) => return Some(done),
        };
        let mut left = place.entry.size.saturating_sub(size);
        let mut pieces = 0_u64;
        loop {
            pieces += 1;
            if pieces.is_multiple_of(PIECES_BETWEEN_LOOKS) && !self.may_go_on(reader).await {
                return None;
            }
            let piece = left.min(PIECE_BYTES as u64);
            left -= piece;
            if piece > 0 {
                self.0.pace.take(piece).await;
            }
            let there = place.dir.clone();
            let (back, step) = blocking(move || {
                let step = file.step(&there);
                (file, step)
            })
            .await;
            file = back;
            match step {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Some(place.unreadable(*file.stat(), &error)),
            }
        }
        Some(blocking(move || place.end(*file)).await)
    }

    /// Waits while others want the disk more; false when nobody wants to know any more.
    pub(super) async fn may_go_on(&self, reader: Reader<'_>) -> bool {
        let stop = self.0.tasks.token();
        match reader {
            Reader::Person(cancelled) => !(cancelled.is_cancelled() || stop.is_cancelled()),
            Reader::Itself => {
                // It has the turn that they wait for, and gives it back.
                if self.is_wanted_by_people() {
                    return false;
                }
                while self.is_line_busy() {
                    if self.is_wanted_by_people() {
                        return false;
                    }
                    self.set_state(ScrubState::Waiting);
                    tokio::select! {
                        () = stop.cancelled() => return false,
                        () = self.0.core.clock.sleep(LOOK_AGAIN) => {}
                    }
                }
                self.set_state(ScrubState::Running);
                !stop.is_cancelled()
            }
        }
    }
}

/// Looks at a file, and reads one that is short. Blocks.
fn begin(core: &Core, mut place: Place) -> (Place, File) {
    let known = core.ledger.local_file(place.project.name(), &place.path).ok().flatten();
    place.known = known.filter(|known| known.hash == place.entry.hash).map(|known| known.identity());
    if let Ok(Some(now)) = place.dir.stat(&place.path)
        && core.damaged.has(place.project.name(), &place.path, now.identity())
    {
        // It was found before, and nobody wrote it since.
        place.known = Some(now.identity());
    }
    let file = place.look();
    (place, file)
}

impl Place {
    fn look(&self) -> File {
        let stat = match self.dir.stat(&self.path) {
            Ok(Some(stat)) => stat,
            Ok(None) => return self.bad(DamageKind::Missing, "it is not there".into(), None),
            Err(error) => return File::Unread(ErrorChain(&error).to_string()),
        };
        if stat.kind != FileKind::File {
            return self.bad(DamageKind::Changed, "it is not a regular file".into(), Some(stat));
        }
        if stat.size != self.entry.size {
            let detail = format!("it has {} bytes instead of {}", stat.size, self.entry.size);
            let damage = if self.is_untouched(&stat) { DamageKind::Size } else { DamageKind::Changed };
            return self.bad(damage, detail, Some(stat));
        }
        let mut file = match Reread::open(&self.dir, &self.path) {
            Ok(file) => file,
            Err(error) => return self.unreadable(stat, &error),
        };
        if stat.size > PIECE_BYTES as u64 {
            return File::Open(Box::new(file));
        }
        loop {
            match file.step(&self.dir) {
                Ok(0) => return self.end(file),
                Ok(_) => {}
                Err(error) => return self.unreadable(stat, &error),
            }
        }
    }

    /// All of it was read.
    fn end(&self, file: Reread) -> File {
        let stat = *file.stat();
        let holds = match file.finish(&self.dir) {
            Ok(holds) => holds,
            Err(error) => return self.unreadable(stat, &error),
        };
        if holds == self.entry.hash {
            return File::Good;
        }
        let (damage, detail) = if self.is_untouched(&stat) {
            (DamageKind::Rot, "its bytes are not what was published, and nobody wrote it")
        } else {
            (DamageKind::Changed, "somebody wrote it after it was published")
        };
        self.bad(damage, detail.into(), Some(stat))
    }

    /// Says whether nobody wrote it since it had the right content. Whoever writes a file cannot put its ctime back, also where a
    /// program keeps the time of the content; a disk that rots changes neither.
    fn is_untouched(&self, stat: &FileStat) -> bool {
        self.known == Some(stat.identity())
    }

    fn unreadable(&self, stat: FileStat, error: &RereadError) -> File {
        match error {
            RereadError::Changed { .. } => File::Unread(ErrorChain(error).to_string()),
            error if error.is_not_found() => self.bad(DamageKind::Missing, "it is not there".into(), None),
            error => {
                let (damage, detail) = (DamageKind::Unreadable, ErrorChain(error).to_string());
                let bad = self.bad_of(damage, detail, Some(stat));
                // Reading over a network fails for reasons that are no disk's.
                let is_lost = error.is_damage()
                    && self.is_untouched(&stat)
                    && matches!(self.dir.kind(), Ok(FsKind::Local));
                File::Bad(Box::new(Bad { is_lost, ..bad }))
            }
        }
    }

    fn bad(&self, damage: DamageKind, detail: String, stat: Option<FileStat>) -> File {
        File::Bad(Box::new(self.bad_of(damage, detail, stat)))
    }

    fn bad_of(&self, damage: DamageKind, detail: String, stat: Option<FileStat>) -> Bad {
        let (path, object) = (self.path.clone(), self.entry.hash);
        Bad { path, object, damage, detail, stat, is_lost: damage.is_of_disk() }
    }
}
