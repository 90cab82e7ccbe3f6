//! What must be true of each node's disk.

use std::collections::BTreeMap;

use avalon_protocol::{
    feed::FeedId,
    hash::{ChainHash, ContentId, ManifestId, ObjectHash},
    id::{ProjectName, VersionId},
    manifest::Manifest,
    mode::ProjectMode,
    rel_path::RelPath,
    version_fold::{Standing, VersionFold},
};

use super::{Checked, Seen, Violation};
use crate::{
    ledger::apply,
    node::SimNode,
    tree::{TreeFile, VersionDir},
};

fn ensure(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation::new(invariant, detail())) }
}

/// What was durable once is durable for ever.
pub(super) fn invariant_durable_records_stay(node: &SimNode, feed: &FeedId, seen: &Seen) -> Checked {
    let before = seen.groups.get(feed).copied().unwrap_or(0);
    let now = node.disk.ledger.feeds().get(feed).map_or(0, |log| log.synced().len());
    ensure(now >= before, "durable_records_stay", || {
        format!("{} had {before} groups of {feed} and has {now}", node.id)
    })
}

/// No two groups of one feed that start at the same record differ, on whatever disk they are.
pub(super) fn invariant_every_feed_has_one_history(
    node: &SimNode,
    feed: &FeedId,
    seen: &Seen,
    history: &mut BTreeMap<FeedId, BTreeMap<u64, ChainHash>>,
) -> Checked {
    let Some(log) = node.disk.ledger.feeds().get(feed) else { return Ok(()) };
    let known = history.entry(feed.clone()).or_default();
    for group in log.synced().iter().skip(seen.groups.get(feed).copied().unwrap_or(0)) {
        let first = *known.entry(group.first_seq).or_insert(group.head.chain);
        ensure(first == group.head.chain, "every_feed_has_one_history", || {
            format!("{} has another group at record {} of {feed}", node.id, group.first_seq)
        })?;
    }
    Ok(())
}

/// Adds what became durable to the checker's own fold.
pub(super) fn learn(node: &SimNode, feed: &FeedId, seen: &mut Seen) {
    let Some(log) = node.disk.ledger.feeds().get(feed) else { return };
    let groups = seen.groups.entry(feed.clone()).or_default();
    log.synced().iter().skip(*groups).for_each(|group| apply(&mut seen.folds, feed, group));
    *groups = log.synced().len();
}

/// The catalog is what the feeds add up to, from the first record on.
pub(super) fn invariant_catalog_is_the_fold_of_the_feeds(node: &SimNode) -> Checked {
    let mut folds: BTreeMap<VersionId, VersionFold> = BTreeMap::new();
    for (feed, log) in node.disk.ledger.feeds() {
        log.synced().iter().for_each(|group| apply(&mut folds, feed, group));
    }
    ensure(folds == *node.disk.ledger.folds(), "catalog_is_the_fold_of_the_feeds", || {
        format!("{} has a catalog that its feeds do not add up to", node.id)
    })
}

/// The catalog's entry of a version is what the durable records of the version add up to.
pub(super) fn invariant_catalog_knows_every_durable_record(
    node: &SimNode,
    version: &VersionId,
    seen: &Seen,
) -> Checked {
    let (catalog, feeds) = (node.disk.ledger.folds().get(version), seen.folds.get(version));
    ensure(catalog == feeds, "catalog_knows_every_durable_record", || {
        format!("{} has {catalog:?} for {version}, its feeds say {feeds:?}", node.id)
    })
}

/// A feed is only where its project is served.
pub(super) fn invariant_nobody_knows_other_projects(node: &SimNode, project: &ProjectName) -> Checked {
    ensure(node.projects.contains_key(project), "nobody_knows_other_projects", || {
        format!("{} knows of {project}, which it does not serve", node.id)
    })
}

/// Feeds, manifests, files and incoming objects are only where their project is served.
pub(super) fn invariant_nobody_knows_any_other_project(node: &SimNode) -> Checked {
    let disk = &node.disk;
    let manifests = disk.manifests.values().map(|manifest| manifest.project());
    let versions = disk.tree.dirs().keys().chain(disk.ledger.folds().keys()).map(|version| &version.project);
    let incoming = disk.incoming.keys().map(|(project, _)| project);
    let mut projects = manifests.chain(versions).chain(incoming);
    projects.try_for_each(|project| invariant_nobody_knows_other_projects(node, project))
}

/// A visible file has the bytes that its name in the manifest says, whoever sent them.
pub(super) fn invariant_visible_bytes_are_what_they_should_be(
    node: &SimNode,
    version: &VersionId,
    seen: &Seen,
) -> Checked {
    let before = seen.visible.get(version);
    for (path, file) in files(node, version) {
        let known =
            before.and_then(|files| files.get(path)).is_some_and(|(object, _)| *object == file.object);
        ensure(known || ObjectHash::of(&file.bytes) == file.object, "visible_bytes_match", || {
            format!("{} shows wrong bytes at {version} {path}", node.id)
        })?;
    }
    Ok(())
}

