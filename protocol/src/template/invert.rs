//! From a path to the names in it.

use std::collections::BTreeMap;

use super::{
    Fields,
    component::{Key, Template},
    matcher::{self, Bound, Extent},
};
use crate::{
    id::{AssetName, ProjectName, RepresentationName, SiloName, SubsetName, VersionId, VersionSlot},
    rel_path::RelPath,
};

/// The names that a version directory's path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFields {
    /// The silo, when the template has one.
    pub silo: Option<SiloName>,
    /// The folders that the template calls hierarchy, when there are any.
    pub hierarchy: Option<RelPath>,
    /// The asset.
    pub asset: AssetName,
    /// The subset.
    pub subset: SubsetName,
    /// The version.
    pub slot: VersionSlot,
    /// The other keys of the template's directories, as `family` or `project[code]`.
    pub others: BTreeMap<String, String>,
}

impl VersionFields {
    /// Returns the version's id in `project`.
    pub fn version_id(&self, project: &ProjectName) -> VersionId {
        VersionId {
            project: project.clone(),
            asset: self.asset.clone(),
            subset: self.subset.clone(),
            slot: self.slot,
        }
    }

    /// Returns what rendering takes, without a representation.
    pub fn to_fields(&self, project: ProjectName) -> Fields {
        Fields {
            project,
            silo: self.silo.clone(),
            hierarchy: self.hierarchy.clone(),
            asset: self.asset.clone(),
            subset: self.subset.clone(),
            slot: self.slot,
            representation: None,
            others: self.others.clone(),
        }
    }

    pub(super) fn from_bound(bound: &Bound<'_, '_>) -> Option<Self> {
        let others = bound.values.iter().filter(|(key, _)| key.is_other());
        Some(Self {
            silo: bound.get(&Key::Silo).map(str::parse).transpose().ok()?,
            hierarchy: match bound.hierarchy {
                [] => None,
                folders => Some(folders.join("/").parse().ok()?),
            },
            asset: bound.get(&Key::Asset)?.parse().ok()?,
            subset: bound.get(&Key::Subset)?.parse().ok()?,
            slot: bound.slot?,
            others: others.map(|(key, value)| (key.name().to_owned(), (*value).to_owned())).collect(),
        })
    }
}

/// A directory that is a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionDir {
    /// The directory, relative to the project.
    pub dir: RelPath,
    /// What its path says.
    pub fields: VersionFields,
}

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishPath {
    /// The version directory, relative to the project.
    pub dir: RelPath,
    /// What the version directory's path says: equal for all files of a version.
    pub fields: VersionFields,
    /// The file, relative to the version directory.
    pub inside: RelPath,
    /// The representation that it belongs to.
    pub representation: RepresentationName,
    /// Its place in the representation.
    pub role: FileRole,
    /// Further keys that the file's own name says, as `frame` or `output`; empty unless the template holds such keys.
    pub file_keys: BTreeMap<String, String>,
}

/// The place of a file in its representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileRole {
    /// The path that Avalon's loader resolves; of a template with `{frame}`, every frame.
    Entry,
    /// In a directory that is the representation, such as `beauty.exr/beauty.1001.exr`.
    Member,
    /// Beside the representations: the directory does not say whose it is.
    Resource,
}

impl Template {
    /// Reads the path of a version directory, relative to the project's directory.
    pub fn invert_dir(&self, path: &RelPath) -> Option<VersionDir> {
        let parts: Vec<&str> = path.parts().collect();
        let bound = matcher::find(self, &parts, Extent::Directory, Bound::default())?;
        Some(VersionDir { dir: path.clone(), fields: VersionFields::from_bound(&bound)? })
    }

