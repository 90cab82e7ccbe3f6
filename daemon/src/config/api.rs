//! `[api]`: who may use the local API, and whether it is on TCP.

use std::net::SocketAddr;

use super::{Checker, ConfigError, raw::RawApi};
use crate::api::ApiRole;

/// Who may use the local API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiConfig {
    /// The Unix groups that may look, by name or number; whoever may open the socket when there are none.
    pub read_groups: Vec<String>,
    /// Those that may publish, pull and drop; when there are none, whoever may open the socket, unless `read_groups` says who.
    pub operate_groups: Vec<String>,
    /// Those that may do all. The daemon's own user and root always may.
    pub admin_groups: Vec<String>,
    /// Where it is on TCP, if it is.
    pub tcp: Option<TcpConfig>,
}

/// The local API on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpConfig {
    /// A loopback address.
    pub listen: SocketAddr,
    /// What whoever has the token may do.
    pub role: ApiRole,
}

impl Checker<'_> {
    pub(super) fn api(&self, raw: RawApi) -> Result<ApiConfig, ConfigError> {
        let role = match raw.listen_role.as_deref() {
            None => ApiRole::Read,
            Some(text) => {
                let all = [ApiRole::Read, ApiRole::Operate, ApiRole::Admin];
                all.into_iter().find(|role| role.word() == text).ok_or_else(|| {
                    self.value(
                        "api.listen_role",
                        format!("{text:?} is no role; write read, operate or admin"),
                    )
                })?
            }
        };
        if raw.listen.is_none() && raw.listen_role.is_some() {
            return Err(self.value("api.listen_role", "there is no api.listen that it could be for"));
        }
        let tcp = raw.listen.map(|listen| self.loopback(&listen).map(|listen| TcpConfig { listen, role }));
        let RawApi { read_groups, operate_groups, admin_groups, .. } = raw;
        for (key, groups) in [
            ("read_groups", &read_groups),
            ("operate_groups", &operate_groups),
            ("admin_groups", &admin_groups),
        ] {
            if groups.iter().any(|group| group.trim().is_empty()) {
                return Err(self.value(format!("api.{key}"), "a group has no name"));
            }
        }
        Ok(ApiConfig { read_groups, operate_groups, admin_groups, tcp: tcp.transpose()? })
    }

    fn loopback(&self, listen: &str) -> Result<SocketAddr, ConfigError> {
        let wrong = |problem: &str| {
            let problem = format!(
                "{listen:?} {problem}; the API has no encryption: write 127.0.0.1:4780, or use the socket"
            );
            self.value("api.listen", problem)
        };
        let address: SocketAddr =
            listen.parse().map_err(|_| wrong("is not an address and port of this machine"))?;
        if !address.ip().is_loopback() {
            return Err(wrong("can be reached from other machines"));
        }
        // A token is for one port, which a request must name.
        if address.port() == 0 { Err(wrong("names no port")) } else { Ok(address) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(keys: &str) -> Result<Config, String> {
        let text = format!("[node]\nstate_dir = \"/s\"\n{keys}");
        Config::parse(Path::new("avalond.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_word_there_is_no_tcp_and_no_group() {
        assert_eq!(parse("").unwrap().api, ApiConfig::default());
        let api = parse("[api]\nread_groups = [\"artists\"]\nlisten = \"[::1]:4780\"\n").unwrap().api;
        assert_eq!(api.tcp, Some(TcpConfig { listen: "[::1]:4780".parse().unwrap(), role: ApiRole::Read }));
        assert_eq!(api.read_groups, ["artists"]);
    }

    #[test]
    fn what_others_could_reach_is_refused_with_its_key() {
        for (keys, expected) in [
            ("listen = \"0.0.0.0:4780\"", "api.listen: \"0.0.0.0:4780\" can be reached from other machines"),
            ("listen = \"[::]:4780\"", "can be reached from other machines"),
            ("listen = \"192.168.1.5:4780\"", "can be reached from other machines"),
            ("listen = \"[::ffff:127.0.0.1]:4780\"", "can be reached from other machines"),
            ("listen = \"localhost:4780\"", "is not an address and port"),
            ("listen = \"127.0.0.1\"", "is not an address and port"),
            ("listen = \"127.0.0.1:0\"", "names no port"),
            ("listen = \"127.0.0.1:1\"\nlisten_role = \"root\"", "api.listen_role: \"root\" is no role"),
            ("listen_role = \"read\"", "there is no api.listen"),
            ("admin_groups = [\"\"]", "api.admin_groups: a group has no name"),
            ("admin = []", "unknown key `admin`"),
        ] {
            let refused = parse(&format!("[api]\n{keys}\n")).unwrap_err();
            assert!(refused.contains(expected), "{keys}: {refused}");
        }
    }

    #[test]
    fn the_audit_is_kept_for_ever_or_as_long_as_is_said() {
        assert_eq!(parse("").unwrap().audit_keep, None);
        let days = |text: &str| {
            let config = parse(&format!("[audit]\nkeep = \"{text}\"\n"));
            config.map(|config| config.audit_keep.unwrap().as_secs() / 86400)
        };
        assert_eq!([days("2y"), days("18mo"), days("90d")], [Ok(730), Ok(546), Ok(90)]);
        for text in ["long", "0s", "-1d", "1h"] {
            assert!(days(text).unwrap_err().contains("audit.keep"), "{text}");
        }
    }
}
