//! What follows from a version's generations for this node: what it lets grow, what a new one supersedes, and what a publish says.

use std::collections::BTreeSet;

use avalon_protocol::{
    hash::{ManifestId, ObjectHash},
    id::{VersionId, VersionSlot},
    manifest::Manifest,
    record::{Held, Published, Record},
    rel_path::RelPath,
    version_fold::{Standing, VersionFold},
};

use crate::core::Core;

/// What a node that holds a new generation does not hold any more. A hero directory shows one generation at a time.
/// Elsewhere a generation that grew has all of those before; one that was accepted over changed files has not. Blocks.
pub fn superseded(core: &Core, fold: &VersionFold, new: &Manifest) -> Vec<Record> {
    let version = new.version();
    let mut old: Vec<ManifestId> =
        fold.held_by(&core.me).filter(|held| !fold.same_as(held, &new.id())).collect();
    if version.slot != VersionSlot::Hero {
        let number = |held: &ManifestId| fold.generation(held).map(|generation| generation.generation);
        let lacks = |held: &ManifestId| match core.ledger.manifest(*held) {
            Ok(Some(held)) => !is_part(&held, new),
            // What it replaces, where nobody can say what of that is still here.
            _ => new.draft().predecessor == Some(*held),
        };
        // What the newest has, those before it have as well: a version that grew has hundreds.
        match old.iter().max_by_key(|held| number(held)) {
            Some(newest) if lacks(newest) => old.retain(lacks),
            _ => return Vec::new(),
        }
    }
    let dropped = |manifest| Record::Dropped(Held { version: version.clone(), manifest });
    old.into_iter().map(dropped).collect()
}

/// Says whether all files of a generation are in another one, with the same content.
fn is_part(old: &Manifest, new: &Manifest) -> bool {
    let here: BTreeSet<(&RelPath, ObjectHash)> =
        new.files().iter().map(|file| (&file.path, file.hash)).collect();
    old.files().iter().all(|file| here.contains(&(&file.path, file.hash)))
}

/// Returns the manifest that stands for a version, if this node published it while somebody was at work. Blocks.
pub fn grows_here(core: &Core, version: &VersionId, fold: &VersionFold) -> Option<ManifestId> {
    let Standing::Head(head) = fold.standing(version.slot) else { return None };
    let is_own = fold.generation(&head).is_some_and(|known| known.node == core.me);
    (is_own && is_growing(core, head)).then_some(head)
}

/// Says whether a generation was published while somebody was at work. Blocks.
pub(super) fn is_growing(core: &Core, manifest: ManifestId) -> bool {
    core.ledger.manifest(manifest).ok().flatten().is_some_and(|manifest| manifest.growing().next().is_some())
}

/// What the record of a publish says of a manifest.
pub(crate) fn published(manifest: &Manifest) -> Published {
    let draft = manifest.draft();
    Published {
        version: draft.version.clone(),
        manifest: manifest.id(),
        content: manifest.content(),
        generation: draft.generation,
        predecessor: draft.predecessor,
        files: manifest.files().len() as u64,
        bytes: manifest.total_bytes(),
        representations: manifest.representations().iter().map(|r| r.name.clone()).collect(),
        author: draft.author.clone(),
        published_at_ms: draft.published_at_ms,
    }
}
