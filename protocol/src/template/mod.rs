//! Publish templates: where a studio's versions lie, read in both directions.
//!
//! A template is written as Avalon and OpenPype write it, with Python's `str.format` keys:
//! `{root}/{project}/{silo}/{asset}/publish/{subset}/v{version:0>3}/{subset}.{representation}`. Rendering makes a path
//! of the names; inverting finds the names in a path, which is how the daemon knows a publish when it sees one.
//!
//! The *version directory* is what becomes visible at once: everything up to and including the last directory of the
//! template that holds `{version}`. It must identify the version, so `{asset}` and `{subset}` stand in it or above it.
//!
//! - **Keys**: `root project silo hierarchy asset subset family version representation ext task app user frame udim
//!   output`, each also as `{key[part]}`; `{key[name]}` is `{key}`. `{ext}` means `{representation}` where the template
//!   has no other. `{{` and `}}` write a brace.
//! - **Numbers**: `{version}`, `{frame}` and `{udim}` take `:03d`, `:03`, `:0>3`.
//! - **Optional parts**: `<_{output}>` is left out when one of its keys is not known.
//! - **Hierarchy**: `{hierarchy}` is alone between slashes and stands for any number of folders; none at all drops the
//!   slash too. A folder named `work`, starting with a dot, or named as a literal folder of the template (`publish`) is
//!   never part of it, so that a work area is not taken for a deep hierarchy.
//! - **Hero**: instead of each directory that holds `{version}`, one named `hero`; in a file name, `hero` stands for
//!   `v{version}`. Only where no name is lost by that.
//!
//! Names may hold the text that separates them (`{asset}_{subset}`). Every split is tried, the shortest name first,
//! and the first that agrees with the whole path is taken, within a fixed number of steps. Rendering refuses names that
//! would not be read back as they were.

mod component;
mod error;
mod invert;
mod matcher;
mod parse;
mod render;
mod set;

pub use component::Template;
pub use error::{TemplateError, TemplateProblem};
pub use invert::{FileRole, PublishPath, VersionDir, VersionFields};
pub use render::{Fields, RenderError};
pub use set::{NoTemplate, TemplateSet};

/// Avalon's default publish template.
pub const DEFAULT_PUBLISH: &str =
    "{root}/{project}/{silo}/{asset}/publish/{subset}/v{version:0>3}/{subset}.{representation}";

#[cfg(test)]
mod tests;
