//! [`Incoming`]: opening, asking what is missing, giving up.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use avalon_protocol::{
    block::BlockList,
    hash::{ManifestId, ObjectHash},
    manifest::Manifest,
    rel_path::RelPath,
};

use super::{IncomingError, persist::Claiming, slot::Slot};
use crate::fs::{Dir, FileKind, FileStat, FsKind, IoError, WriteMode, path_of};

/// Where all incoming areas of a project lie.
const INCOMING: &str = ".avalon/incoming";

/// The file of an area that says where its files are placed one by one.
const PLACE: &str = "place";

/// How long a path may be there: longer than any [`RelPath`].
const PLACE_MOST_BYTES: u64 = 64 << 10;

/// Returns where the area of a manifest lies in its project.
pub(crate) fn area_path(manifest: ManifestId) -> RelPath {
    path_of(&format!("{INCOMING}/{manifest}"))
}

fn place_path(manifest: ManifestId) -> RelPath {
    path_of(&format!("{INCOMING}/{manifest}/{PLACE}"))
}

/// Writes durably into the area of a manifest to which directory its files go from now on. A node that stops amid that and loses its
/// state with it, or gets an older one back, knows by this alone that what lies there is nobody's work.
pub(crate) fn note_place(project: &Dir, manifest: &Manifest) -> Result<(), IoError> {
    let bytes = manifest.dir().as_str().as_bytes();
    project.write_atomic(&place_path(manifest.id()), bytes, WriteMode::Replace)?;
    project.sync_path(&area_path(manifest.id()))
}

/// One version being put together. All methods take `&self` and may be called from many threads.
///
/// There must be one at a time for a manifest. Dropping it keeps the area: the next [`Incoming::open`] goes on from there.
#[derive(Debug)]
pub struct Incoming {
    pub(super) project: Dir,
    pub(super) area: Dir,
    pub(super) parts: Dir,
    pub(super) manifest: Arc<Manifest>,
    pub(super) slots: HashMap<ObjectHash, Slot>,
    /// For each file of the manifest, what the file system said of it when it was found in its final place with the
    /// right content; such a file needs nothing.
    pub(super) in_place: Vec<Option<FileStat>>,
    /// Held shared while a part is written, and taken alone for a moment before the tree is built from the parts: a block
    /// that comes twice must not be written into a file that has its final time already. Never held across work of a
    /// thread pool, which may run another caller's task on the thread that waits.
    pub(super) building: RwLock<()>,
    /// Held while parts are synced for claims, which must not be while a version is made durable.
    pub(super) claiming: Mutex<Claiming>,
    /// Bytes of parts that were read and hashed, to find out what they have.
    pub(super) bytes_rehashed: AtomicU64,
    /// Large objects are written past the page cache: the volume is local and has not refused.
    pub(super) past_cache: AtomicBool,
    next_copy: AtomicU64,
}

/// What is still needed of one object.
#[derive(Debug, Clone)]
pub struct ObjectNeed {
    /// The object.
    pub object: ObjectHash,
    /// Its size in bytes.
    pub size: u64,
    /// Its block list; `None` while an object of several blocks has none yet: fetch it first.
    pub blocks: Option<Arc<BlockList>>,
    /// The numbers of the missing blocks, in runs, ascending.
    pub missing: Vec<Range<u64>>,
    /// How many bytes these have together.
    pub bytes_missing: u64,
}

/// How far a version is, counted in files: an object that three files share counts three times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files of the version.
    pub files_total: usize,
    /// Files whose content is here.
    pub files_present: usize,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Bytes that are here.
    pub bytes_present: u64,
}

impl Incoming {
    /// Creates the area, or takes up what any earlier run left in it: blocks that a claim of
    /// [`Incoming::persist_progress`] names are taken as they are; everything else that was written is hashed again, in
    /// parallel on the rayon pool that the caller runs on, and only what verifies counts.
    ///
    /// Files that lie in their final place already, from an earlier generation or a placement that was cut, need
    /// nothing; they are hashed too.
    ///
    /// # Errors
    /// [`IncomingError::SizeConflict`], or [`IncomingError::Io`], which is also the answer to a symbolic link on the way
    /// to the area or the version directory.
    pub fn open(project: &Dir, manifest: Arc<Manifest>) -> Result<Self, IncomingError> {
        Self::open_knowing(project, manifest, &|_, _| None)
    }

