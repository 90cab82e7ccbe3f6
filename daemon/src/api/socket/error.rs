//! [`SocketError`].

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::config::MAX_SOCKET_PATH_BYTES;

/// Why the local API has no socket. The setting is `node.socket`.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The system has no room for such a path.
    #[error(
        "the path of the socket {} has {bytes} bytes, and the system takes {MAX_SOCKET_PATH_BYTES}: set node.socket to a \
         shorter one",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The directory is missing and cannot be made.
    #[error(
        "cannot make the directory {} for the socket: make it, or set node.socket to a directory that this user may \
         write to",
        dir.display()
    )]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is there cannot be looked at.
    #[error("cannot look at the socket {}", path.display())]
    Look {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A link is there; following it could be an attack.
    #[error("{} is a symbolic link where the socket should be: find out who made it, and remove it", path.display())]
    Symlink {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there, and is not deleted.
    #[error(
        "{} is there and is not a socket: move it away, or set node.socket to another path",
        path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Whoever may write in the directory could put another socket in its place.
    #[error(
        "others may write in {} (mode {mode:o}), where the socket is to be: take that right from them, or set node.socket to \
         a path in a directory of its own",
        dir.display()
    )]
    OpenDirectory {
        /// The directory.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Its owner could put another socket in its place.
    #[error(
        "{} belongs to user {uid}, and the socket is to be in it: give the directory to the daemon's user, or set node.socket \
         to a path in a directory of its own",
        dir.display()
    )]
    ForeignDirectory {
        /// The directory.
        dir: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Somebody else made the socket that is there.
    #[error("the socket {} was made by user {uid}: find out why, and remove it", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Somebody answers there.
    #[error(
        "another process listens on {}: if it is an avalond, stop it or give this one a node.socket of its own",
        path.display()
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The socket of a daemon that is gone cannot be removed.
    #[error("cannot remove the old socket {}: remove it as the user that made it", path.display())]
    Stale {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error(
        "cannot make the socket {}: set node.socket to a directory that this user may write to",
        path.display()
    )]
    Bind {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its mode cannot be set.
    #[error("cannot set the mode of {}", path.display())]
    Mode {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its group cannot be set.
    #[error("cannot give {} to group {gid}: run the daemon as a member of that group", path.display())]
    Group {
        /// The path.
        path: PathBuf,
        /// The group.
        gid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such group.
    #[error(
        "group {name:?} is not in {file}: add it, or give its number when it comes from a directory service"
    )]
    NoSuchGroup {
        /// The group that is configured.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// The groups cannot be read.
    #[error("cannot read {file} to find group {name:?}")]
    Groups {
        /// The group that is configured.
        name: String,
        /// Where it was looked for.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be listened on.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
