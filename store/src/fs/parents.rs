//! [`Parents`]: the directories of many paths, each opened once.

use avalon_protocol::rel_path::RelPath;

use super::{Dir, IoError};

/// Opens the directories that paths lie in. Of paths that follow one another in one directory only the first opens it.
#[derive(Debug)]
pub(crate) struct Parents<'a> {
    root: &'a Dir,
    last: Option<(RelPath, Dir)>,
}

impl<'a> Parents<'a> {
    pub(crate) fn of(root: &'a Dir) -> Self {
        Self { root, last: None }
    }

    /// Returns the directory that a path lies in, and its name there.
    ///
    /// # Errors
    /// [`IoError`] when there is no such directory, or a symbolic link stands in the way.
    pub(crate) fn open(&mut self, path: &RelPath) -> Result<(Dir, RelPath), IoError> {
        let name = path.name();
        let Some(parent) = path.parent() else { return Ok((self.root.clone(), name)) };
        if let Some((_, dir)) = self.last.as_ref().filter(|(of, _)| *of == parent) {
            return Ok((dir.clone(), name));
        }
        let dir = self.root.open_dir(&parent)?;
        self.last = Some((parent, dir.clone()));
        Ok((dir, name))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fs::path_of;

    #[test]
    fn paths_of_any_directory_are_found_in_any_order() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("a/b")).unwrap();
        let root = Dir::open(temp.path()).unwrap();
        let mut parents = Parents::of(&root);
        for path in ["top", "a/one", "a/two", "a/b/three", "a/four", "top2"] {
            let path = path_of(path);
            let (dir, name) = parents.open(&path).unwrap();
            drop(dir.create_file(&name).unwrap());
            assert!(root.stat(&path).unwrap().is_some(), "{path}");
        }
        assert!(parents.open(&path_of("none/x")).unwrap_err().is_not_found());
        // A directory that was moved is still the one that was opened, as with every other handle.
        fs::rename(temp.path().join("a"), temp.path().join("c")).unwrap();
        assert!(parents.open(&path_of("a/b/x")).is_err());
    }
}