    /// As [`Incoming::open`], but asks `known` for the content of a file in place (path relative to the project) before
    /// hashing it: the catalog may know it by its [`identity`](FileStat::identity).
    ///
    /// # Errors
    /// As [`Incoming::open`].
    pub fn open_knowing(
        project: &Dir,
        manifest: Arc<Manifest>,
        known: &(dyn Fn(&RelPath, &FileStat) -> Option<ObjectHash> + Sync),
    ) -> Result<Self, IncomingError> {
        let failed = |source| IncomingError::Io { manifest: manifest.id(), source };
        // Before any memory is taken for its objects: a manifest is a peer's word.
        let (needed_bytes, volume_bytes) =
            (distinct_bytes(&manifest), project.volume_bytes().map_err(failed)?);
        if needed_bytes > volume_bytes {
            return Err(IncomingError::NoSpace { needed_bytes, free_bytes: volume_bytes });
        }
        let in_place = super::resume::find_in_place(project, &manifest, known).map_err(failed)?;
        let slots = slots_of(&manifest, &in_place)?;
        let area = project.create_dirs_unsynced(&area_path(manifest.id())).map_err(failed)?;
        let parts = area.create_dirs_unsynced(&path_of("parts")).map_err(failed)?;
        let project = project.clone();
        let past_cache = AtomicBool::new(matches!(project.kind(), Ok(FsKind::Local)));
        let incoming = Self {
            project,
            area,
            parts,
            manifest,
            slots,
            in_place,
            building: RwLock::new(()),
            claiming: Mutex::default(),
            bytes_rehashed: AtomicU64::new(0),
            past_cache,
            next_copy: AtomicU64::new(0),
        };
        incoming.take_up()?;
        Ok(incoming)
    }

