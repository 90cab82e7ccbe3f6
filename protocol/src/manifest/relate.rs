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
    /// A part of a generation that this node held; files were removed here. Nothing new, and nothing is propagated.
    Reduced(ManifestId),
    /// Published files were changed in place: held until somebody decides.
    Rewritten {
        /// The generation that this node held.
        base: ManifestId,
        /// What differs or is gone, in order.
        changed: Vec<RelPath>,
    },
}

/// Relates the files of a version directory, in the order of their paths, to what is known of the version.
///
/// The base is what `me` holds or held last, or else what stands for the version; `manifest_of` reads manifests. A base whose
/// manifest is not at hand cannot be compared and counts as unknown.
pub fn relate(
    files: &[FileEntry],
    slot: VersionSlot,
    fold: &VersionFold,
    me: &NodeId,
    manifest_of: impl Fn(&ManifestId) -> Option<Manifest>,
) -> Relation {
    let content = content_id(files);
    let generations = fold.generations();
    let newest = |known: &&ManifestId| generations.get(*known).map(|generation| generation.generation);
    let same = generations.iter().filter(|(_, generation)| generation.content == content).map(|(id, _)| id);
    if let Some(known) = same.max_by_key(newest) {
        return Relation::Known(*known);
    }
    let held: Vec<ManifestId> = fold.ever_held_by(me).collect();
    let held = held.iter().max_by_key(newest).copied();
    let head = match fold.standing(slot) {
        Standing::Head(head) => Some(head),
        Standing::Unknown | Standing::Conflict(_) => None,
    };
    if slot == VersionSlot::Hero {
        return head.or(held).map_or(Relation::First, Relation::Moved);
    }
    let Some(base) = held.or(head).and_then(|base| manifest_of(&base)) else { return Relation::First };
    match (compare(files, base.files()), held.is_some()) {
        (Difference { changed, removed, .. }, _) if changed.is_empty() && removed.is_empty() => {
            Relation::Grown(base.id())
        }
        (_, false) => Relation::First,
        (Difference { changed, added: 0, .. }, true) if changed.is_empty() => Relation::Reduced(base.id()),
        (Difference { mut changed, removed, .. }, true) => {
            changed.extend(removed);
            changed.sort();
            Relation::Rewritten { base: base.id(), changed }
        }
    }
}

struct Difference {
    changed: Vec<RelPath>,
    removed: Vec<RelPath>,
    added: usize,
}

fn compare(files: &[FileEntry], base: &[FileEntry]) -> Difference {
    let now: BTreeMap<&RelPath, &FileEntry> = files.iter().map(|file| (&file.path, file)).collect();
    let mut difference = Difference { changed: Vec::new(), removed: Vec::new(), added: files.len() };
    for file in base {
        match now.get(&file.path) {
            Some(found) => {
                difference.added -= 1;
                if found.hash != file.hash {
                    difference.changed.push(file.path.clone());
                }
            }
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
        record::{Held, Published, Record, tests::version},
    };

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
        let relation = relate(&entries(files), VersionSlot::Number(1), &fold, &me, |id| {
            (*id == base.id()).then(|| base.clone())
        });
        assert_eq!(relation, expected(base.id()));
    }

    #[test]
    fn what_is_known_grows_shrinks_or_is_rewritten() {
        check("me@here", &[("a.1.exr", "one"), ("a.2.exr", "two")], Relation::Known);
        check("me@here", &[("a.1.exr", "one"), ("a.2.exr", "two"), ("a.3.exr", "3")], Relation::Grown);
        check("me@here", &[("a.1.exr", "one")], Relation::Reduced);
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
        let relation = relate(&files, VersionSlot::Number(1), &fold, &me, |_| Some(base.clone()));
        assert!(matches!(relation, Relation::Rewritten { .. }), "{relation:?}");
    }

    #[test]
    fn a_node_that_never_held_it_conflicts_grows_it_or_finds_it_equal() {
        check("other@there", &[("a.1.exr", "one"), ("a.2.exr", "two")], Relation::Known);
        check("other@there", &[("a.1.exr", "ONE")], |_| Relation::First);
        check("other@there", &[("a.1.exr", "one"), ("a.2.exr", "two"), ("b", "")], Relation::Grown);
    }

    #[test]
    fn an_unknown_version_is_a_first_generation() {
        let me = "me@here".parse().unwrap();
        let relation =
            relate(&entries(&[("a", "x")]), VersionSlot::Number(1), &VersionFold::default(), &me, |_| None);
        assert_eq!(relation, Relation::First);
    }
}
