//! `[scrub]`: how files are read again to find damage.

use std::time::Duration;

use avalon_protocol::limit::{Rate, When};

use super::{Checker, ConfigError, raw::RawScrub};

/// How often every version is read, when nothing else is said.
const INTERVAL: Duration = Duration::from_secs(30 * 24 * 3600);
/// How fast: little for a disk that artists work on, and still a terabyte in six hours.
const RATE: Rate = Rate { bytes_per_second: 50_000_000 };

/// How files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubConfig {
    /// Whether they are by themselves.
    pub enabled: bool,
    /// How often every version is.
    pub interval: Duration,
    /// How many bytes a second, for what people ask for too.
    pub rate: Rate,
    /// The hours in which they are by themselves.
    pub when: When,
    /// Whether what is found damaged then is fetched again from another node.
    pub repair: bool,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self { enabled: true, interval: INTERVAL, rate: RATE, when: When::ALWAYS, repair: true }
    }
}

impl Checker<'_> {
    pub(super) fn scrub(&self, raw: RawScrub) -> Result<ScrubConfig, ConfigError> {
        let mut config = ScrubConfig::default();
        if let Some(text) = raw.interval {
            let key = "scrub.interval";
            config.interval = self.span(key.into(), &text)?;
            if config.interval < Duration::from_secs(1) {
                return Err(self.value(key, format!("{text:?} is less than a second")));
            }
        }
        if let Some(text) = raw.rate {
            config.rate = text.parse().map_err(|error| self.value("scrub.rate", format!("{error}")))?;
            if config.rate.bytes_per_second == 0 {
                let problem = "nothing would ever be read; to read nothing by itself: enabled = false";
                return Err(self.value("scrub.rate", problem));
            }
        }
        if let Some(text) = raw.when {
            config.when = text.parse().map_err(|error| self.value("scrub.when", format!("{error}")))?;
        }
        config.enabled = raw.enabled.unwrap_or(config.enabled);
        config.repair = raw.repair.unwrap_or(config.repair);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(keys: &str) -> Result<ScrubConfig, String> {
        let text = format!("[node]\nstate_dir = \"/s\"\n[scrub]\n{keys}");
        let config = Config::parse(Path::new("avalond.toml"), &text).map_err(|error| error.to_string())?;
        Ok(config.scrub)
    }

    #[test]
    fn it_is_on_and_modest_unless_told_otherwise() {
        let config = parse("").unwrap();
        assert!(config.enabled && config.repair);
        assert_eq!(config.interval, Duration::from_secs(30 * 24 * 3600));
        assert_eq!(config.rate.bytes_per_second, 50_000_000);
        let keys = "enabled = false\ninterval = \"1w\"\nrate = \"10MiB/s\"\nwhen = \"mon-fri 20:00-06:00\"\nrepair = false\n";
        let config = parse(keys).unwrap();
        assert!(!config.enabled && !config.repair);
        assert_eq!(
            (config.interval, config.rate.bytes_per_second),
            (Duration::from_secs(7 * 24 * 3600), 10 << 20)
        );
        assert_eq!(config.when, "mon-fri 20:00-06:00".parse().unwrap());
    }

    #[test]
    fn what_would_read_nothing_or_for_ever_is_refused_with_its_key() {
        for (keys, expected) in [
            ("rate = \"0\"", "scrub.rate: nothing would ever be read"),
            ("rate = \"fast\"", "scrub.rate"),
            ("interval = \"0s\"", "scrub.interval: \"0s\" is less than a second"),
            ("interval = \"often\"", "scrub.interval"),
            ("when = \"at night\"", "scrub.when"),
        ] {
            let refused = parse(keys).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
