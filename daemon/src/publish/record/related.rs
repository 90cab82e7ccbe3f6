//! What the files of a version are to what is known of it, where a disk may fail to say what that is.

use std::cell::Cell;

use avalon_protocol::{
    hash::ManifestId,
    id::{NodeId, VersionId, VersionSlot},
    manifest::{FileEntry, Manifest, Relation, relate},
    rel_path::RelPath,
    version_fold::VersionFold,
};
use avalon_store::catalog::CatalogError;

use super::super::settle::Rewrites;
use crate::core::Core;

/// What the files of a version are to what is known of it.
#[derive(Debug)]
pub(super) struct Related {
    pub(super) relation: Relation,
    pub(super) fold: VersionFold,
    /// The generation that they are compared with because this node holds it or did, and its manifest, where that is at hand.
    pub(super) base: Option<(ManifestId, Option<Manifest>)>,
    /// Whether a manifest is not at hand, or cannot be read, without which the relation may be wrong.
    is_unread: bool,
}

/// Relates the files of a version directory, in the order of their paths, to what is known of the version. Blocks.
///
/// # Errors
/// [`CatalogError`] when nobody can say what is known. A manifest that cannot be read is none: [`with_base`] says what follows.
pub(super) fn relate_files(
    core: &Core,
    id: &VersionId,
    files: (&RelPath, &[FileEntry]),
) -> Result<Related, CatalogError> {
    let fold = core.ledger.version(id)?.unwrap_or_default();
    Ok(relate_to(fold, id.slot, &core.me, files, |id| core.ledger.manifest(id)))
}

/// Each manifest is read once: a disk that fails at the first reading and not at the second would otherwise be taken for one where there is
/// nothing to compare with.
fn relate_to<E>(
    fold: VersionFold,
    slot: VersionSlot,
    me: &NodeId,
    files: (&RelPath, &[FileEntry]),
    read: impl Fn(ManifestId) -> Result<Option<Manifest>, E>,
) -> Related {
    let base = fold.compared_with(slot, me);
    let has_failed = Cell::new(false);
    let read = |id: ManifestId| {
        let read = read(id);
        // What has all files of the base, and more, is no part of what came before it.
        let matters = !base.is_some_and(|base| base != id && fold.precedes(&id, &base));
        has_failed.set(has_failed.get() || (matters && read.is_err()));
        read.ok().flatten()
    };
    let base = base.map(|id| (id, read(id)));
    let manifest_of = |id: &ManifestId| match &base {
        Some((base, manifest)) if base == id => manifest.clone(),
        _ => read(*id),
    };
    let relation = relate(files, slot, &fold, me, manifest_of);
    let is_unread = has_failed.get() || base.as_ref().is_some_and(|(_, manifest)| manifest.is_none());
    Related { relation, fold, base, is_unread }
}

