//! A version that lost its number: its manifests under the new one, the same at every node that makes them.

use thiserror::Error;

use super::{InvalidManifest, Manifest};
use crate::{
    hash::ManifestId,
    id::{VersionId, VersionSlot},
    rel_path::RelPath,
    template::{Fields, FileRole, PublishPath, Template, TemplateSet},
};

/// A manifest under another number, and which files have another name there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renumbered {
    /// The manifest.
    pub manifest: Manifest,
    /// Of each file in the order of the old manifest, its path then and now, relative to the version directory.
    pub files: Vec<(RelPath, RelPath)>,
}

/// Why a manifest cannot be had under another number.
#[derive(Debug, Error)]
pub enum RenumberError {
    /// No template of the project makes the directory, or a path that it would make is taken for something else.
    #[error("no template of the project gives {dir} another number")]
    NoTemplate {
        /// The version directory.
        dir: RelPath,
    },
    /// The result breaks a rule of manifests.
    #[error("{version} makes no valid manifest")]
    Invalid {
        /// The version that it would be.
        version: VersionId,
        /// Which rule.
        #[source]
        source: InvalidManifest,
    },
}

/// Gives a generation another number: the directory that the template makes of it, and for files whose name the template makes
/// as well, the name with the number. Everything else stays as it is, so that every node gets the same manifest.
///
/// # Errors
/// [`RenumberError`].
pub fn renumber(
    old: &Manifest,
    number: u32,
    predecessor: Option<ManifestId>,
    templates: &TemplateSet,
) -> Result<Renumbered, RenumberError> {
    let slot = VersionSlot::Number(number);
    let no_template = || RenumberError::NoTemplate { dir: old.dir().clone() };
    let (template, read) = templates
        .iter()
        .find_map(|template| Some((template, template.invert_dir(old.dir())?)))
        .ok_or_else(no_template)?;
    let fields = Fields { slot, ..read.fields.to_fields(old.project().clone()) };
    let dir = template.version_dir(&fields).map_err(|_| no_template())?;
    let naming = Naming { template, old, slot, dir: &dir };
    let mut draft = old.draft().clone();
    for representation in &mut draft.representations {
        representation.entry = naming.rendered(&representation.entry).unwrap_or(representation.entry.clone());
    }
    let mut files = Vec::with_capacity(draft.files.len());
    for file in &mut draft.files {
        let path = naming.path(&file.path);
        files.push((file.path.clone(), path.clone()));
        file.path = path;
    }
    draft.version = VersionId { slot, ..draft.version };
    draft.dir = dir.clone();
    draft.predecessor = predecessor;
    let version = draft.version.clone();
    let manifest = draft.finish().map_err(|source| RenumberError::Invalid { version, source })?;
    Ok(Renumbered { manifest, files })
}

struct Naming<'a> {
    template: &'a Template,
    old: &'a Manifest,
    slot: VersionSlot,
    dir: &'a RelPath,
}