/// A visible file keeps its content and stays, except that a crash may take what was not synced.
pub(super) fn invariant_nothing_visible_changes(
    node: &SimNode,
    version: &VersionId,
    seen: &Seen,
    (saved, power): (Option<&BTreeMap<RelPath, ObjectHash>>, bool),
) -> Checked {
    let dir = node.disk.tree.dir(version);
    for (path, (object, durable)) in seen.visible.get(version).into_iter().flatten() {
        let now = dir.and_then(|dir| dir.files.get(path)).map(|file| file.object);
        let torn = now.is_some() && saved.and_then(|saved| saved.get(path)) == now.as_ref();
        let lost = power && !durable && (now.is_none() || torn);
        ensure(now == Some(*object) || lost, "nothing_visible_changes", || {
            format!("{} had {} at {version} {path}, now {now:?}", node.id, object.short())
        })?;
    }
    Ok(())
}

/// A directory holds all of some generation, or what an artist here is saving; beyond that only files of a generation
/// that follows it, or that has all of the artist's files, or of the artist.
pub(super) fn invariant_versions_appear_whole(
    node: &SimNode,
    version: &VersionId,
    saved: Option<&BTreeMap<RelPath, ObjectHash>>,
) -> Checked {
    let Some(dir) = node.disk.tree.dir(version) else { return Ok(()) };
    let by_artist =
        |path: &RelPath, file: &TreeFile| saved.and_then(|saved| saved.get(path)) == Some(&file.object);
    let manifests: Vec<&Manifest> =
        node.disk.manifests.values().map(|manifest| &**manifest).filter(|m| m.version() == version).collect();
    let whole: Vec<&Manifest> = manifests.iter().copied().filter(|manifest| dir.has_all(manifest)).collect();
    let artists = || dir.files.iter().filter(|(path, file)| by_artist(path, file));
    // What an artist saved and the power took in part is made whole by a twin that another node published.
    let completes = |manifest: &Manifest| {
        artists().next().is_some() && artists().all(|(path, file)| names(manifest, path, file))
    };
    let explained = |path: &RelPath, file: &TreeFile| {
        by_artist(path, file)
            || manifests.iter().any(|manifest| {
                names(manifest, path, file)
                    && (completes(manifest) || whole.iter().any(|base| contains(manifest, base)))
            })
    };
    let odd = dir.files.iter().find(|(path, file)| !explained(path, file));
    ensure(odd.is_none(), "versions_appear_whole", || {
        format!("{} shows a part of {version}: {:?}", node.id, odd.map(|(path, _)| path))
    })
}

fn names(manifest: &Manifest, path: &RelPath, file: &TreeFile) -> bool {
    manifest.files().iter().any(|entry| entry.path == *path && entry.hash == file.object)
}

fn contains(manifest: &Manifest, base: &Manifest) -> bool {
    let has = |file: &avalon_protocol::manifest::FileEntry| {
        manifest.files().iter().any(|other| other.path == file.path && other.hash == file.hash)
    };
    base.files().iter().all(has)
}

/// What was acknowledged to whoever published it is in the durable records.
pub(super) fn invariant_acknowledged_is_durable(
    node: &SimNode,
    version: &VersionId,
    content: ContentId,
) -> Checked {
    let fold = node.disk.ledger.folds().get(version);
    let mut generations = fold.into_iter().flat_map(|fold| fold.generations().values());
    ensure(generations.any(|generation| generation.content == content), "acknowledged_is_durable", || {
        format!("{} acknowledged {version} {} and has no record of it", node.id, content.short())
    })
}

/// Where an entry became visible that no artist here saved, everything is visible and durable that it may refer to.
pub(super) fn invariant_entries_come_last(
    node: &SimNode,
    version: &VersionId,
    saved: Option<&BTreeMap<RelPath, ObjectHash>>,
) -> Checked {
    let Some(dir) = node.disk.tree.dir(version) else { return Ok(()) };
    let manifests: Vec<&Manifest> =
        node.disk.manifests.values().map(|manifest| &**manifest).filter(|m| m.version() == version).collect();
    let is_backed = |path: &RelPath, file: &TreeFile| {
        let mut naming = manifests.iter().filter(|manifest| names(manifest, path, file)).peekable();
        naming.peek().is_none()
            || naming.any(|manifest| {
                let files = || manifest.files().iter();
                let is_entry = files().any(|entry| entry.path == *path && manifest.is_entry(entry));
                let mut others = files().filter(|file| !manifest.is_entry(file));
                !is_entry
                    || dir.unsynced_whole
                    || others.all(|file| dir.has(file) && dir.is_durable(&file.path))
            })
    };
    let by_artist =
        |path: &RelPath, file: &TreeFile| saved.and_then(|saved| saved.get(path)) == Some(&file.object);
    let odd = dir.files.iter().find(|(path, file)| !by_artist(path, file) && !is_backed(path, file));
    ensure(odd.is_none(), "entries_come_last", || {
        format!("{} shows {:?} of {version} before what it refers to", node.id, odd.map(|(path, _)| path))
    })
}

