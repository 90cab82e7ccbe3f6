//! How many bytes of versions this node holds of a project, and who has been promised room.

use std::{sync::Arc, time::Duration};

use avalon_protocol::{
    drop::Pressure,
    id::{NodeId, ProjectName, VersionId},
    version_fold::{Generation, VersionFold},
};
use avalon_store::catalog::CatalogError;

use super::Space;
use crate::core::Core;

/// How many versions are read from the catalog at a time.
const PAGE: usize = 500;

/// What is known of one project.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Use {
    /// Bytes of versions that are held.
    bytes: u64,
    /// Bytes that are on their way by themselves.
    reserved: u64,
    /// Until then room is kept for what belongs here: it was made for that.
    kept_until: Duration,
}

/// Returns the newest generation of a version that a node holds.
pub(super) fn newest_held<'f>(fold: &'f VersionFold, node: &NodeId) -> Option<&'f Generation> {
    let held = fold.held_by(node).filter_map(|manifest| fold.generation(&manifest));
    held.max_by_key(|generation| generation.generation)
}

/// Calls `told` with each version of a project, in order. Blocks.
pub(super) fn each_version(
    core: &Core,
    project: &ProjectName,
    mut told: impl FnMut(VersionId, VersionFold),
) -> Result<(), CatalogError> {
    let mut after: Option<VersionId> = None;
    loop {
        let page = core.ledger.versions(project, None, after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        page.into_iter().for_each(|(version, fold)| told(version, fold));
    }
}

impl Core {
    /// Adds up anew what this node holds of a project. Blocks.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn count_used(&self, project: &ProjectName) -> Result<u64, CatalogError> {
        let mut bytes = 0u64;
        each_version(self, project, |_, fold| {
            bytes = bytes.saturating_add(newest_held(&fold, &self.me).map_or(0, |held| held.bytes));
        })?;
        self.space.lock_used().entry(project.clone()).or_default().bytes = bytes;
        Ok(bytes)
    }

    /// Returns how full a project is; nothing while that is not known. Blocks.
    pub fn pressure(&self, project: &ProjectName) -> Option<Pressure> {
        let there = self.project(project)?;
        let limits = there.space();
        let used = self.space.lock_used().get(project).copied();
        let used_bytes = match used {
            Some(used) => used.bytes,
            None => self.count_used(project).ok()?,
        };
        Some(Pressure {
            used_bytes,
            quota_bytes: limits.quota_bytes,
            free_bytes: there.dir()?.free_bytes().ok()?,
            keep_free_bytes: limits.keep_free_bytes,
        })
    }

    /// Promises room to a version that comes by itself, if there is some. `spare` asks for more than that, for what would be
    /// removed again to make room. Blocks.
    pub fn reserve(self: &Arc<Self>, project: &ProjectName, bytes: u64, spare: Spare) -> Option<Reserved> {
        // Without limits nobody counts.
        let limits = self.project(project)?.space();
        if limits.quota_bytes.is_none() && limits.keep_free_bytes.is_none() {
            return Some(Reserved { core: Arc::clone(self), project: project.clone(), bytes: 0 });
        }
        let pressure = self.pressure(project)?;
        let mut used = self.space.lock_used();
        let project_use = used.entry(project.clone()).or_default();
        let with_others = Pressure {
            used_bytes: project_use.bytes.saturating_add(project_use.reserved),
            free_bytes: pressure.free_bytes.saturating_sub(project_use.reserved),
            ..pressure
        };
        let has_room = match spare {
            Spare::Enough => with_others.has_room_for(bytes),
            Spare::Much if self.clock.monotonic() < project_use.kept_until => false,
            Spare::Much => with_others.has_much_room_for(bytes),
        };
        has_room.then(|| {
            project_use.reserved = project_use.reserved.saturating_add(bytes);
            Reserved { core: Arc::clone(self), project: project.clone(), bytes }
        })
    }
}

/// How much room has to be left besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    /// None.
    Enough,
    /// So much that what comes is not the first to go.
    Much,
}

/// Room that was promised; given back when this goes.
#[derive(Debug)]
pub struct Reserved {
    core: Arc<Core>,
    project: ProjectName,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(used) = self.core.space.lock_used().get_mut(&self.project) {
            used.reserved = used.reserved.saturating_sub(self.bytes);
        }
    }
}

impl Space {
    /// Keeps the room of a project until then for what would not be removed again.
    pub(super) fn keep_room(&self, project: &ProjectName, until: Duration) {
        self.lock_used().entry(project.clone()).or_default().kept_until = until;
    }

    /// Notes that so many bytes came.
    pub fn came(&self, project: &ProjectName, bytes: u64) {
        if let Some(used) = self.lock_used().get_mut(project) {
            used.bytes = used.bytes.saturating_add(bytes);
        }
    }

    /// Notes that so many bytes went.
    pub(super) fn went(&self, project: &ProjectName, bytes: u64) {
        if let Some(used) = self.lock_used().get_mut(project) {
            used.bytes = used.bytes.saturating_sub(bytes);
        }
    }

    /// Returns how many bytes are held of a project, if somebody has counted.
    pub fn used_bytes(&self, project: &ProjectName) -> Option<u64> {
        self.lock_used().get(project).map(|used| used.bytes)
    }
}
