//! `project.network`, `scan.network_interval` and `settle.network_quiet`: projects that other machines write to.

use std::time::Duration;

use serde::Deserialize;

use super::{Checker, ConfigError};

/// Less would only be work: a scan asks a server about every file.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// How often a project on a network mount is scanned, where `scan.interval` is not shorter.
const INTERVAL: Duration = Duration::from_secs(60);
/// Other machines keep what programs write for up to 35 s before the server has it, and some file systems in user space
/// answer from memory for 20 s.
const QUIET: Duration = Duration::from_secs(40);

/// Whether a project is taken to be written by other machines too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// As the kind of its file system says.
    #[default]
    Auto,
    /// Whatever its file system is.
    Always,
    /// Whatever its file system is, only this machine writes there.
    Never,
}

/// How patient the daemon is where other machines write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkConfig {
    /// How long after a scan the next one begins.
    pub interval: Duration,
    /// How long a version must be quiet in which a file has no end mark that says that it is closed.
    pub quiet: Duration,
}

impl Checker<'_> {
    pub(super) fn network(
        &self,
        interval: Option<String>,
        quiet: Option<String>,
        scan_interval: Duration,
    ) -> Result<NetworkConfig, ConfigError> {
        let duration = |key, text: Option<String>| {
            text.map(|text| self.duration(key, Some(text.clone()), "").map(|duration| (duration, text)))
                .transpose()
        };
        let key = "scan.network_interval";
        let interval = match duration(key, interval)? {
            Some((interval, text)) if interval < LEAST_INTERVAL => {
                let problem =
                    format!("{text:?} is less than 100ms; the server is asked about every file each time");
                return Err(self.value(key, problem));
            }
            Some((interval, _)) => interval,
            None => INTERVAL.min(scan_interval),
        };
        let quiet = duration("settle.network_quiet", quiet)?.map_or(QUIET, |(quiet, _)| quiet);
        Ok(NetworkConfig { interval, quiet })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::Config, *};

    fn parse(more: &str) -> Result<Config, String> {
        let text = format!("[node]\nstate_dir = \"/s\"\n{more}");
        Config::parse(Path::new("x.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_interval_of_network_mounts_is_a_minute_and_no_longer_than_that_of_others_unless_it_stands_there() {
        let interval = |more: &str| parse(&format!("[scan]\n{more}")).unwrap().network.interval;
        assert_eq!(interval(""), Duration::from_secs(60));
        assert_eq!(interval("interval = \"20s\"\n"), Duration::from_secs(20));
        assert_eq!(interval("interval = \"20s\"\nnetwork_interval = \"5m\"\n"), Duration::from_secs(300));
        let error = parse("[scan]\nnetwork_interval = \"10ms\"\n").unwrap_err();
        assert!(error.contains("scan.network_interval: \"10ms\" is less than 100ms"), "{error}");
        let error = parse("[scan]\nnetwork_interval = \"soon\"\n").unwrap_err();
        assert!(error.contains("scan.network_interval: \"soon\" is not a duration"), "{error}");
        assert_eq!(parse("").unwrap().network.quiet, Duration::from_secs(40));
        assert_eq!(
            parse("[settle]\nnetwork_quiet = \"9s\"\n").unwrap().network.quiet,
            Duration::from_secs(9)
        );
    }

    #[test]
    fn a_project_says_whether_other_machines_write_there() {
        let mode = |line: &str| {
            parse(&format!("[[project]]\nname = \"a\"\nroot = \"/p\"\n{line}\n"))
                .map(|c| c.projects[0].network)
        };
        assert_eq!(mode("").unwrap(), NetworkMode::Auto);
        assert_eq!(mode("network = \"always\"").unwrap(), NetworkMode::Always);
        assert_eq!(mode("network = \"never\"").unwrap(), NetworkMode::Never);
        let error = mode("network = \"sometimes\"").unwrap_err();
        assert!(error.contains("x.toml:6") && error.contains("always"), "{error}");
    }
}
