//! Files of the service manager, written whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::ServiceError;

/// Writes a file that everybody may read, with the directories above it, and returns its path.
///
/// It is durable when this returns; a crash before leaves the file that was there.
pub(super) fn write(path: &Path, text: &str) -> Result<PathBuf, ServiceError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let written = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new().prefix(".avalond").tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    };
    written().map_err(|source| failed("write", path, source))?;
    Ok(path.to_owned())
}

/// Removes a file and returns its path; `None` if there was none.
pub(super) fn remove(path: &Path) -> Result<Option<PathBuf>, ServiceError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Some(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("remove", path, source)),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ServiceError {
    ServiceError::File { action, path: path.to_owned(), source }
}
