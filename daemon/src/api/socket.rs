//! [`bind`]: the socket of the local API, and nothing else at its place.

mod error;
mod group;
mod private;

use std::{
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Gid, chownat};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

pub use self::error::SocketError;
pub(in crate::api) use self::group::find as find_group;
use crate::config::MAX_SOCKET_PATH_BYTES;

/// The owner and the group may connect, others not.
const SOCKET_MODE: u32 = 0o660;

/// Likewise for the directory, where this makes it.
const DIR_MODE: u32 = 0o750;

/// How many callers may wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens at `path`, for the daemon's own user and group, or for `group` (a name or a number) instead of that.
///
/// The last directory of the path is made when it is missing. A socket that nobody listens on any more is replaced; what
/// is not a socket, or is one that somebody answers on, is left alone and is an error. Nobody can connect before mode and
/// group are set. Two daemons that start at the very same moment are told apart by the lock on their state, not here.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// [`SocketError`] says what is in the way and what to do.
pub fn bind(path: &Path, group: Option<&str>) -> Result<(UnixListener, SocketGuard), SocketError> {
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > MAX_SOCKET_PATH_BYTES {
        return Err(SocketError::TooLong { path: path.to_owned(), bytes });
    }
    let group = group.map(group::find).transpose()?;
    make_dir(path, group)?;
    private::check(path)?;
    clear(path)?;
    let socket = open(path, group)?;
    let guard = SocketGuard::of(path)?;
    let listen = |source| SocketError::Listen { path: path.to_owned(), source };
    socket.listen(BACKLOG).map_err(listen)?;
    let listener = UnixListener::from_std(socket.into()).map_err(listen)?;
    Ok((listener, guard))
}

/// Removes the socket when it is dropped, unless somebody put another one there.
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    ours: Identity,
}

/// What makes a file the same as before. The time of the last change is part of it, because numbers are given again.
type Identity = (u64, u64, i64, i64);

fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec())
}

impl SocketGuard {
    fn of(path: &Path) -> Result<Self, SocketError> {
        let meta = fs::symlink_metadata(path)
            .map_err(|source| SocketError::Look { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), ours: identity(&meta) })
    }

    /// Returns where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        let still_ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| identity(&meta) == self.ours);
        if still_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket stays; the next start replaces it");
        }
    }
}

fn make_dir(path: &Path, group: Option<Gid>) -> Result<(), SocketError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => return Ok(()),
    };
    match DirBuilder::new().mode(DIR_MODE).create(dir) {
        Ok(()) => allow(dir, group, DIR_MODE),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(source) => Err(SocketError::Directory { dir: dir.to_owned(), source }),
    }
}

/// Sees to it that nothing is at `path`, or says why something stays there.
fn clear(path: &Path) -> Result<(), SocketError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(SocketError::Look { path: path.to_owned(), source }),
    };
    let kind = meta.file_type();
    if kind.is_symlink() {
        return Err(SocketError::Symlink { path: path.to_owned() });
    }
    if !kind.is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    let own = rustix::process::getuid().as_raw();
    if ![0, own].contains(&meta.uid()) {
        return Err(SocketError::Foreign { path: path.to_owned(), uid: meta.uid() });
    }
    if is_answered(path)? {
        return Err(SocketError::InUse { path: path.to_owned() });
    }
    let now = fs::symlink_metadata(path);
    if now.is_ok_and(|now| identity(&now) != identity(&meta)) {
        return Err(SocketError::InUse { path: path.to_owned() });
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SocketError::Stale { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Says whether somebody listens on a socket. Never waits.
fn is_answered(path: &Path) -> Result<bool, SocketError> {
    let connected = unix_socket().and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match connected.map_err(|error| (error.kind(), error)) {
        Ok(()) => Ok(true),
        // The queue of those who wait to be accepted is full.
        Err((io::ErrorKind::WouldBlock, _)) => Ok(true),
        Err((io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound, _)) => Ok(false),
        Err((_, source)) => Err(SocketError::Look { path: path.to_owned(), source }),
    }
}

/// Makes the socket with its mode and group. It refuses connections until it listens.
fn open(path: &Path, group: Option<Gid>) -> Result<Socket, SocketError> {
    let fail = |source| SocketError::Bind { path: path.to_owned(), source };
    let socket = unix_socket().map_err(fail)?;
    SockAddr::unix(path).and_then(|address| socket.bind(&address)).map_err(fail)?;
    allow(path, group, SOCKET_MODE)?;
    Ok(socket)
}

fn unix_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn allow(path: &Path, group: Option<Gid>, mode: u32) -> Result<(), SocketError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|source| SocketError::Mode { path: path.to_owned(), source })?;
    let Some(group) = group else { return Ok(()) };
    chownat(CWD, path, None, Some(group), AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| SocketError::Group {
        path: path.to_owned(),
        gid: group.as_raw(),
        source: errno.into(),
    })
}

#[cfg(test)]
mod tests;
