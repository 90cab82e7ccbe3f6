//! From names to the path of a version or a file.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{
    VersionFields,
    component::{Component, HERO, Hero, Key, Piece, Template},
    matcher::{padded, unpadded, version_text},
};
use crate::{
    id::{AssetName, ProjectName, RepresentationName, SiloName, SubsetName, VersionId, VersionSlot},
    rel_path::{InvalidPath, RelPath},
};

/// The names that a template is rendered with; what the template does not hold is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The project.
    pub project: ProjectName,
    /// The silo.
    pub silo: Option<SiloName>,
    /// The folders of the hierarchy; `None` drops it from the path.
    pub hierarchy: Option<RelPath>,
    /// The asset.
    pub asset: AssetName,
    /// The subset.
    pub subset: SubsetName,
    /// The version.
    pub slot: VersionSlot,
    /// The representation; only a file's path needs one.
    pub representation: Option<RepresentationName>,
    /// All other keys, as `family`, `frame` or `project[code]`.
    pub others: BTreeMap<String, String>,
}

impl From<&VersionId> for Fields {
    /// Knows what the id says and nothing else.
    fn from(id: &VersionId) -> Self {
        Self {
            project: id.project.clone(),
            silo: None,
            hierarchy: None,
            asset: id.asset.clone(),
            subset: id.subset.clone(),
            slot: id.slot,
            representation: None,
            others: BTreeMap::new(),
        }
    }
}

/// Why names do not make a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenderError {
    /// The template holds a key that is not known.
    #[error("template {template:?} needs {{{key}}}, which is not known")]
    Missing {
        /// The template.
        template: String,
        /// The key.
        key: String,
    },
    /// A value that the key does not take.
    #[error(
        "{value:?} cannot stand for {{{key}}} in a path (empty, a slash or dot, or digits where a word belongs)"
    )]
    BadValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// A folder `hero` would not say which asset or subset it is of.
    #[error("template {template:?} has no place for a hero: its version folder holds other names too")]
    NoHero {
        /// The template.
        template: String,
    },
    /// The path breaks a rule for paths.
    #[error("asset {asset}, subset {subset} makes no valid path")]
    Path {
        /// The asset.
        asset: AssetName,
        /// The subset.
        subset: SubsetName,
        /// The rule.
        #[source]
        source: InvalidPath,
    },
    /// The path would be read back with other names.
    #[error(
        "{path} would be taken for something else, as a name holds text that template {template:?} separates names by"
    )]
    Ambiguous {
        /// The path.
        path: RelPath,
        /// The template.
        template: String,
    },
}

impl Template {
    /// Makes the path of a version directory, relative to the project's directory.
    ///
    /// [`Template::invert_dir`] of it gives the same names.
    ///
    /// # Errors
    /// [`RenderError`] when a key is not known, or the names would not be read back as they are.
    pub fn version_dir(&self, fields: &Fields) -> Result<RelPath, RenderError> {
        self.directory(fields).map(|(dir, _)| dir)
    }

    /// Makes the path of a representation's entry file, relative to the project's directory.
    ///
    /// [`Template::invert`] of it gives the same names.
    ///
    /// # Errors
    /// [`RenderError`] when a key is not known, or the names would not be read back as they are.
    pub fn render(&self, fields: &Fields) -> Result<RelPath, RenderError> {
        let (dir, above) = self.directory(fields)?;
        let mut below = Rendering { template: self, fields, parts: Vec::new(), used: Vec::new() };
        self.inside.iter().try_for_each(|component| below.component(component))?;
        let inside = below.path()?;
        let path = dir.join(&inside).map_err(|source| below.refused(source))?;
        let is_new = |key: &Key| *key != Key::Representation && above.iter().all(|(known, _)| *known != key);
        let representation = below.value(&Key::Representation);
        let is_same = self.invert(&path).is_some_and(|read| {
            read.dir == dir
                && read.file_keys == named(&below.used, is_new)
                && (!below.has_used(&Key::Representation)
                    || Some(read.representation.as_str()) == representation)
        });
        if is_same { Ok(path) } else { Err(self.ambiguous(path)) }
    }

