//! Several templates for one project.

use thiserror::Error;

use super::{PublishPath, Template, VersionDir};
use crate::rel_path::RelPath;

/// The templates of one project, at least one, tried in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSet(Vec<Template>);

/// A project without a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a project needs at least one publish template; leave the setting out to use Avalon's default")]
pub struct NoTemplate;

impl TemplateSet {
    /// Takes templates in the order in which they are tried.
    ///
    /// # Errors
    /// [`NoTemplate`] when there is none.
    pub fn new(templates: Vec<Template>) -> Result<Self, NoTemplate> {
        if templates.is_empty() { Err(NoTemplate) } else { Ok(Self(templates)) }
    }

    /// Returns the templates in order.
    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.0.iter()
    }

    /// Reads a file's path by the first template that matches; see [`Template::invert`].
    pub fn invert(&self, path: &RelPath) -> Option<PublishPath> {
        self.iter().find_map(|template| template.invert(path))
    }

    /// Reads a version directory's path by the first template that matches; see [`Template::invert_dir`].
    pub fn invert_dir(&self, path: &RelPath) -> Option<VersionDir> {
        self.iter().find_map(|template| template.invert_dir(path))
    }

    /// Says whether a version directory may lie in `dir`; see [`Template::could_lead_to_version`].
    pub fn could_lead_to_version(&self, dir: &RelPath) -> bool {
        self.iter().any(|template| template.could_lead_to_version(dir))
    }
}