    /// Returns the manifests that have an area in this project, for housekeeping at the start. Whatever else lies there is
    /// passed over.
    ///
    /// # Errors
    /// [`IoError`] when the areas cannot be listed; that there are none is no error.
    pub fn list(project: &Dir) -> Result<Vec<ManifestId>, IoError> {
        match project.list(Some(&path_of(INCOMING))) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(entries) => {
                let areas = entries.iter().filter(|entry| entry.kind == FileKind::Dir);
                Ok(areas.filter_map(|entry| entry.name.to_str()?.parse().ok()).collect())
            }
        }
    }

    /// Returns the directory into which the files of an area were being placed one by one when it was left, relative to the project;
    /// `None` when that had not begun, or there is no area.
    ///
    /// # Errors
    /// [`IoError`] when that cannot be read.
    pub fn place_of(project: &Dir, manifest: ManifestId) -> Result<Option<RelPath>, IoError> {
        let path = place_path(manifest);
        let file = match project.open_file(&path) {
            Err(error) if error.is_not_found() => return Ok(None),
            opened => opened?,
        };
        let mut text = String::new();
        match file.take(PLACE_MOST_BYTES).read_to_string(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(IoError::new("read", project.path().join(path.as_str()), error)),
            Ok(_) => Ok(text.parse().ok()),
        }
    }

    /// Removes the area of a manifest that nobody puts together any more.
    ///
    /// # Errors
    /// [`IoError`] at the first name that cannot be removed; that there is none is no error.
    pub fn remove(project: &Dir, manifest: ManifestId) -> Result<(), IoError> {
        project.remove_tree(&area_path(manifest))
    }

    /// Gives up and removes the area with everything in it.
    ///
    /// # Errors
    /// [`IoError`] at the first name that cannot be removed.
    pub fn abandon(self) -> Result<(), IoError> {
        Self::remove(&self.project, self.manifest.id())
    }

    /// Returns the manifest that is put together.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Returns every distinct object that is not complete, in the order of the manifest's files.
    pub fn needs(&self) -> Vec<ObjectNeed> {
        let mut slots: Vec<&Slot> = self.slots.values().collect();
        slots.sort_unstable_by_key(|slot| slot.files.first().copied());
        slots.into_iter().filter_map(need_of).collect()
    }

    /// Returns what is needed of one object, or `None` when it is complete or not needed.
    pub fn need(&self, object: &ObjectHash) -> Option<ObjectNeed> {
        self.slots.get(object).and_then(need_of)
    }

    /// Returns how far the version is.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress {
            files_total: self.manifest.files().len(),
            files_present: self.in_place.iter().flatten().count(),
            bytes_total: self.manifest.total_bytes(),
            bytes_present: self.in_place.iter().flatten().map(|stat| stat.size).sum(),
        };
        for slot in self.slots.values() {
            let state = slot.state();
            if state.present.is_full() {
                progress.files_present += slot.files.len();
            }
            progress.bytes_present += state.present.bytes() * slot.files.len() as u64;
        }
        progress
    }

    /// Returns how many bytes of parts were read and hashed since this was opened, because no claim named them.
    pub fn bytes_rehashed(&self) -> u64 {
        self.bytes_rehashed.load(Ordering::Relaxed)
    }

    /// Keeps the tree from being built while parts are written.
    pub(super) fn writing(&self) -> RwLockReadGuard<'_, ()> {
        self.building.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slot(&self, object: &ObjectHash) -> Result<&Slot, IncomingError> {
        self.slots.get(object).ok_or(IncomingError::NotNeeded { object: *object })
    }

    pub(super) fn failed(&self, source: IoError) -> IncomingError {
        IncomingError::Io { manifest: self.manifest.id(), source }
    }

    /// Makes the error of a system call on a part.
    pub(super) fn part_failed(
        &self,
        action: &'static str,
        part: &RelPath,
        error: impl Into<io::Error>,
    ) -> IncomingError {
        self.failed(IoError::new(action, self.parts.path().join(part.as_str()), error))
    }

    /// Returns a name for a copy that is not verified yet.
    pub(super) fn copy_name(&self, object: ObjectHash) -> RelPath {
        let number = self.next_copy.fetch_add(1, Ordering::Relaxed);
        path_of(&format!("{object}.copy-{number}"))
    }
}

/// Returns the name of an object's part.
pub(super) fn part_name(object: ObjectHash) -> RelPath {
    path_of(&object.to_string())
}

/// Returns the name of an object's block values.
pub(super) fn blocks_name(object: ObjectHash) -> RelPath {
    path_of(&format!("{object}.blocks"))
}

fn need_of(slot: &Slot) -> Option<ObjectNeed> {
    let state = slot.state();
    if state.present.is_full() {
        return None;
    }
    Some(ObjectNeed {
        object: slot.object,
        size: slot.size,
        blocks: state.blocks.clone(),
        missing: state.present.missing(),
        bytes_missing: slot.size - state.present.bytes(),
    })
}

/// Returns how many bytes the distinct objects of a manifest have.
fn distinct_bytes(manifest: &Manifest) -> u64 {
    let mut sizes: Vec<(ObjectHash, u64)> =
        manifest.files().iter().map(|file| (file.hash, file.size)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.into_iter().fold(0, |sum, (_, size)| sum.saturating_add(size))
}

fn slots_of(
    manifest: &Manifest,
    in_place: &[Option<FileStat>],
) -> Result<HashMap<ObjectHash, Slot>, IncomingError> {
    let mut slots = HashMap::new();
    for (index, (file, in_place)) in manifest.files().iter().zip(in_place).enumerate() {
        if in_place.is_some() {
            continue;
        }
        let slot = slots.entry(file.hash).or_insert_with(|| Slot::new(file.hash, file.size));
        if slot.size != file.size {
            return Err(IncomingError::SizeConflict { object: file.hash });
        }
        slot.files.push(index);
    }
    slots.values().for_each(Slot::reset);
    Ok(slots)
}