    fn directory<'t>(&'t self, fields: &'t Fields) -> Result<(RelPath, Used<'t>), RenderError> {
        let mut rendering = Rendering { template: self, fields, parts: Vec::new(), used: Vec::new() };
        for component in &self.directory {
            let is_hero = component.holds_version() && fields.slot == VersionSlot::Hero;
            match (is_hero, self.hero) {
                (true, Hero::Possible) => rendering.parts.push(HERO.to_owned()),
                (true, Hero::LosesNames) => return Err(RenderError::NoHero { template: self.text.clone() }),
                (false, _) if component.is_hierarchy() => {
                    let folders = fields.hierarchy.iter().flat_map(RelPath::parts);
                    rendering.parts.extend(folders.map(str::to_owned));
                }
                (false, _) => rendering.component(component)?,
            }
        }
        let path = rendering.path()?;
        let expected = VersionFields {
            silo: fields.silo.clone().filter(|_| rendering.has_used(&Key::Silo)),
            hierarchy: fields.hierarchy.clone().filter(|_| self.has_hierarchy()),
            asset: fields.asset.clone(),
            subset: fields.subset.clone(),
            slot: fields.slot,
            others: named(&rendering.used, Key::is_other),
        };
        match self.invert_dir(&path) {
            Some(read) if read.fields == expected => Ok((path, rendering.used)),
            _ => Err(self.ambiguous(path)),
        }
    }

    fn ambiguous(&self, path: RelPath) -> RenderError {
        RenderError::Ambiguous { path, template: self.text.clone() }
    }
}

/// The values that stand in a path, without the zeros of a format, each key once.
type Used<'t> = Vec<(&'t Key, &'t str)>;

fn named(used: &Used<'_>, is_wanted: impl Fn(&Key) -> bool) -> BTreeMap<String, String> {
    let wanted = used.iter().filter(|(key, _)| is_wanted(key));
    wanted.map(|(key, value)| (key.name().to_owned(), (*value).to_owned())).collect()
}

struct Rendering<'t> {
    template: &'t Template,
    fields: &'t Fields,
    parts: Vec<String>,
    used: Used<'t>,
}

impl<'t> Rendering<'t> {
    fn component(&mut self, component: &'t Component) -> Result<(), RenderError> {
        let mut text = String::new();
        self.pieces(&component.pieces, &mut text)?;
        self.parts.push(text);
        Ok(())
    }

    fn pieces(&mut self, pieces: &'t [Piece], text: &mut String) -> Result<(), RenderError> {
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Version { v, width } => text.push_str(&version_text(self.fields.slot, v, *width)),
                Piece::Field { key, width } => self.field(key, *width, text)?,
                Piece::Optional(optional) => {
                    let mut keys = optional.iter().filter_map(Piece::key);
                    if keys.all(|key| *key == Key::Version || self.value(key).is_some()) {
                        self.pieces(optional, text)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, key: &'t Key, width: usize, text: &mut String) -> Result<(), RenderError> {
        let Some(value) = self.value(key) else {
            let (template, key) = (self.template.text.clone(), key.name().to_owned());
            return Err(RenderError::Missing { template, key });
        };
        if !key.accepts(value) {
            return Err(RenderError::BadValue { key: key.name().to_owned(), value: value.to_owned() });
        }
        let value = unpadded(value, width);
        text.push_str(&padded(value, width));
        if !self.has_used(key) {
            self.used.push((key, value));
        }
        Ok(())
    }

    fn value(&self, key: &Key) -> Option<&'t str> {
        let fields = self.fields;
        match key {
            Key::Project => Some(fields.project.as_str()),
            Key::Silo => fields.silo.as_ref().map(SiloName::as_str),
            Key::Asset => Some(fields.asset.as_str()),
            Key::Subset => Some(fields.subset.as_str()),
            Key::Representation => fields.representation.as_ref().map(RepresentationName::as_str),
            Key::Number(name) | Key::Text(name) => fields.others.get(name).map(String::as_str),
            Key::Root | Key::Hierarchy | Key::Version => None,
        }
    }

    fn has_used(&self, key: &Key) -> bool {
        self.used.iter().any(|(used, _)| *used == key)
    }

    fn path(&self) -> Result<RelPath, RenderError> {
        self.parts.join("/").parse().map_err(|source| self.refused(source))
    }

    fn refused(&self, source: InvalidPath) -> RenderError {
        RenderError::Path { asset: self.fields.asset.clone(), subset: self.fields.subset.clone(), source }
    }
}
