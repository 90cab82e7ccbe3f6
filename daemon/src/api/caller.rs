//! [`Caller`]: who is at the other end of the socket.

use std::{collections::BTreeSet, fs};

use avalon_protocol::control::{ApiError, ErrorCode};
use axum::{
    extract::{ConnectInfo, FromRequestParts, connect_info::Connected},
    http::request::Parts,
    serve::IncomingStream,
};
use tokio::net::{TcpListener, UnixListener};

use super::error::Failure;

/// The process that a request comes from, as the kernel knows it; it cannot be forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its process id when it connected, where the system tells.
    pub pid: Option<i32>,
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// A process of this machine.
    Local {
        caller: Caller,
        /// All its groups.
        groups: BTreeSet<u32>,
    },
    /// Somebody on TCP, of whom the gate wants a token.
    Tcp {
        /// Whoever has the token does what the daemon's own user does.
        caller: Caller,
    },
    /// The kernel did not say.
    Unknown,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let Ok(peer) = stream.io().peer_cred() else { return Self::Unknown };
        let caller = Caller { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() };
        Self::Local { caller, groups: groups_of(&caller) }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(_stream: IncomingStream<'_, TcpListener>) -> Self {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Self::Tcp { caller: Caller { uid, gid, pid: None } }
    }
}

/// Returns the groups of a process: those that the kernel shows while it is there and still of that user, which knows
/// directory services, too; else those of `/etc/group`.
fn groups_of(caller: &Caller) -> BTreeSet<u32> {
    let status = caller.pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
    let mut groups = status.and_then(|status| in_status(&status, caller.uid)).unwrap_or_else(|| {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        in_lists(&read("/etc/passwd"), &read("/etc/group"), caller.uid)
    });
    groups.insert(caller.gid);
    groups
}

/// Reads the groups of a process, if it is one of this user in every sense.
fn in_status(status: &str, uid: u32) -> Option<BTreeSet<u32>> {
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let mut uids = line("Uid:")?.split_whitespace();
    if !uids.all(|text| text.parse() == Ok(uid)) {
        return None;
    }
    line("Groups:")?.split_whitespace().map(|text| text.parse().ok()).collect()
}

/// Reads the groups of which a user is a member.
fn in_lists(users: &str, groups: &str, uid: u32) -> BTreeSet<u32> {
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    let Some(name) = name else { return BTreeSet::new() };
    let of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, number, members] = fields.as_slice() else { return None };
        members.split(',').any(|member| member.trim() == name).then(|| number.parse().ok())?
    };
    groups.lines().filter_map(of).collect()
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        match parts.extensions.get::<ConnectInfo<Peer>>().map(|info| &info.0) {
            Some(Peer::Local { caller, .. } | Peer::Tcp { caller }) => Ok(*caller),
            Some(Peer::Unknown) | None => {
                Err(ApiError::new(ErrorCode::Denied, "the system does not say who is calling").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_process_as_long_as_it_is_of_that_user() {
        let status = "Name:\tcurl\nUid:\t1001\t1001\t1001\t1001\nGid:\t7\t7\t7\t7\nGroups:\t7 20 1001 \n";
        assert_eq!(in_status(status, 1001), Some(BTreeSet::from([7, 20, 1001])));
        assert_eq!(in_status(status, 1002), None, "the number was given to another process");
        let changed = status.replace("1001\t1001\t1001\t1001", "1001\t0\t0\t0");
        assert_eq!(in_status(&changed, 1001), None);
        assert_eq!(in_status("Uid:\t1 1 1 1\n", 1), None);
        assert_eq!(in_status("Uid:\t1 1 1 1\nGroups:\t\n", 1), Some(BTreeSet::new()));
    }

    #[test]
    fn without_the_process_the_lists_of_the_system_are_asked() {
        let users = "anna:x:1001:100::/:/bin/sh\nann:x:1002:100::/:/bin/sh\n";
        let groups = "artists:x:20:ben,anna\nadmins:x:30:ann\nbroken\nempty:x:40:\n";
        assert_eq!(in_lists(users, groups, 1001), BTreeSet::from([20]));
        assert_eq!(in_lists(users, groups, 1002), BTreeSet::from([30]));
        assert_eq!(in_lists(users, groups, 7), BTreeSet::new());
    }
}
