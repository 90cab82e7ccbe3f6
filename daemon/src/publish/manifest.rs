//! Stage 4: named files become a manifest. Previous: [`super::hash`]. Next: [`super::record`].

use std::collections::BTreeMap;

use avalon_protocol::{
    hash::ManifestId,
    id::{ProjectName, RepresentationName},
    manifest::{Completeness, FileEntry, InvalidManifest, Manifest, ManifestDraft, Representation},
    rel_path::RelPath,
    template::{FileRole, TemplateSet, VersionDir},
};

use super::{hash::NamedFile, settle::PublishDetails};

/// The files of a version sorted into representations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// The files in the order of their paths.
    pub files: Vec<FileEntry>,
    /// The representations in the order of their names.
    pub representations: Vec<Representation>,
}

/// Sorts files into representations, as the template reads their paths.
///
/// The entry of a representation is what Avalon's loader resolves: the file that the template names; or the directory
/// that holds all of it, for sequences; or else its first file.
pub fn entries(templates: &TemplateSet, named: &[NamedFile]) -> Entries {
    let mut groups: BTreeMap<RepresentationName, Vec<(&NamedFile, FileRole)>> = BTreeMap::new();
    for file in named {
        if let Some(path) = templates.invert(&file.path) {
            groups.entry(path.representation).or_default().push((file, path.role));
        }
    }
    let mut representations = Vec::with_capacity(groups.len());
    let mut files = Vec::with_capacity(named.len());
    for (index, (name, group)) in groups.into_iter().enumerate() {
        let Some(entry) = entry_of(&group) else { continue };
        representations.push(Representation { name, entry });
        files.extend(group.into_iter().map(|(file, _)| FileEntry {
            path: file.inside.clone(),
            size: file.stat.size,
            hash: file.object,
            mtime_ns: file.stat.mtime_ns,
            representation: u16::try_from(index).unwrap_or(u16::MAX),
        }));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Entries { files, representations }
}

fn entry_of(group: &[(&NamedFile, FileRole)]) -> Option<RelPath> {
    let of_template =
        group.iter().filter(|(_, role)| *role == FileRole::Entry).map(|(file, _)| &file.inside).min();
    if let Some(entry) = of_template {
        return Some(entry.clone());
    }
    let first = group.iter().map(|(file, _)| &file.inside).min()?;
    let top: Option<RelPath> = first.as_str().split_once('/').and_then(|(top, _)| top.parse().ok());
    let shared = top.filter(|top| group.iter().all(|(file, _)| file.inside.is_within(top)));
    Some(shared.unwrap_or_else(|| first.clone()))
}

/// A manifest's place among the generations of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// 1 for the first.
    pub generation: u32,
    /// The one before.
    pub predecessor: Option<ManifestId>,
}

/// Makes the manifest.
///
/// # Errors
/// [`InvalidManifest`]: names that collide, too many files, and the like.
pub fn manifest(
    project: &ProjectName,
    version: &VersionDir,
    entries: Entries,
    place: Place,
    completeness: Completeness,
    about: PublishDetails,
    published_at_ms: u64,
) -> Result<Manifest, InvalidManifest> {
    ManifestDraft {
        version: version.fields.version_id(project),
        silo: version.fields.silo.clone(),
        generation: place.generation,
        predecessor: place.predecessor,
        dir: version.dir.clone(),
        representations: entries.representations,
        files: entries.files,
        completeness,
        author: about.author,
        comment: about.comment,
        published_at_ms,
        inputs: about.inputs,
        metadata: about.metadata,
    }
    .finish()
}
