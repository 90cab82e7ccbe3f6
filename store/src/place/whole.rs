//! The usual case: the version directory does not exist, and the tree becomes it with one rename.

use super::{PlaceError, Placing};
use crate::{
    fs::{FileStat, Overwrite, path_of},
    object::incoming::VerifiedFile,
};

/// What became of the rename.
pub(super) enum Whole {
    /// The version is in its place, with what is known of each file.
    Placed(Vec<FileStat>),
    /// Somebody made the directory in this moment; nothing was moved.
    DirectoryCameFirst,
}

impl Placing<'_> {
    pub(super) fn place_whole(&self) -> Result<Whole, PlaceError> {
        let mut known = Vec::with_capacity(self.version.files.len());
        for (file, verified) in self.manifest().files().iter().zip(&self.version.files) {
            match verified {
                VerifiedFile::InTree(stat) => known.push(*stat),
                VerifiedFile::InPlace(_) => {
                    return Err(PlaceError::Vanished { path: self.in_project(&file.path) });
                }
            }
        }
        let (project, area, dir) = (&self.version.project, &self.version.area, self.manifest().dir());
        let parent = match dir.parent() {
            Some(parent) => project.create_dirs(&parent).map_err(|e| self.failed(e))?,
            None => project.clone(),
        };
        match area.rename(&path_of("tree"), &parent, &path_of(dir.file_name()), Overwrite::Refuse) {
            Err(error) if error.is_already_there() => return Ok(Whole::DirectoryCameFirst),
            renamed => renamed.map_err(|e| self.failed(e))?,
        }
        project.sync_path(dir).and_then(|()| area.sync()).map_err(|e| self.failed(e))?;
        Ok(Whole::Placed(known))
    }
}
