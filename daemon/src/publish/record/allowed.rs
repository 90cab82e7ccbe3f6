//! Whether what lies in a version directory may be recorded at all, and as what comes after.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    access::Action,
    id::{VersionId, VersionSlot},
    rel_path::RelPath,
    settle::SeenFile,
    version_fold::Standing,
};
use avalon_store::{
    catalog::CatalogError,
    fs::{Dir, IoError},
    object::incoming::Incoming,
};

use super::{super::snapshot::snapshot_version, Purpose, RecordError, WholeVersion};
use crate::core::{Core, blocking};

pub(super) async fn check_still_whole(
    root: &Dir,
    whole: &WholeVersion,
    version: &VersionId,
) -> Result<(), RecordError> {
    let (root, dir) = (root.clone(), whole.version.dir.clone());
    let snapshot = blocking(move || snapshot_version(&root, &dir)).await;
    let snapshot = snapshot.map_err(|source| RecordError::Snapshot { version: version.clone(), source })?;
    let same = match whole.purpose {
        Purpose::Grow => {
            let now: BTreeMap<&RelPath, &SeenFile> =
                snapshot.files.iter().map(|file| (&file.path, file)).collect();
            whole.files.iter().all(|then| now.get(&then.path).is_some_and(|now| now.is_unchanged(then)))
        }
        Purpose::Publish | Purpose::Compare => {
            snapshot.files.len() == whole.files.len()
                && snapshot.files.iter().zip(&whole.files).all(|(now, then)| now.is_unchanged(then))
        }
    };
    if same { Ok(()) } else { Err(RecordError::Changed { version: version.clone() }) }
}

/// A hero shows one state at a time.
pub(super) fn version_grows(whole: &WholeVersion) -> bool {
    whole.version.fields.slot != VersionSlot::Hero
}

/// While a version is being fetched, or its placement was cut, what lies in its directory is nobody's publish. Where no record names
/// what was fetched, as in a state that is older than it, the area itself says where its files go.
pub(super) async fn check_not_incoming(
    core: &Arc<Core>,
    root: &Dir,
    (version, dir): (&VersionId, &RelPath),
) -> Result<(), RecordError> {
    let (core, root, id, dir) = (Arc::clone(core), root.clone(), version.clone(), dir.clone());
    let incoming = blocking(move || is_incoming(&core, &root, (&id, &dir)));
    match incoming.await {
        Ok(false) => Ok(()),
        Ok(true) => Err(RecordError::Incoming { version: version.clone() }),
        Err(Unread::Areas(source)) => Err(RecordError::Areas { version: version.clone(), source }),
        Err(Unread::Catalog(source)) => Err(RecordError::Catalog { version: version.clone(), source }),
    }
}

/// What cannot be read when it is asked what is being fetched.
enum Unread {
    Areas(IoError),
    Catalog(CatalogError),
}

/// An area that cannot be read may be of this version.
fn is_incoming(core: &Core, root: &Dir, (version, dir): (&VersionId, &RelPath)) -> Result<bool, Unread> {
    for manifest in Incoming::list(root).map_err(Unread::Areas)? {
        let is_this = match core.ledger.version_of(manifest).map_err(Unread::Catalog)? {
            Some(known) => known == *version,
            None => Incoming::place_of(root, manifest).map_err(Unread::Areas)?.as_ref() == Some(dir),
        };
        if is_this {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Without an answer about the version, hashing it would be in vain; as when nobody knows it and this node may not publish.
pub(super) async fn check_catalog(core: &Arc<Core>, version: &VersionId) -> Result<(), RecordError> {
    let (ledger, id) = (core.ledger.clone(), version.clone());
    let asked = blocking(move || ledger.version(&id)).await;
    let fold = asked.map_err(|source| RecordError::Catalog { version: version.clone(), source })?;
    let is_known = fold.is_some_and(|fold| !matches!(fold.standing(version.slot), Standing::Unknown));
    match not_granted(core, version).filter(|_| !is_known) {
        Some(refused) => Err(refused),
        None => Ok(()),
    }
}

/// Refuses what this node has no right to publish: it would state nothing anywhere.
pub(super) fn not_granted(core: &Core, version: &VersionId) -> Option<RecordError> {
    let refused = core.check_may(&version.project, Action::Publish).err()?;
    Some(RecordError::NotGranted { version: version.clone(), refused })
}
