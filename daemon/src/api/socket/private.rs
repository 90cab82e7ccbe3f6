//! Whether nobody else can put a socket where the daemon's is: then whoever connects there talks to the daemon.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::SocketError;

const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Checks the directory of a socket: it belongs to the daemon's user or to root, and others may not write in it. Nor may
/// they in one above, unless names there belong to who made them, as in `/tmp`.
pub(super) fn check(path: &Path) -> Result<(), SocketError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => return Ok(()),
    };
    let look = |source| SocketError::Look { path: dir.to_owned(), source };
    let dir = fs::canonicalize(dir).map_err(look)?;
    let own = rustix::process::getuid().as_raw();
    for (above, dir) in dir.ancestors().enumerate() {
        let meta = fs::metadata(dir).map_err(look)?;
        let open = || SocketError::OpenDirectory { dir: dir.to_owned(), mode: meta.mode() & 0o7777 };
        if above == 0 && ![0, own].contains(&meta.uid()) {
            return Err(SocketError::ForeignDirectory { dir: dir.to_owned(), uid: meta.uid() });
        }
        if meta.mode() & OTHERS_WRITE != 0 && (above == 0 || meta.mode() & STICKY == 0) {
            return Err(open());
        }
    }
    Ok(())
}