    /// Reads the path of a file in a version directory or deeper, relative to the project's directory.
    ///
    /// The representation is, by the first rule that applies:
    /// 1. the path matches the template: the name that it holds ([`FileRole::Entry`]), or the name of the directory
    ///    that matches it, for what lies in there (Avalon's sequences, [`FileRole::Member`]). `beauty.1001.exr` under
    ///    `{subset}.{representation}` is a member of `exr`, not a representation `1001.exr`;
    /// 2. the first directory inside the version, when its name can be one ([`FileRole::Member`]);
    /// 3. the extension in lower case, or `file` ([`FileRole::Resource`]).
    pub fn invert(&self, path: &RelPath) -> Option<PublishPath> {
        let parts: Vec<&str> = path.parts().collect();
        let (bound, depth) = self.find_version_dir(&parts)?;
        let (above, inside) = parts.split_at_checked(depth)?;
        let fields = VersionFields::from_bound(&bound)?;
        let File { representation, role, keys } =
            self.matching(inside, bound).unwrap_or_else(|| beside(inside));
        let dir = above.join("/").parse().ok()?;
        let inside = inside.join("/").parse().ok()?;
        Some(PublishPath { dir, fields, inside, representation, role, file_keys: keys })
    }

    /// Says whether `dir` is a version directory or may have one beneath it: whether it is worth watching.
    ///
    /// False within a version directory. With a `{hierarchy}`, nearly every folder may lead to a version; folders
    /// beneath one named `work` do not.
    pub fn could_lead_to_version(&self, dir: &RelPath) -> bool {
        let parts: Vec<&str> = dir.parts().collect();
        let is_possible =
            |parts| matcher::find(self, parts, Extent::DirectoryBeginning, Bound::default()).is_some();
        is_possible(&parts) && self.find_version_dir(&parts).is_none()
    }

    /// Finds the outermost version directory strictly above the path's end, and its number of parts.
    fn find_version_dir<'t, 'p>(&'t self, parts: &'p [&'p str]) -> Option<(Bound<'t, 'p>, usize)> {
        let depth = self.directory.len();
        let depths =
            if self.has_hierarchy() { depth.saturating_sub(1)..parts.len() } else { depth..depth + 1 };
        depths.filter(|depth| *depth < parts.len()).find_map(|depth| {
            let bound = matcher::find(self, parts.get(..depth)?, Extent::Directory, Bound::default())?;
            Some((bound, depth))
        })
    }

    /// Applies rule 1 of [`Self::invert`].
    fn matching<'t, 'p>(&'t self, inside: &'p [&'p str], directory: Bound<'t, 'p>) -> Option<File> {
        let known = directory.values.len();
        let start = inside.get(..self.inside.len())?;
        let bound = matcher::find(self, start, Extent::Inside, directory)?;
        let own = bound.values.iter().skip(known).filter(|(key, _)| **key != Key::Representation);
        let mut keys: BTreeMap<String, String> =
            own.map(|(key, value)| (key.name().to_owned(), (*value).to_owned())).collect();
        let is_entry = start.len() == inside.len();
        let role = if is_entry { FileRole::Entry } else { FileRole::Member };
        let Some(name) = bound.get(&Key::Representation) else {
            return Some(File { representation: from_extension(start.last()?), role, keys });
        };
        match split_frame(name) {
            Some((frame, name)) if is_entry => {
                keys.entry("frame".to_owned()).or_insert_with(|| frame.to_owned());
                Some(File { representation: name.parse().ok()?, role: FileRole::Member, keys })
            }
            _ => Some(File { representation: name.parse().ok()?, role, keys }),
        }
    }
}

struct File {
    representation: RepresentationName,
    role: FileRole,
    keys: BTreeMap<String, String>,
}

/// Splits `1001.exr`, which a template without `{frame}` takes for the name of a representation.
fn split_frame(name: &str) -> Option<(&str, &str)> {
    name.split_once('.').filter(|(frame, _)| frame.bytes().all(|b| b.is_ascii_digit()))
}

/// Applies rules 2 and 3 of [`Template::invert`].
fn beside(inside: &[&str]) -> File {
    let keys = BTreeMap::new();
    let directory = if inside.len() > 1 { inside.first().and_then(|name| name.parse().ok()) } else { None };
    match directory {
        Some(representation) => File { representation, role: FileRole::Member, keys },
        None => {
            let representation = from_extension(inside.last().copied().unwrap_or_default());
            File { representation, role: FileRole::Resource, keys }
        }
    }
}

#[expect(clippy::expect_used, reason = "the text is a constant; a test reads it")]
fn from_extension(name: &str) -> RepresentationName {
    let extension = name.rsplit_once('.').and_then(|(_, extension)| extension.to_lowercase().parse().ok());
    extension.unwrap_or_else(|| "file".parse().expect("\"file\" is a valid name"))
}
