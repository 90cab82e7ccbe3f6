//! [`ApiRoles`]: which local user may ask for what.

use std::collections::BTreeSet;

use super::{Caller, SocketError, socket::find_group};
use crate::config::ApiConfig;

/// What a caller of the local API may do; a higher one may all that a lower one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiRole {
    /// Look.
    Read,
    /// Publish, pull, drop: what artists and pipelines do.
    Operate,
    /// Change what holds for the studio or for the daemon itself.
    Admin,
}

impl ApiRole {
    /// The word in the configuration and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// Who has which role. The daemon's own user and root are admin, whatever else is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRoles {
    own_uid: u32,
    /// None: whoever may open the socket.
    read: Option<BTreeSet<u32>>,
    /// None: whoever may read, unless that is limited.
    operate: Option<BTreeSet<u32>>,
    admin: BTreeSet<u32>,
}

impl ApiRoles {
    /// Finds the groups of the configuration.
    ///
    /// # Errors
    /// [`SocketError::NoSuchGroup`] and [`SocketError::Groups`].
    pub fn resolve(config: &ApiConfig) -> Result<Self, SocketError> {
        let groups = |names: &[String]| -> Result<BTreeSet<u32>, SocketError> {
            names.iter().map(|name| Ok(find_group(name)?.as_raw())).collect()
        };
        let limited = |names: &[String]| match names.is_empty() {
            true => Ok(None),
            false => groups(names).map(Some),
        };
        Ok(Self {
            own_uid: rustix::process::getuid().as_raw(),
            read: limited(&config.read_groups)?,
            operate: limited(&config.operate_groups)?,
            admin: groups(&config.admin_groups)?,
        })
    }

    /// Returns what a caller may do; nothing at all when it is in none of the groups that are named.
    pub fn of(&self, caller: &Caller, groups: &BTreeSet<u32>) -> Option<ApiRole> {
        let is_in = |named: &BTreeSet<u32>| !named.is_disjoint(groups);
        if caller.uid == 0 || caller.uid == self.own_uid || is_in(&self.admin) {
            return Some(ApiRole::Admin);
        }
        let may_operate = match (&self.operate, &self.read) {
            (Some(operate), _) => is_in(operate),
            // As before there were roles: who may open the socket may do an artist's work.
            (None, None) => true,
            (None, Some(_)) => false,
        };
        if may_operate {
            return Some(ApiRole::Operate);
        }
        self.read.as_ref().is_none_or(is_in).then_some(ApiRole::Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(read: &[u32], operate: &[u32], admin: &[u32]) -> ApiRoles {
        let texts = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect();
        let config = ApiConfig {
            read_groups: texts(read),
            operate_groups: texts(operate),
            admin_groups: texts(admin),
            ..ApiConfig::default()
        };
        ApiRoles { own_uid: 900, ..ApiRoles::resolve(&config).unwrap() }
    }

    fn of(roles: &ApiRoles, uid: u32, groups: &[u32]) -> &'static str {
        let caller = Caller { uid, gid: 1, pid: None };
        roles.of(&caller, &groups.iter().copied().collect()).map_or("none", ApiRole::word)
    }

    #[test]
    fn without_groups_whoever_may_open_the_socket_operates_and_only_the_daemons_user_and_root_are_admin() {
        let roles = roles(&[], &[], &[]);
        let found = [1001, 0, 900].map(|uid| of(&roles, uid, &[50]));
        assert_eq!(found, ["operate", "admin", "admin"]);
    }

    #[test]
    fn groups_give_the_highest_role_that_they_name_and_nobody_else_has_any() {
        let all = roles(&[10], &[20], &[30]);
        for (groups, expected) in [
            (&[10][..], "read"),
            (&[20], "operate"),
            (&[30], "admin"),
            (&[10, 20], "operate"),
            (&[10, 20, 30], "admin"),
            (&[40], "none"),
            (&[], "none"),
        ] {
            assert_eq!(of(&all, 1001, groups), expected, "{groups:?}");
            assert_eq!(of(&all, 0, groups), "admin");
        }
        let operators = roles(&[], &[20], &[]);
        assert_eq!([of(&operators, 1001, &[20]), of(&operators, 1001, &[1])], ["operate", "read"]);
        let readers = roles(&[10], &[], &[]);
        assert_eq!([of(&readers, 1001, &[10]), of(&readers, 1001, &[1])], ["read", "none"]);
    }

    #[test]
    fn a_group_that_is_not_there_is_refused_by_its_name() {
        let config = ApiConfig { admin_groups: vec!["no-such-group-here".into()], ..ApiConfig::default() };
        assert!(ApiRoles::resolve(&config).unwrap_err().to_string().contains("no-such-group-here"));
    }
}
