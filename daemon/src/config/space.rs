//! How much room a project may take: `quota`, `keep_free`, `trash_grace` and `evict_after` of `[[project]]`.

use std::time::Duration;

use avalon_protocol::id::ProjectName;
use bytesize::ByteSize;
use jiff::{Span, SpanRelativeTo};

use super::{Checker, ConfigError};

/// How long what was dropped stays in the trash, when nothing else is said.
const TRASH_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a version must not have been used before it is removed to make room, when nothing else is said.
const EVICT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How much room a project may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceConfig {
    /// Bytes of versions that are held, if that is limited.
    pub quota_bytes: Option<u64>,
    /// Bytes that stay free on the volume, if that is asked for.
    pub keep_free_bytes: Option<u64>,
    /// How long what was removed stays in the trash.
    pub trash_grace: Duration,
    /// How long a version must not have been used before it may be removed to make room.
    pub evict_after: Duration,
}

impl Default for SpaceConfig {
    fn default() -> Self {
        Self { quota_bytes: None, keep_free_bytes: None, trash_grace: TRASH_GRACE, evict_after: EVICT_AFTER }
    }
}

impl Checker<'_> {
    pub(super) fn space(
        &self,
        name: &ProjectName,
        [quota, keep_free]: [Option<String>; 2],
        [trash_grace, evict_after]: [Option<String>; 2],
    ) -> Result<SpaceConfig, ConfigError> {
        let key = |key: &str| format!("project.{name}.{key}");
        let bytes = |at: &str, text: Option<String>| text.map(|text| self.bytes(key(at), &text)).transpose();
        let span = |at: &str, text: Option<String>, default| match text {
            Some(text) => self.span(key(at), &text),
            None => Ok(default),
        };
        Ok(SpaceConfig {
            quota_bytes: bytes("quota", quota)?,
            keep_free_bytes: bytes("keep_free", keep_free)?,
            trash_grace: span("trash_grace", trash_grace, TRASH_GRACE)?,
            evict_after: span("evict_after", evict_after, EVICT_AFTER)?,
        })
    }

    pub(super) fn bytes(&self, key: String, text: &str) -> Result<u64, ConfigError> {
        match text.parse::<ByteSize>() {
            Ok(size) if size.as_u64() > 0 => Ok(size.as_u64()),
            _ => {
                Err(self
                    .value(key, format!("{text:?} is not an amount of bytes such as \"2TB\" or \"500GiB\"")))
            }
        }
    }

    pub(super) fn span(&self, key: String, text: &str) -> Result<Duration, ConfigError> {
        let span = text.parse::<Span>().ok();
        let span = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        span.and_then(|span| Duration::try_from(span).ok()).ok_or_else(|| {
            self.value(key, format!("{text:?} is not a span of time such as \"7d\", \"24h\" or \"30m\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(keys: &str) -> Result<SpaceConfig, String> {
        let text = format!("[node]\nstate_dir = \"/s\"\n[[project]]\nname = \"a\"\nroot = \"/p\"\n{keys}");
        let config = Config::parse(Path::new("avalond.toml"), &text).map_err(|error| error.to_string())?;
        Ok(config.projects[0].space)
    }

    #[test]
    fn amounts_and_spans_are_read_as_people_write_them() {
        assert_eq!(parse("").unwrap(), SpaceConfig::default());
        let keys = "quota = \"2TB\"\nkeep_free = \"50GiB\"\ntrash_grace = \"2w\"\nevict_after = \"0s\"\n";
        let expected = SpaceConfig {
            quota_bytes: Some(2_000_000_000_000),
            keep_free_bytes: Some(50 << 30),
            trash_grace: Duration::from_secs(14 * 24 * 3600),
            evict_after: Duration::ZERO,
        };
        assert_eq!(parse(keys), Ok(expected));
    }

    #[test]
    fn what_is_neither_is_refused_with_its_key() {
        for (keys, expected) in [
            ("quota = \"much\"", "project.a.quota: \"much\" is not an amount of bytes"),
            ("quota = \"0\"", "not an amount"),
            ("keep_free = \"5 days\"", "project.a.keep_free"),
            ("trash_grace = \"long\"", "project.a.trash_grace: \"long\" is not a span of time"),
            ("evict_after = \"-1h\"", "project.a.evict_after"),
        ] {
            let refused = parse(keys).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