/// What a node's durable feed says that it holds, its tree holds, durably, and its manifest is there.
pub(super) fn invariant_claims_are_true(node: &SimNode, version: &VersionId, seen: &Seen) -> Checked {
    let Some(fold) = node.disk.ledger.folds().get(version) else { return Ok(()) };
    let dir = node.disk.tree.dir(version);
    let durable = |dir: &VersionDir, manifest: &Manifest| {
        dir.has_all(manifest) && manifest.files().iter().all(|file| dir.is_durable(&file.path))
    };
    for id in fold.held_by(&node.id) {
        let manifest = node.disk.manifests.get(&id).filter(|_| !node.disk.unsynced_manifests.contains(&id));
        let Some(manifest) = manifest else {
            // Of a node that was put back to a backup, records may come back before their manifests.
            ensure(seen.restored, "claims_are_true", || {
                format!("{} says that it holds {version} {} and has no manifest", node.id, id.short())
            })?;
            continue;
        };
        let held = dir.is_some_and(|dir| durable(dir, manifest));
        ensure(held, "claims_are_true", || {
            format!("{} says that it holds {version} {}, and does not", node.id, id.short())
        })?;
    }
    Ok(())
}

/// In a conflict nobody holds two candidates, and whatever becomes visible without an artist belongs to the one head.
pub(super) fn invariant_no_second_candidate_is_placed(
    node: &SimNode,
    version: &VersionId,
    seen: &Seen,
    saved: Option<&BTreeMap<RelPath, ObjectHash>>,
) -> Checked {
    let Some(fold) = node.disk.ledger.folds().get(version) else { return Ok(()) };
    let standing = fold.standing(version.slot);
    if let Standing::Conflict(heads) = &standing {
        // A node that was put back to a backup hears that it holds the third generation before it hears of the second again,
        // which says that the third follows the first. Until then it takes them for rivals, and does nothing.
        let follows_unknown = |head: &ManifestId| {
            let before = fold.generation(head).and_then(|generation| generation.predecessor);
            seen.restored && before.is_some_and(|before| fold.generation(&before).is_none())
        };
        let held = heads.iter().filter(|head| fold.holds(&node.id, head) && !follows_unknown(head)).count();
        ensure(held < 2, "no_second_candidate_is_placed", || {
            format!("{} holds {held} candidates of {version}", node.id)
        })?;
    }
    let before = seen.visible.get(version);
    let was_placing = seen.placing.contains(version)
        || before.is_some_and(|files| files.values().any(|(_, durable)| !durable));
    if was_placing {
        // What was begun before the conflict was known is finished.
        return Ok(());
    }
    let head = match &standing {
        Standing::Head(head) => node.disk.manifests.get(head),
        _ => None,
    };
    for (path, file) in files(node, version) {
        let old = before.is_some_and(|files| files.contains_key(path));
        let by_artist = saved.and_then(|saved| saved.get(path)) == Some(&file.object);
        let of_head = head.is_some_and(|head| names(head, path, file));
        ensure(old || by_artist || of_head, "no_second_candidate_is_placed", || {
            format!("{} placed {version} {path} while it stands as {standing:?}", node.id)
        })?;
    }
    Ok(())
}

/// A node that does not mirror a project has only what artists saved there or asked for.
pub(super) fn invariant_nothing_comes_unasked(
    node: &SimNode,
    version: &VersionId,
    saved: Option<&BTreeMap<RelPath, ObjectHash>>,
    pulled: bool,
) -> Checked {
    let mirrors = node.projects.get(&version.project) == Some(&ProjectMode::Mirror);
    let asked = mirrors || pulled || saved.is_some();
    ensure(asked || node.disk.tree.dir(version).is_none(), "nothing_comes_unasked", || {
        format!("{} has {version}, which nobody there wanted", node.id)
    })
}

/// Remembers what is visible of a version, and whether that is about to be more.
pub(super) fn remember(node: &SimNode, version: &VersionId, seen: &mut Seen) {
    if node.is_placing(version) {
        seen.placing.insert(version.clone());
    } else {
        seen.placing.remove(version);
    }
    let Some(dir) = node.disk.tree.dir(version) else {
        seen.visible.remove(version);
        return;
    };
    let files = || dir.files.iter().map(|(path, file)| (path, (file.object, dir.is_durable(path))));
    let before = seen.visible.get(version);
    let is_as_before = before.is_some_and(|before| {
        before.len() == dir.files.len() && before.iter().map(|(path, file)| (path, *file)).eq(files())
    });
    if !is_as_before {
        let files = files().map(|(path, file)| (path.clone(), file));
        seen.visible.insert(version.clone(), files.collect());
    }
}

fn files<'a>(node: &'a SimNode, version: &VersionId) -> impl Iterator<Item = (&'a RelPath, &'a TreeFile)> {
    node.disk.tree.dir(version).into_iter().flat_map(|dir| &dir.files)
}
