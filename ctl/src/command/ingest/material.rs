//! The material: which files there are, what they are to be called, and which checksums came with them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use avalon_protocol::{
    control::{ApiError, ErrorCode},
    rel_path::RelPath,
    settle::{Exclusion, classify},
};
use walkdir::WalkDir;

use super::sums::{Expected, kind_of};
use crate::copying::failed;

/// What is ingested.
#[derive(Debug)]
pub(super) struct Material {
    /// Each file with its path within the material.
    pub(super) files: Vec<(PathBuf, RelPath)>,
    /// Their size.
    pub(super) bytes: u64,
    /// What the checksums say that came with it.
    pub(super) expected: Expected,
    /// The files of checksums; they are not ingested.
    pub(super) sum_files: Vec<String>,
    /// How many files operating systems leave behind were left out.
    pub(super) litter: u64,
}

fn refuse(message: impl Into<String>, hint: &str) -> ApiError {
    ApiError::new(ErrorCode::BadPath, message).with_hint(hint)
}

impl Material {
    /// Looks at a directory, or at one file.
    pub(super) fn look(path: &Path) -> Result<Self, ApiError> {
        let mut material = Self {
            files: Vec::new(),
            bytes: 0,
            expected: Expected::default(),
            sum_files: Vec::new(),
            litter: 0,
        };
        let stat = fs::metadata(path).map_err(|error| failed("read", path, &error))?;
        if stat.is_file() {
            material.lone(path, stat.len())?;
        } else {
            material.walk(path)?;
        }
        if material.files.is_empty() {
            return Err(refuse(
                format!("there is no file in {}", path.display()),
                "name a directory with files",
            ));
        }
        let is_there = |wanted: &str| material.files.iter().any(|(_, path)| path.as_str() == wanted);
        if let Some(gone) = material.expected.paths().find(|path| !is_there(path)) {
            let message = format!("{gone} has a checksum and is not in {}", path.display());
            return Err(refuse(
                message,
                "the material is not whole: ask for it again, or remove the file of checksums",
            ));
        }
        Ok(material)
    }

    fn lone(&mut self, path: &Path, bytes: u64) -> Result<(), ApiError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let inside = self.checked(&name)?;
        for ending in ["md5", "sha256", "b3"] {
            let sums = crate::copying::beside(path, &format!(".{ending}"));
            if sums.is_file() {
                self.read_sums(&sums, &format!("{name}.{ending}"))?;
            }
        }
        self.files.push((path.to_owned(), inside));
        self.bytes = bytes;
        Ok(())
    }

    fn walk(&mut self, root: &Path) -> Result<(), ApiError> {
        for entry in WalkDir::new(root).sort_by_file_name() {
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(root).to_owned();
                failed(
                    "read",
                    &path,
                    &error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links")),
                )
            })?;
            let inside = entry.path().strip_prefix(root).unwrap_or(entry.path());
            if inside.as_os_str().is_empty() || entry.file_type().is_dir() {
                continue;
            }
            let shown = inside.display().to_string();
            let name =
                inside.to_str().ok_or_else(|| refuse(format!("{shown:?} is not UTF-8"), "rename it"))?;
            let at_top = !name.contains('/');
            if at_top && kind_of(name).is_some() && entry.file_type().is_file() {
                self.read_sums(entry.path(), name)?;
                continue;
            }
            let inside = self.checked(name)?;
            match classify(&inside) {
                Exclusion::Ignored => {
                    self.litter += 1;
                    continue;
                }
                Exclusion::Blocks(_) => {
                    let hint = "wait until the material is whole, or remove it";
                    return Err(refuse(
                        format!("{name} says that somebody is still at work: a lock, or a temporary file"),
                        hint,
                    ));
                }
                Exclusion::None => {}
            }
            if !entry.file_type().is_file() {
                return Err(refuse(format!("{name} is a link or no file"), "put the file in its place"));
            }
            let stat =
                entry.metadata().map_err(|error| failed("read", entry.path(), &io::Error::from(error)))?;
            self.bytes += stat.len();
            self.files.push((entry.into_path(), inside));
        }
        Ok(())
    }

    fn checked(&self, name: &str) -> Result<RelPath, ApiError> {
        name.parse().map_err(|error: avalon_protocol::rel_path::InvalidPath| {
            refuse(format!("{error}: {}", error.rule), "rename it: other systems could not write it")
        })
    }

    fn read_sums(&mut self, path: &Path, name: &str) -> Result<(), ApiError> {
        let Some(kind) = kind_of(name) else { return Ok(()) };
        let text = fs::read_to_string(path).map_err(|error| failed("read", path, &error))?;
        self.expected
            .add(kind, &text)
            .map_err(|why| refuse(format!("{name}: {why}"), "mend the file of checksums, or remove it"))?;
        self.sum_files.push(name.to_owned());
        Ok(())
    }
}