/// What this node held and cannot be read now comes back from a peer; until then what lies there would be taken for the work of somebody who
/// knew nothing of it. Where a person accepts it, nobody may have it any more: what comes after it is no first generation all the same.
///
/// Returns what counts; `None` where nothing is to be recorded until the manifest is back.
pub(super) fn with_base(related: &Related, rewrites: Rewrites) -> Option<Relation> {
    let relation = related.relation.clone();
    if !related.is_unread || matches!(relation, Relation::Known(_)) {
        return Some(relation);
    }
    match (rewrites, &related.base) {
        (Rewrites::Hold, _) => None,
        (Rewrites::Accept, Some((base, _))) if relation == Relation::First => {
            Some(Relation::Rewritten { base: *base, changed: Vec::new() })
        }
        (Rewrites::Accept, _) => Some(relation),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use avalon_protocol::{
        hash::ObjectHash,
        manifest::ManifestDraft,
        record::{Held, Record},
    };

    use super::{super::published, *};
    use crate::fixture::{draft, manifest, version};

    #[test]
    fn a_manifest_that_cannot_be_read_for_once_is_not_taken_for_nothing_to_compare_with() {
        let (me, node, version) =
            ("srv@london".parse().unwrap(), "far@montreal".parse().unwrap(), version(1));
        let (base, changed) = (manifest(1, b"before"), manifest(1, b"changed in place"));
        let relation_of = |author: &NodeId, rewrites, mut answers: Vec<Result<Option<Manifest>, ()>>| {
            let mut fold = VersionFold::default();
            fold.apply(author, 0, &Record::Published(published(&base)));
            // All that is asked after these is answered as it should be.
            answers.reverse();
            let answers = RefCell::new(answers);
            let read = |_| answers.borrow_mut().pop().unwrap_or_else(|| Ok(Some(base.clone())));
            let related = relate_to(fold, version.slot, &me, (base.dir(), changed.files()), read);
            with_base(&related, rewrites)
        };
        let rewritten = |changed: Vec<RelPath>| Relation::Rewritten { base: base.id(), changed };
        let paths = || changed.files().iter().map(|file| file.path.clone()).collect();
        assert_eq!(relation_of(&me, Rewrites::Hold, vec![]), Some(rewritten(paths())));
        for failing in [Err(()), Ok(None)] {
            assert_eq!(relation_of(&me, Rewrites::Hold, vec![failing.clone()]), None, "{failing:?}");
            let accepted = relation_of(&me, Rewrites::Accept, vec![failing.clone()]);
            assert_eq!(accepted, Some(rewritten(vec![])), "{failing:?}");
        }
        // Of what only others have, somebody here may know nothing yet; but a disk that fails says nothing.
        assert_eq!(relation_of(&node, Rewrites::Hold, vec![Ok(None)]), Some(Relation::First));
        assert_eq!(relation_of(&node, Rewrites::Hold, vec![Err(())]), None);
    }

    #[test]
    fn what_may_be_a_part_of_a_generation_that_cannot_be_read_for_once_is_not_taken_for_growth() {
        let (me, far, version) = ("srv@london".parse().unwrap(), "far@montreal".parse().unwrap(), version(1));
        let with = |generation, predecessor, frames: u8| {
            let mut draft = draft(1, b"scene");
            let frame = |frame: u8| FileEntry {
                path: format!("tex/{frame}.exr").parse().unwrap(),
                hash: ObjectHash::of(&[frame]),
                ..draft.files[0].clone()
            };
            let frames: Vec<FileEntry> = (0..frames).map(frame).collect();
            draft.files.extend(frames);
            ManifestDraft { generation, predecessor, ..draft }.finish().unwrap()
        };
        let one = with(1, None, 0);
        let three = with(2, Some(one.id()), 2);
        let two_of_three = with(2, Some(one.id()), 1);
        let mut fold = VersionFold::default();
        fold.apply(&me, 0, &Record::Published(published(&one)));
        fold.apply(&far, 0, &Record::Published(published(&three)));
        let relation_of = |fails: bool| {
            let read = |id| match (id == one.id(), fails) {
                (true, _) => Ok(Some(one.clone())),
                (false, true) => Err(()),
                (false, false) => Ok(Some(three.clone())),
            };
            let files = (one.dir(), two_of_three.files());
            with_base(&relate_to(fold.clone(), version.slot, &me, files, read), Rewrites::Hold)
        };
        assert_eq!(relation_of(false), Some(Relation::Part(three.id())));
        assert_eq!(relation_of(true), None);
        // What came before what this node holds says nothing of what comes after.
        fold.apply(&me, 1, &Record::Placed(Held { version: version.clone(), manifest: three.id() }));
        let four = with(3, Some(three.id()), 3);
        let read = |id| if id == three.id() { Ok(Some(three.clone())) } else { Err(()) };
        let related = relate_to(fold, version.slot, &me, (four.dir(), four.files()), read);
        assert_eq!(with_base(&related, Rewrites::Hold), Some(Relation::Grown(three.id())));
    }
}
