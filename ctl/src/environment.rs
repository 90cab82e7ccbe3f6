//! What the environment says, as a value, so that tests need not change that of their process.

use std::{collections::BTreeMap, env, path::PathBuf};

/// Where a system-wide daemon listens.
const SYSTEM_SOCKET: &str = "/run/avalond/api.sock";

/// The variables that matter here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<&'static str, String>,
}

/// All that is read; nothing is ever written. `AVALON_PROJECT` is the artist's own, set by Avalon's launcher.
const NAMES: [&str; 11] = [
    "AVALONCTL_PROJECT",
    "AVALON_PROJECT",
    "AVALON_PROJECTS",
    "AVALONCTL_SOCKET",
    "AVALOND",
    "AVALOND_CONFIG",
    "HOME",
    "NO_COLOR",
    "PATH",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];

impl Environment {
    /// Takes the process's variables. One that is empty, or not UTF-8, counts as not set.
    pub(crate) fn of_process() -> Self {
        Self::of(NAMES.iter().filter_map(|name| Some((*name, env::var(name).ok()?))))
    }

    /// Takes these variables.
    pub(crate) fn of(variables: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self { variables: variables.into_iter().filter(|(_, value)| !value.is_empty()).collect() }
    }

    /// Returns one variable.
    pub(crate) fn var(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Returns the project of references that name none.
    pub(crate) fn project(&self) -> Option<&str> {
        self.var("AVALONCTL_PROJECT").or_else(|| self.var("AVALON_PROJECT"))
    }

    /// Returns the daemon's socket: the one that is set, a daemon of this user's own if it is there, that of the system.
    pub(crate) fn socket(&self) -> PathBuf {
        if let Some(socket) = self.var("AVALONCTL_SOCKET") {
            return PathBuf::from(socket);
        }
        let own = self.var("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("avalond/api.sock"));
        own.filter(|socket| socket.exists()).unwrap_or_else(|| PathBuf::from(SYSTEM_SOCKET))
    }

    /// Returns the directory of this user's configuration.
    pub(crate) fn config_home(&self) -> Option<PathBuf> {
        let default = || self.var("HOME").map(|home| PathBuf::from(home).join(".config"));
        self.var("XDG_CONFIG_HOME").map(PathBuf::from).or_else(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&'static str, &str)]) -> Environment {
        Environment::of(variables.iter().map(|(name, value)| (*name, (*value).to_owned())))
    }

    #[test]
    fn the_own_variable_comes_before_the_artists_default() {
        assert_eq!(environment(&[("AVALON_PROJECT", "comet")]).project(), Some("comet"));
        let both = environment(&[("AVALON_PROJECT", "comet"), ("AVALONCTL_PROJECT", "lantern")]);
        assert_eq!(both.project(), Some("lantern"));
        assert_eq!(
            environment(&[("AVALON_PROJECT", "comet"), ("AVALONCTL_PROJECT", "")]).project(),
            Some("comet")
        );
        assert_eq!(environment(&[]).project(), None);
    }

    #[test]
    fn a_users_own_daemon_is_asked_when_its_socket_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().to_str().unwrap();
        let system = PathBuf::from(SYSTEM_SOCKET);
        assert_eq!(environment(&[("XDG_RUNTIME_DIR", runtime)]).socket(), system);
        std::fs::create_dir(dir.path().join("avalond")).unwrap();
        std::fs::File::create(dir.path().join("avalond/api.sock")).unwrap();
        assert_eq!(
            environment(&[("XDG_RUNTIME_DIR", runtime)]).socket(),
            dir.path().join("avalond/api.sock")
        );
        let set = environment(&[("XDG_RUNTIME_DIR", runtime), ("AVALONCTL_SOCKET", "/x.sock")]);
        assert_eq!(set.socket(), PathBuf::from("/x.sock"));
    }
}
