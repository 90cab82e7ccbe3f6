//! What the publishing node notes in the manifest for checks that others cannot make: files that are cut off, names that its
//! template does not give, inputs that nobody has published.
//!
//! Between [`super::inputs`] and [`super::manifest`]. It costs a bounded time, and finds nothing rather than failing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use avalon_protocol::{
    check::{self, Note, has_length_mark, length_mark},
    id::RepresentationName,
    inputs::Input,
    manifest::Manifest,
    rel_path::RelPath,
    settle::EndMark,
    template::FileRole,
};
use avalon_store::fs::Dir;

use super::{hash::NamedFile, snapshot::read_ends};
use crate::{
    core::{Core, blocking},
    project::Project,
};

/// How long looking at the ends of files may take. Someone waits for it, and on a network mount each file costs a round trip.
const TIME: Duration = Duration::from_secs(3);

/// Replaces the notes in the metadata of a version by what is so now. `grown_from` is the generation before.
pub(super) async fn note(
    core: &Arc<Core>,
    project: &Arc<Project>,
    root: &Dir,
    files: &[NamedFile],
    inputs: &[String],
    grown_from: Option<Arc<Manifest>>,
    metadata: &mut BTreeMap<String, String>,
) {
    metadata.retain(|key, _| !key.starts_with(check::PREFIX));
    let (core, project, root) = (Arc::clone(core), Arc::clone(project), root.clone());
    let (files, inputs) = (files.to_vec(), inputs.to_vec());
    let notes = blocking(move || {
        [
            (check::TRUNCATED_FILE, truncated(&core, &root, &files, grown_from.as_deref())),
            (check::MISSING_INPUT, unknown_inputs(&core, &project, &inputs)),
            (check::NAME_OFF_TEMPLATE, off_template(&project, &files)),
        ]
    });
    for (code, note) in notes.await {
        note.put(code, metadata);
    }
}

/// Looks at the ends of new files, and of those that were cut off in the generation before.
fn truncated(core: &Core, root: &Dir, files: &[NamedFile], grown_from: Option<&Manifest>) -> Note {
    let before = grown_from.and_then(|manifest| Note::of(check::TRUNCATED_FILE, &manifest.draft().metadata));
    let before = before.unwrap_or_default();
    let was_cut: BTreeSet<&str> = before.first.iter().map(String::as_str).collect();
    // Those that the note does not name are as they were: nothing is changed in place.
    let mut note = Note { count: before.count - before.first.len(), first: Vec::new() };
    let until = core.clock.monotonic() + TIME;
    let is_due =
        |file: &&NamedFile| grown_from.is_none() || file.is_fresh || was_cut.contains(file.inside.as_str());
    for file in files.iter().filter(is_due).filter(|file| has_length_mark(file.inside.file_name())) {
        if core.clock.monotonic() > until {
            tracing::debug!(path = %file.path, "no time left to look at the ends of files");
            break;
        }
        if is_cut_off(root, &file.path, file.stat.size) {
            note.add(file.inside.as_str());
        }
    }
    note
}

fn is_cut_off(root: &Dir, path: &RelPath, size: u64) -> bool {
    let ends = read_ends(root, path, size);
    ends.is_some_and(|(head, tail)| length_mark(path.file_name(), size, &head, &tail) == EndMark::Open)
}

fn unknown_inputs(core: &Core, project: &Project, inputs: &[String]) -> Note {
    let mut note = Note::default();
    for input in inputs {
        if let Input::Reference(reference) = Input::read(input)
            && core.knows_input(project.name(), &reference) == Some(false)
        {
            note.add(input);
        }
    }
    note
}

/// Names the first file of each representation of which none lies where the template puts it.
fn off_template(project: &Project, files: &[NamedFile]) -> Note {
    let mut representations: BTreeMap<RepresentationName, (&RelPath, bool)> = BTreeMap::new();
    for file in files {
        let Some(path) = project.templates().invert(&file.path) else { continue };
        let fits = path.role != FileRole::Resource;
        let (_, any_fits) = representations.entry(path.representation).or_insert((&file.inside, fits));
        *any_fits |= fits;
    }
    let mut note = Note::default();
    let off = representations.into_values().filter(|(_, any_fits)| !any_fits);
    off.for_each(|(first, _)| note.add(first.as_str()));
    note
}