impl Naming<'_> {
    /// Returns what a file is called under the new number.
    fn path(&self, path: &RelPath) -> RelPath {
        if let Some(rendered) = self.rendered(path) {
            return rendered;
        }
        // In a directory that is a representation, only that directory's name is the template's.
        let entries = self.old.representations().iter().map(|representation| &representation.entry);
        let moved = entries.filter(|entry| *entry != path && path.is_within(entry)).find_map(|entry| {
            let (to, rest) = (self.rendered(entry)?, path.strip_prefix(entry)?);
            to.join(&rest).ok()
        });
        moved.unwrap_or_else(|| path.clone())
    }

    /// Returns what the template makes of a path, if the path is one that it makes.
    fn rendered(&self, path: &RelPath) -> Option<RelPath> {
        let whole = self.old.dir().join(path).ok()?;
        let read = self.template.invert(&whole).filter(|read| read.role == FileRole::Entry)?;
        let fields = self.fields(&read);
        if self.template.render(&fields).ok()? != whole {
            return None;
        }
        let new = self.template.render(&Fields { slot: self.slot, ..fields }).ok()?;
        new.strip_prefix(self.dir)
    }

    fn fields(&self, read: &PublishPath) -> Fields {
        let mut fields = read.fields.to_fields(self.old.project().clone());
        fields.representation = Some(read.representation.clone());
        fields.others.extend(read.file_keys.iter().map(|(key, value)| (key.clone(), value.clone())));
        fields
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        hash::ObjectHash,
        manifest::{Completeness, FileEntry, ManifestDraft, Representation},
        template::DEFAULT_PUBLISH,
    };

    fn templates(text: &str) -> TemplateSet {
        TemplateSet::new(vec![Template::parse(text).unwrap()]).unwrap()
    }

    fn manifest(dir: &str, files: &[&str], entry: &str) -> Manifest {
        let file = |path: &&str| FileEntry {
            path: path.parse().unwrap(),
            size: 1,
            hash: ObjectHash::of(path.as_bytes()),
            mtime_ns: 5,
            representation: 0,
        };
        ManifestDraft {
            version: VersionId { slot: VersionSlot::Number(1), ..crate::record::tests::version(1) },
            silo: None,
            generation: 2,
            predecessor: Some(ManifestId::from_bytes([3; 32])),
            dir: dir.parse().unwrap(),
            representations: vec![Representation {
                name: "exr".parse().unwrap(),
                entry: entry.parse().unwrap(),
            }],
            files: files.iter().map(file).collect(),
            completeness: Completeness::Quiet,
            author: "anna".into(),
            comment: String::new(),
            published_at_ms: 7,
            inputs: vec![],
            metadata: BTreeMap::new(),
        }
        .finish()
        .unwrap()
    }

    fn names(renumbered: &Renumbered) -> Vec<&str> {
        renumbered.manifest.files().iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn the_directory_gets_the_number_and_everything_else_stays() {
        let old = manifest(
            "assets/robot/publish/modelDefault/v001",
            &["modelDefault.exr", "textures/a_v001.png"],
            "modelDefault.exr",
        );
        let before = Some(ManifestId::from_bytes([9; 32]));
        let new = renumber(&old, 12, before, &templates(DEFAULT_PUBLISH)).unwrap();
        assert_eq!(new.manifest.dir().as_str(), "assets/robot/publish/modelDefault/v012");
        assert_eq!(names(&new), ["modelDefault.exr", "textures/a_v001.png"]);
        assert_eq!(new.manifest.content(), old.content(), "the same files are the same content");
        let (was, is) = (old.draft(), new.manifest.draft());
        assert_eq!((is.generation, is.predecessor, &is.author), (2, before, &was.author));
        assert_eq!(is.version.slot, VersionSlot::Number(12));
        assert_eq!(new, renumber(&old, 12, before, &templates(DEFAULT_PUBLISH)).unwrap());
    }

    #[test]
    fn names_that_the_template_makes_get_the_number_frames_too() {
        let text = "{root}/{project}/{asset}/publish/{subset}/v{version:0>3}/{asset}_v{version:0>3}<_{output}><.{frame}>.{ext}";
        let old = manifest(
            "robot/publish/modelDefault/v001",
            &[
                "robot_v001.1001.exr",
                "robot_v001.1002.exr",
                "robot_v001.exr/inside_v001.exr",
                "notes_v001.txt",
            ],
            "robot_v001.exr",
        );
        let before = Some(ManifestId::from_bytes([9; 32]));
        let new = renumber(&old, 7, before, &templates(text)).unwrap();
        assert_eq!(
            names(&new),
            [
                "notes_v001.txt",
                "robot_v007.1001.exr",
                "robot_v007.1002.exr",
                "robot_v007.exr/inside_v001.exr"
            ]
        );
        assert_eq!(new.manifest.representations()[0].entry.as_str(), "robot_v007.exr");
        let to: Vec<&str> = new.files.iter().map(|(_, to)| to.as_str()).collect();
        assert_eq!((new.files[1].0.as_str(), to[1]), ("robot_v001.1001.exr", "robot_v007.1001.exr"));
    }

    #[test]
    fn a_directory_that_no_template_makes_gets_no_number() {
        let old = manifest("somewhere/else", &["a.exr"], "a.exr");
        let refused = renumber(&old, 7, None, &templates(DEFAULT_PUBLISH));
        assert!(matches!(refused, Err(RenumberError::NoTemplate { .. })), "{refused:?}");
    }
}
