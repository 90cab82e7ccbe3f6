//! How files that lie in a version directory relate to what was published of that version before.

use std::collections::BTreeMap;

use super::{FileEntry, Manifest, content_id};
use crate::{
    hash::ManifestId,
    id::{NodeId, VersionSlot},
    rel_path::RelPath,
    version_fold::{Standing, VersionFold},
};

/// What a version directory is, compared with the generations that are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// Nothing of this version that concerns this node is known: a first generation. If another node published other
    /// content under the number, the two become a conflict that a person decides; neither is changed.
    First,
    /// Exactly a generation that is known.
    Known(ManifestId),
    /// A known generation and more files: a new generation that follows it.
    Grown(ManifestId),
    /// The `hero` directory shows other content: a new generation, the declared exception.
    Moved(ManifestId),
    /// A part of a known generation: files were removed here, are still being copied, or a placement was cut. Nothing new,
    /// and nothing is propagated.
    Part(ManifestId),
    /// The version is known at another directory: two paths read as one version. Nothing is recorded.
    Elsewhere(RelPath),
    /// Published files were changed in place: held until somebody decides.
    Rewritten {
        /// The generation that this node held.
        base: ManifestId,
        /// What differs or is gone, in order.
        changed: Vec<RelPath>,
    },
}

/// How many generations, the newest first, are looked into for files that are a part of one. A version that grows frame by
/// frame has hundreds; the newest contain the older.
const LOOKED_INTO: usize = 4;

/// Relates the files of the version directory `dir`, in the order of their paths, to what is known of the version.
///
/// The base is what `me` holds or held last ([`VersionFold::compared_with`]), or else what stands for the version; `manifest_of` reads manifests. A
/// generation whose manifest is not at hand cannot be compared and counts as unknown.
pub fn relate(
    (dir, files): (&RelPath, &[FileEntry]),
    slot: VersionSlot,
    fold: &VersionFold,
    me: &NodeId,
    manifest_of: impl Fn(&ManifestId) -> Option<Manifest>,
) -> Relation {
    let content = content_id(files);
    let number = |known: &ManifestId| fold.generation(known).map(|generation| generation.generation);
    let held = fold.compared_with(slot, me);
    let head = match fold.standing(slot) {
        Standing::Head(head) => Some(head),
        Standing::Unknown | Standing::Conflict(_) => None,
    };
    let base = held.or(head).and_then(|base| manifest_of(&base));
    if let Some(base) = base.as_ref().filter(|base| base.dir() != dir) {
        return Relation::Elsewhere(base.dir().clone());
    }
    let same = fold.generations().iter().filter(|(_, generation)| generation.content == content);
    let same = same.map(|(id, _)| *id).max_by_key(number);
    if slot == VersionSlot::Hero {
        let is_head = |id: &ManifestId| head.is_some_and(|head| fold.same_as(id, &head));
        return match (same.filter(is_head), head.or(held)) {
            (Some(known), _) => Relation::Known(known),
            (None, Some(before)) => Relation::Moved(before),
            (None, None) => Relation::First,
        };
    }
    if let Some(known) = same {
        return Relation::Known(known);
    }
    if let Some(known) = part_of(files, fold, &manifest_of) {
        return Relation::Part(known);
    }
    let Some(base) = base else { return Relation::First };
    let Difference { mut changed, removed } = compare(files, base.files());
    match (changed.is_empty() && removed.is_empty(), held.is_some()) {
        (true, _) => Relation::Grown(base.id()),
        (false, false) => Relation::First,
        // It was dropped here: what lies in its directory is somebody's own, and nothing of what was published.
        (false, true)
            if changed.is_empty() && removed.len() == base.files().len() && !fold.holds(me, &base.id()) =>
        {
            Relation::Part(base.id())
        }
        (false, true) => {
            changed.extend(removed);
            changed.sort();
            Relation::Rewritten { base: base.id(), changed }
        }
    }
}

/// Finds a generation that has all of these files, and more.
fn part_of(
    files: &[FileEntry],
    fold: &VersionFold,
    manifest_of: impl Fn(&ManifestId) -> Option<Manifest>,
) -> Option<ManifestId> {
    let mut newest: Vec<(u32, ManifestId)> =
        fold.generations().iter().map(|(id, generation)| (generation.generation, *id)).collect();
    newest.sort_by(|a, b| b.cmp(a));
    newest.into_iter().take(LOOKED_INTO).map(|(_, id)| id).find(|id| {
        let whole = manifest_of(id);
        whole.is_some_and(|whole| {
            let Difference { changed, removed } = compare(whole.files(), files);
            changed.is_empty() && removed.is_empty()
        })
    })
}

/// What of `base` is not so in other files.
struct Difference {
    changed: Vec<RelPath>,
    removed: Vec<RelPath>,
}

fn compare(files: &[FileEntry], base: &[FileEntry]) -> Difference {
    let now: BTreeMap<&RelPath, &FileEntry> = files.iter().map(|file| (&file.path, file)).collect();
    let mut difference = Difference { changed: Vec::new(), removed: Vec::new() };
    for file in base {
        match now.get(&file.path) {
            Some(found) if found.hash != file.hash => difference.changed.push(file.path.clone()),
            Some(_) => {}
            None => difference.removed.push(file.path.clone()),
        }
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hash::ObjectHash,
        manifest::{Completeness, ManifestDraft, Representation},
        record::{Held, Published, Record, Resolved, Said, tests::version},
    };

    fn dir() -> RelPath {
        "a/publish/b/v001".parse().unwrap()
    }

    fn entries(files: &[(&str, &str)]) -> Vec<FileEntry> {
        let entry = |(path, text): &(&str, &str)| FileEntry {
            path: path.parse().unwrap(),
            size: text.len() as u64,
            hash: ObjectHash::of(text.as_bytes()),
            mtime_ns: 0,
            representation: 0,
        };
        files.iter().map(entry).collect()
    }

    fn manifest(files: &[(&str, &str)], before: Option<&Manifest>) -> Manifest {
        let files = entries(files);
        ManifestDraft {
            version: version(1),
            silo: None,
            generation: before.map_or(1, |m| m.draft().generation + 1),
            predecessor: before.map(Manifest::id),
            dir: "a/publish/b/v001".parse().unwrap(),
            representations: vec![Representation {
                name: "exr".parse().unwrap(),
                entry: files[0].path.clone(),
            }],
            files,
            completeness: Completeness::Quiet,
            author: String::new(),
            comment: String::new(),
            published_at_ms: 0,
            inputs: vec![],
            metadata: BTreeMap::new(),
        }
        .finish()
        .unwrap()
    }

    fn published(manifest: &Manifest) -> Record {
        Record::Published(Published {
            version: manifest.version().clone(),
            manifest: manifest.id(),
            content: manifest.content(),
            generation: manifest.draft().generation,
            predecessor: manifest.draft().predecessor,
            files: 1,
            bytes: 1,
            representations: vec![],
            author: String::new(),
            published_at_ms: 0,
        })
    }

    fn check(holder: &str, files: &[(&str, &str)], expected: impl Fn(ManifestId) -> Relation) {
        let base = manifest(&[("a.1.exr", "one"), ("a.2.exr", "two")], None);
        let me = "me@here".parse().unwrap();
        let mut fold = VersionFold::default();
        fold.apply(&"far@there".parse().unwrap(), 0, &published(&base));
        let held = Held { version: version(1), manifest: base.id() };
        fold.apply(&holder.parse().unwrap(), 0, &Record::Placed(held));
        let relation = relate((&dir(), &entries(files)), VersionSlot::Number(1), &fold, &me, |id| {
            (*id == base.id()).then(|| base.clone())
        });
        assert_eq!(relation, expected(base.id()));
    }

    #[test]
    fn what_is_known_grows_shrinks_or_is_rewritten() {
        check("me@here", &[("a.1.exr", "one"), ("a.2.exr", "two")], Relation::Known);
        check("me@here", &[("a.1.exr", "one"), ("a.2.exr", "two"), ("a.3.exr", "3")], Relation::Grown);
        check("me@here", &[("a.1.exr", "one")], Relation::Part);
        let rewritten = |base| Relation::Rewritten { base, changed: vec!["a.2.exr".parse().unwrap()] };
        check("me@here", &[("a.1.exr", "one"), ("a.2.exr", "TWO")], rewritten);
        check("me@here", &[("a.1.exr", "one"), ("a.3.exr", "3")], rewritten);
    }

    #[test]
    fn what_this_node_once_held_is_still_its_base_after_it_said_that_it_lost_it() {
        let base = manifest(&[("a", "one"), ("b", "two")], None);
        let me: NodeId = "me@here".parse().unwrap();
        let held = Held { version: version(1), manifest: base.id() };
        let mut fold = VersionFold::default();
        fold.apply(&me, 0, &published(&base));
        fold.apply(&me, 1, &Record::Dropped(held));
        let files = entries(&[("a", "ONE"), ("b", "two")]);
        let relation = relate((&dir(), &files), VersionSlot::Number(1), &fold, &me, |_| Some(base.clone()));
        assert!(matches!(relation, Relation::Rewritten { .. }), "{relation:?}");
    }

    #[test]
    fn files_beside_what_was_dropped_are_somebodys_own_and_no_rewriting() {
        let base = manifest(&[("a", "one"), ("b", "two")], None);
        let me: NodeId = "me@here".parse().unwrap();
        let held = Held { version: version(1), manifest: base.id() };
        let mut fold = VersionFold::default();
        fold.apply(&me, 0, &published(&base));
        let look = |fold: &VersionFold, files: &[(&str, &str)]| {
            let files = entries(files);
            relate((&dir(), &files), VersionSlot::Number(1), fold, &me, |_| Some(base.clone()))
        };
        let own = [("mine.psd", "work")];
        assert!(matches!(look(&fold, &own), Relation::Rewritten { .. }), "while it counts as held");
        fold.apply(&me, 1, &Record::Dropped(held));
        assert_eq!(look(&fold, &own), Relation::Part(base.id()));
        assert_eq!(
            look(&fold, &[("a", "one"), ("b", "two")]),
            Relation::Known(base.id()),
            "put back by hand"
        );
    }

    #[test]
    fn a_node_that_never_held_it_conflicts_grows_it_or_finds_it_equal() {
        check("other@there", &[("a.1.exr", "one"), ("a.2.exr", "two")], Relation::Known);
        check("other@there", &[("a.1.exr", "ONE")], |_| Relation::First);
        check("other@there", &[("a.1.exr", "one")], Relation::Part);
        check("other@there", &[("a.1.exr", "one"), ("a.2.exr", "two"), ("b", "")], Relation::Grown);
    }

    #[test]
    fn an_unknown_version_is_a_first_generation() {
        let me = "me@here".parse().unwrap();
        let relation = relate(
            (&dir(), &entries(&[("a", "x")])),
            VersionSlot::Number(1),
            &VersionFold::default(),
            &me,
            |_| None,
        );
        assert_eq!(relation, Relation::First);
    }

    #[test]
    fn a_cut_placement_is_a_part_of_the_newer_generation_and_no_growth_of_the_older() {
        let one = manifest(&[("a.1.exr", "1")], None);
        let two = manifest(&[("a.1.exr", "1"), ("a.2.exr", "2"), ("a.3.exr", "3")], Some(&one));
        let me: NodeId = "me@here".parse().unwrap();
        let mut fold = VersionFold::default();
        fold.apply(&"far@there".parse().unwrap(), 0, &published(&one));
        fold.apply(&"far@there".parse().unwrap(), 1, &published(&two));
        fold.apply(&me, 0, &Record::Placed(Held { version: version(1), manifest: one.id() }));
        let known = |id: &ManifestId| [&one, &two].into_iter().find(|m| m.id() == *id).cloned();
        let files = entries(&[("a.1.exr", "1"), ("a.2.exr", "2")]);
        let relation = relate((&dir(), &files), VersionSlot::Number(1), &fold, &me, known);
        assert_eq!(relation, Relation::Part(two.id()));
    }

    #[test]
    fn a_hero_that_moves_back_is_a_new_generation() {
        let one = manifest(&[("a", "1")], None);
        let two = manifest(&[("a", "2")], Some(&one));
        let me: NodeId = "me@here".parse().unwrap();
        let mut fold = VersionFold::default();
        fold.apply(&me, 0, &published(&one));
        fold.apply(&me, 1, &published(&two));
        let known = |id: &ManifestId| [&one, &two].into_iter().find(|m| m.id() == *id).cloned();
        let shown = |text| {
            let files = entries(&[("a", text)]);
            relate((&dir(), &files), VersionSlot::Hero, &fold, &me, known)
        };
        assert_eq!(shown("1"), Relation::Moved(two.id()));
        assert_eq!(shown("2"), Relation::Known(two.id()));
    }

    #[test]
    fn where_a_decision_let_the_older_stand_it_is_the_base_of_who_holds_it() {
        let theirs = manifest(&[("a", "theirs")], None);
        let mine = manifest(&[("a", "mine")], None);
        let newer = manifest(&[("a", "mine"), ("b", "more")], Some(&mine));
        let me: NodeId = "me@here".parse().unwrap();
        let held = |manifest: &Manifest| Held { version: version(1), manifest: manifest.id() };
        let resolved = Resolved::new(version(1), 1, theirs.id(), vec![(mine.id(), 5)], Said::default());
        let mut fold = VersionFold::default();
        fold.apply(&"far@there".parse().unwrap(), 0, &published(&theirs));
        let own = [
            published(&mine),
            published(&newer),
            Record::Resolved(resolved.unwrap()),
            Record::Dropped(held(&mine)),
            Record::Dropped(held(&newer)),
            Record::Placed(held(&theirs)),
        ];
        (0..).zip(&own).for_each(|(seq, record)| fold.apply(&me, seq, record));
        let known = |id: &ManifestId| [&theirs, &mine, &newer].into_iter().find(|m| m.id() == *id).cloned();
        let files = entries(&[("a", "theirs"), ("c", "a frame")]);
        let relation = relate((&dir(), &files), VersionSlot::Number(1), &fold, &me, known);
        assert_eq!(relation, Relation::Grown(theirs.id()));
        fold.apply(&me, 9, &Record::Dropped(held(&theirs)));
        assert_eq!(fold.compared_with(VersionSlot::Number(1), &me), Some(newer.id()));
    }

    #[test]
    fn another_directory_of_the_same_version_is_told_and_nothing_else() {
        let one = manifest(&[("a", "1")], None);
        let me: NodeId = "me@here".parse().unwrap();
        let mut fold = VersionFold::default();
        fold.apply(&me, 0, &published(&one));
        let other: RelPath = "b/publish/b/v001".parse().unwrap();
        let files = entries(&[("a", "other")]);
        let relation = relate((&other, &files), VersionSlot::Number(1), &fold, &me, |_| Some(one.clone()));
        assert_eq!(relation, Relation::Elsewhere(dir()));
    }
}
